//! What a walk costs and how to end it, in a sentence for the operator.

use std::net::IpAddr;

/// What is said of a client.
pub(super) struct Walk<'a> {
    pub(super) client: IpAddr,
    pub(super) wasted: u64,
    pub(super) queries: u64,
    pub(super) seconds: u64,
    pub(super) example: &'a str,
    pub(super) suffixes: &'a [String],
    pub(super) is_in_cluster: bool,
}

/// The sentence.
pub(super) fn walk(walk: &Walk<'_>) -> String {
    let Walk {
        client,
        wasted,
        queries,
        seconds,
        example,
        suffixes,
        is_in_cluster,
    } = walk;
    let fix = if *is_in_cluster {
        "set ndots to 1 or 2 in the dnsConfig options of the pod, or end the names it asks for with a dot"
    } else {
        "set options ndots:1 and a shorter search line in its /etc/resolv.conf, or end the names it asks for with a dot"
    };
    let seconds = if *seconds == 1 {
        "second".to_owned()
    } else {
        format!("{seconds} s")
    };
    format!(
        "{client} wastes queries on its search list: {wasted} of {queries} in the last {seconds} went to names that \
         nobody meant, such as {example} below {}; {fix}",
        suffixes.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_has_the_numbers_an_example_and_the_fix() {
        let suffixes = ["default.svc.cluster.local.".to_owned(), "svc.cluster.local.".to_owned()];
        let mut found = Walk {
            client: [10, 9, 0, 7].into(),
            wasted: 120,
            queries: 150,
            seconds: 12,
            example: "www.example.com.",
            suffixes: &suffixes,
            is_in_cluster: true,
        };
        assert_eq!(
            walk(&found),
            "10.9.0.7 wastes queries on its search list: 120 of 150 in the last 12 s went to names that nobody meant, \
             such as www.example.com. below default.svc.cluster.local., svc.cluster.local.; set ndots to 1 or 2 in the \
             dnsConfig options of the pod, or end the names it asks for with a dot"
        );
        (found.is_in_cluster, found.seconds) = (false, 1);
        let host = walk(&found);
        assert!(
            host.contains("in the last second went") && host.contains("options ndots:1"),
            "{host}"
        );
    }
}
