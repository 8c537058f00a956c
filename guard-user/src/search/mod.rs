//! Search-list walks: queries wasted on names that nobody meant.
//!
//! A resolver with `ndots:5` asks for `www.example.com` below each suffix of its search list before it asks for the
//! name itself: ten queries for one name. Such a walk is told by its shape: one client asks, within seconds, for names
//! that begin with the same labels and end with different suffixes, in the order of the list; the bare name ends it. A
//! name below a suffix that is not followed by a further step was answered: it was meant.
//!
//! Samples may show only some of the steps, so what is counted as wasted is a lower bound. Time is passed in, as
//! nanoseconds of the monotonic clock.

mod sentence;
mod suffixes;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::IpAddr,
};

use guard_common::sample::{Kind, Sample};

use self::suffixes::Split;
pub(crate) use self::suffixes::{Suffixes, search_list};
use crate::{
    events::{Event, SearchWalk},
    name::{self, Name},
    offenders,
};

/// Clients that are remembered.
const MAX_CLIENTS: usize = 1_024;
/// Names that are remembered of a client.
const MAX_NAMES: usize = 16;
/// Suffixes that are told of a client.
const MAX_SUFFIXES: usize = 8;
/// Nanoseconds within which one step of a walk follows another: a resolver waits that long for an answer.
const STEP_NS: u64 = 5_500_000_000;
/// Nanoseconds over which queries are counted: a minute.
const COUNT_NS: u64 = 60_000_000_000;
/// Clients that are told of in that time, the most wasteful first.
const MAX_TOLD: usize = 10;
/// Nanoseconds after which a client that still walks is told of again: an hour.
const AGAIN_NS: u64 = 3_600_000_000_000;
/// Wasted queries in that time that are worth telling.
const MANY: u64 = 50;
/// Wasted queries that are worth telling if they are a good part of all: a fifth.
const SOME: u64 = 20;

/// The clients that walk.
#[derive(Debug)]
pub(crate) struct Search {
    suffixes: Suffixes,
    clients: HashMap<IpAddr, Client>,
    wasted: u64,
    /// When clients were told of in the last minute.
    told: VecDeque<u64>,
}

#[derive(Debug)]
struct Client {
    names: VecDeque<Asked>,
    queries: u64,
    wasted: u64,
    /// What was appended in vain.
    appended: BTreeSet<Vec<u8>>,
    /// The last name that was meant, in presentation form.
    example: String,
    walks_in_cluster: bool,
    /// When it was counted from.
    since_ns: u64,
    told_ns: Option<u64>,
    latest_ns: u64,
}

/// A name below a suffix that was asked for.
#[derive(Debug)]
struct Asked {
    name: Name,
    splits: Vec<Split>,
    /// Queries for it that no further step has followed yet.
    queries: u64,
    at_ns: u64,
}

impl Search {
    /// Takes over what is known of clients.
    pub(crate) fn inherit(&mut self, before: &mut Self) {
        self.clients = std::mem::take(&mut before.clients);
        self.told = std::mem::take(&mut before.told);
        self.wasted = before.wasted;
    }

    /// Nobody so far.
    pub(crate) fn new(suffixes: Suffixes) -> Self {
        Self {
            suffixes,
            clients: HashMap::new(),
            wasted: 0,
            told: VecDeque::new(),
        }
    }

    /// Takes in a sample; only those of all queries count.
    pub(crate) fn on_sample(&mut self, sample: &Sample, now_ns: u64) {
        if Kind::from_u8(sample.kind) != Kind::Query {
            return;
        }
        let Some(name) = Name::read(sample.wire_name()) else {
            return;
        };
        let splits = self.suffixes.splits(&name);
        let address = offenders::client(sample);
        // Whoever asks for nothing below a suffix is not remembered.
        if splits.len() > 1 && !self.clients.contains_key(&address) {
            self.make_room();
            self.clients.insert(address, Client::new(now_ns));
        }
        if let Some(client) = self.clients.get_mut(&address) {
            self.wasted += client.ask(name, splits, sample.weight.into(), now_ns, &self.suffixes);
        }
    }

    /// What there is to tell. To be called about once a second.
    pub(crate) fn tick(&mut self, now_ns: u64) -> Vec<Event> {
        while self
            .told
            .front()
            .is_some_and(|told_ns| now_ns.saturating_sub(*told_ns) >= COUNT_NS)
        {
            self.told.pop_front();
        }
        let due = self.clients.iter().filter(|(_, client)| client.is_due(now_ns));
        let mut due: Vec<_> = due.map(|(address, client)| (client.wasted, *address)).collect();
        due.sort_unstable_by(|one, other| other.cmp(one));
        due.truncate(MAX_TOLD.saturating_sub(self.told.len()));
        self.told.extend(due.iter().map(|_| now_ns));
        let mut told: Vec<_> = self
            .clients
            .iter_mut()
            .filter_map(|(address, client)| {
                let is_told = due.iter().any(|(_, due)| due == address);
                client.tick(*address, is_told, now_ns)
            })
            .collect();
        self.clients
            .retain(|_, client| now_ns.saturating_sub(client.latest_ns) <= COUNT_NS);
        told.sort_by(|one, other| (other.wasted, one.client).cmp(&(one.wasted, other.client)));
        told.into_iter().map(Event::SearchWalk).collect()
    }

