//! The wire, the clock, and who sits at it.
//!
//! The guard sees a packet when it is sent, as it does on `lo`, and before its receiver has a say. A packet that crosses
//! several interfaces of a node is seen at each of them.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
};

use guard_common::case::LOOPBACK_IFINDEX;

use crate::{
    US, frame,
    guard::{Fate, Guard, Trip, Way},
    name::{Caps, Name},
    packet::{Kind, Packet, Socket, at},
    random::Random,
};

/// From the sender's call to the receiver's queue.
const WIRE_NS: u64 = 2 * US;

/// What a node does when a packet or a timer reaches it.
pub trait Node {
    /// A packet has come.
    fn receive(&mut self, packet: Packet, out: &mut Outbox<'_>);

    /// A timer is over.
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
pub struct Outbox<'n> {
    node: usize,
    /// The moment.
    pub now: u64,
    /// Chance.
    pub random: &'n mut Random,
    owners: &'n mut HashMap<Socket, usize>,
    names: &'n [Name],
    packets: Vec<Packet>,
    timers: Vec<(u64, u64)>,
    mangled: &'n mut u64,
}

impl Outbox<'_> {
    /// Sends a packet.
    pub fn send(&mut self, packet: Packet) {
        self.packets.push(packet);
    }

    /// A socket that nobody has.
    pub fn fresh_socket(&mut self, address: u16) -> Socket {
        loop {
            let socket = at(address, 1_024 + self.random.below(64_512) as u16);
            if let std::collections::hash_map::Entry::Vacant(entry) = self.owners.entry(socket) {
                entry.insert(self.node);
                return socket;
            }
        }
    }

    /// A DNS ID.
    pub fn fresh_id(&mut self) -> u16 {
        self.random.below(65_536) as u16
    }

    /// The name spelled at random.
    pub fn random_caps(&mut self, name: u16) -> Caps {
        self.names[usize::from(name)].at_random(self.random)
    }

    /// Wakes this node after `delay_ns`.
    pub fn timer(&mut self, delay_ns: u64, token: u64) {
        self.timers.push((self.now + delay_ns, token));
    }

    /// Lets a part of a node work, whose timers get this bit in their tokens.
    pub fn as_owner(&mut self, bit: u64, work: impl FnOnce(&mut Self)) {
        let before = self.timers.len();
        work(self);
        for (_, token) in &mut self.timers[before..] {
            *token |= bit;
        }
    }

    /// Gives a socket back that will not be used again.
    pub fn close(&mut self, socket: Socket) {
        self.owners.remove(&socket);
    }

    /// A response came that is not spelled as its query was: whoever is strict takes it for a forgery.
    pub fn complain(&mut self) {
        *self.mangled += 1;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(Packet),
    /// A timer of a node.
    Wake(usize, u64),
}

/// What has happened so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Breakers that opened, and the number of the name of each.
    pub trips: Vec<(u16, Trip)>,
    /// Breakers that closed.
    pub releases: u32,
    /// Queries that the guard saw, each once.
    pub queries: u64,
    /// Queries that came to a server which they had already been to, before the first trip.
    pub recirculated: u32,
    /// Queries that the guard kept.
    pub held: u64,
    /// Answers that reached a client.
    pub resolved: u64,
    /// Responses that came to a client which is strict in another spelling than its query's.
    pub mangled: u64,
}

/// Where the guard stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// On the `lo` of a host that has everybody.
    Loopback,
    /// On an interface of a host that has these addresses; the others are elsewhere.
    Host(Vec<u16>),
    /// On so many interfaces of a node that everything passes through.
    Node(u32),
}

/// A network, and the guard in it.
pub struct Network<'g> {
    guard: &'g mut dyn Guard,
    /// What the guard's clock says when this network begins.
    start_ns: u64,
    now: u64,
    sequence: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    nodes: Vec<Box<dyn Node>>,
    busy_until: Vec<u64>,
    owners: HashMap<Socket, usize>,
    names: Vec<Name>,
    /// Chance.
    pub random: Random,
    servers: Vec<Socket>,
    frame: Vec<u8>,
    prefix: [u8; 2],
    /// What has happened so far.
    pub tally: Tally,
    stand: Stand,
    /// Addresses between which the guard sees nothing.
    pub unseen: HashSet<(u16, u16)>,
}

impl<'g> Network<'g> {
    /// An empty network. Its addresses are its own: `number` tells them from those of other networks that the guard has
    /// seen.
    pub fn new(guard: &'g mut dyn Guard, start_ns: u64, stand: Stand, number: u8, seed: u64) -> Self {
        guard.begin(start_ns);
        let prefix = if stand == Stand::Loopback {
            [127, number]
        } else {
            [10, number]
        };
        Self {
            guard,
            start_ns,
            now: 0,
            sequence: 0,
            events: BinaryHeap::new(),
            nodes: Vec::new(),
            busy_until: Vec::new(),
            owners: HashMap::new(),
            names: Vec::new(),
            random: Random(seed),
            servers: Vec::new(),
            frame: Vec::new(),
            prefix,
            tally: Tally::default(),
            stand,
            unseen: HashSet::new(),
        }
    }

    /// Makes a name known; tells its number.
    pub fn name(&mut self, name: Name) -> u16 {
        self.names.push(name);
        (self.names.len() - 1) as u16
    }

