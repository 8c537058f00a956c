//! The loops that the demo can show, by the names a person types.

use clap::ValueEnum;
use guard_tests::topology::{Forwarder, Topology, Wire};

/// Who forwards to whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pair {
    /// Two dnsmasq: from the client's first retry on, without end
    #[default]
    Dnsmasq,
    /// The incident, dnsmasq and consul 1.8: a burst at every retry
    Consul,
    /// Two dnsdist: at once, without end
    Dnsdist,
    /// Two consul, each the other's recursor
    TwoConsul,
    /// Three dnsmasq in a ring
    Ring,
    /// Two dnsmasq on two hosts joined by a veth, dnsguard on one
    Veth,
}

impl Pair {
    pub(crate) fn topology(self) -> Topology {
        let circle = |forwarder, hops, wire| Topology::Circle { forwarder, hops, wire };
        match self {
            Self::Dnsmasq => Topology::DEMO,
            Self::Consul => Topology::INCIDENT,
            Self::Dnsdist => circle(Forwarder::Dnsdist, 2, Wire::Loopback),
            Self::TwoConsul => Topology::ConsulPair,
            Self::Ring => circle(Forwarder::Dnsmasq, 3, Wire::Loopback),
            Self::Veth => circle(Forwarder::Dnsmasq, 2, Wire::VethV4),
        }
    }

    /// The resolvers, without the tools of the lab.
    pub(crate) fn resolvers(self) -> impl Iterator<Item = &'static str> {
        self.topology()
            .programs()
            .iter()
            .copied()
            .filter(|program| *program != "ip")
    }

    /// Where the loop is, each resolver with its version: `between two dnsmasq 2.90 on lo`.
    pub(crate) fn place(self, version: impl Fn(&str) -> String) -> String {
        let one = |program| format!("{program} {}", version(program));
        match self {
            Self::Dnsmasq => format!("between two {} on lo", one("dnsmasq")),
            Self::Consul => format!("between {} and {} on lo", one("dnsmasq"), one("consul")),
            Self::Dnsdist => format!("between two {} on lo", one("dnsdist")),
            Self::TwoConsul => format!("between two {} on lo", one("consul")),
            Self::Ring => format!("among three {} on lo", one("dnsmasq")),
            Self::Veth => format!("between two {} over a veth", one("dnsmasq")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_names_its_resolvers_with_their_versions() {
        for pair in Pair::value_variants() {
            let place = pair.place(|program| format!("version-of-{program}"));
            for resolver in pair.resolvers() {
                assert!(
                    place.contains(&format!("{resolver} version-of-{resolver}")),
                    "{pair:?}: {place}"
                );
            }
            assert!(pair.topology().programs().contains(&"ip"), "the lab needs ip");
        }
    }
}
