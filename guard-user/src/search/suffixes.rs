//! The suffixes that resolvers append to names.
//!
//! A resolver walks its list in order, so each suffix has a rank. All namespaces of a Kubernetes cluster have the same
//! one: a pod's list has exactly one of them.

use crate::name::Name;

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Suffix {
    domain: Name,
    /// Whether one more label belongs to it: a namespace, a region.
    has_child: bool,
}

/// The list.
#[derive(Clone, Debug)]
pub(crate) struct Suffixes(Vec<Suffix>);

/// A name, taken apart: what was asked for, and what was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// Labels that were appended.
    pub(super) labels: usize,
    /// Where the suffix stands in the list.
    pub(super) rank: usize,
}

/// What Kubernetes appends, after a namespace and without.
const CLUSTER: [&str; 2] = ["svc.cluster.local", "cluster.local"];
/// What instances on AWS append: the domain, and whether it is after a region.
const AWS: [(&str, bool); 2] = [("ec2.internal", false), ("compute.internal", true)];

impl Suffixes {
    /// Those of the configuration, those of the `search` lines of these texts in the form of resolv.conf(5), and what
    /// Kubernetes and AWS append. What is no domain is left out.
    pub(crate) fn new(configured: &[String], resolv_confs: &[String]) -> Self {
        let configured = configured.iter().map(String::as_str);
        let searched = resolv_confs.iter().flat_map(|text| search_list(text));
        let mut suffixes = Self(Vec::new());
        let mut others = Vec::new();
        for domain in configured.chain(searched).filter_map(Name::parse) {
            // The list of a pod: of a cluster with another domain, for all that is known.
            if let Some(parent) = Name::read(domain.suffix(domain.labels() - 1)).filter(is_services) {
                suffixes.push(parent, true);
            } else if is_services(&domain) {
                suffixes.push(domain.clone(), true);
                suffixes.push(domain, false);
            } else {
                others.push(domain);
            }
        }
        // A pod's list begins with its cluster's suffixes and ends with its node's.
        for domain in CLUSTER.iter().filter_map(|domain| Name::parse(domain)) {
            if is_services(&domain) {
                suffixes.push(domain.clone(), true);
            }
            suffixes.push(domain, false);
        }
        for domain in others {
            suffixes.push(domain, false);
        }
        for (domain, has_child) in AWS {
            if let Some(domain) = Name::parse(domain) {
                suffixes.push(domain, has_child);
            }
        }
        suffixes
    }

    /// The ways in which a name may have come about, the bare name last; its rank is after all others.
    pub(super) fn splits(&self, name: &Name) -> Vec<Split> {
        let splits = self.0.iter().enumerate().filter_map(|(rank, suffix)| {
            let labels = suffix.domain.labels();
            let appended = labels + usize::from(suffix.has_child);
            (name.labels() > appended && name.suffix(labels) == suffix.domain.wire())
                .then_some(Split { labels: appended, rank })
        });
        let bare = Split {
            labels: 0,
            rank: self.0.len(),
        };
        splits.chain([bare]).collect()
    }

    /// Whether the suffix of this rank is one of a Kubernetes cluster.
    pub(super) fn is_cluster(&self, rank: usize) -> bool {
        self.0
            .get(rank)
            .is_some_and(|suffix| is_services(&suffix.domain) || suffix.domain.wire() == b"\x07cluster\x05local\0")
    }

    fn push(&mut self, domain: Name, has_child: bool) {
        let suffix = Suffix { domain, has_child };
        if !self.0.contains(&suffix) {
            self.0.push(suffix);
        }
    }
}

/// Whether a cluster has its services there.
fn is_services(domain: &Name) -> bool {
    domain.wire().starts_with(b"\x03svc") && domain.labels() > 1
}

/// The domains of the `search` line of a resolv.conf; `domain` is an old word for a list of one. The last line counts
/// (resolv.conf(5)).
pub(crate) fn search_list(resolv_conf: &str) -> Vec<&str> {
    let lines = resolv_conf.lines().rev();
    let mut words = lines.map(str::split_ascii_whitespace);
    let found = words.find_map(|mut words| matches!(words.next(), Some("search" | "domain")).then_some(words));
    found.map_or_else(Vec::new, Iterator::collect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name;

    fn splits(suffixes: &Suffixes, text: &str) -> Vec<(String, usize)> {
        let wire = Name::parse(text).unwrap();
        let splits = suffixes.splits(&wire).into_iter();
        splits
            .map(|split| (name::text(wire.stem(split.labels)), split.rank))
            .collect()
    }

    #[test]
    fn a_name_in_a_cluster_has_several_readings() {
        let suffixes = Suffixes::new(&["corp.example".to_owned()], &[]);
        let expected = [
            ("www.example.com.", 0),
            ("www.example.com.default.", 1),
            ("www.example.com.default.svc.", 2),
        ];
        let found = splits(&suffixes, "www.example.com.default.svc.cluster.local");
        assert_eq!(found[..3], expected.map(|(stem, rank)| (stem.to_owned(), rank)));
        assert_eq!(found.last().map(|(_, rank)| *rank), Some(6));
        assert_eq!(
            splits(&suffixes, "www.example.com.corp.example")[0],
            ("www.example.com.".to_owned(), 3)
        );
        assert_eq!(
            splits(&suffixes, "a.eu-west-1.compute.internal")[0],
            ("a.".to_owned(), 5)
        );
        assert_eq!(splits(&suffixes, "cluster.local").len(), 1);
        assert!(suffixes.is_cluster(0) && suffixes.is_cluster(2) && !suffixes.is_cluster(3));
    }

    #[test]
    fn a_cluster_with_another_domain_is_known_by_its_search_list() {
        let suffixes = Suffixes::new(&[], &["search default.svc.k8s.corp svc.k8s.corp k8s.corp\n".to_owned()]);
        let stems: Vec<_> = splits(&suffixes, "db.prod.svc.k8s.corp")
            .into_iter()
            .map(|(stem, _)| stem)
            .collect();
        assert_eq!(stems, ["db.", "db.prod.", "db.prod.svc.", "db.prod.svc.k8s.corp."]);
    }

    #[test]
    fn the_last_search_line_counts() {
        let text =
            "nameserver 10.0.0.2\nsearch old.example\n# search no\nsearch a.example\tb.example\noptions ndots:5\n";
        assert_eq!(search_list(text), ["a.example", "b.example"]);
        assert_eq!(search_list("domain one.example"), ["one.example"]);
        assert!(search_list("nameserver 10.0.0.2\n").is_empty());
    }

    #[test]
    fn what_is_no_domain_is_left_out() {
        let none = Suffixes::new(&[], &[]);
        let some = Suffixes::new(&[".", "\u{1b}[2J", "a..b", "cluster.local."].map(str::to_owned), &[]);
        assert_eq!(none.0, some.0);
    }
}
