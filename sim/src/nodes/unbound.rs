//! unbound.

use std::collections::HashMap;

use crate::{
    MS,
    network::{Node, Outbox},
    packet::{Kind, Packet, Socket},
};

/// Joins equal queries, and asks its upstream five times in 2.3 s, each time from a new socket with a new ID, in the
/// spelling of the first. Everybody is answered in his own spelling.
pub struct Unbound {
    upstream: Socket,
    address: u16,
    waiting: HashMap<u16, Waiting>,
}

#[derive(Default)]
struct Waiting {
    clients: Vec<Packet>,
    tried: usize,
}

/// Milliseconds between its tries (`outbound-msg-retry` 5).
const TRIES_MS: [u64; 4] = [376, 376, 752, 796];

impl Unbound {
    /// One that asks from this address.
    pub fn new(address: u16, upstream: Socket) -> Self {
        Self {
            upstream,
            address,
            waiting: HashMap::new(),
        }
    }

    fn ask(&mut self, name: u16, out: &mut Outbox<'_>) {
        let Some(waiting) = self.waiting.get_mut(&name) else {
            return;
        };
        let Some(&query) = waiting.clients.first() else { return };
        let (socket, id) = (out.fresh_socket(self.address), out.fresh_id());
        out.send(Packet {
            from: socket,
            to: self.upstream,
            id,
            ..query
        });
        if let Some(wait_ms) = TRIES_MS.get(waiting.tried) {
            out.timer(wait_ms * MS, name.into());
        }
        waiting.tried += 1;
    }
}

impl Node for Unbound {
    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        if packet.kind == Kind::Query {
            let waiting = self.waiting.entry(packet.name).or_default();
            waiting.clients.push(packet);
            if waiting.tried == 0 {
                self.ask(packet.name, out);
            }
            return;
        }
        for query in self.waiting.remove(&packet.name).unwrap_or_default().clients {
            out.send(query.reply(packet.kind));
        }
    }

    fn wake(&mut self, token: u64, out: &mut Outbox<'_>) {
        if self
            .waiting
            .get(&(token as u16))
            .is_some_and(|waiting| waiting.tried > 0)
        {
            self.ask(token as u16, out);
        }
    }
}