    /// Puts a node on the network, listening on these sockets.
    pub fn add(&mut self, node: impl Node + 'static, sockets: &[Socket]) {
        self.nodes.push(Box::new(node));
        self.busy_until.push(0);
        for socket in sockets {
            self.owners.insert(*socket, self.nodes.len() - 1);
        }
    }

    /// Has the node that listens on a socket listen on another one, too.
    pub fn listen_too(&mut self, socket: Socket, other: Socket) {
        if let Some(&node) = self.owners.get(&socket) {
            self.owners.insert(other, node);
        }
    }

    /// Wakes the node that owns the socket at a moment.
    pub fn wake_at(&mut self, at_ns: u64, socket: Socket, token: u64) {
        if let Some(&node) = self.owners.get(&socket) {
            self.schedule(at_ns, Event::Wake(node, token));
        }
    }

    /// Runs until the moment, or until the guard has seen `most` queries.
    pub fn run(&mut self, until_ns: u64, most: u64) {
        self.run_while(until_ns, |tally| tally.queries < most);
    }

    /// Runs until a breaker opens, or until the moment or the count; tells the breaker.
    pub fn run_until_trip(&mut self, until_ns: u64, most: u64) -> Option<Trip> {
        self.run_while(until_ns, |tally| tally.queries < most && tally.trips.is_empty());
        self.tally.trips.first().map(|(_, trip)| *trip)
    }

    fn run_while(&mut self, until_ns: u64, goes_on: impl Fn(&Tally) -> bool) {
        while goes_on(&self.tally) {
            match self.events.peek() {
                Some(Reverse((at_ns, ..))) if *at_ns <= until_ns => {}
                _ => {
                    self.now = until_ns;
                    return;
                }
            }
            let Some(Reverse((at_ns, _, event))) = self.events.pop() else {
                return;
            };
            self.now = at_ns;
            self.guard.wait(self.start_ns + at_ns);
            self.handle(event);
        }
    }

    fn schedule(&mut self, at_ns: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at_ns, self.sequence, event)));
    }

    fn handle(&mut self, event: Event) {
        let node = match event {
            Event::Arrive(packet) => match self.owners.get(&packet.to) {
                Some(&node) => node,
                None => return,
            },
            Event::Wake(node, _) => node,
        };
        let mut out = Outbox {
            node,
            now: self.now,
            random: &mut self.random,
            owners: &mut self.owners,
            names: &self.names,
            packets: Vec::new(),
            timers: Vec::new(),
            mangled: &mut self.tally.mangled,
        };
        match event {
            Event::Arrive(packet) => self.nodes[node].receive(packet, &mut out),
            Event::Wake(_, token) => self.nodes[node].wake(token, &mut out),
        }
        let Outbox { packets, timers, .. } = out;
        for (at_ns, token) in timers {
            self.schedule(at_ns, Event::Wake(node, token));
        }
        for packet in packets {
            self.transmit(packet);
        }
    }

    /// Puts a packet on the wire, unless the guard keeps it.
    fn transmit(&mut self, mut packet: Packet) {
        let ends = (packet.from.address, packet.to.address);
        let passes = match &self.stand {
            // What stays on the host, or does not come to it, is not on its interface.
            Stand::Host(here) => here.contains(&ends.0) != here.contains(&ends.1),
            Stand::Loopback | Stand::Node(_) => true,
        };
        let seen = passes && !self.unseen.contains(&ends) && !self.unseen.contains(&(ends.1, ends.0));
        let mut fate = Fate::Pass;
        if seen {
            fate = self.judge(&mut packet);
        }
        if packet.kind == Kind::Query && fate == Fate::Pass {
            let here = self.bit(packet.to);
            if seen && packet.path & here != 0 {
                self.tally.recirculated += u32::from(self.tally.trips.is_empty());
            }
            packet.path |= here;
        }
        match fate {
            Fate::Pass => self.deliver(packet),
            Fate::Drop => self.tally.held += 1,
            Fate::Answer => {
                self.tally.held += 1;
                self.deliver(packet.reply(Kind::Error));
            }
        }
    }

    /// What the guard does with a packet, at every interface that it crosses.
    fn judge(&mut self, packet: &mut Packet) -> Fate {
        let name = &self.names[usize::from(packet.name)];
        frame::write(&mut self.frame, packet, name, self.prefix);
        self.tally.queries += u64::from(packet.kind == Kind::Query);
        let now_ns = self.start_ns + self.now;
        let (first, count, egress) = match &self.stand {
            Stand::Loopback => (LOOPBACK_IFINDEX, 1, false),
            Stand::Host(here) => (2, 1, here.contains(&packet.from.address)),
            Stand::Node(interfaces) => (2, *interfaces, false),
        };
        for place in 0..count {
            // A response passes them the other way round.
            let place = if packet.kind == Kind::Query {
                place
            } else {
                count - 1 - place
            };
            let way = Way {
                ifindex: first + place,
                egress,
                packets: 1,
            };
            let word = self.guard.pass(&mut self.frame, way, now_ns);
            if let Some(trip) = word.trip {
                self.tally.trips.push((packet.name, trip));
            }
            self.tally.releases += u32::from(word.releases);
            if word.fate != Fate::Pass {
                return word.fate;
            }
        }
        packet.caps = frame::caps(&self.frame, name);
        Fate::Pass
    }

    fn bit(&mut self, server: Socket) -> u64 {
        let known = self.servers.iter().position(|socket| *socket == server);
        let index = known.unwrap_or_else(|| {
            self.servers.push(server);
            self.servers.len() - 1
        });
        1 << (index % 64)
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
}
