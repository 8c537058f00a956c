//! Loops with consul in them.
//!
//! consul before 1.19 takes a DS question for its own domain for somebody else's and recurses it, while its
//! neighbour sends everything about that domain straight back.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;

use super::{Hop, Loop, Topology, Wire, forwarders::UPSTREAM};
use crate::{
    question::{Question, RecordType},
    resolver::{Consul, Dnsmasq, Duties, Forward, Recipe, SERVICE},
    upstream::{Manner, Upstream},
};

/// The port that consul answers DNS on, by default.
const CONSUL: u16 = 8600;
/// The port of a second one on the same host.
const SECOND_CONSUL: u16 = 8700;

/// Two on `lo`, each the other's recursor.
pub(super) fn pair() -> Result<Loop> {
    let wire = Wire::Loopback;
    let namespaces = wire.lay()?;
    let namespace = &namespaces[0];
    let [first, second] = [CONSUL, SECOND_CONSUL].map(|port| SocketAddr::new(wire.address(1), port));
    let upstream = Upstream::start(namespace, UPSTREAM.into(), Manner::Answers(Duration::ZERO))?;
    // Everything that is not consul's goes round. Under an alias that only the second one knows, one name is
    // forwarded by the same rule and yet answered.
    let recipe = |dns, recursor, alias: Option<&str>| {
        let alias = alias.map(str::to_owned);
        Recipe::Consul(Consul {
            dns,
            recursors: vec![recursor],
            alias,
        })
    };
    Ok(Loop {
        topology: Topology::ConsulPair,
        hops: vec![
            Hop::start(namespace, &recipe(first, second, None))?,
            Hop::start(namespace, &recipe(second, first, Some("other")))?,
        ],
        question: Question::new("consul.", RecordType::DS)?,
        bystanders: vec!["x.service.other.".to_owned(), SERVICE.to_owned()],
        ports: vec![CONSUL, SECOND_CONSUL],
        mended: recipe(second, upstream.address(), Some("other")),
        upstreams: vec![upstream],
        namespaces,
    })
}

/// dnsmasq, and a consul whose three recursors are all that dnsmasq: with one alone, dnsmasq merges the loop.
pub(super) fn incident(wire: Wire) -> Result<Loop> {
    let namespaces = wire.lay()?;
    let [here, there] = [&namespaces[0], &namespaces[namespaces.len() - 1]];
    let elsewhere = SocketAddr::from(UPSTREAM);
    let upstreams = namespaces
        .iter()
        .map(|namespace| Upstream::start(namespace, elsewhere, Manner::Answers(Duration::ZERO)))
        .collect::<Result<_>>()?;

    // On a veth number 2 is the other side.
    let (numbers, consul) = match wire {
        Wire::Loopback => ([1, 2, 3], 1),
        Wire::VethV4 | Wire::VethV6 => ([1, 3, 4], 2),
    };
    let listen = numbers.map(|number| SocketAddr::new(wire.address(number), 53)).to_vec();
    let dns = SocketAddr::new(wire.address(consul), CONSUL);
    let recipe = |recursors| {
        Recipe::Consul(Consul {
            dns,
            recursors,
            alias: None,
        })
    };
    let dnsmasq = Recipe::Dnsmasq(Dnsmasq {
        duties: Duties {
            listen: listen.clone(),
            forwards: vec![Forward::new("consul", dns), Forward::new("example", elsewhere)],
            answers: Vec::new(),
        },
        extra: Vec::new(),
    });
    Ok(Loop {
        topology: Topology::Incident { wire },
        hops: vec![Hop::start(here, &dnsmasq)?, Hop::start(there, &recipe(listen))?],
        question: Question::new("consul.", RecordType::DS)?,
        bystanders: vec![SERVICE.to_owned(), "*.example.".to_owned()],
        ports: vec![53, CONSUL],
        mended: recipe(vec![elsewhere]),
        upstreams,
        namespaces,
    })
}
