//! Forwarders and clients, reduced to what the wire shows of them (measured; `dnsmasq`, `consul` and the rest by their
//! sources).

use std::{collections::HashMap, vec, vec::Vec};

use super::world::{Kind, MS, Node, Outbox, Packet, S, Socket, US};

/// dnsmasq 2.85 to 2.93: joins equal queries that it is waiting for. A repeat from a source it knows goes on at once, one
/// from a new source if the first is 2 s old; all over one socket and with one ID.
pub(super) struct Dnsmasq {
    pub(super) upstream: Socket,
    /// Nanoseconds for one packet.
    pub(super) service_ns: u64,
    /// The address of its host.
    pub(super) address: u16,
    pending: Option<Pending>,
}

struct Pending {
    since: u64,
    socket: Socket,
    id: u16,
    sources: Vec<Packet>,
}

/// `FTABSIZ`: sources that wait for one query.
const MAX_SOURCES: usize = 150;

impl Dnsmasq {
    pub(super) const fn new(address: u16, upstream: Socket) -> Self {
        Self {
            upstream,
            service_ns: 7 * US,
            address,
            pending: None,
        }
    }
}

impl Node for Dnsmasq {
    fn service_ns(&self) -> u64 {
        self.service_ns
    }

    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        if packet.kind != Kind::Query {
            let Some(pending) = self.pending.take() else { return };
            if pending.socket != packet.to || pending.id != packet.id {
                self.pending = Some(pending);
                return;
            }
            for query in pending.sources {
                out.send(query.reply(packet.kind));
            }
            return;
        }
        let upstream = self.upstream;
        if let Some(pending) = &mut self.pending {
            let known = pending
                .sources
                .iter()
                .any(|query| (query.from, query.id) == (packet.from, packet.id));
            if !known {
                if pending.sources.len() >= MAX_SOURCES {
                    out.send(packet.reply(Kind::Error));
                    return;
                }
                pending.sources.push(packet);
            }
            if known || out.now - pending.since >= 2 * S {
                out.send(Packet {
                    from: pending.socket,
                    to: upstream,
                    id: pending.id,
                    ..packet
                });
            }
            return;
        }
        let (socket, id) = (out.fresh_socket(self.address), out.fresh_id());
        self.pending = Some(Pending {
            since: out.now,
            socket,
            id,
            sources: vec![packet],
        });
        out.send(Packet {
            from: socket,
            to: upstream,
            id,
            ..packet
        });
    }
}

/// consul before 1.19: every query goes on, with its own ID, from a new socket, to one recursor after the other.
pub(super) struct Consul {
    pub(super) recursors: Vec<Socket>,
    pub(super) address: u16,
    asked: HashMap<Socket, (Packet, usize)>,
    tokens: Vec<Socket>,
}

impl Consul {
    pub(super) fn new(address: u16, recursors: &[Socket]) -> Self {
        Self {
            recursors: recursors.to_vec(),
            address,
            asked: HashMap::new(),
            tokens: Vec::new(),
        }
    }

    fn ask(&mut self, query: Packet, recursor: usize, out: &mut Outbox<'_>) {
        let Some(&to) = self.recursors.get(recursor) else {
            out.send(query.reply(Kind::Error));
            return;
        };
        let socket = out.fresh_socket(self.address);
        self.asked.insert(socket, (query, recursor));
        self.tokens.push(socket);
        out.timer(2 * S, socket, self.tokens.len() as u64 - 1);
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
        } else if let Some((query, recursor)) = self.asked.remove(&packet.to) {
            if packet.kind == Kind::Answer {
                out.send(query.reply(Kind::Answer));
            } else {
                self.ask(query, recursor + 1, out);
            }
        }
    }

    fn wake(&mut self, token: u64, out: &mut Outbox<'_>) {
        if let Some((query, recursor)) = self.asked.remove(&self.tokens[token as usize]) {
            self.ask(query, recursor + 1, out);
        }
    }
}

/// dnsdist: every query goes on from the one socket it has, with a new ID.
pub(super) struct Dnsdist {
    pub(super) upstream: Socket,
    pub(super) socket: Socket,
    asked: HashMap<u16, Packet>,
}

impl Dnsdist {
    /// `socket` has to be one that the node is added with.
    pub(super) fn new(socket: Socket, upstream: Socket) -> Self {
        Self {
            upstream,
            socket,
            asked: HashMap::new(),
        }
    }
}

impl Node for Dnsdist {
    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        if packet.kind == Kind::Query {
            let id = out.fresh_id();
            self.asked.insert(id, packet);
            out.send(Packet {
                from: self.socket,
                to: self.upstream,
                id,
                ..packet
            });
        } else if let Some(query) = self.asked.remove(&packet.id) {
            out.send(query.reply(packet.kind));
        }
    }
}

