//! The link-local budget under storms: who gets what.

use std::{collections::HashMap, vec::Vec};

use super::{Random, SECOND};
use crate::budget::Share;
use crate::{
    address::Address,
    budget::{LinkBudget, LinkRules, MAX_LINKS, MAX_SERVICES, Service, exceeds_share, meter::SHARE_HALF_SHIFT, sheds},
    policy::{Action, Mode},
    remedy::Reason,
    time::Ticks,
};

/// One source of DNS queries.
#[derive(Clone, Copy)]
struct Source {
    per_second: u64,
    /// Its zones; each query is about one of them, and the first gets all but one in `spread`.
    zones: u64,
    spread: u64,
}

impl Source {
    const fn steady(per_second: u64) -> Self {
        Self {
            per_second,
            zones: 1,
            spread: 1,
        }
    }
}

/// What came of a source's queries: sent, let through, and of those not about its first zone the same.
#[derive(Clone, Copy, Debug, Default)]
struct Got {
    sent: u64,
    passed: u64,
    others_sent: u64,
    others_passed: u64,
}

impl Got {
    fn ratio(&self) -> f64 {
        self.passed as f64 / self.sent as f64
    }
}

/// An interface with shares kept in exact tables.
struct Interface {
    rules: LinkRules,
    budget: LinkBudget,
    sources: HashMap<u64, Share>,
    zones: HashMap<(u64, u64), Share>,
}

impl Interface {
    fn new(limit: u32, burst: u32) -> Self {
        Self {
            rules: LinkRules::new(limit, burst, Action::Drop, Mode::Enforce).unwrap(),
            budget: LinkBudget::default(),
            sources: HashMap::new(),
            zones: HashMap::new(),
        }
    }

    fn query(&mut self, source: u64, zone: u64, repeats: bool, now_ns: u64) -> Option<Reason> {
        let now = Ticks::from_ns(now_ns);
        let level = self.budget.level(&self.rules, now_ns);
        let add = |share: &mut Share, limit: u32| {
            let had = share.value(now, SHARE_HALF_SHIFT);
            if had < limit {
                share.add(now, SHARE_HALF_SHIFT, 1);
            }
            had
        };
        let of_source = self.sources.entry(source).or_default();
        let of_zone = self.zones.entry((source, zone)).or_default();
        let why = sheds(&self.rules, level, repeats, |limit| {
            exceeds_share(limit, |limit| add(of_source, limit), |limit| add(of_zone, limit))
        });
        why.or_else(|| (!self.budget.take(&self.rules, now_ns, 1)).then_some(Reason::Exhausted))
    }

    /// Lets these sources ask for some seconds beside `others` packets a second that are no DNS. The first second, in
    /// which the bucket finds its level, is not counted.
    fn run(&mut self, sources: &[Source], others: u64, seconds: u64) -> Vec<Got> {
        let start = 50 * SECOND;
        let mut moments = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            let count = source.per_second * seconds;
            let phase = index as u64 * 131_071;
            moments.extend((0..count).map(|query| (query * SECOND * seconds / count + phase, Some(index))));
        }
        moments.extend((0..others * seconds).map(|packet| (packet * SECOND / others + 77, None)));
        moments.sort_unstable();
        let mut random = Random::new();
        let mut got = std::vec![Got::default(); sources.len()];
        for (at, source) in moments {
            let now_ns = start + at;
            let Some(index) = source else {
                self.budget.charge(&self.rules, now_ns, 1);
                continue;
            };
            let Source { zones, spread, .. } = sources[index];
            let zone = if random.below(spread) == 0 {
                random.below(zones)
            } else {
                0
            };
            let passed = self.query(index as u64, zone, false, now_ns).is_none();
            if at < SECOND {
                continue;
            }
            let got = &mut got[index];
            got.sent += 1;
            got.passed += u64::from(passed);
            got.others_sent += u64::from(zone != 0);
            got.others_passed += u64::from(zone != 0 && passed);
        }
        got
    }
}

/// The max-min fair rates of demands under a capacity.
fn max_min(demands: &[f64], capacity: f64) -> Vec<f64> {
    let mut rates = std::vec![0.0; demands.len()];
    let mut left = capacity;
    let mut order: Vec<usize> = (0..demands.len()).collect();
    order.sort_by(|one, other| demands[*one].total_cmp(&demands[*other]));
    for (at, index) in order.iter().enumerate() {
        let fair = left / (demands.len() - at) as f64;
        rates[*index] = demands[*index].min(fair);
        left -= rates[*index];
    }
    rates
}

#[test]
fn a_sweep_gets_what_the_others_leave() {
    let mut sources = std::vec![Source::steady(5); 50];
    sources.push(Source::steady(5_000));
    let got = Interface::new(900, 112).run(&sources, 100, 6);
    for client in &got[..50] {
        assert_eq!(client.passed, client.sent, "{client:?}");
    }
    let swept = got[50].passed as f64 / 5.0;
    assert!((480.0..=560.0).contains(&swept), "{swept} a second for the sweep");
}

