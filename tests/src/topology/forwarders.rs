//! Forwarders in a circle: each has a rule that sends one zone to the next.

use std::{fmt, net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};

use super::{Hop, Loop, Topology, Wire};
use crate::{
    question::{Question, RecordType},
    resolver::{Dnsdist, Dnsmasq, Duties, Forward, Recipe},
    upstream::{Manner, Upstream},
};

/// The zone whose rule goes round.
const LOOPED: &str = "consul";
/// A part of it that the last hop answers itself: forwarded by the rule that loops, yet no loop.
const ANSWERED: &str = "ok.consul";
/// A zone that the first hop forwards to a name server that answers.
const ELSEWHERE: &str = "example";

/// The name servers behind the resolvers, one in each namespace.
pub(super) const UPSTREAM: ([u8; 4], u16) = ([127, 0, 0, 9], 53);

/// Which program forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarder {
    /// Merges equal queries until a client retries.
    Dnsmasq,
    /// Forwards every query by itself.
    Dnsdist,
}

impl Forwarder {
    fn recipe(self, duties: Duties) -> Recipe {
        match self {
            Self::Dnsmasq => Recipe::Dnsmasq(Dnsmasq {
                duties,
                extra: Vec::new(),
            }),
            Self::Dnsdist => Recipe::Dnsdist(Dnsdist {
                duties,
                extra: Vec::new(),
            }),
        }
    }
}

impl fmt::Display for Forwarder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Dnsmasq => "dnsmasq",
            Self::Dnsdist => "dnsdist",
        })
    }
}

pub(super) fn start(forwarder: Forwarder, hops: usize, wire: Wire) -> Result<Loop> {
    ensure!((2..=8).contains(&hops), "a circle has 2 to 8 hops");
    ensure!(hops == 2 || wire == Wire::Loopback, "over a veth there are two hops");
    let namespaces = wire.lay()?;
    let elsewhere = SocketAddr::from(UPSTREAM);
    let upstreams = namespaces
        .iter()
        .map(|namespace| Upstream::start(namespace, elsewhere, Manner::Answers(Duration::ZERO)))
        .collect::<Result<_>>()?;

    let addresses: Vec<SocketAddr> = (1..)
        .take(hops)
        .map(|number| SocketAddr::new(wire.address(number), 53))
        .collect();
    let duties = |index: usize, next: SocketAddr| {
        let mut duties = Duties {
            listen: vec![addresses[index]],
            forwards: vec![Forward::new(LOOPED, next)],
            answers: Vec::new(),
        };
        if index == 0 {
            duties.forwards.push(Forward::new(ELSEWHERE, elsewhere));
        }
        if index + 1 == hops {
            duties.answers.push(ANSWERED.to_owned());
        }
        duties
    };
    let last = namespaces.len() - 1;
    let hop = |index: usize| {
        let namespace = &namespaces[if index == 0 { 0 } else { last }];
        Hop::start(
            namespace,
            &forwarder.recipe(duties(index, addresses[(index + 1) % hops])),
        )
    };
    Ok(Loop {
        topology: Topology::Circle { forwarder, hops, wire },
        hops: (0..hops).map(hop).collect::<Result<_>>()?,
        question: Question::new("x.consul.", RecordType::A)?,
        bystanders: vec![format!("*.{ANSWERED}."), format!("*.{ELSEWHERE}.")],
        ports: vec![53],
        mended: forwarder.recipe(duties(hops - 1, elsewhere)),
        upstreams,
        namespaces,
    })
}
