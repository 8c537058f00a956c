//! What the agent knows of open breakers, from the kernel's events.
//!
//! The kernel judges; this only remembers, in bounded memory: which servers a suspect key was seen going to, so that a
//! trip can name the hops of its loop, and what each open breaker has held. Time is passed in, as nanoseconds of the
//! monotonic clock.

mod sentence;
mod top;

use std::{
    collections::HashMap,
    net::{Ipv6Addr, SocketAddr},
};

use guard_common::{
    address::Address,
    event::Event as KernelEvent,
    judge::{Evidence, Note},
    key::Key,
    remedy::Verdict,
    time::{Ticks, ms_of_ticks},
};

use self::top::{MAX_LABEL_LEN, Top};
use crate::{
    attachment::Hook,
    events::{Breaker, Event, PROVEN, Packet, SUSPECTED},
    name,
    snapshot::{Held, Open, OpenLoop},
};

/// Suspect keys that are remembered.
const MAX_SUSPECTS: usize = 256;
/// Open breakers that are remembered.
const MAX_LOOPS: usize = 1_024;
/// Servers that are remembered for a key.
const MAX_SERVERS: usize = 8;
/// Nanoseconds after which a server that a suspect key went to no longer counts: 10 s, as in the judge.
const FORGET_NS: u64 = 10_000_000_000;
/// Nanoseconds after the end of a hold at which nobody is expected to ask again: 10 s.
const GRACE_NS: u64 = 10_000_000_000;

/// The open breakers, and the keys that may become some.
#[derive(Debug)]
pub(crate) struct Loops {
    suspects: HashMap<u64, Vec<Server>>,
    open: HashMap<u64, Loop>,
    /// Keys that the operator has allowed.
    allowed: Vec<Key>,
    top: Top,
}

/// A server that a suspect key went to.
#[derive(Clone, Copy, Debug)]
struct Server {
    address: SocketAddr,
    seen_ns: u64,
}

/// A breaker that is open.
#[derive(Debug)]
struct Loop {
    name: String,
    qtype: String,
    qclass: String,
    device: String,
    hook: Hook,
    evidence: Evidence,
    servers: Vec<SocketAddr>,
    since_ns: u64,
    until_ns: u64,
    level: u32,
    held: Tally,
}

/// Queries held since a breaker opened. The kernel counts from zero in each hold, and is asked only now and then: what
/// is known is a lower bound that never shrinks.
#[derive(Debug, Default)]
struct Tally {
    total: u64,
    /// What the present hold was last seen to have held.
    in_hold: u32,
    seen_ns: u64,
}

impl Loops {
    /// Nothing known; `top` looped names will have a series of their own in the metrics.
    pub(crate) fn new(top: usize) -> Self {
        Self {
            suspects: HashMap::new(),
            open: HashMap::new(),
            allowed: Vec::new(),
            top: Top::new(top),
        }
    }

    /// Takes in an event of the kernel, seen at a hook of a device. Returns what there is to tell.
    pub(crate) fn on_event(&mut self, event: &KernelEvent, device: &str, hook: Hook) -> Option<Event> {
        match Note::from_u8(event.note) {
            Note::None => None,
            Note::Suspect => {
                self.suspect(event);
                None
            }
            Note::Trip => Some(Event::Trip(self.open(event, device, hook))),
            Note::Extend => Some(Event::Extend(self.extend(event, device, hook))),
            Note::Release => Some(Event::Release(self.release(event, device, hook))),
        }
    }

    /// Takes in what a breaker has held in its present hold, as the kernel's table of keys says now.
    pub(crate) fn on_held(&mut self, key: Key, held: u32, now_ns: u64) {
        if let Some(found) = self.open.get_mut(&key.0) {
            found.count(held, now_ns, &mut self.top);
        }
    }

    /// Forgets the breakers whose hold ended some time ago without anyone asking again, and returns what there is to
    /// tell of them. To be called about once a second.
    pub(crate) fn tick(&mut self, now_ns: u64) -> Vec<Event> {
        self.suspects.retain(|_, servers| {
            servers
                .iter()
                .any(|server| now_ns.saturating_sub(server.seen_ns) <= FORGET_NS)
        });
        let over = self
            .open
            .extract_if(|_, found| now_ns > found.until_ns.saturating_add(GRACE_NS));
        let mut expired: Vec<_> = over.collect();
        expired.sort_by_key(|(key, found)| (found.until_ns, *key));
        expired
            .into_iter()
            .map(|(key, found)| {
                let reason = sentence::expire(&found.name, &found.qtype, found.held.total);
                Event::Expire(found.breaker(key, None, now_ns, reason))
            })
            .collect()
    }

    /// Forgets a breaker that the operator has closed, and returns what there is to tell.
    pub(crate) fn forget(&mut self, key: Key, by: &str, now_ns: u64) -> Option<Event> {
        let found = self.open.remove(&key.0)?;
        let open_ms = now_ns.saturating_sub(found.since_ns) / 1_000_000;
        let reason = sentence::released_by(&found.name, &found.qtype, open_ms, found.held.total, by);
        Some(Event::Release(found.breaker(key.0, None, now_ns, reason)))
    }

