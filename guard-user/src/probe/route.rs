//! Where a marked query went, and whether it went round.
//!
//! The probe sends its query once. So every query with its mark was sent on by a server that got one before. Who sent it
//! is known where addresses or sockets tell; else it may have been any of them. **It went round where a server got it from
//! senders that could have had it only through that server:** without this server no way leads from the probe to any of
//! them. For the server that the probe asked, that is every sender. A forwarder that tries again, or tries another
//! upstream, did not get the query through the one that it asks.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::sockets::{Owned, Process};

/// Hops that are kept of one query; what comes after them proves nothing new.
const MAX_HOPS: usize = 64;
/// Ways that are shown.
const MAX_PATHS: usize = 8;

/// A query with the mark, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) ttl: u8,
    pub(super) id: u16,
    pub(super) message: Vec<u8>,
    /// Since the query was sent.
    pub(super) at: Duration,
    pub(super) ifindex: u32,
}

/// What is known of addresses.
pub(super) trait World {
    /// Whether it is this host's.
    fn is_local(&self, ip: IpAddr) -> bool;
    /// Whose socket hears what goes there.
    fn listener(&self, address: SocketAddr) -> Owned;
    /// Whose socket sent from there.
    fn sender(&self, address: SocketAddr) -> Owned;
}

/// A server that got the query.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) processes: Vec<Process>,
    inode: Option<u64>,
    local: bool,
}

/// The query on its way to a server.
#[derive(Clone, Debug)]
pub(super) struct Hop {
    pub(super) seen: Seen,
    /// Index of the server.
    server: usize,
    sender: Sender,
    /// Addresses under which the same packet was seen before or after a router changed them.
    views: Vec<(SocketAddr, SocketAddr)>,
}

/// Who can have sent a hop.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sender {
    /// The probe itself.
    Probe,
    /// One of these servers.
    OneOf(Vec<usize>),
    /// Whoever got it, also where nobody saw it.
    Anyone,
}

/// A server on the way that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Its index.
    pub(super) server: usize,
    /// Whether it is certain that the one before sent the query here.
    pub(super) sure: bool,
}

/// All that was seen of one query.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// Where the probe sent it from, and what.
    origin: SocketAddr,
    id: u16,
    message: Vec<u8>,
    servers: Vec<Server>,
    hops: Vec<Hop>,
    /// Processes that sent it before anybody was seen to send it to them.
    hidden: BTreeSet<u32>,
    /// Whether another host did.
    hidden_elsewhere: bool,
    /// Whether some of it may not have been seen.
    pub(super) incomplete: bool,
}

impl Route {
    /// Nothing seen yet of this message, which is sent from there.
    pub(super) const fn new(origin: SocketAddr, id: u16, message: Vec<u8>) -> Self {
        Self {
            origin,
            id,
            message,
            servers: Vec::new(),
            hops: Vec::new(),
            hidden: BTreeSet::new(),
            hidden_elsewhere: false,
            incomplete: false,
        }
    }

    /// Takes in what was seen; the same packet counts once, on however many interfaces it shows.
    pub(super) fn add(&mut self, seen: Seen, world: &impl World) {
        let ends = (seen.from, seen.to);
        let known =
            |hop: &Hop| hop.seen.id == seen.id && ((hop.seen.from, hop.seen.to) == ends || hop.views.contains(&ends));
        if self.hops.iter().any(known) {
            return;
        }
        if let Some(index) = self.same_packet(&seen) {
            let server = self.server(seen.to, world);
            let hop = &mut self.hops[index];
            hop.views.push(ends);
            if seen.ttl < hop.seen.ttl {
                hop.seen.ttl = seen.ttl;
                hop.server = server;
            }
            return;
        }
        if self.hops.len() >= MAX_HOPS {
            self.incomplete = true;
            return;
        }
        let sender = if self.is_own(&seen) {
            Sender::Probe
        } else {
            self.sender(seen.from, world)
        };
        let server = self.server(seen.to, world);
        self.hops.push(Hop {
            seen,
            server,
            sender,
            views: Vec::new(),
        });
    }

    /// The hop that proves that it went round.
    pub(super) fn proof(&self) -> Option<usize> {
        (0..self.hops.len()).find(|index| self.proves(*index))
    }

