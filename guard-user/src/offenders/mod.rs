//! Who asks most, and what for: zones, clients and keys, of all queries and of those that each budget sheds.
//!
//! Made of the samples that the kernel shows, each of which stands for a number of queries. Memory is bounded whatever
//! they say, and what is old fades: all of it is about the last ten seconds or so. Time is passed in, as nanoseconds of
//! the monotonic clock.

mod heavy;
mod zones;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use guard_common::{
    address::Address,
    remedy::{Reason, Shed},
    sample::{Kind, Sample},
};

use self::{
    heavy::{FADE_NS, Heavy, Weight},
    zones::Zones,
};
use crate::{
    name::{self, Name},
    snapshot::{Standing, Standings},
};

/// What each table of all queries has room for.
const ROOM: usize = 512;
/// What each table of the queries that one budget sheds has room for: each has at least 1 % of them to count.
const SHED_ROOM: usize = 128;
/// Budgets and rules that are looked at apart, each on each interface: for those that shed at the same time.
const MAX_BOARDS: usize = 8;
/// Nanoseconds without a sample after which the next one is about another storm: 2 s.
pub(crate) const PAUSE_NS: u64 = 2_000_000_000;

/// What sheds queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Shedder {
    /// A budget of the configuration, by its place there.
    Budget(usize),
    /// The link-local budget of an interface, by its index.
    Link(u32),
    /// A rule of hygiene.
    Rule(Rule),
}

/// A rule of hygiene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// DNS leaves only to these.
    Resolvers,
    /// DNS leaves only from these.
    Sources,
    /// Only these may ask for recursion.
    Recursion,
}

/// The boards.
#[derive(Debug)]
pub(crate) struct Offenders {
    all: Board,
    shed: HashMap<Shedder, Board>,
    /// The budget that each row of the policy belongs to.
    rows: Vec<usize>,
}

/// Who stands where.
#[derive(Debug)]
pub(crate) struct Board {
    zones: Zones,
    clients: Heavy<IpAddr>,
    /// Names in wire form with the QTYPE behind them.
    keys: Heavy<Arc<[u8]>>,
    devices: Heavy<u32>,
    samples: u32,
    since_ns: u64,
    latest_ns: u64,
}

impl Offenders {
    /// Nobody so far. `rows` has for each row of the policy the place of its budget in the configuration.
    pub(crate) fn new(rows: Vec<usize>) -> Self {
        Self {
            all: Board::new(ROOM),
            shed: HashMap::new(),
            rows,
        }
    }

    /// Takes over what is known, but for what budgets shed: their rows mean something else now.
    pub(crate) fn inherit(&mut self, before: &mut Self) {
        self.all = std::mem::replace(&mut before.all, Board::new(ROOM));
        self.shed = std::mem::take(&mut before.shed);
        self.shed.retain(|shedder, _| !matches!(shedder, Shedder::Budget(_)));
    }

    /// Takes in a sample.
    pub(crate) fn on_sample(&mut self, sample: &Sample, now_ns: u64) {
        match Kind::from_u8(sample.kind) {
            Kind::Query => self.all.add(sample, now_ns),
            Kind::Shed => {
                let Some(shedder) = self.shedder(sample) else { return };
                if self.shed.len() >= MAX_BOARDS && !self.shed.contains_key(&shedder) {
                    let oldest = self
                        .shed
                        .iter()
                        .min_by_key(|(shedder, board)| (board.latest_ns, **shedder));
                    if let Some(oldest) = oldest.map(|(shedder, _)| *shedder) {
                        self.shed.remove(&oldest);
                    }
                }
                let board = self.shed.entry(shedder).or_insert_with(|| Board::new(SHED_ROOM));
                if now_ns.saturating_sub(board.latest_ns) > PAUSE_NS {
                    *board = Board::new(SHED_ROOM);
                }
                board.add(sample, now_ns);
            }
        }
    }

    /// Frees the memory of storms that are over. To be called about once a second.
    pub(crate) fn tick(&mut self, now_ns: u64) {
        self.shed
            .retain(|_, board| now_ns.saturating_sub(board.latest_ns) <= 2 * PAUSE_NS);
    }

    /// The board of all queries.
    pub(crate) const fn all(&self) -> &Board {
        &self.all
    }

    /// The board of the queries that a budget or a rule sheds, if there are some.
    pub(crate) fn shed(&self, shedder: Shedder) -> Option<&Board> {
        self.shed.get(&shedder)
    }