    /// These keys go on because they are allowed.
    pub(crate) fn allow(&mut self, keys: Vec<Key>) {
        self.allowed = keys;
    }

    /// Gives so many looped names a series of their own from now on.
    pub(crate) fn set_top(&mut self, top: usize) {
        self.top.resize(top);
    }

    /// The keys of the open breakers: those to ask the kernel's table about.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.open.keys().copied().map(Key)
    }

    /// The open breakers, the ones that hold most first.
    pub(crate) fn rows(&self) -> Vec<OpenLoop> {
        let mut rows: Vec<_> = self.open.iter().map(|(key, found)| found.row(*key)).collect();
        rows.sort_by(|one, other| other.held.cmp(&one.held).then_with(|| one.key.cmp(&other.key)));
        rows
    }

    /// The open breakers by name, as they have series in the metrics. Those that opened first come first: a name keeps its
    /// series for as long as its breaker is open, whatever opens meanwhile.
    pub(crate) fn open_by_name(&self) -> Open {
        let mut found: Vec<_> = self.open.iter().collect();
        found.sort_by_key(|(key, found)| (found.since_ns, **key));
        let mut open = Open::default();
        for (_, found) in found {
            let same = |(name, qtype, _): &&mut (String, String, u64)| *name == found.name && *qtype == found.qtype;
            if let Some((.., breakers)) = open.named.iter_mut().find(same) {
                *breakers += 1;
            } else if open.named.len() < self.top.size() && found.name.len() <= MAX_LABEL_LEN {
                open.named.push((found.name.clone(), found.qtype.clone(), 1));
            } else {
                open.other += 1;
            }
        }
        open
    }

    /// The queries that were held, by name.
    pub(crate) fn held(&self) -> Held {
        self.top.held()
    }

    fn suspect(&mut self, event: &KernelEvent) {
        if self.suspects.len() >= MAX_SUSPECTS && !self.suspects.contains_key(&event.key) {
            let last_seen = |servers: &[Server]| servers.iter().map(|server| server.seen_ns).max();
            let oldest = self
                .suspects
                .iter()
                .min_by_key(|(key, servers)| (last_seen(servers), **key));
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.suspects.remove(&oldest);
            }
        }
        let servers = self.suspects.entry(event.key).or_default();
        let address = destination(event);
        servers.retain(|server| event.at_ns.saturating_sub(server.seen_ns) <= FORGET_NS);
        if let Some(server) = servers.iter_mut().find(|server| server.address == address) {
            server.seen_ns = event.at_ns;
        } else if servers.len() < MAX_SERVERS {
            servers.push(Server {
                address,
                seen_ns: event.at_ns,
            });
        }
    }

    fn open(&mut self, event: &KernelEvent, device: &str, hook: Hook) -> Breaker {
        let suspects = self.suspects.remove(&event.key).unwrap_or_default();
        let fresh = suspects
            .iter()
            .filter(|server| event.at_ns.saturating_sub(server.seen_ns) <= FORGET_NS);
        let servers = fresh.map(|server| server.address).collect();
        let why = sentence::Why::of(event, self.allowed.contains(&Key(event.key)));
        let found = self.insert(event, Loop::new(event, device, hook, servers));
        let reason = sentence::trip(&found.name, &found.qtype, &found.servers, &why);
        found.breaker(event.key, Some(packet(event)), event.at_ns, reason)
    }

    fn extend(&mut self, event: &KernelEvent, device: &str, hook: Hook) -> Breaker {
        // A breaker that is not known was forgotten, or opened before the agent was there.
        let found = self.open.remove(&event.key);
        let mut found = found.unwrap_or_else(|| Loop::new(event, device, hook, Vec::new()));
        found.until_ns = end_of_hold(event);
        found.level += 1;
        found.learn(Evidence::from_u8(event.evidence));
        found.add_server(destination(event));
        let found = self.insert(event, found);
        let reason = sentence::extend(&found.name, &found.qtype, &found.servers, ms_of_ticks(event.hold_ticks));
        found.breaker(event.key, Some(packet(event)), event.at_ns, reason)
    }

    fn release(&mut self, event: &KernelEvent, device: &str, hook: Hook) -> Breaker {
        let found = self.open.remove(&event.key);
        let mut found = found.unwrap_or_else(|| Loop::new(event, device, hook, Vec::new()));
        found.count(event.held, event.at_ns, &mut self.top);
        let open_ms = event.at_ns.saturating_sub(found.since_ns) / 1_000_000;
        let reason = sentence::release(&found.name, &found.qtype, open_ms, found.held.total);
        found.breaker(event.key, Some(packet(event)), event.at_ns, reason)
    }

    /// Puts a breaker in its place, in that of the one whose hold ended first if there are too many, and counts what
    /// the event says it has held.
    fn insert(&mut self, event: &KernelEvent, mut found: Loop) -> &Loop {
        if self.open.len() >= MAX_LOOPS && !self.open.contains_key(&event.key) {
            let oldest = self
                .open
                .iter()
                .min_by_key(|(key, found)| (found.until_ns, **key))
                .map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.open.remove(&oldest);
            }
        }
        found.begin_hold(event.held, event.at_ns, &mut self.top);
        self.open.entry(event.key).insert_entry(found).into_mut()
    }
}

