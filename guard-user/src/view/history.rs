//! The last five minutes, one point a second, from what has been counted so far at each of its looks.

use std::collections::{BTreeMap, VecDeque};

use guard_common::{
    budget::Service,
    counter::{Counter, link_index},
    remedy::{Reason, Verdict},
};
use serde::{Deserialize, Serialize};

use super::tidy;
use crate::snapshot::Snapshot;

/// Points that are kept: seconds.
pub(crate) const POINTS: usize = 300;

/// Packets of one second to each link-local service, in the order of [`Service::ALL`].
type Services = [f64; Service::ALL.len()];

/// Rates of the last five minutes. It is told what has been counted so far, about once a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    before: Option<Totals>,
    points: VecDeque<Point>,
    /// Queries a second within and over each budget, in the last second.
    budgets: Vec<(f64, f64)>,
}

/// What has been counted so far, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    at_ns: u64,
    queries: u64,
    acted: Acted,
    links: BTreeMap<String, [u64; Service::ALL.len()]>,
    budgets: Vec<(String, u64, u64)>,
}

/// Queries that did not simply pass.
#[derive(Clone, Copy, Debug, Default)]
struct Acted {
    answer: u64,
    drop: u64,
    would_answer: u64,
    would_drop: u64,
    held: u64,
    shed: u64,
}

/// One second.
#[derive(Clone, Debug, Default)]
struct Point {
    rates: PerSecond,
    links: BTreeMap<String, Services>,
}

/// Packets of one second: DNS queries over UDP, on all guarded interfaces.
///
/// `pass`, `answer`, `drop`, `would_answer` and `would_drop` add up to `queries`; `held` and `shed` are why.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct PerSecond {
    /// All that were read.
    pub(crate) queries: f64,
    /// Those that went on and would have in enforce mode as well.
    pub(crate) pass: f64,
    /// Answered.
    pub(crate) answer: f64,
    /// Dropped.
    pub(crate) drop: f64,
    /// They went on; in enforce mode they would have been answered.
    pub(crate) would_answer: f64,
    /// They went on; in enforce mode they would have been dropped.
    pub(crate) would_drop: f64,
    /// By open breakers, in either mode.
    pub(crate) held: f64,
    /// By budgets and rules of hygiene, in either mode.
    pub(crate) shed: f64,
}

/// The history as lists of one number a second, the oldest first, the last one of the second before the view was made.
/// All lists are equally long.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Series {
    /// Queries.
    pub(crate) queries_per_second: Vec<f64>,
    /// Of these, held by open breakers.
    pub(crate) held_per_second: Vec<f64>,
    /// Of these, shed by budgets and rules.
    pub(crate) shed_per_second: Vec<f64>,
    /// Packets to link-local services, by name of the interface.
    pub(crate) link_packets_per_second: BTreeMap<String, Vec<f64>>,
}

impl History {
    /// Takes in what has been counted so far. The first time there is no rate yet.
    pub(crate) fn add(&mut self, totals: Totals) {
        let Some(before) = self.before.replace(totals.clone()) else {
            return;
        };
        let elapsed_ns = totals.at_ns.saturating_sub(before.at_ns);
        if elapsed_ns == 0 {
            return;
        }
        let rate = |now: u64, before: u64| {
            // Counters that begin anew say nothing about this second.
            now.saturating_sub(before) as f64 * 1e9 / elapsed_ns as f64
        };
        let links = totals.links.iter().map(|(device, counts)| {
            let earlier = before.links.get(device).unwrap_or(counts);
            let services = std::array::from_fn(|index| rate(counts[index], earlier[index]));
            (device.clone(), services)
        });
        let point = Point {
            rates: PerSecond::between(&before, &totals, rate),
            links: links.collect(),
        };
        self.budgets = totals
            .budgets
            .iter()
            .map(|(name, within, over)| {
                let earlier = before.budgets.iter().find(|(earlier, ..)| earlier == name);
                earlier.map_or((0.0, 0.0), |(_, earlier_within, earlier_over)| {
                    (rate(*within, *earlier_within), rate(*over, *earlier_over))
                })
            })
            .collect();
        // A point is a second. If the agent came late, its rate is that of all the seconds since.
        let seconds = (elapsed_ns.saturating_add(500_000_000) / 1_000_000_000).clamp(1, POINTS as u64);
        for _ in 0..seconds {
            if self.points.len() == POINTS {
                self.points.pop_front();
            }
            self.points.push_back(point.clone());
        }
    }

