//! A night of storms, with a clock that the test owns.

use guard_common::{counter::action_index, remedy::Shed};

use super::*;
use crate::offenders::tests::{random, sample, shed, swept, wire};

const SECOND: u64 = 1_000_000_000;
const TICK: u64 = SECOND / 4;
const LINK: Shedder = Shedder::Link(2);

fn limiter(shedder: Shedder, mode: Mode) -> Limiter {
    Limiter {
        shedder,
        name: "aws-link-local".to_owned(),
        device: Some("eth0".to_owned()),
        limit: Some(900.0),
        scope: Scope::Destination,
        mode,
    }
}

/// The guard, the kernel that it reads, and the sweep.
struct Night {
    storms: Storms,
    offenders: Offenders,
    link: LinkCount,
    random: Box<dyn FnMut(u64) -> u64>,
    now_ns: u64,
    events: Vec<(u64, Event)>,
}

impl Night {
    fn new(mode: Mode) -> Self {
        Self {
            storms: Storms::new(vec![limiter(LINK, mode)]),
            offenders: Offenders::new(Vec::new()),
            link: LinkCount::default(),
            random: Box::new(random()),
            now_ns: 100 * SECOND,
            events: Vec::new(),
        }
    }

    /// So many ticks in which so many packets go out and so many are shed; one in eight of these is shown.
    fn pass(&mut self, ticks: u64, passed: u64, over: u64) {
        for _ in 0..ticks {
            for query in 0..over / 8 {
                let client = if query % 50 == 0 { [10, 1, 0, 3] } else { [10, 9, 0, 66] };
                let name = swept(&mut self.random);
                let seen_ns = self.now_ns + query * TICK / (over / 8);
                let sample = shed(sample(client, &name, 12, 8), Shed::NO_ROW, Reason::Exhausted);
                self.offenders.on_sample(&sample, seen_ns);
            }
            self.now_ns += TICK;
            self.link.passed[0] += passed;
            if self.storms.limiters[0].limiter.mode == Mode::Enforce {
                self.link.shed[2] += over;
            } else {
                self.link.would_shed[2] += over;
            }
            self.storms.on_link(2, &self.link, self.now_ns);
            let told = self.storms.tick(&self.offenders, |_| None, self.now_ns);
            self.events.extend(told.into_iter().map(|event| (self.now_ns, event)));
        }
    }

    fn over(&self) -> Vec<(u64, &OverBudget)> {
        let events = self.events.iter();
        events
            .filter_map(|(at_ns, event)| match event {
                Event::OverBudget(over) => Some((*at_ns, over)),
                _ => None,
            })
            .collect()
    }

