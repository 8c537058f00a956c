//! From the configuration, and what is to be known of the host, to the policy that the kernel reads.

use std::{cmp::Reverse, collections::BTreeSet, net::IpAddr};

use guard_common::{
    address::{Address, Prefix},
    budget::{Filters, LinkRules, MAX_DEVICES, MAX_LINKS, MAX_SERVICES, MAX_TYPES, Row, Scope, ZONES},
    hygiene::Hygiene,
    judge::Rules,
    key::Secret,
    policy::{MAX_RANGES, Mode, Policy, Ranges},
    time::ticks_of_ms,
};

use super::{Budget, Cidr, Config, LinkLocal, Sharing, zone::Zone};
use crate::facts::Facts;

/// A repeat of the same query within less than this is no client's: the fastest stub resolvers wait some 300 ms.
const RAPID_MS: u32 = 100;
/// The index of an interface that is not there: the kernel counts them up from 1, and keeps them positive.
const AWAITED: u32 = u32::MAX;
/// Steps of the kernel's coarse clock are up to this long (CONFIG_HZ=100).
const COARSE_STEP_NS: u64 = 10_000_000;

/// A policy, and what its rows stand for.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// What the kernel reads.
    pub(crate) policy: Policy,
    /// The budget of each row.
    pub(crate) rows: Vec<BudgetRow>,
}

/// Which part of a budget a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BudgetRow {
    /// The budget's place in the configuration.
    pub(crate) budget: usize,
    /// A query is charged to one row of each step; the steps of a budget follow one another.
    pub(crate) step: usize,
}

/// Why a configuration does not fit the host.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error(
        "{limiter} is about interface {device}, which is not guarded; add it to [attach] interfaces or --interface, or \
         take it out there"
    )]
    NotGuarded { limiter: String, device: String },
    #[error("preset 'aws-link-local' has no interface: only lo is guarded; add the one that leads to the VPC")]
    NoInterface,
    #[error("preset 'aws-link-local' has {0} interfaces and the kernel room for {MAX_LINKS}; name fewer")]
    TooManyInterfaces(usize),
    #[error("the interfaces have {0} link-local services and the kernel room for {MAX_SERVICES}; set the preset's vpc")]
    TooManyServices(usize),
    #[error("budgets and hygiene name {0} address ranges and the kernel has room for {MAX_RANGES}; merge some")]
    TooManyRanges(usize),
}

impl Config {
    /// The policy in the form in which the kernel reads it, for this host.
    ///
    /// # Errors
    ///
    /// What the file says does not fit the host: an interface is not guarded, or it has too many addresses.
    pub(crate) fn policy(&self, facts: &Facts, secret: &Secret) -> Result<Compiled, PolicyError> {
        let marks = match self.mode {
            Mode::Enforce => self.marks,
            Mode::Observe => self.observe_marks,
        };
        let rules = Rules {
            hold_ticks: ticks_of_ms(self.breaker.hold_ms),
            hold_max_ticks: ticks_of_ms(self.breaker.hold_max_ms),
            test_ticks: ticks_of_ms(self.breaker.test_ms),
            marks: marks.into(),
        };
        let mut policy = Policy::new(self.mode, self.answer.action, rules);
        policy.rcode = self.answer.rcode.number();
        policy.rapid_ticks = ticks_of_ms(RAPID_MS);
        policy.limit_answers(self.answer.per_client, self.answer.per_hold);
        for port in &self.ports {
            policy.add_port(*port);
        }
        for range in &self.answer.trusted {
            let has_room = policy.trust(range.prefix());
            debug_assert!(has_room, "the file was checked for the number of ranges");
        }
        if let Some(link_local) = &self.link_local {
            policy.link = self.link_rules(link_local, facts)?;
        }
        policy.zone_labels = self.zone_labels();
        self.add_ranges_and_rows(policy, facts, secret)
    }

    fn link_rules(&self, link_local: &LinkLocal, facts: &Facts) -> Result<LinkRules, PolicyError> {
        let (action, mode) = link_local.excess.in_mode(link_local.mode);
        let rules = LinkRules::new(link_local.limit, link_local.allowance.burst, action, mode);
        let mut rules = rules.expect("limit and burst are in the kernel's range");
        let mut named = link_local.interfaces(&self.attach).peekable();
        if named.peek().is_none() && self.attach.selection.is_closed() {
            return Err(PolicyError::NoInterface);
        }
        let limiter = format!("preset '{}'", LinkLocal::NAME);
        for device in named {
            self.ifindex(facts, &limiter, device)?;
        }
        let mut services = Vec::new();
        for (device, known) in &facts.services {
            if !rules.add_device(self.ifindex(facts, &limiter, device)?) {
                return Err(PolicyError::TooManyInterfaces(facts.services.len()));
            }
            for service in known {
                if !services.contains(service) {
                    services.push(*service);
                }
            }
        }
        for (address, service) in &services {
            if !rules.add_service(kernel_address(*address), *service) {
                return Err(PolicyError::TooManyServices(services.len()));
            }
        }
        Ok(rules)
    }

