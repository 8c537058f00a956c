//! What is asked for: names, and the types of each.

use std::{fmt, net::IpAddr};

use guard_common::question::MAX_NAME_LEN;

use super::mark::{FRESH_LABEL, MIN_LETTERS, letters};
use crate::name::{self, Name};

/// Numbers of the types that are asked for unless somebody names others.
const A: u16 = 1;
const PTR: u16 = 12;
const DS: u16 = 43;

/// Where consul has its names.
const CONSUL: &[u8] = b"\x06consul\0";
/// Search domains that are tried; resolv.conf(5) knew six for long.
const MAX_SEARCHED: usize = 6;
/// Addresses of the host whose reverse zones are tried.
const MAX_REVERSED: usize = 4;

/// A name, or a zone in which a new name is made up for each query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// In wire form and lower case.
    pub(super) wire: Vec<u8>,
    /// Whether a label of random letters goes in front: no cache knows it, and nobody else asks for it.
    pub(super) fresh: bool,
}

/// A name with a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) target: Target,
    pub(super) qtype: u16,
}

impl Target {
    /// Reads `NAME` or `*.ZONE`. The error says what is allowed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (zone, fresh) = match text.strip_prefix("*.") {
            Some("") => (".", true),
            Some(zone) => (zone, true),
            None => (text, false),
        };
        let wire =
            name::wire(zone).ok_or("a name such as www.example.com, or *.example.com for a new name below it")?;
        if fresh && wire.len() + 1 + FRESH_LABEL > MAX_NAME_LEN {
            return Err(format!("a zone of at most {} bytes", MAX_NAME_LEN - 1 - FRESH_LABEL));
        }
        Ok(Self { wire, fresh })
    }

    /// The name itself, or, where it has too few letters to carry a mark, a new one below it.
    pub(super) fn with_letters(mut self) -> Self {
        if letters(&self.wire) < MIN_LETTERS && self.wire.len() + 1 + FRESH_LABEL <= MAX_NAME_LEN {
            self.fresh = true;
        }
        self
    }

    const fn new(wire: Vec<u8>, fresh: bool) -> Self {
        Self { wire, fresh }
    }

    fn is_reverse(&self) -> bool {
        [&b"\x07in-addr\x04arpa\0"[..], b"\x03ip6\x04arpa\0"]
            .iter()
            .any(|zone| self.wire.ends_with(zone))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = name::text(&self.wire);
        match (self.fresh, name.as_str()) {
            (false, _) => f.write_str(&name),
            (true, ".") => f.write_str("*."),
            (true, _) => write!(f, "*.{name}"),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", name::qtype(self.qtype), self.target)
    }
}

/// The questions for these names, each with these types; without types, those that went round before.
pub(super) fn named(targets: &[Target], types: &[u16]) -> Vec<Question> {
    let mut questions = Vec::new();
    for target in targets {
        let usual = [if target.is_reverse() { PTR } else { A }, DS];
        let types = if types.is_empty() { &usual } else { types };
        for qtype in types {
            push(&mut questions, target.clone(), *qtype);
        }
    }
    questions
}

/// The questions that a host's own configuration makes likely to go round: names below its search domains, below
/// `consul.` and in the reverse zones of its addresses, and the DS of each zone.
pub(super) fn likely<'t>(
    searched: impl Iterator<Item = &'t str>,
    addresses: impl Iterator<Item = IpAddr>,
    types: &[u16],
) -> Vec<Question> {
    let mut zones: Vec<Vec<u8>> = vec![CONSUL.to_vec()];
    let searched = searched.filter_map(Name::parse).take(MAX_SEARCHED);
    zones.extend(searched.map(|domain| domain.wire().to_vec()));
    let own = addresses.filter(|address| !is_everybodys(*address)).take(MAX_REVERSED);
    zones.extend(own.filter_map(reverse_zone));
    let mut questions = Vec::new();
    for zone in zones {
        let (below, itself) = (Target::new(zone.clone(), true), Target::new(zone, false));
        if types.is_empty() {
            let usual = if below.is_reverse() { PTR } else { A };
            push(&mut questions, below.clone(), usual);
            push(&mut questions, below, DS);
            push(&mut questions, itself, DS);
        } else {
            types
                .iter()
                .for_each(|qtype| push(&mut questions, below.clone(), *qtype));
        }
    }
    questions
}

