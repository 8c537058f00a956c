//! A name server.

use crate::{
    network::{Node, Outbox},
    packet::{Kind, Packet},
};

/// Says the same to everybody, after the same time, in the spelling that it was asked in.
pub struct Upstream {
    /// What it says, after how many nanoseconds; `None`: it is dead.
    says: Option<(Kind, u64)>,
    waiting: Vec<Packet>,
}

impl Upstream {
    /// It says nothing.
    pub const DEAD: Self = Self {
        says: None,
        waiting: Vec::new(),
    };

    /// It says this, so late.
    pub const fn says(kind: Kind, after_ns: u64) -> Self {
        Self {
            says: Some((kind, after_ns)),
            waiting: Vec::new(),
        }
    }

    /// Whether it says anything.
    pub const fn is_dead(&self) -> bool {
        self.says.is_none()
    }
}

impl Node for Upstream {
    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        if let (Some((_, after_ns)), Kind::Query) = (self.says, packet.kind) {
            self.waiting.push(packet);
            out.timer(after_ns, self.waiting.len() as u64 - 1);
        }
    }

    fn wake(&mut self, token: u64, out: &mut Outbox<'_>) {
        if let Some((kind, _)) = self.says {
            out.send(self.waiting[token as usize].reply(kind));
        }
    }
}