    /// The index of an interface that a limiter is about; one that no interface has, while it is awaited.
    fn ifindex(&self, facts: &Facts, limiter: &str, device: &str) -> Result<u32, PolicyError> {
        match facts.devices.get(device) {
            Some(ifindex) => Ok(*ifindex),
            None if self.attach.selection.may_choose(device) => Ok(AWAITED),
            None => Err(PolicyError::NotGuarded {
                limiter: limiter.to_owned(),
                device: device.to_owned(),
            }),
        }
    }

    /// The label counts by which the kernel tells zones. The first is that of the link-local budget, if there is one,
    /// which tells the packets of one source apart by it.
    fn zone_labels(&self) -> [u8; ZONES] {
        let reserved = self.link_local.as_ref().map(|_| LinkLocal::SHARE_LABELS);
        let counts: BTreeSet<_> = self.budgets.iter().flat_map(Budget::label_counts).collect();
        let others = counts.into_iter().filter(|count| Some(*count) != reserved);
        let mut labels = [0; ZONES];
        // The file was checked for the number of label counts.
        for (slot, count) in labels.iter_mut().zip(reserved.into_iter().chain(others)) {
            *slot = count;
        }
        labels
    }

    fn add_ranges_and_rows(&self, mut policy: Policy, facts: &Facts, secret: &Secret) -> Result<Compiled, PolicyError> {
        let sources = self.hygiene.source_ranges(&facts.addresses);
        let destinations = self.budgets.iter().map(|budget| budget.filter.destinations.len());
        let all = self.hygiene.resolvers.len() + sources.len() + self.hygiene.recursion.len();
        let all = all + destinations.sum::<usize>();
        let add_ranges = |policy: &mut Policy, ranges: &[Cidr]| {
            let prefixes: Vec<Prefix> = ranges.iter().map(Cidr::prefix).collect();
            policy.add_ranges(&prefixes).ok_or(PolicyError::TooManyRanges(all))
        };
        let mut hygiene = Hygiene::NONE.in_mode(self.hygiene.mode.unwrap_or(Mode::Enforce));
        hygiene.resolvers = add_ranges(&mut policy, &self.hygiene.resolvers)?;
        hygiene.sources = add_ranges(&mut policy, &sources)?;
        hygiene.recursion = add_ranges(&mut policy, &self.hygiene.recursion)?;
        for (slot, device) in hygiene.devices.iter_mut().zip(&self.hygiene.interfaces) {
            *slot = self.ifindex(facts, "[hygiene]", device)?;
        }
        policy.hygiene = hygiene;

        let mut plans = Vec::new();
        for (place, budget) in self.budgets.iter().enumerate() {
            let destinations = add_ranges(&mut policy, &budget.filter.destinations)?;
            let budget_plans = Plan::all(place, budget, destinations);
            debug_assert_eq!(budget_plans.len(), budget.row_count());
            plans.extend(budget_plans);
        }
        // The sort is stable: what is equally broad stays in the order of the file.
        plans.sort_by_key(Plan::breadth);

        let mut rows: Vec<BudgetRow> = Vec::new();
        let mut breadths: Vec<Vec<_>> = vec![Vec::new(); self.budgets.len()];
        for plan in plans {
            let row = plan.row(self, facts, &policy.zone_labels, secret)?;
            let has_room = policy.add_row(row);
            debug_assert!(has_room, "the file was checked for the number of rows");
            let steps = &mut breadths[plan.place];
            if steps.last() != Some(&plan.breadth()) {
                steps.push(plan.breadth());
            }
            rows.push(BudgetRow {
                budget: plan.place,
                step: steps.len() - 1,
            });
        }
        let rates = (0..policy.row_count())
            .filter_map(|index| policy.row(index))
            .map(|row| row.rate);
        let link_rate = (!policy.link.is_empty()).then(|| *policy.link.rate());
        let needs_fine = rates.chain(link_rate).any(|rate| rate.needs_finer_than(COARSE_STEP_NS));
        policy.fine_clock = needs_fine.into();
        Ok(Compiled { policy, rows })
    }
}

