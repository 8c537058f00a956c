//! A network with one guard in it, in simulated time.
//!
//! The guard sees a packet when it is sent, as it does on `lo`, and before its receiver has a say. It is built like the
//! kernel's: real flow lines, a real bucket, a clock that moves in coarse steps.

use std::{
    boxed::Box,
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    vec::Vec,
};

use super::{KEY, RULES};
use crate::{
    abi::flow_line,
    flow::{FlowLine, Place, Sighting},
    judge::{Endpoint, Evidence, Hop, KeyBucket, Note, Ruling},
    key::Secret,
    time::{Ticks, ticks_of_ms},
};

/// Nanoseconds in a microsecond, a millisecond, a second.
pub(super) const US: u64 = 1_000;
pub(super) const MS: u64 = 1_000 * US;
pub(super) const S: u64 = 1_000 * MS;

/// The agent's `RAPID_MS`.
const RAPID_TICKS: u32 = ticks_of_ms(100);
/// From the sender's call to the receiver's queue.
const WIRE_NS: u64 = 2 * US;
/// Short of the wrap of the ticks, so that every run goes through it.
const BOOT_NS: u64 = ((u32::MAX as u64) << Ticks::SHIFT) - 3 * S;
const SECRET: Secret = Secret([
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0x2545_f491,
]);

/// One end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Socket {
    pub(super) address: u16,
    pub(super) port: u16,
}

/// The socket of a server.
pub(super) const fn at(address: u16, port: u16) -> Socket {
    Socket { address, port }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Query,
    /// NOERROR or NXDOMAIN.
    Answer,
    /// SERVFAIL or REFUSED.
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packet {
    pub(super) from: Socket,
    pub(super) to: Socket,
    pub(super) id: u16,
    pub(super) kind: Kind,
    /// The servers that this query, and the queries that made their receivers send it, have been to: a bit each.
    pub(super) path: u64,
}

impl Packet {
    pub(super) const fn reply(self, kind: Kind) -> Self {
        Self {
            from: self.to,
            to: self.from,
            kind,
            ..self
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(Packet),
    /// A timer of the node that owns the socket.
    Wake(Socket, u64),
}

/// What a node does when a packet or a timer reaches it.
pub(super) trait Node {
    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>);

    fn wake(&mut self, _token: u64, _out: &mut Outbox<'_>) {}

    /// Nanoseconds it takes over one packet; the next one waits.
    fn service_ns(&self) -> u64 {
        7 * US
    }

    /// Whether what it sends is a query of its own and no forwarding.
    fn is_client(&self) -> bool {
        false
    }
}

/// What a node may do while it handles something.
pub(super) struct Outbox<'w> {
    node: usize,
    pub(super) now: u64,
    random: &'w mut Random,
    owners: &'w mut HashMap<Socket, usize>,
    packets: Vec<Packet>,
    timers: Vec<(u64, Socket, u64)>,
}

impl Outbox<'_> {
    pub(super) fn send(&mut self, packet: Packet) {
        self.packets.push(packet);
    }

    /// A socket that nobody has had yet.
    pub(super) fn fresh_socket(&mut self, address: u16) -> Socket {
        loop {
            let socket = at(address, 1_024 + self.random.below(64_512) as u16);
            if let std::collections::hash_map::Entry::Vacant(entry) = self.owners.entry(socket) {
                entry.insert(self.node);
                return socket;
            }
        }
    }

    pub(super) fn fresh_id(&mut self) -> u16 {
        self.random.below(65_536) as u16
    }

    /// Wakes this node after `delay_ns`.
    pub(super) fn timer(&mut self, delay_ns: u64, socket: Socket, token: u64) {
        self.timers.push((self.now + delay_ns, socket, token));
    }
}

/// splitmix64: a seed is a run.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) const fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What the guard does with a held query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enforce {
    Drop,
    Answer,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Rulings that opened a breaker.
    pub(super) trips: Vec<Ruling>,
    pub(super) releases: u32,
    /// Queries that the guard saw.
    pub(super) queries: u32,
    /// Queries that came to a server which they had already been to, before the first trip.
    pub(super) recirculated: u32,
    pub(super) held: u32,
    /// Answers that reached a client.
    pub(super) resolved: u32,
}

