//! A host's resolver that answers some names itself and forwards the others.

use crate::{
    network::{Node, Outbox},
    nodes::{Naive, Upstream},
    packet::{Kind, Packet},
};

/// Names below a number are its own, and its own server has them; what else is asked goes on.
pub struct Router {
    own_below: u16,
    own: Upstream,
    forwards: Naive,
}

impl Router {
    /// One whose own names are those with a number below this.
    pub const fn new(own_below: u16, own: Upstream, forwards: Naive) -> Self {
        Self {
            own_below,
            own,
            forwards,
        }
    }
}

/// Timers of its own server are told from those of its forwarder by this bit.
const OWN: u64 = 1 << 63;

impl Node for Router {
    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        if packet.kind == Kind::Query && packet.name < self.own_below {
            out.as_owner(OWN, |out| self.own.receive(packet, out));
        } else {
            self.forwards.receive(packet, out);
        }
    }

    fn wake(&mut self, token: u64, out: &mut Outbox<'_>) {
        if token & OWN == 0 {
            self.forwards.wake(token, out);
        } else {
            self.own.wake(token & !OWN, out);
        }
    }
}
