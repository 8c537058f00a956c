//! The kinds of forwarders, for whoever draws one.

use super::{Consul, Dnsdist, Dnsmasq, Naive, Shuffler, Unbound};
use crate::{
    network::Network,
    packet::{Socket, at},
};

/// What a forwarder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarder {
    /// [`Dnsmasq`].
    Dnsmasq,
    /// [`Unbound`].
    Unbound,
    /// [`Dnsdist`].
    Dnsdist,
    /// [`Consul`], with one recursor.
    Consul,
    /// [`Naive`].
    Naive,
    /// [`Shuffler`]: it spells at random.
    Shuffler,
    /// A [`Shuffler`] that makes all letters small.
    Lowers,
}

impl Forwarder {
    /// Puts one on the network that listens there and asks `next`.
    pub fn add(self, network: &mut Network<'_>, server: Socket, next: Socket) {
        let source = at(server.address, 30_000 + server.port);
        match self {
            Self::Dnsmasq => network.add(Dnsmasq::new(server.address, next), &[server]),
            Self::Unbound => network.add(Unbound::new(server.address, next), &[server]),
            Self::Dnsdist => network.add(Dnsdist::new(source, next), &[server, source]),
            Self::Consul => network.add(Consul::new(server.address, &[next]), &[server]),
            Self::Naive => network.add(Naive::new(server.address, next), &[server]),
            Self::Shuffler => network.add(Shuffler::new(server.address, next), &[server]),
            Self::Lowers => network.add(Shuffler::that_lowers(server.address, next), &[server]),
        }
    }

    /// Puts several on the network: each asks the next, and the last one the first.
    pub fn ring(self, network: &mut Network<'_>, servers: &[Socket]) {
        for (place, server) in servers.iter().enumerate() {
            self.add(network, *server, servers[(place + 1) % servers.len()]);
        }
    }
}