    /// Whether a server got it from several sockets: a sender that tries again, or a loop.
    pub(super) fn came_again(&self) -> bool {
        self.hops.iter().enumerate().any(|(index, hop)| {
            let mut before = self.hops[..index].iter();
            before.any(|other| other.server == hop.server && other.seen.from != hop.seen.from)
        })
    }

    /// Whether the probe's own query was seen on its way. If not, nothing is proven.
    pub(super) fn has_own(&self) -> bool {
        self.hops.iter().any(|hop| hop.sender == Sender::Probe)
    }

    /// Every hop, in the order in which they were seen.
    pub(super) fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// A server by its index.
    pub(super) fn server_at(&self, index: usize) -> &Server {
        &self.servers[index]
    }

    /// The way of the proof: from the probe to the server that got it again, ending there; else each way that it took.
    pub(super) fn paths(&self) -> Vec<Vec<Step>> {
        if let Some(proof) = self.proof() {
            return vec![self.round(proof)];
        }
        let firsts: Vec<usize> = (0..self.hops.len())
            .filter(|index| self.first_hop(self.hops[*index].server) == Some(*index))
            .collect();
        let parents: Vec<_> = firsts.iter().filter_map(|index| self.likely_sender(*index)).collect();
        let is_end = |index: &&usize| parents.iter().all(|parent| parent.server != self.hops[**index].server);
        let ends = firsts.iter().filter(is_end).take(MAX_PATHS);
        ends.map(|index| self.way_to(*index, None)).collect()
    }

    fn is_own(&self, seen: &Seen) -> bool {
        if seen.from == self.origin {
            return true;
        }
        // Its address may have been changed on the way out.
        self.hops.is_empty()
            && seen.from.port() == self.origin.port()
            && seen.id == self.id
            && seen.message == self.message
    }

    /// The hop that this is another view of: a router changes addresses and takes one off the TTL. A server that sends
    /// the very same message on begins anew.
    fn same_packet(&self, seen: &Seen) -> Option<usize> {
        let is_same =
            |hop: &Hop| hop.seen.id == seen.id && hop.seen.message == seen.message && hop.seen.ttl != seen.ttl;
        let shares_an_end = |hop: &Hop| hop.seen.from == seen.from || hop.seen.to == seen.to;
        let last = |is_it: &dyn Fn(&Hop) -> bool| self.hops.iter().rposition(is_it);
        last(&|hop| is_same(hop) && shares_an_end(hop)).or_else(|| last(&is_same))
    }

    /// The server at an address; addresses with one socket are one server.
    fn server(&mut self, address: SocketAddr, world: &impl World) -> usize {
        let known = |server: &Server| server.address == address;
        if let Some(index) = self.servers.iter().position(known) {
            return index;
        }
        let local = world.is_local(address.ip());
        let owned = if local {
            world.listener(address)
        } else {
            Owned::default()
        };
        let same_socket = |server: &Server| server.inode.is_some() && server.inode == owned.inode;
        if let Some(index) = self.servers.iter().position(same_socket) {
            return index;
        }
        self.servers.push(Server {
            address,
            processes: owned.processes,
            inode: owned.inode,
            local,
        });
        self.servers.len() - 1
    }

    fn sender(&mut self, from: SocketAddr, world: &impl World) -> Sender {
        let had_it = |index: &usize| self.first_hop(*index).is_some();
        if !world.is_local(from.ip()) {
            let others = (0..self.servers.len()).filter(|index| !self.servers[*index].local);
            let others: Vec<_> = others.filter(had_it).collect();
            self.hidden_elsewhere |= others.is_empty();
            // Another host's servers may have passed it on among themselves, where nobody saw it.
            let is_one = others
                .iter()
                .any(|index| self.servers[*index].address.ip() == from.ip());
            return if is_one && !self.hidden_elsewhere {
                Sender::OneOf(others)
            } else {
                Sender::Anyone
            };
        }
        let pids: Vec<_> = world
            .sender(from)
            .processes
            .into_iter()
            .map(|process| process.pid)
            .collect();
        if pids.is_empty() {
            return Sender::Anyone;
        }
        let is_its = |index: &usize| {
            let processes = &self.servers[*index].processes;
            processes.iter().any(|process| pids.contains(&process.pid))
        };
        let its: Vec<_> = (0..self.servers.len()).filter(is_its).filter(had_it).collect();
        if its.is_empty() {
            // It got the query where nobody looked, over TCP for one, and may do so again.
            self.hidden.extend(&pids);
        }
        if pids.iter().any(|pid| self.hidden.contains(pid)) {
            Sender::Anyone
        } else {
            Sender::OneOf(its)
        }
    }