/// One row of a budget, before the host's numbers are put in.
#[derive(Clone, Copy)]
struct Plan<'c> {
    /// The budget's place in the configuration.
    place: usize,
    budget: &'c Budget,
    /// v4 and v6; the whole address unless the scope is client.
    prefixes: (u8, u8),
    /// The labels of the zones that it tells apart; 0 unless the scope is zone.
    labels: u8,
    /// The one zone that it is about.
    zone: Option<&'c Zone>,
    interfaces: &'c [String],
    destinations: Ranges,
}

impl<'c> Plan<'c> {
    /// All rows of a budget.
    fn all(place: usize, budget: &'c Budget, destinations: Ranges) -> Vec<Self> {
        let whole = Plan {
            place,
            budget,
            prefixes: (32, 128),
            labels: 0,
            zone: None,
            interfaces: &[],
            destinations,
        };
        let mut plans = match &budget.sharing {
            Sharing::Client(list) => list
                .iter()
                .map(|prefixes| Plan {
                    prefixes: (prefixes.v4, prefixes.v6),
                    ..whole
                })
                .collect(),
            Sharing::Zone(list) => list
                .iter()
                .map(|labels| Plan {
                    labels: *labels,
                    ..whole
                })
                .collect(),
            Sharing::Destination | Sharing::Key | Sharing::Interface | Sharing::All => vec![whole],
        };
        let zones = &budget.filter.zones;
        if !zones.is_empty() {
            let of_zones = |plan| {
                zones.iter().map(move |zone| Plan {
                    zone: Some(zone),
                    ..plan
                })
            };
            plans = plans.into_iter().flat_map(of_zones).collect();
        }
        let interfaces = &budget.filter.interfaces;
        if !interfaces.is_empty() {
            let chunks = interfaces.chunks(MAX_DEVICES);
            let of_chunks = |plan| chunks.clone().map(move |interfaces| Plan { interfaces, ..plan });
            plans = plans.into_iter().flat_map(of_chunks).collect();
        }
        plans
    }

    /// Rows are asked from narrow to broad, so that what is over a narrow budget does not use up a broad one.
    fn breadth(&self) -> (u8, Reverse<u8>, Reverse<u8>, Reverse<u8>) {
        let rank = match self.budget.sharing.scope() {
            Scope::Key => 0,
            Scope::Client => 1,
            Scope::Zone => 2,
            Scope::Destination => 3,
            Scope::Interface => 4,
            Scope::All => 5,
        };
        let (v4, v6) = self.prefixes;
        (rank, Reverse(v4), Reverse(v6), Reverse(self.labels))
    }

    fn row(
        &self,
        config: &Config,
        facts: &Facts,
        zone_labels: &[u8; ZONES],
        secret: &Secret,
    ) -> Result<Row, PolicyError> {
        let Budget { name, filter, .. } = self.budget;
        let mut devices = [0; MAX_DEVICES];
        for (slot, device) in devices.iter_mut().zip(self.interfaces) {
            *slot = config.ifindex(facts, &format!("budget '{name}'"), device)?;
        }
        let mut types = [0; MAX_TYPES];
        for (slot, qtype) in types.iter_mut().zip(&filter.types) {
            *slot = *qtype;
        }
        // A zone that a row of scope zone is about has as many labels as the zones that it tells apart.
        let labels = self.zone.map_or(self.labels, Zone::labels);
        let zone_index = zone_labels.iter().position(|known| *known == labels).unwrap_or(0);
        let filters = Filters {
            devices,
            types,
            zone: self.zone.map_or(0, |zone| zone.digest(secret)),
            zone_index: zone_index as u8,
            destinations: self.destinations,
        };
        let (action, mode) = self.budget.excess.in_mode(self.budget.mode);
        let scope = self.budget.sharing.scope();
        let directions = self.budget.direction.in_out();
        let row = Row::new(self.id(), scope, directions, self.budget.allowance.rate(), action, mode);
        let (v4, v6) = self.prefixes;
        Ok(row.by_prefix(v4, v6).with(&filters))
    }

    /// The same for rows whose buckets mean the same, from one policy to the next: those of the zones and interfaces
    /// that one budget is about. FNV-1a, 64 bits.
    fn id(&self) -> u64 {
        let (v4, v6) = self.prefixes;
        let shape = [self.budget.sharing.scope() as u8, v4, v6, self.labels];
        let bytes = self.budget.name.bytes().chain([0]).chain(shape);
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

fn kernel_address(address: IpAddr) -> Address {
    Address::from_octets(match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    })
}

#[cfg(test)]
mod tests;