#[test]
fn shares_are_max_min_fair() {
    for demands in [
        std::vec![20, 50, 80, 150, 400, 3_000, 6_000],
        std::vec![2_000, 2_000, 2_000, 2_000, 10, 10, 10, 10],
        std::vec![880],
        std::vec![5_000],
    ] {
        let sources: Vec<_> = demands.iter().map(|rate| Source::steady(*rate)).collect();
        let got = Interface::new(900, 112).run(&sources, 50, 11);
        let wanted: Vec<f64> = demands.iter().map(|rate| *rate as f64).collect();
        let fair = max_min(&wanted, 850.0);
        for (index, fair) in fair.iter().enumerate() {
            let rate = got[index].passed as f64 / 10.0;
            assert!(
                (rate - fair).abs() <= fair * 0.12 + 2.0,
                "{rate} for a demand of {} whose fair share is {fair}, among {demands:?}",
                demands[index]
            );
        }
    }
}

#[test]
fn a_sweep_behind_a_forwarder_leaves_its_other_names_alone() {
    // One source, as when all of a node's DNS goes through one resolver: 4,000 queries of a sweep, 1 in 40 for others.
    let forwarder = Source {
        per_second: 4_000,
        zones: 30,
        spread: 40,
    };
    let got = Interface::new(900, 112).run(&[forwarder, Source::steady(20)], 50, 6);
    let others = got[0].others_passed as f64 / got[0].others_sent as f64;
    assert!(others >= 0.99, "{others} of the other names");
    assert_eq!(got[1].passed, got[1].sent);
}

#[test]
fn many_zones_buy_a_source_no_more_than_twice_its_share() {
    let greedy = Source {
        per_second: 4_000,
        zones: 1 << 40,
        spread: 1,
    };
    let got = Interface::new(900, 112).run(&[greedy, Source::steady(4_000), Source::steady(10)], 50, 11);
    let (greedy, plain) = (got[0].passed as f64, got[1].passed as f64);
    assert!(greedy <= plain * 2.2, "{greedy} against {plain}");
    assert!(got[2].ratio() >= 0.99, "{:?}", got[2]);
}

#[test]
fn what_is_no_dns_is_never_asked_and_always_charged() {
    let mut interface = Interface::new(900, 112);
    let now = 60 * SECOND;
    for _ in 0..500 {
        interface.budget.charge(&interface.rules, now, 1);
    }
    assert_eq!(interface.query(1, 1, false, now), Some(Reason::Exhausted));
    // It owes one more bucket at the most: a quarter of a second later DNS goes on.
    assert_eq!(interface.query(1, 1, false, now + SECOND / 4), None);
}

#[test]
fn repeats_go_first() {
    let mut interface = Interface::new(900, 112);
    let now = 60 * SECOND;
    assert_eq!(interface.query(1, 1, true, now), None);
    for packet in 0..40 {
        interface.budget.charge(&interface.rules, now + packet, 1);
    }
    // Less than three quarters are left.
    assert_eq!(interface.query(1, 1, true, now), Some(Reason::Repeat));
    assert_eq!(interface.query(1, 1, false, now), None);
}

#[test]
fn the_last_packet_goes_to_who_had_none() {
    let mut interface = Interface::new(900, 112);
    let now = 60 * SECOND;
    for _ in 0..110 {
        interface.budget.charge(&interface.rules, now, 1);
    }
    assert_eq!(interface.query(1, 1, false, now), None);
    assert_eq!(interface.query(1, 1, false, now), Some(Reason::Share));
    assert_eq!(interface.query(2, 1, false, now), None);
    assert_eq!(interface.query(3, 1, false, now), Some(Reason::Exhausted));
}

#[test]
fn services_and_interfaces_are_found_and_bounded() {
    let mut rules = LinkRules::new(900, 112, Action::Drop, Mode::Enforce).unwrap();
    let address = |last| Address::v4(u32::from_ne_bytes([169, 254, 169, last]));
    assert!(rules.is_empty() && rules.service_at(&address(253)).is_none());
    for (last, service) in [(253, Service::Dns), (254, Service::Imds), (123, Service::Ntp)] {
        assert!(rules.add_service(address(last), service));
    }
    assert_eq!(rules.service_at(&address(254)), Some(Service::Imds));
    // The same lower six bits, another address.
    assert_eq!(rules.service_at(&address(254 - 64)), None);
    assert!((4..=MAX_SERVICES).all(|last| rules.add_service(address(last as u8), Service::Other)));
    assert!(!rules.add_service(address(99), Service::Other));

    assert!((1..=MAX_LINKS as u32).all(|ifindex| rules.add_device(ifindex * 10)));
    assert!(!rules.add_device(7));
    assert_eq!(
        (rules.link_of(10), rules.link_of(160), rules.link_of(7)),
        (Some(0), Some(15), None)
    );
}

#[test]
fn absurd_limits_are_refused() {
    for (limit, burst) in [(0, 1), (1, 0), (100_001, 1), (1, 100_001)] {
        assert!(
            LinkRules::new(limit, burst, Action::Drop, Mode::Enforce).is_none(),
            "{limit}, {burst}"
        );
    }
}
