//! A forwarder that spells every query at random, as knot-resolver does, unbound with `use-caps-for-id`, and dnsmasq with
//! `--do-0x20-encode`.

use crate::{
    name::Caps,
    network::{Node, Outbox},
    nodes::asked::Asked,
    packet::{Kind, Packet, Socket},
};

/// A new socket, a new ID and a new spelling for every query. A response in another spelling is a forgery; one that is
/// good goes back in the spelling of the client.
pub struct Shuffler {
    upstream: Socket,
    asked: Asked<(Packet, Caps)>,
}

impl Shuffler {
    /// One that asks from this address.
    pub fn new(address: u16, upstream: Socket) -> Self {
        Self {
            upstream,
            asked: Asked::new(address),
        }
    }
}

impl Node for Shuffler {
    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        if packet.kind == Kind::Query {
            let (id, caps) = (out.fresh_id(), out.random_caps(packet.name));
            let (socket, _) = self.asked.put(id, (packet, caps), out);
            out.send(Packet {
                from: socket,
                to: self.upstream,
                id,
                caps,
                ..packet
            });
            return;
        }
        let mut forged = false;
        let takes = |(_, caps): &(Packet, Caps)| {
            forged = *caps != packet.caps;
            !forged
        };
        if let Some((query, _)) = self.asked.take(&packet, takes, out) {
            out.send(query.reply(packet.kind));
        } else if forged {
            out.complain();
        }
    }
}