pub(super) struct World {
    now: u64,
    sequence: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    nodes: Vec<Box<dyn Node>>,
    busy_until: Vec<u64>,
    owners: HashMap<Socket, usize>,
    random: Random,
    servers: Vec<Socket>,
    lines: BTreeMap<u32, FlowLine>,
    pub(super) bucket: KeyBucket,
    pub(super) tally: Tally,
    /// Whether everything is on one host, and the guard on its `lo`.
    pub(super) same_host: bool,
    /// Nanoseconds in a step of the guard's clock: 4 ms at HZ=250.
    pub(super) clock_ns: u64,
    /// Interfaces that a packet passes on its way.
    pub(super) places: u32,
    pub(super) enforce: Enforce,
    /// Addresses between which the guard sees nothing.
    pub(super) unseen: Vec<(u16, u16)>,
}

impl World {
    /// One host.
    pub(super) fn on_lo(seed: u64) -> Self {
        Self {
            now: 0,
            sequence: 0,
            events: BinaryHeap::new(),
            nodes: Vec::new(),
            busy_until: Vec::new(),
            owners: HashMap::new(),
            random: Random(seed),
            servers: Vec::new(),
            lines: BTreeMap::new(),
            bucket: KeyBucket::default(),
            tally: Tally::default(),
            same_host: true,
            clock_ns: 4 * MS,
            places: 1,
            enforce: Enforce::Drop,
            unseen: Vec::new(),
        }
    }

    /// Several hosts, the guard on an interface between them.
    pub(super) fn on_veth(seed: u64) -> Self {
        Self {
            same_host: false,
            ..Self::on_lo(seed)
        }
    }

