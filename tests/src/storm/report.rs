//! Who takes part in a storm, and what everybody got.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use super::{
    naming::Named,
    policer::{Policed, Service},
    series::Sample,
    sweep::Swept,
    tally::Tally,
};

/// How a good client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// By itself, from a pod of its own: three tries in 5 s.
    Stub,
    /// Through glibc, A and AAAA together.
    Glibc,
    /// Through musl, A and AAAA together.
    Musl,
    /// A systemd-resolved in its pod.
    Resolved,
    /// A dnsmasq on the node.
    Dnsmasq,
    /// An unbound on the node.
    Unbound,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Stub => "stub",
            Self::Glibc => "glibc",
            Self::Musl => "musl",
            Self::Resolved => "resolved",
            Self::Dnsmasq => "dnsmasq",
            Self::Unbound => "unbound",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Resolved => "systemd-resolved",
            kind => kind.word(),
        })
    }
}

/// What the good clients of one kind got.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// How they ask.
    pub kind: Kind,
    /// How many they are.
    pub clients: u8,
    /// What they got.
    pub tally: Tally,
}

/// All that was seen of a storm.
#[derive(Clone, Debug)]
pub struct StormReport {
    /// Good clients by kind, without those that were not to be had.
    pub crowds: Vec<Crowd>,
    /// Instance metadata for the node: token and ID within 1 s.
    pub imds: Tally,
    /// Time for the node: an answer within 1 s.
    pub ntp: Tally,
    /// Packets that the node wanted to send to link-local services, before a guard.
    pub offered: u64,
    /// What the policer did, by service.
    pub policed: BTreeMap<Service, Policed>,
    /// Packets over time.
    pub series: Vec<Sample>,
    /// The sweep.
    pub sweep: Swept,
    /// Who it was, if the guard said so.
    pub named: Option<Named>,
    /// Every event of the guard; none without one.
    pub events: Vec<Value>,
    /// What went wrong when the guard was stopped.
    pub unclean: Option<String>,
}

impl StormReport {
    /// All good clients together.
    pub fn good(&self) -> Tally {
        Tally::sum(self.crowds.iter().map(|crowd| &crowd.tally))
    }

    /// Metadata and time together.
    pub fn imds_ntp(&self) -> Tally {
        Tally::sum([&self.imds, &self.ntp])
    }

    /// Packets that the policer dropped, of all services.
    pub fn dropped(&self) -> u64 {
        self.policed.values().map(|policed| policed.dropped).sum()
    }

    /// Packets that did not leave the node, though they wanted to: what a guard dropped. Not one too many.
    pub fn shed(&self) -> u64 {
        let left = |policed: &Policed| policed.passed + policed.dropped;
        self.offered.saturating_sub(self.policed.values().map(left).sum())
    }
}
