//! Rules for a host that must not be abused, as the operator states them: `[hygiene]`.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use guard_common::{hygiene::MAX_DEVICES, policy::Mode};

use super::{Cidr, MODES, mode_word, section::Section};
use crate::selection::interface_name;

/// The rules; each is off while its list is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hygiene {
    /// DNS leaves only to these.
    pub(crate) resolvers: Vec<Cidr>,
    /// DNS leaves only from these.
    pub(crate) sources: Vec<Source>,
    /// Only these are given recursion.
    pub(crate) recursion: Vec<Cidr>,
    /// The interfaces that the rules are about, at most [`guard_common::hygiene::MAX_DEVICES`]; if there is none, all but
    /// the loopback interface.
    pub(crate) interfaces: Vec<String>,
    /// A mode of their own; they never do more than the mode of the whole.
    pub(crate) mode: Option<Mode>,
}

/// fe80::/10: whatever is in it stays on one link.
const LINK_LOCAL: Cidr = Cidr::mapped(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

/// Where DNS may leave from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Every address that this host has.
    Own,
    /// A range.
    Range(Cidr),
}

impl Hygiene {
    /// Whether there is no rule.
    pub(crate) const fn is_empty(&self) -> bool {
        self.resolvers.is_empty() && self.sources.is_empty() && self.recursion.is_empty()
    }

    /// Whether the host's own addresses have to be known.
    pub(crate) fn names_own_addresses(&self) -> bool {
        self.sources.contains(&Source::Own)
    }

    /// The ranges that DNS may leave from, on a host with these addresses.
    pub(super) fn source_ranges(&self, own: &[IpAddr]) -> Vec<Cidr> {
        let mut ranges: Vec<Cidr> = Vec::new();
        for source in &self.sources {
            match source {
                Source::Own => {
                    ranges.push(LINK_LOCAL);
                    ranges.extend(own.iter().copied().map(Cidr::host));
                }
                Source::Range(range) => ranges.push(*range),
            }
        }
        ranges.sort_unstable_by_key(ToString::to_string);
        ranges.dedup();
        ranges
    }
}

/// The rules, and where each list is and how many ranges it has.
pub(super) fn hygiene(section: &mut Section<'_>) -> (Hygiene, Vec<(usize, usize)>) {
    let resolvers = section.texts("resolvers", str::parse);
    let sources = section.texts("sources", source);
    let recursion = section.texts("recursion", str::parse);
    let hygiene = Hygiene {
        resolvers: resolvers.unwrap_or_default(),
        sources: sources.unwrap_or_default(),
        recursion: recursion.unwrap_or_default(),
        interfaces: section.texts("interfaces", interface_name).unwrap_or_default(),
        mode: section.choice("mode", &MODES),
    };
    for (key, allowed) in [
        ("resolvers", "one range or more, such as [\"10.0.0.2/32\"]"),
        ("sources", "one or more, such as [\"own\"]"),
        ("recursion", "one range or more, such as [\"10.0.0.0/8\"]"),
        ("interfaces", "one name or more, such as [\"ens5\"]"),
    ] {
        section.refuse_empty(key, allowed);
    }
    let count = hygiene.interfaces.len();
    if count > MAX_DEVICES {
        section.refuse(
            "interfaces",
            &format!("has {count} interfaces; allowed: {MAX_DEVICES} at most, or leave the key out for all"),
        );
    }
    let lengths = [
        ("resolvers", hygiene.resolvers.len()),
        ("sources", hygiene.sources.len()),
        ("recursion", hygiene.recursion.len()),
    ];
    let places = lengths.map(|(key, length)| (section.place(key), length)).to_vec();
    (hygiene, places)
}

fn source(text: &str) -> Result<Source, String> {
    if text == "own" {
        return Ok(Source::Own);
    }
    let range = text.parse().map(Source::Range);
    range.map_err(|allowed: String| format!("\"own\", or {allowed}"))
}

/// One line for `check-config`.
impl fmt::Display for Hygiene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources = self.sources.iter().map(|source| match source {
            Source::Own => "own addresses".to_owned(),
            Source::Range(range) => range.to_string(),
        });
        let ranges = |ranges: &[Cidr]| ranges.iter().map(Cidr::to_string).collect::<Vec<_>>();
        let rules = [
            ("DNS leaves only to", ranges(&self.resolvers)),
            ("DNS leaves only from", sources.collect()),
            ("recursion only for", ranges(&self.recursion)),
        ];
        let rules = rules.into_iter().filter(|(_, list)| !list.is_empty());
        let rules: Vec<_> = rules
            .map(|(rule, list)| format!("{rule} {}", list.join(", ")))
            .collect();
        write!(f, "hygiene: {}", rules.join("; "))?;
        if !self.interfaces.is_empty() {
            write!(f, " on {}", self.interfaces.join(", "))?;
        }
        match self.mode {
            Some(mode) => write!(f, " ({})", mode_word(mode)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_addresses_stand_where_own_is_written() {
        let hygiene = Hygiene {
            sources: vec![Source::Own, Source::Range("10.1.0.0/16".parse().unwrap())],
            ..Hygiene::default()
        };
        let own: [IpAddr; 3] = ["10.0.0.5", "2001:db8::1", "10.0.0.5"].map(|text| text.parse().unwrap());
        let ranges: Vec<_> = hygiene.source_ranges(&own).iter().map(Cidr::to_string).collect();
        assert_eq!(ranges, ["10.0.0.5/32", "10.1.0.0/16", "2001:db8::1/128", "fe80::/10"]);
    }

    #[test]
    fn the_rules_are_shown_in_one_line() {
        let hygiene = Hygiene {
            resolvers: vec!["10.0.0.2/32".parse().unwrap()],
            sources: vec![Source::Own],
            recursion: Vec::new(),
            interfaces: vec!["eth0".to_owned()],
            mode: Some(Mode::Observe),
        };
        assert_eq!(
            hygiene.to_string(),
            "hygiene: DNS leaves only to 10.0.0.2/32; DNS leaves only from own addresses on eth0 (observe)"
        );
    }
}
