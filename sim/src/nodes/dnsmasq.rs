//! dnsmasq 2.85 to 2.93.

use std::collections::HashMap;

use crate::{
    S, US,
    network::{Node, Outbox},
    packet::{Kind, Packet, Socket},
};

/// Joins equal queries that it is waiting for. A repeat from a source it knows goes on at once, one from a new source if
/// the first is 2 s old; all over one socket and with one ID, each spelled as it came. Everybody is answered in the
/// spelling of the answer.
pub struct Dnsmasq {
    upstream: Socket,
    /// Nanoseconds for one packet.
    pub service_ns: u64,
    address: u16,
    pending: HashMap<u16, Pending>,
}

struct Pending {
    since: u64,
    socket: Socket,
    id: u16,
    sources: Vec<Packet>,
}

/// `FTABSIZ`: sources that wait for one query.
const MAX_SOURCES: usize = 150;
/// `TIMEOUT`: a query is given up.
const TIMEOUT_NS: u64 = 10 * S;

impl Dnsmasq {
    /// One that asks from this address.
    pub fn new(address: u16, upstream: Socket) -> Self {
        Self {
            upstream,
            service_ns: 7 * US,
            address,
            pending: HashMap::new(),
        }
    }

    fn ask(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        let (socket, id) = (out.fresh_socket(self.address), out.fresh_id());
        let pending = Pending {
            since: out.now,
            socket,
            id,
            sources: vec![packet],
        };
        self.pending.insert(packet.name, pending);
        out.send(Packet {
            from: socket,
            to: self.upstream,
            id,
            ..packet
        });
    }

    fn answer(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        let Some(pending) = self.pending.remove(&packet.name) else {
            return;
        };
        if pending.socket != packet.to || pending.id != packet.id {
            self.pending.insert(packet.name, pending);
            return;
        }
        out.close(pending.socket);
        for query in pending.sources {
            out.send(query.spelled(packet.caps).reply(packet.kind));
        }
    }
}

impl Node for Dnsmasq {
    fn service_ns(&self) -> u64 {
        self.service_ns
    }

    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        if packet.kind != Kind::Query {
            self.answer(packet, out);
            return;
        }
        let upstream = self.upstream;
        let Some(pending) = self.pending.get_mut(&packet.name) else {
            self.ask(packet, out);
            return;
        };
        let known = pending
            .sources
            .iter()
            .any(|query| (query.from, query.id) == (packet.from, packet.id));
        let age = out.now - pending.since;
        if !known {
            if age >= TIMEOUT_NS {
                self.ask(packet, out);
                return;
            }
            if pending.sources.len() >= MAX_SOURCES {
                out.send(packet.reply(Kind::Error));
                return;
            }
            pending.sources.push(packet);
        }
        if known || age >= 2 * S {
            out.send(Packet {
                from: pending.socket,
                to: upstream,
                id: pending.id,
                ..packet
            });
        }
    }
}