    /// Queries wasted so far, by all clients: at least.
    pub(crate) const fn wasted(&self) -> u64 {
        self.wasted
    }

    fn make_room(&mut self) {
        if self.clients.len() < MAX_CLIENTS {
            return;
        }
        let quietest = self
            .clients
            .iter()
            .min_by_key(|(address, client)| (client.latest_ns, **address))
            .map(|(address, _)| *address);
        if let Some(quietest) = quietest {
            self.clients.remove(&quietest);
        }
    }
}

impl Client {
    fn new(now_ns: u64) -> Self {
        Self {
            names: VecDeque::new(),
            queries: 0,
            wasted: 0,
            appended: BTreeSet::new(),
            example: String::new(),
            walks_in_cluster: false,
            since_ns: now_ns,
            told_ns: None,
            latest_ns: now_ns,
        }
    }

    /// Notes that it asks for a name. Returns how many of its queries that shows to be wasted.
    fn ask(&mut self, name: Name, splits: Vec<Split>, queries: u64, now_ns: u64, suffixes: &Suffixes) -> u64 {
        self.latest_ns = now_ns;
        self.queries += queries;
        let mut wasted = 0;
        for asked in &mut self.names {
            if asked.queries == 0 || now_ns.saturating_sub(asked.at_ns) > STEP_NS {
                continue;
            }
            let Some(step) = asked.followed_by(&name, &splits) else {
                continue;
            };
            wasted += std::mem::take(&mut asked.queries);
            let appended = asked.name.suffix(step.labels);
            if self.appended.len() < MAX_SUFFIXES && !self.appended.contains(appended) {
                self.appended.insert(appended.to_vec());
            }
            self.example = name::text(asked.name.stem(step.labels));
            self.walks_in_cluster |= suffixes.is_cluster(step.rank);
        }
        self.wasted += wasted;
        if splits.len() > 1 {
            self.remember(name, splits, queries, now_ns);
        }
        wasted
    }

    fn remember(&mut self, name: Name, splits: Vec<Split>, queries: u64, now_ns: u64) {
        let known = self.names.iter().position(|asked| asked.name == name);
        let mut asked = known.and_then(|at| self.names.remove(at)).unwrap_or(Asked {
            name,
            splits,
            queries: 0,
            at_ns: now_ns,
        });
        if now_ns.saturating_sub(asked.at_ns) > STEP_NS {
            // What came before was answered.
            asked.queries = 0;
        }
        asked.queries += queries;
        asked.at_ns = now_ns;
        if self.names.len() >= MAX_NAMES {
            self.names.pop_front();
        }
        self.names.push_back(asked);
    }

    /// Whether it wastes enough to be told, and was not told lately.
    fn is_due(&self, now_ns: u64) -> bool {
        let is_worth_it = self.wasted >= MANY || (self.wasted >= SOME && self.wasted * 5 >= self.queries);
        let told_ns = self.told_ns;
        is_worth_it && told_ns.is_none_or(|told_ns| now_ns.saturating_sub(told_ns) >= AGAIN_NS)
    }

    fn tick(&mut self, client: IpAddr, is_told: bool, now_ns: u64) -> Option<SearchWalk> {
        let age_ns = now_ns.saturating_sub(self.since_ns);
        let walk = is_told.then(|| {
            let suffixes: Vec<_> = self.appended.iter().map(|wire| name::text(wire)).collect();
            let reason = sentence::walk(&sentence::Walk {
                client,
                wasted: self.wasted,
                queries: self.queries,
                seconds: age_ns.div_ceil(1_000_000_000),
                example: &self.example,
                suffixes: &suffixes,
                is_in_cluster: self.walks_in_cluster,
            });
            SearchWalk {
                client,
                pod: None,
                wasted: self.wasted,
                queries: self.queries,
                suffixes,
                example: self.example.clone(),
                reason,
            }
        });
        if walk.is_some() {
            self.told_ns = Some(now_ns);
        }
        if walk.is_some() || age_ns >= COUNT_NS {
            (self.queries, self.wasted, self.since_ns) = (0, 0, now_ns);
            self.appended.clear();
            self.walks_in_cluster = false;
        }
        walk
    }
}

impl Asked {
    /// The reading of this name of which the other one is a further step: the same first labels, a suffix that comes
    /// later in the list.
    fn followed_by(&self, name: &Name, splits: &[Split]) -> Option<Split> {
        self.splits.iter().copied().find(|step| {
            step.labels > 0
                && splits
                    .iter()
                    .any(|next| next.rank > step.rank && name.stem(next.labels) == self.name.stem(step.labels))
        })
    }
}

#[cfg(test)]
mod tests;
