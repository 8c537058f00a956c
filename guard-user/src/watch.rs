//! What the running agent sees of storms: samples and counts go in, events and figures come out.
//!
//! Four times a second it takes in what the kernel has shown and counted since. It reads no map and no clock itself.

use std::collections::BTreeMap;

use guard_common::{
    budget::Scope,
    counter::{Counters, RowCount},
    policy::Mode,
    sample::Sample,
};

use crate::{
    config::{BudgetRow, Compiled, Config, LinkLocal},
    events::Event,
    facts::Facts,
    offenders::{Offenders, Rule, Shedder},
    search::{Search, Suffixes},
    snapshot::{BudgetCount, Link, Snapshot},
    storms::{Count, Limiter, LinkCount, Storms, count_of_rule},
};

/// All that is watched under one configuration.
#[derive(Debug)]
pub(crate) struct Watch {
    offenders: Offenders,
    search: Search,
    storms: Storms,
    /// Name, packets per second and scope of each budget.
    budgets: Vec<(String, f64, Scope)>,
    /// Whether each budget only watches.
    watches: Vec<bool>,
    rows: Vec<BudgetRow>,
    counts: Vec<BudgetTotal>,
    /// What budgets of these names counted under the configurations before this one.
    before: BTreeMap<String, BudgetTotal>,
    /// Interface index and name of each link-local budget.
    links: BTreeMap<u32, String>,
    /// What all of them counted.
    link_total: BudgetTotal,
    link_limit: f64,
    rules: Vec<Rule>,
    /// Names to show of each kind.
    top: usize,
}

/// What the rows of a budget counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct BudgetTotal {
    within: u64,
    over: u64,
}

impl BudgetTotal {
    const fn plus(self, other: Self) -> Self {
        Self {
            within: self.within + other.within,
            over: self.over + other.over,
        }
    }
}

impl Watch {
    /// Watches the budgets and rules of a configuration, which was compiled for a host.
    pub(crate) fn new(config: &Config, compiled: &Compiled, facts: &Facts, suffixes: Suffixes) -> Self {
        let mode = |own: Option<Mode>| match (config.mode, own) {
            (Mode::Enforce, None | Some(Mode::Enforce)) => Mode::Enforce,
            _ => Mode::Observe,
        };
        let mut limiters = Vec::new();
        let mut watches = Vec::new();
        for (place, budget) in config.budgets.iter().enumerate() {
            let (_, excess_mode) = budget.excess.in_mode(budget.mode);
            watches.push(matches!(excess_mode, Mode::Observe));
            limiters.push(Limiter {
                shedder: Shedder::Budget(place),
                name: budget.name.clone(),
                device: None,
                limit: Some(budget.allowance.limit.rate()),
                scope: budget.sharing.scope(),
                mode: mode(Some(excess_mode)),
            });
        }
        let mut links = BTreeMap::new();
        if let Some(link_local) = &config.link_local {
            let (_, excess_mode) = link_local.excess.in_mode(link_local.mode);
            for device in facts.services.keys() {
                let Some(ifindex) = facts.devices.get(device) else {
                    continue;
                };
                links.insert(*ifindex, device.clone());
                limiters.push(Limiter {
                    shedder: Shedder::Link(*ifindex),
                    name: LinkLocal::NAME.to_owned(),
                    device: Some(device.clone()),
                    limit: Some(link_local.limit.into()),
                    scope: Scope::Destination,
                    mode: mode(Some(excess_mode)),
                });
            }
        }
        let hygiene = &config.hygiene;
        let rules = [
            (Rule::Resolvers, "hygiene: resolvers", hygiene.resolvers.is_empty()),
            (Rule::Sources, "hygiene: sources", hygiene.sources.is_empty()),
            (Rule::Recursion, "hygiene: recursion", hygiene.recursion.is_empty()),
        ];
        let rules: Vec<_> = rules.into_iter().filter(|(.., is_off)| !is_off).collect();
        limiters.extend(rules.iter().map(|(rule, name, _)| Limiter {
            shedder: Shedder::Rule(*rule),
            name: (*name).to_owned(),
            device: None,
            limit: None,
            scope: Scope::All,
            mode: mode(hygiene.mode),
        }));
        Self {
            offenders: Offenders::new(compiled.rows.iter().map(|row| row.budget).collect()),
            search: Search::new(suffixes),
            storms: Storms::new(limiters),
            budgets: config
                .budgets
                .iter()
                .map(|budget| {
                    let limit = budget.allowance.limit.rate();
                    (budget.name.clone(), limit, budget.sharing.scope())
                })
                .collect(),
            watches,
            rows: compiled.rows.clone(),
            counts: vec![BudgetTotal::default(); config.budgets.len()],
            before: BTreeMap::new(),
            links,
            link_total: BudgetTotal::default(),
            link_limit: config
                .link_local
                .as_ref()
                .map_or(0.0, |link_local| link_local.limit.into()),
            rules: rules.into_iter().map(|(rule, ..)| rule).collect(),
            top: config.metrics.top,
        }
    }