    /// The last second.
    pub(super) fn last(&self) -> PerSecond {
        self.points.back().map(|point| point.rates.tidy()).unwrap_or_default()
    }

    /// Queries within and over the budget at this place, in the last second.
    pub(super) fn budget(&self, place: usize) -> (f64, f64) {
        self.budgets.get(place).copied().unwrap_or_default()
    }

    /// Packets from an interface to each link-local service, in the last second.
    pub(super) fn link(&self, device: &str) -> Services {
        let found = self.points.back().and_then(|point| point.links.get(device));
        found.copied().unwrap_or_default()
    }

    /// All of it.
    pub(super) fn series(&self) -> Series {
        let of = |rate: fn(&PerSecond) -> f64| self.points.iter().map(|point| tidy(rate(&point.rates))).collect();
        let devices = self.points.back().into_iter().flat_map(|point| point.links.keys());
        let link = |device: &String| -> Vec<f64> {
            let packets = |point: &Point| point.links.get(device).map_or(0.0, |services| services.iter().sum());
            self.points.iter().map(|point| tidy(packets(point))).collect()
        };
        Series {
            queries_per_second: of(|rates| rates.queries),
            held_per_second: of(|rates| rates.held),
            shed_per_second: of(|rates| rates.shed),
            link_packets_per_second: devices.map(|device| (device.clone(), link(device))).collect(),
        }
    }
}

impl Totals {
    /// What a snapshot says has been counted.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let mut totals = Self {
            at_ns: snapshot.at_ns,
            ..Self::default()
        };
        for counters in snapshot.devices.values().chain([&snapshot.gone]) {
            // A query that crosses several interfaces of the node is one query.
            let seen = counters.get(Counter::QueriesV4) + counters.get(Counter::QueriesV6);
            totals.queries += seen.saturating_sub(counters.get(Counter::SeenElsewhere));
            for reason in Reason::ALL {
                totals.acted.add(reason, |verdict| counters.action(verdict, reason));
            }
        }
        for device in snapshot.links.keys() {
            let counters = snapshot.devices.get(device).copied().unwrap_or_default();
            let counts = Service::ALL.map(|service| counters.0[link_index(service)]);
            totals.links.insert(device.clone(), counts);
        }
        let budgets = snapshot.budgets.iter();
        totals.budgets = budgets
            .map(|count| (count.budget.clone(), count.within, count.over))
            .collect();
        totals
    }
}

impl Acted {
    fn add(&mut self, reason: Reason, count: impl Fn(Verdict) -> u64) {
        let (answer, drop) = (count(Verdict::Answer), count(Verdict::Drop));
        let (would_answer, would_drop) = (count(Verdict::WouldAnswer), count(Verdict::WouldDrop));
        self.answer += answer;
        self.drop += drop;
        self.would_answer += would_answer;
        self.would_drop += would_drop;
        let why = match reason {
            Reason::Loop | Reason::Untrusted | Reason::Silenced | Reason::Unanswerable => &mut self.held,
            Reason::Budget
            | Reason::Repeat
            | Reason::Share
            | Reason::Exhausted
            | Reason::Resolver
            | Reason::Source
            | Reason::Recursion => &mut self.shed,
        };
        *why += answer + drop + would_answer + would_drop;
    }
}

impl PerSecond {
    fn between(before: &Totals, now: &Totals, rate: impl Fn(u64, u64) -> f64) -> Self {
        let acted = |count: fn(&Acted) -> u64| rate(count(&now.acted), count(&before.acted));
        let mut rates = Self {
            queries: rate(now.queries, before.queries),
            pass: 0.0,
            answer: acted(|acted| acted.answer),
            drop: acted(|acted| acted.drop),
            would_answer: acted(|acted| acted.would_answer),
            would_drop: acted(|acted| acted.would_drop),
            held: acted(|acted| acted.held),
            shed: acted(|acted| acted.shed),
        };
        let stopped = rates.answer + rates.drop + rates.would_answer + rates.would_drop;
        // TCP segments that open a connection can be shed, and are no queries.
        rates.pass = (rates.queries - stopped).max(0.0);
        rates
    }

    fn tidy(self) -> Self {
        Self {
            queries: tidy(self.queries),
            pass: tidy(self.pass),
            answer: tidy(self.answer),
            drop: tidy(self.drop),
            would_answer: tidy(self.would_answer),
            would_drop: tidy(self.would_drop),
            held: tidy(self.held),
            shed: tidy(self.shed),
        }
    }
}

#[cfg(test)]
mod tests {
    use guard_common::counter::{Counters, action_index};

    use super::*;
    use crate::snapshot::{BudgetCount, Link};

