//! A resolver as its configuration describes it: where it listens, and what it sends on to whom.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::doctor) struct Place {
    /// As the resolver itself names it.
    path: PathBuf,
    /// Counted from 1; `None` for the file as a whole.
    line: Option<usize>,
}

/// The programs whose configurations are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::doctor) enum Program {
    Consul,
    CoreDns,
    Dnsdist,
    Dnsmasq,
    Resolved,
    Unbound,
}

/// A domain: in lower case, without dots at its ends; empty for all there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::doctor) struct Zone(String);

/// What a resolver does with queries for a domain, unless another rule names it more closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::doctor) struct Rule {
    pub(in crate::doctor) zone: Zone,
    /// Whether it is not for queries for DS records.
    pub(in crate::doctor) except_ds: bool,
    pub(in crate::doctor) action: Action,
    pub(in crate::doctor) place: Place,
}

/// What becomes of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::doctor) enum Action {
    /// It is answered, from data of its own or by asking authoritative servers.
    Answer,
    /// It is sent on to one of these.
    Forward(Vec<SocketAddr>),
}

/// A part of a configuration that was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::doctor) struct Gap {
    pub(in crate::doctor) place: Place,
    pub(in crate::doctor) why: String,
}

/// What a configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::doctor) struct Reading {
    /// Where it listens; an unspecified address is all of the host's.
    pub(in crate::doctor) listens: Vec<SocketAddr>,
    pub(in crate::doctor) rules: Vec<Rule>,
    pub(in crate::doctor) gaps: Vec<Gap>,
}

/// A resolver of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::doctor) struct Node {
    pub(in crate::doctor) program: Program,
    /// `None` for one that does not run.
    pub(in crate::doctor) pid: Option<u32>,
    /// The network namespace in which it listens.
    pub(in crate::doctor) network: u64,
    /// Where it listens, as its sockets say if it runs.
    pub(in crate::doctor) listens: Vec<SocketAddr>,
    pub(in crate::doctor) rules: Vec<Rule>,
}

impl Place {
    /// A line, counted from 1.
    pub(super) fn line(path: &Path, line: usize) -> Self {
        Self {
            path: path.to_owned(),
            line: Some(line),
        }
    }

    /// A whole file, or what is none: a command line.
    pub(super) fn whole(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            line: None,
        }
    }

    /// The directory of the file.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or_else(|| Path::new("/"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.path.display()),
            None => write!(f, "{}", self.path.display()),
        }
    }
}

impl Program {
    /// What it is called.
    pub(in crate::doctor) const fn word(self) -> &'static str {
        match self {
            Self::Consul => "consul",
            Self::CoreDns => "coredns",
            Self::Dnsdist => "dnsdist",
            Self::Dnsmasq => "dnsmasq",
            Self::Resolved => "systemd-resolved",
            Self::Unbound => "unbound",
        }
    }

    /// The program behind the name of a process, which the kernel cuts off at 15 bytes.
    pub(in crate::doctor) fn of_process(name: &str) -> Option<Self> {
        // A thread may be named behind a slash: dnsdist/main.
        match name.split('/').next().unwrap_or_default() {
            "consul" => Some(Self::Consul),
            "coredns" | "node-cache" => Some(Self::CoreDns),
            "dnsdist" => Some(Self::Dnsdist),
            "dnsmasq" => Some(Self::Dnsmasq),
            "systemd-resolve" | "systemd-resolved" => Some(Self::Resolved),
            "unbound" => Some(Self::Unbound),
            _ => None,
        }
    }

    /// Whether it sends nothing to a server that is itself, however it is configured (dnsmasq: `check_servers`,
    /// systemd-resolved: `dns_server_is_stub`).
    pub(super) const fn ignores_itself(self) -> bool {
        matches!(self, Self::Dnsmasq | Self::Resolved)
    }
}

impl Zone {
    /// All there is.
    pub(super) fn root() -> Self {
        Self::default()
    }

    /// Reads a domain as configurations write it.
    pub(super) fn new(text: &str) -> Self {
        Self(text.trim_matches('.').to_ascii_lowercase())
    }

