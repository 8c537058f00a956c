//! Storms: budgets that have no room for all that comes.
//!
//! The kernel counts what each budget let through and what it did not. A few times a second the agent hands the totals
//! in, and this tells when a storm begins, who makes it, how it goes on, and when it is over. Time is passed in, as
//! nanoseconds of the monotonic clock.

mod peak;
mod sentence;

use std::collections::BTreeMap;

use guard_common::{
    budget::{Scope, Service},
    counter::{Counters, link_index},
    policy::Mode,
    remedy::{Reason, Verdict},
};

use self::peak::Peak;
use crate::{
    config::mode_word,
    events::{ClientShare, Event, NameShare, OverBudget, WithinBudget, ZoneShare},
    offenders::{Offenders, PAUSE_NS, Rule, Shedder},
    snapshot::Standings,
};

/// Nanoseconds after which a storm is told of without knowing who makes it.
const NAMELESS_NS: u64 = 500_000_000;
/// Samples that are enough to name who makes it.
const ENOUGH_SAMPLES: u32 = 32;
/// Nanoseconds after which a storm that goes on is told of again.
const AGAIN_NS: u64 = 10_000_000_000;
/// Nanoseconds without a packet shed after which a storm is over.
const OVER_NS: u64 = PAUSE_NS;
/// Zones, clients and names that are told.
const MOST_NAMES: usize = 3;

/// What can shed, as far as it is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limiter {
    /// Which it is.
    pub(crate) shedder: Shedder,
    /// Its name.
    pub(crate) name: String,
    /// The interface, if it is about one.
    pub(crate) device: Option<String>,
    /// Packets per second; a rule has none.
    pub(crate) limit: Option<f64>,
    /// What shares the limit.
    pub(crate) scope: Scope,
    /// Whether it sheds, or only says what it would.
    pub(crate) mode: Mode,
}

/// What a limiter has counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Packets that came.
    pub(crate) offered: u64,
    /// Packets that there was no room for, whether they went on or not.
    pub(crate) over: u64,
}

/// What the link-local budget of an interface has counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkCount {
    /// Packets that went out to each service, in the order of [`Service::ALL`].
    pub(crate) passed: [u64; 4],
    /// Queries that were shed: as repeats, over their share, and with the budget exhausted.
    pub(crate) shed: [u64; 3],
    /// Queries that would have been, in the same order; they went out.
    pub(crate) would_shed: [u64; 3],
}

/// The reasons of a link-local budget, in the order in which they apply.
const LINK_REASONS: [Reason; 3] = [Reason::Repeat, Reason::Share, Reason::Exhausted];

/// The storms that are on.
#[derive(Debug)]
pub(crate) struct Storms {
    limiters: Vec<Limited>,
    peaks: BTreeMap<u32, Peak>,
}

/// A limiter, and how it stands.
#[derive(Debug)]
struct Limited {
    limiter: Limiter,
    count: Option<(Count, u64)>,
    storm: Option<Storm>,
}

/// A storm: packets are shed, or were a moment ago.
#[derive(Clone, Copy, Debug)]
struct Storm {
    /// The last count before it, and when that was.
    before: (Count, u64),
    /// The count that was told last, and when.
    told: Option<(Count, u64)>,
    /// When a packet was last seen to be shed.
    latest_ns: u64,
}

impl Storms {
    /// No storm; these can tell of some.
    pub(crate) fn new(limiters: Vec<Limiter>) -> Self {
        let limiters = limiters.into_iter().map(|limiter| Limited {
            limiter,
            count: None,
            storm: None,
        });
        Self {
            limiters: limiters.collect(),
            peaks: BTreeMap::new(),
        }
    }