    fn shedder(&self, sample: &Sample) -> Option<Shedder> {
        if sample.row != Shed::NO_ROW {
            return self.rows.get(sample.row as usize).copied().map(Shedder::Budget);
        }
        match Reason::from_u8(sample.reason) {
            Reason::Repeat | Reason::Share | Reason::Exhausted => Some(Shedder::Link(sample.ifindex)),
            Reason::Resolver => Some(Shedder::Rule(Rule::Resolvers)),
            Reason::Source => Some(Shedder::Rule(Rule::Sources)),
            Reason::Recursion => Some(Shedder::Rule(Rule::Recursion)),
            Reason::Loop | Reason::Untrusted | Reason::Silenced | Reason::Unanswerable | Reason::Budget => None,
        }
    }
}

impl Board {
    fn new(room: usize) -> Self {
        Self {
            zones: Zones::new(room),
            clients: Heavy::new(room),
            keys: Heavy::new(room),
            devices: Heavy::new(room.min(32)),
            samples: 0,
            since_ns: 0,
            latest_ns: 0,
        }
    }

    /// Samples so far.
    pub(crate) const fn samples(&self) -> u32 {
        self.samples
    }

    /// The interface that most of it was seen on.
    pub(crate) fn ifindex(&self, now_ns: u64) -> Option<u32> {
        self.devices.heaviest(now_ns).first().map(|weight| *weight.item)
    }

    /// The first `most` of the zones, of the clients, and of the keys.
    pub(crate) fn standings(&self, most: usize, now_ns: u64) -> Standings {
        let rate = self.rate(now_ns);
        let zones = self.zones.named(now_ns).into_iter().map(|zone| Standing {
            name: name::text(&zone.suffix),
            qtype: String::new(),
            per_second: zone.count * rate,
            error_per_second: zone.error * rate,
            share: zone.share.clamp(0.0, 1.0),
            share_error: zone.share_error.clamp(0.0, 1.0),
        });
        let clients = self.clients.heaviest(now_ns);
        let clients = clients
            .iter()
            .map(|client| standing(client, client.item.to_string(), String::new(), rate));
        let keys = self.keys.heaviest(now_ns);
        let keys = keys.iter().map(|key| {
            let (name, qtype) = read_key(key.item);
            standing(key, name, qtype, rate)
        });
        Standings {
            queries_per_second: self.clients.total(now_ns) * rate,
            zones: zones.take(most).collect(),
            clients: clients.take(most).collect(),
            keys: keys.take(most).collect(),
        }
    }

    fn add(&mut self, sample: &Sample, now_ns: u64) {
        if self.samples == 0 {
            self.since_ns = now_ns;
        }
        self.latest_ns = self.latest_ns.max(now_ns);
        self.samples = self.samples.saturating_add(1);
        let weight = sample.weight;
        let client = client(sample);
        self.clients.add(&client, weight, now_ns, |client| *client);
        self.devices.add(&sample.ifindex, weight, now_ns, |device| *device);
        // A name that is none must not keep the rest from being counted.
        if let Some(name) = Name::read(sample.wire_name()) {
            self.zones.add(&name, weight, now_ns);
            let key = [name.wire(), &sample.qtype.to_be_bytes()].concat();
            self.keys.add(&*key, weight, now_ns, |key| Arc::from(key));
        }
    }

    /// What turns a count that fades into one per second. In the first second it is taken for a whole one.
    fn rate(&self, now_ns: u64) -> f64 {
        let age = now_ns.saturating_sub(self.since_ns).max(1_000_000_000) as f64;
        let fade = FADE_NS as f64;
        1e9 / (fade * (1.0 - (-age / fade).exp()))
    }
}

/// Who asks in a sample.
pub(crate) fn client(sample: &Sample) -> IpAddr {
    address(sample.client)
}

/// Who is asked in a sample.
pub(crate) fn server(sample: &Sample) -> IpAddr {
    address(sample.server)
}

/// An address as the kernel has it.
fn address(words: [u32; 4]) -> IpAddr {
    Ipv6Addr::from(Address(words).octets()).to_canonical()
}

fn standing<K>(weight: &Weight<'_, K, ()>, name: String, qtype: String, rate: f64) -> Standing {
    Standing {
        name,
        qtype,
        per_second: weight.count * rate,
        error_per_second: weight.error * rate,
        share: weight.share,
        share_error: weight.share_error.min(1.0),
    }
}

fn read_key(key: &[u8]) -> (String, String) {
    let (name, qtype) = key.split_last_chunk::<2>().unwrap_or((key, &[0, 0]));
    (name::text(name), name::qtype(u16::from_be_bytes(*qtype)).into_owned())
}

#[cfg(test)]
pub(crate) mod tests;