impl Loop {
    fn new(event: &KernelEvent, device: &str, hook: Hook, servers: Vec<SocketAddr>) -> Self {
        let mut found = Self {
            name: name::text(event.wire_name()),
            qtype: name::qtype(event.qtype).into_owned(),
            qclass: name::qclass(event.qclass).into_owned(),
            device: device.to_owned(),
            hook,
            evidence: Evidence::from_u8(event.evidence),
            servers,
            since_ns: event.at_ns,
            until_ns: end_of_hold(event),
            level: 0,
            held: Tally::default(),
        };
        if !matches!(Note::from_u8(event.note), Note::Release) {
            found.add_server(destination(event));
        }
        found
    }

    fn add_server(&mut self, server: SocketAddr) {
        if self.servers.len() < MAX_SERVERS && !self.servers.contains(&server) {
            self.servers.push(server);
        }
    }

    /// A proof stays one, whatever is seen later.
    fn learn(&mut self, evidence: Evidence) {
        if self.evidence != Evidence::Mark && evidence != Evidence::None {
            self.evidence = evidence;
        }
    }

    /// A hold has begun; so many queries are held in it.
    fn begin_hold(&mut self, held: u32, at_ns: u64, top: &mut Top) {
        // Whoever looked into the table after it began has seen the new hold already.
        if at_ns >= self.held.seen_ns {
            self.held.in_hold = 0;
        }
        self.count(held.max(self.held.in_hold), at_ns, top);
    }

    /// So many queries are held in the present hold.
    fn count(&mut self, held: u32, now_ns: u64, top: &mut Top) {
        let more = self.held.add(held, now_ns);
        top.add(&self.name, &self.qtype, more, self.held.total, now_ns);
    }

    fn breaker(&self, key: u64, packet: Option<Packet>, now_ns: u64, reason: String) -> Breaker {
        Breaker {
            name: self.name.clone(),
            qtype: self.qtype.clone(),
            qclass: self.qclass.clone(),
            key: format!("{key:016x}"),
            device: self.device.clone(),
            hook: self.hook.word(),
            packet,
            held: self.held.total,
            open_ms: now_ns.saturating_sub(self.since_ns) / 1_000_000,
            servers: self.servers.clone(),
            reason,
            ..Breaker::default()
        }
    }

    fn row(&self, key: u64) -> OpenLoop {
        OpenLoop {
            key,
            name: self.name.clone(),
            qtype: self.qtype.clone(),
            qclass: self.qclass.clone(),
            device: self.device.clone(),
            proof: proof(self.evidence),
            evidence: self.evidence.word(),
            servers: self.servers.clone(),
            since_ns: self.since_ns,
            until_ns: self.until_ns,
            level: self.level,
            held: self.held.total,
        }
    }
}

impl Tally {
    /// Notes that so many queries are held in the present hold. Returns how many of them are new.
    fn add(&mut self, in_hold: u32, now_ns: u64) -> u64 {
        // Fewer than before: another hold has begun.
        let before = if in_hold < self.in_hold { 0 } else { self.in_hold };
        let more = u64::from(in_hold - before);
        self.in_hold = in_hold;
        self.seen_ns = self.seen_ns.max(now_ns);
        self.total += more;
        more
    }
}

fn packet(event: &KernelEvent) -> Packet {
    let is_trip = matches!(Note::from_u8(event.note), Note::Trip);
    let evidence = Evidence::from_u8(event.evidence);
    Packet {
        proof: proof(evidence),
        evidence: evidence.word(),
        bits: (event.bits != 0).then_some(event.bits),
        rapid: event.rapid != 0,
        recirculated: event.recirculated,
        hops: event.hops,
        cut_ms: is_trip.then(|| ms_of_ticks(event.age_ticks)),
        hold_ms: ms_of_ticks(event.hold_ticks),
        verdict: Verdict::from_u8(event.verdict).word(),
        id: event.id,
        from: socket(event.source, event.source_port),
        to: destination(event),
    }
}

fn proof(evidence: Evidence) -> &'static str {
    if evidence == Evidence::Mark { PROVEN } else { SUSPECTED }
}

fn destination(event: &KernelEvent) -> SocketAddr {
    socket(event.destination, event.destination_port)
}

fn socket(address: [u32; 4], port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(Address(address).octets()).to_canonical(), port)
}

fn end_of_hold(event: &KernelEvent) -> u64 {
    event.at_ns.saturating_add(u64::from(event.hold_ticks) << Ticks::SHIFT)
}

#[cfg(test)]
mod tests;
