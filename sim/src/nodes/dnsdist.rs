//! dnsdist.

use std::collections::HashMap;

use crate::{
    network::{Node, Outbox},
    packet::{Kind, Packet, Socket},
};

/// Every query goes on from the one socket it has, with one ID after the other. The answer goes back as it comes.
pub struct Dnsdist {
    upstream: Socket,
    socket: Socket,
    asked: HashMap<u16, Packet>,
    last_id: Option<u16>,
}

impl Dnsdist {
    /// One that asks over this socket, which has to be one that it is put on the network with.
    pub fn new(socket: Socket, upstream: Socket) -> Self {
        Self {
            upstream,
            socket,
            asked: HashMap::new(),
            last_id: None,
        }
    }
}

impl Node for Dnsdist {
    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        if packet.kind == Kind::Query {
            let id = self.last_id.map_or_else(|| out.fresh_id(), |id| id.wrapping_add(1));
            self.last_id = Some(id);
            self.asked.insert(id, packet);
            out.send(Packet {
                from: self.socket,
                to: self.upstream,
                id,
                ..packet
            });
        } else if let Some(query) = self.asked.remove(&packet.id) {
            out.send(query.spelled(packet.caps).reply(packet.kind));
        }
    }
}
