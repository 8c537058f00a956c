//! A stub resolver.

use crate::{
    name::Caps,
    network::{Node, Outbox},
    packet::{Kind, Packet, Socket},
};

/// How a client spells what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spells {
    /// In small letters, as nearly everybody.
    Plainly,
    /// At random, anew each time.
    AtRandom,
    /// Always like this.
    Like(Caps),
}

/// Wake it once to make it ask; it asks again when its patience is over. It takes no response in another spelling than its
/// query's.
pub struct Client {
    server: Socket,
    socket: Socket,
    name: u16,
    /// Nanoseconds from each try to the next.
    patience_ns: Vec<u64>,
    /// Whether each try has a socket and an ID of its own.
    pub fresh: bool,
    /// Repeats at once after an error, as musl makes them.
    pub error_retries: u32,
    /// How it spells the name.
    pub spells: Spells,
    asked: Option<(u16, Caps)>,
    tried: usize,
    done: bool,
}

impl Client {
    /// One that asks for a name.
    pub const fn new(socket: Socket, server: Socket, name: u16, patience_ns: Vec<u64>) -> Self {
        Self {
            server,
            socket,
            name,
            patience_ns,
            fresh: false,
            error_retries: 0,
            spells: Spells::Plainly,
            asked: None,
            tried: 0,
            done: false,
        }
    }

    fn ask(&mut self, out: &mut Outbox<'_>) {
        let socket = if self.fresh && self.tried > 0 {
            out.fresh_socket(self.socket.address)
        } else {
            self.socket
        };
        let (id, caps) = match self.asked {
            Some(asked) if !self.fresh => asked,
            _ => {
                let caps = match self.spells {
                    Spells::Plainly => Caps::default(),
                    Spells::AtRandom => out.random_caps(self.name),
                    Spells::Like(caps) => caps,
                };
                (out.fresh_id(), caps)
            }
        };
        self.asked = Some((id, caps));
        out.send(Packet {
            from: socket,
            to: self.server,
            id,
            kind: Kind::Query,
            name: self.name,
            caps,
            path: 0,
        });
    }
}

impl Node for Client {
    fn is_client(&self) -> bool {
        true
    }

    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        // A response to an earlier try may be in that one's spelling.
        if !self.fresh && self.asked.is_some_and(|(_, caps)| caps != packet.caps) {
            out.complain();
        }
        match packet.kind {
            Kind::Answer => self.done = true,
            Kind::Error if self.error_retries > 0 => {
                self.error_retries -= 1;
                self.ask(out);
            }
            Kind::Error | Kind::Query => {}
        }
    }

    fn wake(&mut self, _: u64, out: &mut Outbox<'_>) {
        if self.done {
            return;
        }
        self.ask(out);
        if let Some(&patience) = self.patience_ns.get(self.tried) {
            out.timer(patience, 0);
        }
        self.tried += 1;
    }
}