    /// Goes on under another configuration. `ended` is what the rows of the one before have counted to their end. Counts
    /// go on from where they are by the names of the budgets, storms likewise; returns what there is to tell of those whose
    /// budget is no more.
    pub(crate) fn follow(
        &mut self,
        config: &Config,
        compiled: &Compiled,
        facts: &Facts,
        suffixes: Suffixes,
        ended: &[RowCount],
    ) -> Vec<Event> {
        let ended = totals(&self.rows, ended, &self.watches);
        for ((name, ..), total) in self.budgets.iter().zip(ended) {
            let before = self.before.entry(name.clone()).or_default();
            *before = before.plus(total);
        }
        let mut next = Self::new(config, compiled, facts, suffixes);
        next.before = std::mem::take(&mut self.before);
        next.before
            .retain(|name, _| next.budgets.iter().any(|(known, ..)| known == name));
        next.offenders.inherit(&mut self.offenders);
        next.search.inherit(&mut self.search);
        let events = next.storms.inherit(&mut self.storms);
        *self = next;
        events
    }

    /// How many rows of the policy it wants to know the counts of.
    pub(crate) fn row_count(&self) -> u32 {
        self.rows.len() as u32
    }

    /// Whether it wants to know the counts of an interface each time.
    pub(crate) fn wants(&self, ifindex: u32) -> bool {
        self.links.contains_key(&ifindex) || !self.rules.is_empty()
    }

    /// Takes in a sample.
    pub(crate) fn on_sample(&mut self, sample: &Sample, now_ns: u64) {
        self.offenders.on_sample(sample, now_ns);
        self.search.on_sample(sample, now_ns);
    }

    /// Takes in what the rows and the interfaces have counted so far; returns what there is to tell. `device` names an
    /// interface by its index.
    pub(crate) fn on_counts(
        &mut self,
        rows: &[RowCount],
        devices: &[(u32, Counters)],
        device: impl Fn(u32) -> Option<String>,
        now_ns: u64,
    ) -> Vec<Event> {
        let totals = totals(&self.rows, rows, &self.watches);
        let counts = self.budgets.iter().zip(totals);
        let counts = counts.map(|((name, ..), total)| self.before.get(name).copied().unwrap_or_default().plus(total));
        self.counts = counts.collect();
        for (place, total) in self.counts.iter().enumerate() {
            let count = Count {
                offered: total.within + total.over,
                over: total.over,
            };
            self.storms.on_count(Shedder::Budget(place), count, now_ns);
        }
        self.link_total = BudgetTotal::default();
        for (ifindex, counters) in devices {
            if self.links.contains_key(ifindex) {
                let count = LinkCount::of(counters);
                self.storms.on_link(*ifindex, &count, now_ns);
                self.link_total.within += count.within();
                self.link_total.over += count.over();
            }
        }
        for rule in &self.rules {
            let counts = devices.iter().map(|(_, counters)| count_of_rule(counters, *rule));
            let sum = counts.fold(Count::default(), |sum, count| Count {
                offered: sum.offered + count.offered,
                over: sum.over + count.over,
            });
            self.storms.on_count(Shedder::Rule(*rule), sum, now_ns);
        }
        self.storms.tick(&self.offenders, device, now_ns)
    }