    pub(super) fn random(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// Puts a node on the network, listening on these sockets.
    pub(super) fn add(&mut self, node: impl Node + 'static, sockets: &[Socket]) {
        self.nodes.push(Box::new(node));
        self.busy_until.push(0);
        for socket in sockets {
            self.owners.insert(*socket, self.nodes.len() - 1);
        }
    }

    /// Wakes the node that owns the socket at a moment.
    pub(super) fn wake_at(&mut self, at_ns: u64, socket: Socket, token: u64) {
        self.schedule(at_ns, Event::Wake(socket, token));
    }

    /// Runs until the moment, or until the guard has seen `most` queries.
    pub(super) fn run(&mut self, until_ns: u64, most: u32) {
        while let Some(Reverse((at_ns, _, _))) = self.events.peek() {
            if *at_ns > until_ns || self.tally.queries >= most {
                break;
            }
            let Some(Reverse((at_ns, _, event))) = self.events.pop() else {
                break;
            };
            self.now = at_ns;
            self.handle(event);
        }
        if self.tally.queries < most {
            self.now = until_ns;
        }
    }

    /// Runs until a breaker opens, or until the moment or the count; says which evidence it was.
    pub(super) fn run_until_trip(&mut self, until_ns: u64, most: u32) -> Option<Evidence> {
        while self.tally.trips.is_empty() && self.tally.queries < most {
            let Some(Reverse((at_ns, _, event))) = self.events.pop() else {
                break;
            };
            if at_ns > until_ns {
                break;
            }
            self.now = at_ns;
            self.handle(event);
        }
        self.tally.trips.first().map(|trip| trip.evidence)
    }

    fn schedule(&mut self, at_ns: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at_ns, self.sequence, event)));
    }

    fn handle(&mut self, event: Event) {
        let socket = match event {
            Event::Arrive(packet) => packet.to,
            Event::Wake(socket, _) => socket,
        };
        let Some(&node) = self.owners.get(&socket) else { return };
        let mut out = Outbox {
            node,
            now: self.now,
            random: &mut self.random,
            owners: &mut self.owners,
            packets: Vec::new(),
            timers: Vec::new(),
        };
        match event {
            Event::Arrive(packet) => self.nodes[node].receive(packet, &mut out),
            Event::Wake(_, token) => self.nodes[node].wake(token, &mut out),
        }
        let Outbox { packets, timers, .. } = out;
        for (at_ns, socket, token) in timers {
            self.schedule(at_ns, Event::Wake(socket, token));
        }
        for packet in packets {
            self.transmit(packet);
        }
    }

    /// Puts a packet on the wire, unless the guard keeps it.
    fn transmit(&mut self, packet: Packet) {
        let ends = (packet.from.address, packet.to.address);
        let seen = !self.unseen.iter().any(|&(a, b)| ends == (a, b) || ends == (b, a));
        if seen && self.is_held(packet) {
            self.tally.held += 1;
            if self.enforce == Enforce::Answer {
                self.deliver(packet.reply(Kind::Error));
            }
        } else if packet.kind == Kind::Query {
            let here = self.bit(packet.to);
            if seen && packet.path & here != 0 {
                self.tally.recirculated += u32::from(self.tally.trips.is_empty());
            }
            self.deliver(Packet {
                path: packet.path | here,
                ..packet
            });
        } else {
            self.deliver(packet);
        }
    }

    fn bit(&mut self, server: Socket) -> u64 {
        let known = self.servers.iter().position(|socket| *socket == server);
        let index = known.unwrap_or_else(|| {
            self.servers.push(server);
            self.servers.len() - 1
        });
        1 << index
    }

    /// One core works for each node: whatever comes while it is busy waits in its socket.
    fn deliver(&mut self, packet: Packet) {
        let Some(&node) = self.owners.get(&packet.to) else {
            return;
        };
        if self.nodes[node].is_client() && packet.kind == Kind::Answer {
            self.tally.resolved += 1;
        }
        let start = self.busy_until[node].max(self.now + WIRE_NS);
        let done = start + self.nodes[node].service_ns();
        self.busy_until[node] = done;
        self.schedule(done, Event::Arrive(packet));
    }

    /// The door: what `guard-ebpf` does with a packet, for every interface that it crosses.
    fn is_held(&mut self, packet: Packet) -> bool {
        let now = Ticks::from_ns(BOOT_NS + self.now / self.clock_ns * self.clock_ns);
        let (client, server) = match packet.kind {
            Kind::Query => (packet.from, packet.to),
            Kind::Answer | Kind::Error => (packet.to, packet.from),
        };
        let ends = u64::from(client.address) << 48
            | u64::from(client.port) << 32
            | u64::from(server.address) << 16
            | u64::from(server.port);
        let digest = SECRET.mix(ends ^ SECRET.0[0], u64::from(packet.id) ^ SECRET.0[1]);
        let line = self.lines.entry(flow_line(digest)).or_default();
        match packet.kind {
            Kind::Query => {}
            Kind::Answer => {
                let asked = line.settle(digest as u32);
                if let Some(ruling) = self.bucket.answered(KEY, asked, now, &RULES) {
                    assert_eq!(ruling.note, Note::Release);
                    self.tally.releases += 1;
                }
                return false;
            }
            Kind::Error => {
                line.settle(digest as u32);
                self.bucket.failed(KEY);
                return false;
            }
        }
        self.tally.queries += 1;
        for place in 0..self.places {
            let line = self.lines.entry(flow_line(digest)).or_default();
            let sighting = line.sight(digest as u32, Place::new(place + 2, false), now, RAPID_TICKS);
            let ruling = self.judge(client, server, packet.id, sighting, now);
            if ruling.note == Note::Trip {
                self.tally.trips.push(ruling);
            }
            if ruling.held {
                return true;
            }
        }
        false
    }

    fn judge(&mut self, client: Socket, server: Socket, id: u16, sighting: Sighting, now: Ticks) -> Ruling {
        let end = |socket: Socket| Endpoint {
            address: SECRET.mix(u64::from(socket.address) ^ SECRET.0[2], SECRET.0[1]) as u16,
            port: socket.port,
        };
        let hop = Hop {
            client: end(client),
            server: end(server),
            id,
            same_host: self.same_host,
            egress: false,
            sighting,
        };
        let ruling = self
            .bucket
            .query(KEY, &hop, now, &RULES)
            .expect("one key alone has a slot");
        assert!(
            !ruling.held || self.is_open(),
            "what is held is held by an open breaker"
        );
        ruling
    }

    fn is_open(&self) -> bool {
        self.bucket.state(KEY).is_some_and(crate::judge::KeyState::is_open)
    }
}