    /// Takes over the storms and counts of limiters of the same name and interface; returns the end of the others.
    pub(crate) fn inherit(&mut self, before: &mut Self) -> Vec<Event> {
        self.peaks = std::mem::take(&mut before.peaks);
        let mut events = Vec::new();
        for old in before.limiters.drain(..) {
            let is_it =
                |new: &&mut Limited| new.limiter.name == old.limiter.name && new.limiter.device == old.limiter.device;
            if let Some(new) = self.limiters.iter_mut().find(is_it) {
                (new.count, new.storm) = (old.count, old.storm);
            } else if let (Some((count, _)), Some(storm @ Storm { told: Some(_), .. })) = (old.count, old.storm) {
                let device = old.limiter.device.clone();
                events.push(Event::WithinBudget(old.within(&storm, count, device)));
            }
        }
        events
    }

    /// Takes in what a limiter has counted so far. The first count is where it starts from.
    pub(crate) fn on_count(&mut self, shedder: Shedder, count: Count, now_ns: u64) {
        let found = self.limiters.iter_mut().find(|found| found.limiter.shedder == shedder);
        if let Some(found) = found {
            found.on_count(count, now_ns);
        }
    }

    /// Takes in what the link-local budget of an interface has counted so far.
    pub(crate) fn on_link(&mut self, ifindex: u32, count: &LinkCount, now_ns: u64) {
        self.peaks.entry(ifindex).or_default().on_total(count.passed(), now_ns);
        self.on_count(Shedder::Link(ifindex), count.count(), now_ns);
    }

    /// What there is to tell, after the counts of this moment. `device` names an interface by its index.
    pub(crate) fn tick(
        &mut self,
        offenders: &Offenders,
        device: impl Fn(u32) -> Option<String>,
        now_ns: u64,
    ) -> Vec<Event> {
        let limiters = self.limiters.iter_mut();
        limiters
            .filter_map(|limited| limited.tick(offenders, &device, now_ns))
            .collect()
    }

    /// The most packets that an interface sent to link-local services in a second of the last minute or two.
    pub(crate) fn peak(&self, ifindex: u32, now_ns: u64) -> f64 {
        self.peaks.get(&ifindex).map_or(0.0, |peak| peak.per_second(now_ns))
    }
}

impl Limited {
    fn on_count(&mut self, count: Count, now_ns: u64) {
        let before = self.count.replace((count, now_ns));
        let Some(before) = before else { return };
        // Counters that go back were set to zero: by another policy, by an agent that started anew.
        if count.over < before.0.over || count.offered < before.0.offered {
            self.storm = None;
        } else if count.over > before.0.over {
            let storm = self.storm.get_or_insert(Storm {
                before,
                told: None,
                latest_ns: now_ns,
            });
            storm.latest_ns = now_ns;
        }
    }

    fn tick(&mut self, offenders: &Offenders, device: impl Fn(u32) -> Option<String>, now_ns: u64) -> Option<Event> {
        let (count, counted_ns) = self.count?;
        let storm = self.storm?;
        let board = offenders.shed(self.limiter.shedder);
        let device = self
            .limiter
            .device
            .clone()
            .or_else(|| board.and_then(|board| board.ifindex(now_ns)).and_then(device));
        let is_told_of = storm
            .told
            .is_some_and(|(_, told_ns)| now_ns.saturating_sub(told_ns) >= AGAIN_NS);
        if is_told_of && now_ns.saturating_sub(storm.latest_ns) >= OVER_NS {
            self.storm = None;
            return Some(Event::WithinBudget(self.within(&storm, count, device)));
        }
        let is_due = match storm.told {
            Some((_, told_ns)) => now_ns.saturating_sub(told_ns) >= AGAIN_NS && storm.latest_ns > told_ns,
            None => {
                board.is_some_and(|board| board.samples() >= ENOUGH_SAMPLES)
                    || now_ns.saturating_sub(storm.before.1) >= NAMELESS_NS
            }
        };
        if !is_due {
            return None;
        }
        let standings = board.map_or_else(Standings::default, |board| board.standings(MOST_NAMES, now_ns));
        let event = self.over(&storm, (count, counted_ns), device, standings);
        self.storm = Some(Storm {
            told: Some((count, counted_ns)),
            ..storm
        });
        Some(Event::OverBudget(event))
    }