    /// The reverse zone of a range whose prefix ends at a label; otherwise the nearest one around it.
    pub(super) fn reverse(network: IpAddr, prefix_length: u8) -> Self {
        let labels: Vec<String> = match network {
            IpAddr::V4(v4) => {
                let octets = v4.octets();
                let kept = octets.iter().take(usize::from(prefix_length / 8));
                let labels = kept.rev().map(ToString::to_string);
                labels.chain(["in-addr.arpa".to_owned()]).collect()
            }
            IpAddr::V6(v6) => {
                let nibbles = v6.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
                let kept: Vec<_> = nibbles.take(usize::from(prefix_length / 4)).collect();
                let labels = kept.iter().rev().map(|nibble| format!("{nibble:x}"));
                labels.chain(["ip6.arpa".to_owned()]).collect()
            }
        };
        Self(labels.join("."))
    }

    /// Whether a domain is this one or below it.
    pub(super) fn contains(&self, other: &Self) -> bool {
        self.0.is_empty()
            || other
                .0
                .strip_suffix(&self.0)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// Labels in it.
    pub(super) fn labels(&self) -> usize {
        self.0.split('.').filter(|label| !label.is_empty()).count()
    }

    /// Whether it is all there is.
    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

/// With a dot at its end.
impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", self.0)
    }
}

impl Reading {
    /// Notes what is done with a domain.
    pub(super) fn rule(&mut self, zone: Zone, action: Action, place: Place) {
        self.rules.push(Rule {
            zone,
            except_ds: false,
            action,
            place,
        });
    }

    /// Notes where queries for a domain go.
    pub(super) fn forward(&mut self, zone: Zone, to: SocketAddr, place: Place) {
        self.rule(zone, Action::Forward(vec![to]), place);
    }

    /// Notes a part that was not read.
    pub(super) fn gap(&mut self, place: Place, why: impl Into<String>) {
        let why = why.into();
        let gap = Gap { place, why };
        if !self.gaps.contains(&gap) {
            self.gaps.push(gap);
        }
    }
}

impl Node {
    /// The rule that a query for something below `zone` meets: of those that name it most closely all.
    pub(super) fn decide(&self, zone: &Zone, is_ds: bool) -> Vec<&Rule> {
        let fitting = |rule: &&Rule| rule.zone.contains(zone) && !(rule.except_ds && is_ds);
        let closest = self.rules.iter().filter(fitting).map(|rule| rule.zone.labels()).max();
        let rules: Vec<_> = self.rules.iter().filter(fitting).collect();
        rules
            .into_iter()
            .filter(|rule| Some(rule.zone.labels()) == closest)
            .collect()
    }

    /// What it is called, and which one it is.
    pub(in crate::doctor) fn name(&self) -> String {
        match self.pid {
            Some(pid) => format!("{} (pid {pid})", self.program.word()),
            None => format!("{} (not running)", self.program.word()),
        }
    }
}

/// Reads `ADDR`, `ADDR:PORT` or `[ADDR]:PORT`, without regard to what interface stands behind a `%`.
pub(super) fn server(text: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let bare = bare.split('%').next()?;
    Some(SocketAddr::new(bare.parse().ok()?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_contains_what_is_below_it() {
        let contains = |outer: &str, inner: &str| Zone::new(outer).contains(&Zone::new(inner));
        assert!(contains("consul", "Service.Consul.") && contains("consul.", "consul"));
        assert!(contains(".", "anything") && contains("", ""));
        assert!(!contains("consul", "notconsul") && !contains("service.consul", "consul"));
        assert_eq!((Zone::new(".").labels(), Zone::new("a.b.").labels()), (0, 2));
    }

    #[test]
    fn a_range_has_a_reverse_zone() {
        let reverse = |network: &str, length| Zone::reverse(network.parse().unwrap(), length).to_string();
        assert_eq!(reverse("10.0.0.0", 8), "10.in-addr.arpa.");
        assert_eq!(reverse("192.168.7.0", 23), "168.192.in-addr.arpa.");
        assert_eq!(reverse("fd00:10::", 16), "0.0.d.f.ip6.arpa.");
    }

    #[test]
    fn a_server_is_read_however_it_is_written() {
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1:53"),
            ("127.0.0.1:8600", "127.0.0.1:8600"),
            ("[::1]", "[::1]:53"),
            ("[fd00::1]:5353", "[fd00::1]:5353"),
            ("fe80::1%eth0", "[fe80::1]:53"),
        ] {
            assert_eq!(server(text, 53).unwrap().to_string(), expected);
        }
        assert_eq!(server("dns.example", 53), None);
    }
}