    /// What there is to tell of search lists, and old things forgotten. To be called about once a second.
    pub(crate) fn tick(&mut self, now_ns: u64) -> Vec<Event> {
        self.offenders.tick(now_ns);
        self.search.tick(now_ns)
    }

    /// Fills in what the metrics say of storms.
    pub(crate) fn show(&self, snapshot: &mut Snapshot, now_ns: u64) {
        snapshot.top = self.offenders.all().standings(self.top, now_ns);
        snapshot.search_wasted = self.search.wasted();
        let links = self.links.iter().map(|(ifindex, device)| {
            let link = Link {
                limit: self.link_limit,
                peak: self.storms.peak(*ifindex, now_ns),
            };
            (device.clone(), link)
        });
        snapshot.links = links.collect();
        let count = |name: &str, limit: f64, scope: Scope, total: &BudgetTotal| BudgetCount {
            budget: name.to_owned(),
            limit,
            scope: scope.word(),
            within: total.within,
            over: total.over,
        };
        let link_local = (!self.links.is_empty())
            .then(|| count(LinkLocal::NAME, self.link_limit, Scope::Interface, &self.link_total));
        let budgets = self.budgets.iter().zip(&self.counts);
        let budgets = budgets.map(|((name, limit, scope), total)| count(name, *limit, *scope, total));
        snapshot.budgets = link_local.into_iter().chain(budgets).collect();
    }
}

/// What the rows of each budget counted. A query is charged to one row of each step. One that acts ends at the step that
/// has no room for it: it is within the budget when the last step has room. One that only watches comes to all steps: it
/// is taken to be over where the step says so that has least room.
fn totals(rows: &[BudgetRow], counts: &[RowCount], watches: &[bool]) -> Vec<BudgetTotal> {
    let mut steps: Vec<Vec<RowCount>> = vec![Vec::new(); watches.len()];
    for (row, count) in rows.iter().zip(counts) {
        let steps = &mut steps[row.budget];
        steps.resize(steps.len().max(row.step + 1), RowCount::default());
        steps[row.step].within += count.within;
        steps[row.step].over += count.over;
    }
    let total = |(steps, watches): (Vec<RowCount>, &bool)| {
        let mut within = steps.iter().map(|step| step.within);
        let over = steps.iter().map(|step| step.over);
        if *watches {
            BudgetTotal {
                within: within.min().unwrap_or(0),
                over: over.max().unwrap_or(0),
            }
        } else {
            BudgetTotal {
                within: within.next_back().unwrap_or(0),
                over: over.sum(),
            }
        }
    };
    steps.into_iter().zip(watches).map(total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn count(within: u64, over: u64) -> RowCount {
        RowCount { within, over }
    }

    const fn row(budget: usize, step: usize) -> BudgetRow {
        BudgetRow { budget, step }
    }

    #[test]
    fn a_budget_of_two_prefix_lengths_counts_a_query_once() {
        // 100 queries: 30 over the /32, 20 of the rest over the /24.
        let rows = [row(0, 0), row(1, 0), row(0, 1)];
        let counts = [count(70, 30), count(5, 1), count(50, 20)];
        let totals = totals(&rows, &counts, &[false, false]);
        assert_eq!(totals[0], BudgetTotal { within: 50, over: 50 });
        assert_eq!(totals[1], BudgetTotal { within: 5, over: 1 });
    }

    #[test]
    fn a_budget_that_watches_counts_a_query_once_too() {
        // The same 100 queries come to both steps.
        let rows = [row(0, 0), row(0, 1)];
        let totals = totals(&rows, &[count(70, 30), count(80, 20)], &[true]);
        assert_eq!(totals[0], BudgetTotal { within: 70, over: 30 });
    }

    #[test]
    fn a_budget_of_two_zones_counts_both() {
        let rows = [row(0, 0), row(0, 0)];
        let totals = totals(&rows, &[count(7, 1), count(2, 4)], &[false]);
        assert_eq!(totals[0], BudgetTotal { within: 9, over: 5 });
    }
}
