//! consul before 1.19.

use crate::{
    S, US,
    network::{Node, Outbox},
    nodes::asked::Asked,
    packet::{Kind, Packet, Socket},
};

/// Every query goes on, with its own ID, from a new socket, to one recursor after the other. The answer goes back as it
/// comes.
pub struct Consul {
    recursors: Vec<Socket>,
    asked: Asked<(Packet, usize)>,
}

/// A recursor is given up.
const TIMEOUT_NS: u64 = 2 * S;

impl Consul {
    /// One that asks these recursors from this address.
    pub fn new(address: u16, recursors: &[Socket]) -> Self {
        Self {
            recursors: recursors.to_vec(),
            asked: Asked::new(address),
        }
    }

    fn ask(&mut self, query: Packet, recursor: usize, out: &mut Outbox<'_>) {
        let Some(&to) = self.recursors.get(recursor) else {
            out.send(query.reply(Kind::Error));
            return;
        };
        let (socket, token) = self.asked.put(query.id, (query, recursor), out);
        out.timer(TIMEOUT_NS, token);
        out.send(Packet {
            from: socket,
            to,
            ..query
        });
    }
}

impl Node for Consul {
    fn service_ns(&self) -> u64 {
        30 * US
    }

    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        if packet.kind == Kind::Query {
            self.ask(packet, 0, out);
        } else if let Some((query, recursor)) = self.asked.take(&packet, |_| true, out) {
            if packet.kind == Kind::Answer {
                out.send(query.spelled(packet.caps).reply(Kind::Answer));
            } else {
                self.ask(query, recursor + 1, out);
            }
        }
    }

    fn wake(&mut self, token: u64, out: &mut Outbox<'_>) {
        if let Some((query, recursor)) = self.asked.give_up(token, out) {
            self.ask(query, recursor + 1, out);
        }
    }
}
