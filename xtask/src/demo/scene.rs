//! What the demo can show, by the names a person types.

use anyhow::Result;
use clap::{ValueEnum, builder::PossibleValue};
use guard_tests::{programs, storm};

use super::looped::Pair;

/// One of the demos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    /// Resolvers that forward to each other.
    Loop(Pair),
    /// A sweep on a node that may send 1,024 packets a second.
    Storm,
}

impl Scene {
    /// Fetches the programs that it needs and that are not here.
    pub(crate) fn provide(self) -> Result<()> {
        match self {
            Self::Loop(pair) => programs::provide(pair.topology().programs()),
            Self::Storm => storm::provide(),
        }
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::Loop(Pair::default())
    }
}

impl ValueEnum for Scene {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Loop(Pair::Dnsmasq),
            Self::Loop(Pair::Consul),
            Self::Loop(Pair::Dnsdist),
            Self::Loop(Pair::TwoConsul),
            Self::Loop(Pair::Ring),
            Self::Loop(Pair::Veth),
            Self::Storm,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Loop(pair) => pair.to_possible_value(),
            Self::Storm => {
                Some(PossibleValue::new("storm").help(
                    "No loop: a PTR sweep on an EC2-like node, in front of a policer like AWS's, 1,024 packets/s",
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_can_be_asked_for() {
        for &pair in Pair::value_variants() {
            assert!(Scene::value_variants().contains(&Scene::Loop(pair)), "{pair:?}");
        }
    }
}