    /// The first hop to a server.
    fn first_hop(&self, server: usize) -> Option<usize> {
        self.hops.iter().position(|hop| hop.server == server)
    }

    fn proves(&self, index: usize) -> bool {
        let hop = &self.hops[index];
        if hop.sender == Sender::Probe || !self.has_own() {
            return false;
        }
        let without = self.reached_without(hop.server);
        let asked = self.hops.iter().filter(|hop| hop.sender == Sender::Probe);
        let is_asked = asked.clone().all(|own| own.server == hop.server);
        if !is_asked {
            // A process may ask itself twice, and have got the query through another of its sockets.
            if self.incomplete || hop.sender == Sender::OneOf(vec![hop.server]) {
                return false;
            }
        } else if hop.seen.id == self.id && hop.seen.message == self.message {
            // The very same message: sent on by a server that changes nothing, or the probe's own packet, its address
            // changed. A server in between tells.
            let mut between = self.hops[..index].iter();
            if !between.any(|other| other.server != hop.server) {
                return false;
            }
        }
        match &hop.sender {
            Sender::Probe => false,
            Sender::OneOf(servers) => servers.iter().all(|server| !without.contains(server)),
            Sender::Anyone => without.is_empty(),
        }
    }

    /// The servers that the query can have reached if this one had sent nothing on.
    fn reached_without(&self, server: usize) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        loop {
            let before = reached.len();
            for hop in self.hops.iter().filter(|hop| hop.server != server) {
                let can_come = match &hop.sender {
                    Sender::Probe => true,
                    Sender::OneOf(servers) => servers.iter().any(|sender| reached.contains(sender)),
                    Sender::Anyone => !reached.is_empty(),
                };
                if can_come {
                    reached.insert(hop.server);
                }
            }
            if reached.len() == before {
                return reached;
            }
        }
    }

    /// Who most likely sent a hop: the last that got the query before. `None` for the probe.
    fn likely_sender(&self, index: usize) -> Option<Step> {
        let hop = &self.hops[index];
        let mut before: Vec<usize> = Vec::new();
        for other in &self.hops[..index] {
            if other.server != hop.server && !before.contains(&other.server) {
                before.push(other.server);
            }
        }
        if let Sender::OneOf(servers) = &hop.sender {
            before.retain(|server| servers.contains(server));
        }
        let last = before.last().copied();
        match hop.sender {
            Sender::Probe => None,
            _ => Some(Step {
                // Itself, if there is nobody else.
                server: last.unwrap_or(hop.server),
                sure: before.len() <= 1,
            }),
        }
    }

    /// From the probe, or from `stop`, to where this hop goes.
    fn way_to(&self, mut index: usize, stop: Option<usize>) -> Vec<Step> {
        let mut way = vec![];
        let mut server = self.hops[index].server;
        loop {
            let sender = self.likely_sender(index);
            let sure = sender.is_none_or(|sender| sender.sure);
            way.push(Step { server, sure });
            // Senders got it before: the index falls.
            let earlier = sender.and_then(|sender| Some((sender.server, self.first_hop(sender.server)?)));
            match earlier.filter(|(_, earlier)| *earlier < index) {
                Some((sender, earlier)) if Some(server) != stop => (server, index) = (sender, earlier),
                _ => break,
            }
        }
        way.reverse();
        way
    }

    fn round(&self, proof: usize) -> Vec<Step> {
        let server = self.hops[proof].server;
        let to_it = self
            .first_hop(server)
            .map_or_else(Vec::new, |first| self.way_to(first, None));
        let mut last = Step { server, sure: true };
        let mut back = Vec::new();
        if let Some(sender) = self.likely_sender(proof) {
            last.sure = sender.sure;
            if let Some(first) = self.first_hop(sender.server).filter(|_| sender.server != server) {
                back = self.way_to(first, Some(server));
                if back.first().is_some_and(|step| step.server == server) {
                    back.remove(0);
                }
            }
        }
        [to_it, back, vec![last]].concat()
    }
}

#[cfg(test)]
mod tests;