fn push(questions: &mut Vec<Question>, target: Target, qtype: u16) {
    let question = Question {
        target: target.with_letters(),
        qtype,
    };
    if !questions.contains(&question) {
        questions.push(question);
    }
}

/// Whether every host has such an address: its reverse zone says nothing about this one.
const fn is_everybodys(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

/// The reverse zone of the /24 or the /64 of an address (RFC 1035 section 3.5, RFC 3596 section 2.5).
fn reverse_zone(address: IpAddr) -> Option<Vec<u8>> {
    let zone = match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().take(8).flat_map(|byte| [byte >> 4, byte & 15]);
            let labels: Vec<_> = nibbles.map(|nibble| format!("{nibble:x}.")).collect();
            format!("{}ip6.arpa", labels.into_iter().rev().collect::<String>())
        }
    };
    name::wire(&zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(questions: &[Question]) -> Vec<String> {
        questions.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_star_stands_for_a_new_name() {
        let target = Target::parse("*.Consul").unwrap();
        assert_eq!((&target.wire[..], target.fresh), (CONSUL, true));
        assert_eq!(target.to_string(), "*.consul.");
        assert_eq!(Target::parse("*.").unwrap().to_string(), "*.");
        assert!(!Target::parse("consul.").unwrap().fresh);
        let too_long = format!("*.{}", "a.".repeat(127));
        for bad in ["", "a..b", "*.*..", "a b", &too_long] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_asked_for_its_address_and_its_ds() {
        let targets = ["x.consul.", "1.0.0.10.in-addr.arpa", "x.consul."].map(|text| Target::parse(text).unwrap());
        let expected = [
            "A x.consul.",
            "DS x.consul.",
            "PTR 1.0.0.10.in-addr.arpa.",
            "DS 1.0.0.10.in-addr.arpa.",
        ];
        assert_eq!(texts(&named(&targets, &[])), expected);
        assert_eq!(texts(&named(&targets[..1], &[28, 28])), ["AAAA x.consul."]);
    }

    #[test]
    fn a_name_without_letters_is_asked_for_below() {
        let targets = [".", "10.", "12.ab."].map(|text| Target::parse(text).unwrap());
        assert_eq!(texts(&named(&targets, &[A])), ["A *.", "A *.10.", "A *.12.ab."]);
    }

    #[test]
    fn the_hosts_own_configuration_says_what_to_try() {
        let searched = ["Corp.example", "bad..domain", "corp.example."].into_iter();
        let addresses =
            ["127.0.0.1", "10.7.33.9", "fe80::1", "fd00:1:2:3::9", "10.7.33.10"].map(|ip| ip.parse().unwrap());
        let questions = likely(searched, addresses.into_iter(), &[]);
        let expected = [
            "A *.consul.",
            "DS *.consul.",
            "DS consul.",
            "A *.corp.example.",
            "DS *.corp.example.",
            "DS corp.example.",
            "PTR *.33.7.10.in-addr.arpa.",
            "DS *.33.7.10.in-addr.arpa.",
            "DS 33.7.10.in-addr.arpa.",
            "PTR *.3.0.0.0.2.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.",
            "DS *.3.0.0.0.2.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.",
            "DS 3.0.0.0.2.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.",
        ];
        assert_eq!(texts(&questions), expected);
        let none = likely([].into_iter(), [].into_iter(), &[16]);
        assert_eq!(texts(&none), ["TXT *.consul."]);
    }
}
