//! A forwarder that does nothing but forward, as CoreDNS does.

use crate::{
    S, US,
    network::{Node, Outbox},
    nodes::asked::Asked,
    packet::{Kind, Packet, Socket},
};

/// A new socket and a new ID for every query. The answer goes back as it comes.
pub struct Naive {
    upstream: Socket,
    /// Nanoseconds for one packet.
    pub service_ns: u64,
    asked: Asked<Packet>,
}

/// A query is given up.
const TIMEOUT_NS: u64 = 5 * S;

impl Naive {
    /// One that asks from this address.
    pub fn new(address: u16, upstream: Socket) -> Self {
        Self {
            upstream,
            service_ns: 7 * US,
            asked: Asked::new(address),
        }
    }
}

impl Node for Naive {
    fn service_ns(&self) -> u64 {
        self.service_ns
    }

    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        if packet.kind == Kind::Query {
            let id = out.fresh_id();
            let (socket, token) = self.asked.put(id, packet, out);
            out.timer(TIMEOUT_NS, token);
            out.send(Packet {
                from: socket,
                to: self.upstream,
                id,
                ..packet
            });
        } else if let Some(query) = self.asked.take(&packet, |_| true, out) {
            out.send(query.spelled(packet.caps).reply(packet.kind));
        }
    }

    fn wake(&mut self, token: u64, out: &mut Outbox<'_>) {
        if let Some(query) = self.asked.give_up(token, out) {
            out.send(query.reply(Kind::Error));
        }
    }
}
