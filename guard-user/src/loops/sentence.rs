//! What happened to a breaker, in a sentence for the operator.

use std::net::SocketAddr;

use guard_common::{event::Event as KernelEvent, judge::Evidence, remedy::Verdict};

/// Why a breaker opened, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Why {
    evidence: Evidence,
    bits: u16,
    rapid: bool,
    verdict: Verdict,
    /// Whether the operator has allowed the key.
    allowed: bool,
}

impl Why {
    /// What an event says.
    pub(super) fn of(event: &KernelEvent, allowed: bool) -> Self {
        Self {
            evidence: Evidence::from_u8(event.evidence),
            bits: event.bits,
            rapid: event.rapid != 0,
            verdict: Verdict::from_u8(event.verdict),
            allowed,
        }
    }
}

const PACE: &str = "the same 5-tuple and ID came back faster than any client retries";

/// A breaker opened.
pub(super) fn trip(name: &str, qtype: &str, servers: &[SocketAddr], why: &Why) -> String {
    let evidence = match why.evidence {
        Evidence::Mark => {
            let also = if why.rapid { format!("; {PACE}") } else { String::new() };
            format!("proven, its mark came back ({} bits){also}", why.bits)
        }
        Evidence::Pace => PACE.to_owned(),
        Evidence::Identity => {
            "the ID of a query to one server came back in a query to a server that already had it".to_owned()
        }
        Evidence::Direction => "a server that was itself waiting for the answer asked for it".to_owned(),
        Evidence::Ladder => {
            "servers on this host asked each other in turns, from the same sockets, and no response came".to_owned()
        }
        Evidence::None => "it came back to servers that already had it".to_owned(),
    };
    let went = if why.evidence == Evidence::Mark {
        "went"
    } else {
        "seems to go"
    };
    let outcome = match why.verdict {
        Verdict::WouldAnswer | Verdict::WouldDrop if why.allowed => "; it goes on, because it is allowed",
        Verdict::WouldAnswer | Verdict::WouldDrop => "; it goes on, because the mode is observe",
        Verdict::Pass | Verdict::Answer | Verdict::Drop => "",
    };
    format!(
        "query {name} {qtype} {went} round {}: {evidence}{outcome}",
        among(servers)
    )
}

/// A test failed.
pub(super) fn extend(name: &str, qtype: &str, servers: &[SocketAddr], hold_ms: u64) -> String {
    let held = seconds(hold_ms);
    format!(
        "query {name} {qtype} still gets no answer {}: a test query failed; held for {held} more",
        among(servers)
    )
}

/// A test was answered.
pub(super) fn release(name: &str, qtype: &str, open_ms: u64, held: u64) -> String {
    format!(
        "query {name} {qtype} is answered again, after {} and {held} held queries",
        seconds(open_ms)
    )
}

/// The operator closed a breaker.
pub(super) fn released_by(name: &str, qtype: &str, open_ms: u64, held: u64, by: &str) -> String {
    format!(
        "query {name} {qtype} was released by {by}, after {} and {held} held queries",
        seconds(open_ms)
    )
}

/// A hold ended, and nobody asked again.
pub(super) fn expire(name: &str, qtype: &str, held: u64) -> String {
    format!("the hold of query {name} {qtype} is over, and no loop was seen since; {held} queries were held")
}

fn among(servers: &[SocketAddr]) -> String {
    match servers {
        [] => "among its servers".to_owned(),
        [one] => format!("through {one}"),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(SocketAddr::to_string).collect();
            format!("between {} and {last}", first.join(", "))
        }
    }
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1_000) {
        format!("{} s", ms / 1_000)
    } else {
        format!("{}.{:03} s", ms / 1_000, ms % 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 53);

    #[test]
    fn a_trip_names_the_hops_and_the_proof() {
        let servers = [HERE, ([127, 0, 0, 1], 8_600).into()];
        let why = Why {
            evidence: Evidence::Mark,
            bits: 21,
            rapid: false,
            verdict: Verdict::Answer,
            allowed: false,
        };
        assert_eq!(
            trip("x.consul.", "A", &servers, &why),
            "query x.consul. A went round between 127.0.0.1:53 and 127.0.0.1:8600: proven, its mark came back (21 bits)"
        );
        let rapid = trip("x.consul.", "A", &servers, &Why { rapid: true, ..why });
        assert!(rapid.ends_with("(21 bits); the same 5-tuple and ID came back faster than any client retries"));
    }

    #[test]
    fn what_is_not_proven_is_said_to_be_a_suspicion() {
        let servers = [HERE, ([127, 0, 0, 1], 8_600).into()];
        let why = Why {
            evidence: Evidence::Pace,
            bits: 0,
            rapid: true,
            verdict: Verdict::Answer,
            allowed: false,
        };
        assert_eq!(
            trip("x.consul.", "A", &servers, &why),
            "query x.consul. A seems to go round between 127.0.0.1:53 and 127.0.0.1:8600: \
             the same 5-tuple and ID came back faster than any client retries"
        );
        let observed = Why {
            evidence: Evidence::Ladder,
            verdict: Verdict::WouldDrop,
            ..why
        };
        let observed = trip("x.consul.", "A", &servers, &observed);
        assert!(
            observed.ends_with("it goes on, because the mode is observe"),
            "{observed}"
        );
        let why = Why {
            verdict: Verdict::WouldAnswer,
            allowed: true,
            ..why
        };
        let allowed = trip("x.consul.", "A", &servers, &why);
        assert!(allowed.ends_with("it goes on, because it is allowed"), "{allowed}");
    }

    #[test]
    fn servers_are_listed_however_many_there_are() {
        assert_eq!(among(&[]), "among its servers");
        assert_eq!(among(&[HERE]), "through 127.0.0.1:53");
        let three = [HERE, ([10, 0, 0, 1], 53).into(), ([10, 0, 0, 2], 53).into()];
        assert_eq!(among(&three), "between 127.0.0.1:53, 10.0.0.1:53 and 10.0.0.2:53");
    }

    #[test]
    fn times_are_in_seconds() {
        assert_eq!(
            release("a.", "DS", 1_500, 7),
            "query a. DS is answered again, after 1.500 s and 7 held queries"
        );
        assert!(extend("a.", "DS", &[], 2_000).ends_with("held for 2 s more"));
    }
}