/// A forwarder that does nothing but forward: new socket, new ID, for every query.
pub(super) struct Naive {
    pub(super) upstream: Socket,
    pub(super) address: u16,
    asked: HashMap<Socket, Packet>,
}

impl Naive {
    pub(super) fn new(address: u16, upstream: Socket) -> Self {
        Self {
            upstream,
            address,
            asked: HashMap::new(),
        }
    }
}

impl Node for Naive {
    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        if packet.kind == Kind::Query {
            let socket = out.fresh_socket(self.address);
            self.asked.insert(socket, packet);
            let id = out.fresh_id();
            out.send(Packet {
                from: socket,
                to: self.upstream,
                id,
                ..packet
            });
        } else if let Some(query) = self.asked.remove(&packet.to) {
            out.send(query.reply(packet.kind));
        }
    }
}

/// unbound: joins equal queries, and asks its upstream five times in 2.3 s, each time from a new socket with a new ID.
pub(super) struct Unbound {
    pub(super) upstream: Socket,
    pub(super) address: u16,
    waiting: Vec<Packet>,
    tried: usize,
}

/// Milliseconds between the tries of unbound (`outbound-msg-retry` 5).
const UNBOUND_TRIES_MS: [u64; 4] = [376, 376, 752, 796];

impl Unbound {
    pub(super) const fn new(address: u16, upstream: Socket) -> Self {
        Self {
            upstream,
            address,
            waiting: Vec::new(),
            tried: 0,
        }
    }

    fn ask(&mut self, out: &mut Outbox<'_>) {
        let Some(&query) = self.waiting.first() else { return };
        let (socket, id) = (out.fresh_socket(self.address), out.fresh_id());
        out.send(Packet {
            from: socket,
            to: self.upstream,
            id,
            ..query
        });
        if let Some(wait_ms) = UNBOUND_TRIES_MS.get(self.tried) {
            out.timer(wait_ms * MS, socket, 0);
        }
        self.tried += 1;
    }
}

impl Node for Unbound {
    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        if packet.kind == Kind::Query {
            self.waiting.push(packet);
            if self.tried == 0 {
                self.ask(out);
            }
            return;
        }
        self.tried = 0;
        for query in self.waiting.drain(..) {
            out.send(query.reply(packet.kind));
        }
    }

    fn wake(&mut self, _: u64, out: &mut Outbox<'_>) {
        if self.tried > 0 && !self.waiting.is_empty() {
            self.ask(out);
        }
    }
}

/// A name server.
pub(super) struct Upstream {
    /// What it says, after how long; `None`: it is dead.
    pub(super) says: Option<(Kind, u64)>,
    waiting: Vec<Packet>,
}

impl Upstream {
    pub(super) const DEAD: Self = Self {
        says: None,
        waiting: Vec::new(),
    };

    pub(super) const fn says(kind: Kind, after_ns: u64) -> Self {
        Self {
            says: Some((kind, after_ns)),
            waiting: Vec::new(),
        }
    }
}

impl Node for Upstream {
    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
        if let (Some((_, after_ns)), Kind::Query) = (self.says, packet.kind) {
            self.waiting.push(packet);
            out.timer(after_ns, packet.to, self.waiting.len() as u64 - 1);
        }
    }

    fn wake(&mut self, token: u64, out: &mut Outbox<'_>) {
        if let Some((kind, _)) = self.says {
            out.send(self.waiting[token as usize].reply(kind));
        }
    }
}

/// A stub resolver. Wake it once to make it ask; it asks again when its patience is over.
pub(super) struct Client {
    pub(super) server: Socket,
    pub(super) socket: Socket,
    /// Nanoseconds from each try to the next.
    pub(super) patience_ns: Vec<u64>,
    /// Whether each try has a socket and an ID of its own.
    pub(super) fresh: bool,
    /// Repeats at once after an error, as musl makes them.
    pub(super) error_retries: u32,
    id: Option<u16>,
    tried: usize,
    done: bool,
}

impl Client {
    pub(super) const fn new(socket: Socket, server: Socket, patience_ns: Vec<u64>) -> Self {
        Self {
            server,
            socket,
            patience_ns,
            fresh: false,
            error_retries: 0,
            id: None,
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
        let id = match self.id {
            Some(id) if !self.fresh => id,
            _ => out.fresh_id(),
        };
        self.id = Some(id);
        out.send(Packet {
            from: socket,
            to: self.server,
            id,
            kind: Kind::Query,
            path: 0,
        });
    }
}

impl Node for Client {
    fn is_client(&self) -> bool {
        true
    }

    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>) {
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
            out.timer(patience, self.socket, 0);
        }
        self.tried += 1;
    }
}
