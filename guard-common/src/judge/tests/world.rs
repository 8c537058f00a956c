//! A network with one guard in it, in simulated time.
//!
//! The guard sees a packet when it is sent, as it does on `lo`, and before its receiver has a say. It is built like the
//! kernel's: real flow lines, a real bucket, a clock that moves in coarse steps.

use std::{
    boxed::Box,
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
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
/// Short of the wrap of the ticks, so that every run goes through it.
const BOOT_NS: u64 = ((u32::MAX as u64) << Ticks::SHIFT) - 3 * S;
const SECRET: Secret = Secret([0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0x2545_f491]);

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
}

impl Packet {
    pub(super) const fn reply(self, kind: Kind) -> Self {
        Self { from: self.to, to: self.from, id: self.id, kind }
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
    /// Queries by forwarders to a server that had been asked before, which got through before the first trip.
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
    asked: HashSet<Socket>,
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
            asked: HashSet::new(),
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
        Self { same_host: false, ..Self::on_lo(seed) }
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
            let Some(Reverse((at_ns, _, event))) = self.events.pop() else { break };
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
            let Some(Reverse((at_ns, _, event))) = self.events.pop() else { break };
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
        // Nobody listens any more.
        let Some(&index) = self.owners.get(&socket) else { return };
        // Whoever is at work lets the next one wait in the socket's queue.
        if matches!(event, Event::Arrive(_)) {
            if self.busy_until[index] > self.now {
                let at_ns = self.busy_until[index];
                self.busy_until[index] += self.nodes[index].service_ns();
                // The queue keeps its order: the slot is taken now.
                self.schedule(at_ns, Event::Wake(socket, QUEUED));
                self.queued.entry(index).or_default().push_back(event);
                return;
            }
            self.busy_until[index] = self.now + self.nodes[index].service_ns();
        }
        todo!()
    }
}