    fn over(&self, storm: &Storm, now: (Count, u64), device: Option<String>, standings: Standings) -> OverBudget {
        let Limiter {
            name,
            limit,
            mode,
            scope,
            shedder,
            ..
        } = &self.limiter;
        let since = storm.told.unwrap_or(storm.before);
        let per_second = |more: u64| {
            let elapsed_ns = u128::from(now.1.saturating_sub(since.1).max(1));
            (u128::from(more) * 1_000_000_000 / elapsed_ns) as u64
        };
        let mut event = OverBudget {
            budget: name.clone(),
            device,
            device_pod: None,
            limit: *limit,
            shed: now.0.over.saturating_sub(storm.before.0.over),
            shed_per_second: per_second(now.0.over.saturating_sub(since.0.over)),
            offered_per_second: per_second(now.0.offered.saturating_sub(since.0.offered)),
            mode: mode_word(*mode),
            zones: Vec::new(),
            clients: Vec::new(),
            names: Vec::new(),
            reason: String::new(),
        };
        for found in standings.zones {
            event.zones.push(ZoneShare {
                zone: found.name,
                share: rounded(found.share),
                error: rounded(found.share_error),
            });
        }
        for found in standings.clients {
            event.clients.push(ClientShare {
                client: found.name,
                share: rounded(found.share),
                error: rounded(found.share_error),
                pod: None,
            });
        }
        for found in standings.keys {
            event.names.push(NameShare {
                name: found.name,
                qtype: found.qtype,
                share: rounded(found.share),
                error: rounded(found.share_error),
            });
        }
        event.reason = sentence::over(&event, *scope, *shedder);
        event
    }

    fn within(&self, storm: &Storm, count: Count, device: Option<String>) -> WithinBudget {
        let shed = count.over.saturating_sub(storm.before.0.over);
        let seconds = storm.latest_ns.saturating_sub(storm.before.1).div_ceil(1_000_000_000);
        let reason = sentence::within(&self.limiter, device.as_deref(), shed, seconds);
        WithinBudget {
            budget: self.limiter.name.clone(),
            device,
            shed,
            seconds,
            reason,
        }
    }
}

impl LinkCount {
    /// What the counters of an interface say.
    pub(crate) fn of(counters: &Counters) -> Self {
        let sum = |verdicts: [Verdict; 2]| {
            LINK_REASONS.map(|reason| verdicts.iter().map(|verdict| counters.action(*verdict, reason)).sum())
        };
        Self {
            passed: Service::ALL.map(|service| counters.0[link_index(service)]),
            shed: sum([Verdict::Answer, Verdict::Drop]),
            would_shed: sum([Verdict::WouldAnswer, Verdict::WouldDrop]),
        }
    }

    /// Packets that went out, to whatever service.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.iter().sum()
    }

    /// Packets that the budget had room for.
    pub(crate) fn within(&self) -> u64 {
        self.passed().saturating_sub(self.would_shed.iter().sum())
    }

    /// Packets that it had no room for, whether they went on or not.
    pub(crate) fn over(&self) -> u64 {
        self.shed.iter().chain(&self.would_shed).sum()
    }

    fn count(&self) -> Count {
        Count {
            offered: self.passed() + self.shed.iter().sum::<u64>(),
            over: self.over(),
        }
    }
}

/// What the counters of an interface say of a rule. A rule counts what breaks it, and nothing else.
pub(crate) fn count_of_rule(counters: &Counters, rule: Rule) -> Count {
    let reason = match rule {
        Rule::Resolvers => Reason::Resolver,
        Rule::Sources => Reason::Source,
        Rule::Recursion => Reason::Recursion,
    };
    let verdicts = [Verdict::Answer, Verdict::Drop, Verdict::WouldAnswer, Verdict::WouldDrop];
    let over = verdicts.iter().map(|verdict| counters.action(*verdict, reason)).sum();
    Count { offered: over, over }
}

/// To a thousandth.
fn rounded(share: f64) -> f64 {
    (share * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests;