    fn within(&self) -> Vec<(u64, &WithinBudget)> {
        let events = self.events.iter();
        events
            .filter_map(|(at_ns, event)| match event {
                Event::WithinBudget(within) => Some((*at_ns, within)),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn a_sweep_is_named_by_zone_and_client_at_the_next_tick() {
    let mut night = Night::new(Mode::Enforce);
    night.pass(8, 100, 0);
    let begin_ns = night.now_ns;
    night.pass(4, 225, 1_025);
    let over = night.over();
    assert_eq!(over.len(), 1);
    let (at_ns, event) = over[0];
    assert_eq!(at_ns - begin_ns, TICK);
    assert_eq!(
        (event.zones[0].zone.as_str(), event.clients[0].client.as_str()),
        ("104.in-addr.arpa.", "10.9.0.66")
    );
    assert!(
        event.zones[0].share > 0.99 && (event.clients[0].share - 0.98).abs() < 0.02,
        "{event:?}"
    );
    assert_eq!(
        (event.shed, event.shed_per_second, event.offered_per_second),
        (1_025, 4_100, 5_000)
    );
    assert_eq!(
        (event.device.as_deref(), event.limit, event.mode),
        (Some("eth0"), Some(900.0), "enforce")
    );
    assert!(event.reason.contains("98 % come from 10.9.0.66"), "{}", event.reason);
}

#[test]
fn a_storm_that_lasts_is_told_of_every_ten_seconds_and_its_end_no_sooner() {
    let mut night = Night::new(Mode::Enforce);
    night.pass(4, 100, 0);
    let begin_ns = night.now_ns;
    night.pass(25 * 4, 225, 1_000);
    let end_ns = night.now_ns;
    night.pass(100, 100, 0);
    let times: Vec<_> = night
        .over()
        .iter()
        .map(|(at_ns, _)| (at_ns - begin_ns) / (TICK / 10))
        .collect();
    assert_eq!(times, [10, 410, 810]);
    assert_eq!(
        (night.over()[2].1.shed, night.over()[2].1.shed_per_second),
        (81_000, 4_000)
    );
    let within = night.within();
    assert_eq!(within.len(), 1);
    assert_eq!(
        (within[0].0 - end_ns, within[0].1.shed, within[0].1.seconds),
        (5 * SECOND + TICK, 100_000, 25)
    );
    assert_eq!(night.events.len(), 4);
}

#[test]
fn observing_counts_what_would_have_been_shed() {
    let mut night = Night::new(Mode::Observe);
    night.pass(4, 100, 0);
    // In observe mode everything goes out.
    night.pass(4, 1_250, 1_025);
    let over = night.over();
    assert_eq!(
        (over[0].1.mode, over[0].1.shed_per_second, over[0].1.offered_per_second),
        ("observe", 4_100, 5_000)
    );
    assert!(
        over[0].1.reason.contains("would have been shed"),
        "{}",
        over[0].1.reason
    );
}

#[test]
fn a_few_shed_packets_are_told_after_half_a_second_with_the_names_that_there_are() {
    let mut night = Night::new(Mode::Enforce);
    night.pass(4, 100, 0);
    let begin_ns = night.now_ns;
    night.pass(1, 100, 8);
    night.pass(3, 100, 0);
    let over = night.over();
    assert_eq!((over.len(), over[0].0 - begin_ns, over[0].1.shed), (1, 2 * TICK, 8));
    assert_eq!(over[0].1.clients[0].client, "10.1.0.3");
    let mut night = Night::new(Mode::Enforce);
    night.pass(4, 100, 0);
    night.pass(4, 100, 3);
    assert!(
        night.over()[0]
            .1
            .reason
            .ends_with("who makes it is not known yet; IMDS, time service and whoever asks little still get through")
    );
}

#[test]
fn what_was_shed_before_the_agent_came_is_no_storm() {
    let mut night = Night::new(Mode::Enforce);
    night.link.shed = [1_000; 3];
    night.pass(20, 100, 0);
    assert!(night.events.is_empty());
    // Nor are counters that begin anew.
    night.link = LinkCount::default();
    night.pass(20, 100, 0);
    assert!(night.events.is_empty());
    night.pass(4, 100, 500);
    assert_eq!(night.over().len(), 1);
}

#[test]
fn calm_is_not_told() {
    let mut night = Night::new(Mode::Enforce);
    night.pass(400, 225, 0);
    assert!(night.events.is_empty());
    assert!((night.storms.peak(2, night.now_ns) - 900.0).abs() < 1.0);
    assert!(night.storms.peak(3, night.now_ns) < 0.1);
}

#[test]
fn budgets_and_rules_have_storms_of_their_own() {
    let rule = Shedder::Rule(Rule::Recursion);
    let budget = Shedder::Budget(0);
    let limiters = [budget, rule].map(|shedder| Limiter {
        device: None,
        limit: matches!(shedder, Shedder::Budget(_)).then_some(200.0),
        name: "mine".to_owned(),
        scope: Scope::Client,
        ..limiter(shedder, Mode::Enforce)
    });
    let mut storms = Storms::new(limiters.into());
    let mut offenders = Offenders::new(vec![0]);
    for query in 0..40 {
        let query = sample([10, 0, 0, 1], &wire(&format!("a{query}.victim.example")), 1, 1);
        offenders.on_sample(&shed(query, 0, Reason::Budget), SECOND);
    }
    let mut counters = Counters::default();
    for (tick, over) in [(0, 0), (1, 40)] {
        let now_ns = SECOND + tick * TICK;
        counters.0[action_index(Verdict::Answer, Reason::Recursion)] = over;
        storms.on_count(
            budget,
            Count {
                offered: 100 + over,
                over,
            },
            now_ns,
        );
        storms.on_count(rule, count_of_rule(&counters, Rule::Recursion), now_ns);
        // Nobody knows it: it is not in the policy any more.
        storms.on_count(Shedder::Budget(7), Count { offered: over, over }, now_ns);
        let told = storms.tick(&offenders, |ifindex| (ifindex == 2).then(|| "eth0".to_owned()), now_ns);
        assert_eq!(told.len() as u64, tick);
        if let Some(Event::OverBudget(event)) = told.first() {
            assert_eq!(
                (event.device.as_deref(), event.zones[0].zone.as_str()),
                (Some("eth0"), "victim.example.")
            );
        }
    }
    // Nobody was shown to break the rule: that is told half a second later.
    let told = storms.tick(&offenders, |_| None, SECOND + 2 * TICK);
    assert!(matches!(&told[..], [Event::OverBudget(event)] if event.reason.contains("for recursion from outside")));
}

#[test]
fn a_link_is_read_from_the_counters_of_its_interface() {
    let mut counters = Counters::default();
    for (index, counter) in counters.0.iter_mut().enumerate() {
        *counter = index as u64;
    }
    let found = LinkCount::of(&counters);
    assert_eq!(found.passed[1], link_index(Service::Imds) as u64);
    let expected = action_index(Verdict::Answer, Reason::Share) + action_index(Verdict::Drop, Reason::Share);
    assert_eq!(found.shed[1], expected as u64);
    let expected =
        action_index(Verdict::WouldAnswer, Reason::Exhausted) + action_index(Verdict::WouldDrop, Reason::Exhausted);
    assert_eq!(found.would_shed[2], expected as u64);
}