    const SECOND: u64 = 1_000_000_000;

    /// A history that was told what `count` makes of each of these moments.
    fn history(moments: impl IntoIterator<Item = u64>, count: impl Fn(u64, &mut Counters)) -> History {
        let mut history = History::default();
        for at_ns in moments {
            let mut counters = Counters::default();
            count(at_ns, &mut counters);
            let snapshot = Snapshot {
                at_ns,
                devices: [("eth0".to_owned(), counters)].into(),
                links: [("eth0".to_owned(), Link::default())].into(),
                budgets: vec![BudgetCount {
                    budget: "per client".to_owned(),
                    limit: 100.0,
                    scope: "client",
                    within: at_ns / SECOND * 100,
                    over: at_ns / SECOND * 7,
                }],
                ..Snapshot::default()
            };
            history.add(Totals::of(&snapshot));
        }
        history
    }

    fn count(counters: &mut Counters, counter: Counter, count: u64) {
        counters.0[counter as usize] = count;
    }

    #[test]
    fn rates_are_what_came_since_the_look_before() {
        let history = history([5 * SECOND, 7 * SECOND], |at_ns, counters| {
            let seconds = at_ns / SECOND;
            count(counters, Counter::QueriesV4, 1_000 + 80 * seconds);
            count(counters, Counter::QueriesV6, 40 * seconds);
            count(counters, Counter::SeenElsewhere, 20 * seconds);
            count(counters, Counter::LinkNtp, 3 * seconds);
            counters.0[action_index(Verdict::Answer, Reason::Loop)] = 30 * seconds;
            counters.0[action_index(Verdict::Drop, Reason::Silenced)] = 10 * seconds;
            counters.0[action_index(Verdict::WouldDrop, Reason::Budget)] = 5 * seconds;
        });
        let expected = PerSecond {
            queries: 100.0,
            pass: 55.0,
            answer: 30.0,
            drop: 10.0,
            would_answer: 0.0,
            would_drop: 5.0,
            held: 40.0,
            shed: 5.0,
        };
        assert_eq!(history.last(), expected);
        assert_eq!(history.budget(0), (100.0, 7.0));
        assert_eq!(history.budget(1), (0.0, 0.0));
        assert_eq!(history.link("eth0"), [0.0, 0.0, 3.0, 0.0]);
        let series = history.series();
        assert_eq!(series.queries_per_second, [100.0, 100.0]);
        assert_eq!(series.held_per_second, [40.0, 40.0]);
        assert_eq!(series.shed_per_second, [5.0, 5.0]);
        assert_eq!(series.link_packets_per_second["eth0"], [3.0, 3.0]);
    }

    #[test]
    fn what_was_counted_before_the_agent_came_is_no_rate() {
        let history = history([SECOND], |_, counters| count(counters, Counter::QueriesV4, 1_000_000));
        assert_eq!(history.last(), PerSecond::default());
        assert_eq!(history.series(), Series::default());
    }

    #[test]
    fn counters_that_begin_anew_are_no_storm() {
        let history = history((1..=3).map(|second| second * SECOND), |at_ns, counters| {
            let queries = if at_ns == 2 * SECOND { 5 } else { 1_000 };
            count(counters, Counter::QueriesV4, queries);
        });
        assert_eq!(history.series().queries_per_second, [0.0, 995.0]);
    }

    #[test]
    fn five_minutes_are_remembered_and_no_more() {
        let history = history((1..=400).map(|second| second * SECOND), |at_ns, counters| {
            let second = at_ns / SECOND;
            count(counters, Counter::QueriesV4, second * (second + 1) / 2);
        });
        let queries = history.series().queries_per_second;
        assert_eq!(queries.len(), POINTS);
        assert_eq!((queries[0], queries[POINTS - 1]), (101.0, 400.0));
    }

    #[test]
    fn an_agent_that_hung_leaves_no_gap_in_time() {
        let looks = [SECOND, 2 * SECOND, 12 * SECOND + 1, 13 * SECOND];
        let hung = history(looks, |at_ns, counters| {
            count(counters, Counter::QueriesV4, at_ns / (SECOND / 100));
        });
        let queries = hung.series().queries_per_second;
        assert_eq!(queries.len(), 12);
        assert!(queries.iter().all(|rate| (rate - 100.0).abs() < 0.1), "{queries:?}");
        // Nor does one that was stopped for a day fill more than there is room for.
        let stopped = history([SECOND, 86_400 * SECOND], |_, _| {});
        assert_eq!(stopped.series().queries_per_second.len(), POINTS);
    }
}
