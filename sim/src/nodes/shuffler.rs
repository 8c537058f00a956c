//! A forwarder that spells every query at random, as knot-resolver does, unbound with `use-caps-for-id`, and dnsmasq with
//! `--do-0x20-encode`; or one that makes all letters small.

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
    /// Whether it makes all letters small instead.
    lowers: bool,
    asked: Asked<(Packet, Caps)>,
}

impl Shuffler {
    /// One that asks from this address.
    pub fn new(address: u16, upstream: Socket) -> Self {
        Self {
            upstream,
            lowers: false,
            asked: Asked::new(address),
        }
    }

    /// One that makes all letters small.
    pub fn that_lowers(address: u16, upstream: Socket) -> Self {
        Self {
            lowers: true,
            ..Self::new(address, upstream)
        }
    }
}

impl Node for Shuffler {
    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        if packet.kind == Kind::Query {
            let id = out.fresh_id();
            let caps = if self.lowers {
                Caps::default()
            } else {
                out.random_caps(packet.name)
            };
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
