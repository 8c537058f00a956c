//! The breaker: it ends by itself, tests with one query, and closes after an answer.

use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::{KEY, RULES, cases};
use crate::{
    flow::Sighting,
    judge::{Endpoint, Hop, KeyBucket, Note, Rules, Ruling},
    time::{Ticks, ticks_of_ms},
};

const START: Ticks = Ticks(u32::MAX - 20_000);
const DAY: u32 = ticks_of_ms(86_400_000);

/// One key, and a clock.
struct Bench {
    bucket: KeyBucket,
    now: Ticks,
    rules: Rules,
}

/// A hop to server `server` from a socket of its own.
fn hop(port: u16, server: u16) -> Hop {
    Hop {
        client: Endpoint { address: 1, port },
        server: Endpoint {
            address: 1,
            port: server,
        },
        id: port,
        same_host: true,
        plain: true,
        egress: false,
        sighting: Sighting::New,
    }
}

impl Bench {
    fn new() -> Self {
        Self {
            bucket: KeyBucket::default(),
            now: START,
            rules: RULES,
        }
    }

    fn wait_ms(&mut self, ms: u32) -> &mut Self {
        self.now = self.now.plus(ticks_of_ms(ms));
        self
    }

    fn query(&mut self, hop: &Hop) -> Ruling {
        self.bucket.query(KEY, hop, self.now, &self.rules).unwrap()
    }

    fn answer(&mut self) -> Option<Ruling> {
        self.bucket.answered(KEY, true, self.now, &self.rules)
    }

    fn is_open(&self) -> bool {
        self.bucket.state(KEY).is_some_and(|state| state.is_open())
    }

    /// Two servers that play ping-pong over two sockets until the breaker opens.
    fn trip(&mut self) -> Ruling {
        for round in 0..64 {
            let mut hop = if round % 2 == 0 {
                hop(30_000, 53)
            } else {
                hop(30_001, 54)
            };
            hop.sighting = if round < 2 { Sighting::New } else { Sighting::Rapid };
            let ruling = self.query(&hop);
            if ruling.note == Note::Trip {
                return ruling;
            }
        }
        panic!("a ping-pong did not trip");
    }

    /// Trips, and lets that many tests fail. The last hold has just begun.
    fn trip_and_fail(&mut self, tests: u32) {
        self.trip();
        for _ in 0..tests {
            self.over();
            assert!(!self.query(&hop(40_000, 53)).held, "the test");
            self.over();
            assert_eq!(self.query(&hop(40_000, 53)).note, Note::Extend);
        }
    }

    /// Goes on to the end of the hold or the test.
    fn over(&mut self) {
        self.now = self.bucket.state(KEY).unwrap().until();
    }
}

#[test]
fn everything_is_held_while_the_breaker_is_open() {
    let mut bench = Bench::new();
    let trip = bench.trip();
    assert!(trip.held, "the query that gives the loop away is held as well");
    assert_eq!((trip.held_in_hold, trip.hold_ticks), (1, RULES.hold_ticks));
    for held in 2..100 {
        let ruling = bench.query(&hop(40_000 + held as u16, 53));
        assert!(ruling.held);
        assert_eq!((ruling.note, ruling.held_in_hold), (Note::None, held));
    }
    bench.wait_ms(998);
    assert!(bench.query(&hop(50_000, 53)).held);
}

#[test]
fn a_hold_doubles_with_every_test_that_fails_up_to_its_maximum() {
    let mut bench = Bench::new();
    let mut hold = bench.trip().hold_ticks;
    assert_eq!(hold, RULES.hold_ticks);
    for _ in 0..40 {
        bench.over();
        assert!(!bench.query(&hop(40_000, 53)).held, "one query is let through");
        bench.over();
        let ruling = bench.query(&hop(40_001, 53));
        assert!(ruling.held);
        hold = (hold * 2).min(RULES.hold_max_ticks);
        assert_eq!((ruling.note, ruling.hold_ticks), (Note::Extend, hold));
        assert_eq!(ruling.until, bench.now.plus(hold));
    }
    assert_eq!(hold, RULES.hold_max_ticks);
}

#[test]
fn after_an_answer_it_stays_closed_by_itself_and_the_next_hold_is_short_again() {
    let mut bench = Bench::new();
    bench.trip_and_fail(5);
    bench.over();
    assert!(!bench.query(&hop(40_000, 53)).held);
    let release = bench.wait_ms(3).answer().unwrap();
    assert_eq!(release.note, Note::Release);
    assert!(!bench.is_open());
    for second in 0..100 {
        assert!(!bench.wait_ms(1_000).query(&hop(40_000 + second, 53)).held);
        assert!(bench.wait_ms(1).answer().is_none(), "there is nothing to release");
    }
    assert_eq!(bench.trip().hold_ticks, RULES.hold_ticks);
}

#[test]
fn a_test_lets_one_query_through_each_server_once() {
    let mut bench = Bench::new();
    bench.trip();
    bench.over();
    assert!(!bench.query(&hop(40_000, 53)).held, "the client's");
    assert!(!bench.query(&hop(40_001, 54)).held, "the first server's to the second");
    let back = bench.query(&hop(40_002, 53));
    assert!(back.held, "it is back at the first: the loop is still there");
    assert_eq!(back.note, Note::None);
    assert!(bench.query(&hop(40_003, 53)).held, "another client's");
    assert!(bench.query(&hop(40_004, 54)).held);
}

#[test]
fn a_retransmit_of_the_test_query_passes() {
    let mut bench = Bench::new();
    bench.trip();
    bench.over();
    assert!(!bench.query(&hop(40_000, 53)).held);
    let mut again = hop(40_000, 53);
    again.sighting = Sighting::Retransmit;
    assert!(!bench.wait_ms(1_000).query(&again).held);
    again.sighting = Sighting::Rapid;
    assert!(bench.query(&again).held, "a repeat that no client makes");
    let mut stranger = hop(40_009, 53);
    stranger.sighting = Sighting::Retransmit;
    assert!(bench.query(&stranger).held, "a retransmit of a query that was held");
}

#[test]
fn the_test_query_may_cross_several_interfaces() {
    let mut bench = Bench::new();
    bench.trip();
    bench.over();
    assert!(!bench.query(&hop(40_000, 53)).held);
    let mut elsewhere = hop(40_000, 53);
    elsewhere.sighting = Sighting::Elsewhere;
    assert!(!bench.query(&elsewhere).held);
    assert!(!bench.query(&elsewhere).held);
}

/// What is held at the first interface is never seen at the second; what is seen there passed the first.
#[test]
fn what_passed_elsewhere_does_not_begin_a_test() {
    let mut bench = Bench::new();
    bench.trip();
    bench.over();
    let mut elsewhere = hop(40_000, 53);
    elsewhere.sighting = Sighting::Elsewhere;
    bench.query(&elsewhere);
    assert!(!bench.query(&hop(40_001, 53)).held, "the test is still to be had");
}

#[test]
fn an_answer_to_a_query_from_before_the_trip_does_not_release() {
    let mut bench = Bench::new();
    bench.trip();
    assert!(bench.wait_ms(500).answer().is_none());
    assert!(bench.is_open());
    bench.over();
    assert!(
        bench.wait_ms(10).answer().is_none(),
        "the hold is over, but nobody has asked"
    );
    assert!(bench.is_open());
}

#[test]
fn an_answer_to_a_test_that_is_over_releases() {
    let mut bench = Bench::new();
    bench.trip_and_fail(1);
    assert_eq!(bench.wait_ms(5).answer().unwrap().note, Note::Release);
}

/// The door tells the judge of NOERROR and NXDOMAIN only: forwarders at their limit send errors in the middle of a loop.
#[test]
fn without_an_answer_nothing_releases() {
    let mut bench = Bench::new();
    bench.trip();
    for _ in 0..10 {
        bench.over();
        bench.query(&hop(40_000, 53));
        assert!(bench.is_open());
    }
}

#[test]
fn a_key_that_nobody_asked_for_is_tested_again_without_doubling() {
    let mut bench = Bench::new();
    bench.trip_and_fail(3);
    let hold = bench.bucket.state(KEY).unwrap().until().since(bench.now);
    bench.over();
    assert!(!bench.query(&hop(40_000, 53)).held, "the test");
    // Nobody asks until long after it, as when the only client gave up.
    bench.wait_ms(3_600_000);
    let ruling = bench.query(&hop(40_001, 53));
    assert!(!ruling.held, "another test");
    assert_eq!(ruling.note, Note::None);
    bench.over();
    let ruling = bench.query(&hop(40_002, 53));
    assert_eq!((ruling.note, ruling.hold_ticks), (Note::Extend, hold * 2));
}

/// The operator mends the forwarding rule: the name now comes from a server that was never part of the loop.
#[test]
fn a_mended_rule_that_points_to_a_new_server_resolves_within_one_hold() {
    let mut bench = Bench::new();
    // As in the incident: consul, and dnsmasq under three addresses.
    let servers = [53, 8_600, 5_302, 5_303];
    for (number, server) in servers.into_iter().enumerate() {
        bench.query(&hop(20_000 + number as u16, server));
    }
    bench.trip();
    bench.over();
    assert!(!bench.query(&hop(40_000, 53)).held, "the client asks dnsmasq");
    assert!(
        !bench.query(&hop(40_001, 8_601)).held,
        "dnsmasq asks the consul that it should have asked from the start"
    );
    assert!(bench.wait_ms(1).answer().is_some());
    assert!(!bench.is_open());
}

/// Every block ends by itself: after a month as well, when the ticks have half wrapped.
#[test]
fn a_breaker_that_nobody_asked_for_in_weeks_lets_the_next_query_through() {
    for days in [1, 10, 25, 27, 30, 40, 50] {
        let mut bench = Bench::new();
        bench.trip();
        bench.now = bench.now.plus(days * DAY);
        assert!(!bench.query(&hop(40_000, 53)).held, "after {days} days");
    }
}

#[test]
fn hops_of_last_month_do_not_count() {
    for days in [1, 27, 40] {
        let mut bench = Bench::new();
        for round in 0..7 {
            let mut hop = if round % 2 == 0 {
                hop(30_000, 53)
            } else {
                hop(30_001, 54)
            };
            hop.sighting = if round < 2 { Sighting::New } else { Sighting::Rapid };
            assert_ne!(bench.query(&hop).note, Note::Trip);
        }
        bench.now = bench.now.plus(days * DAY);
        assert_eq!(bench.query(&hop(40_000, 53)).hops, 1, "after {days} days");
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Query {
        client: u16,
        server: u16,
        id: u16,
        same_host: bool,
        sighting: Sighting,
    },
    Answer,
    Wait {
        ticks: u32,
    },
    /// To the end of the hold or the test, give or take a tick.
    UntilThen {
        late: u32,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sighting = prop::sample::select(vec![
        Sighting::New,
        Sighting::Retransmit,
        Sighting::Rapid,
        Sighting::Rapid,
        Sighting::Rapid,
        Sighting::Elsewhere,
    ]);
    let query = (0..4_u16, 0..6_u16, 0..3_u16, any::<bool>(), sighting).prop_map(
        |(client, server, id, same_host, sighting)| Step::Query {
            client,
            server,
            id,
            same_host,
            sighting,
        },
    );
    let wait = prop_oneof![0..3_u32, 0..2_000_u32, 0..400_000_u32, any::<u32>()];
    prop::collection::vec(
        prop_oneof![
            12 => query,
            1 => Just(Step::Answer),
            2 => wait.prop_map(|ticks| Step::Wait { ticks }),
            1 => (0..3_u32).prop_map(|late| Step::UntilThen { late }),
        ],
        1..300,
    )
}

proptest! {
    #![proptest_config(cases(512))]

    /// Against a model that knows only: open or closed, and until when.
    #[test]
    fn whatever_happens_a_breaker_ends_and_holds_only_while_it_is_open(
        steps in steps(),
        hold_ticks in 1..2_000_u32,
        longest in 0..300_000_u32,
        test_ticks in 1..5_000_u32,
    ) {
        let rules = Rules { hold_ticks, hold_max_ticks: hold_ticks + longest, test_ticks, marks: 0 };
        let mut bench = Bench { rules, ..Bench::new() };
        let mut held_in_hold = 0;
        for step in steps {
            let was_open = bench.is_open();
            match step {
                Step::Wait { ticks } => bench.now = bench.now.plus(ticks),
                Step::UntilThen { late } => if was_open {
                    bench.over();
                    bench.now = bench.now.plus(late);
                },
                Step::Answer => {
                    let ruling = bench.answer();
                    prop_assert!(ruling.is_none() || was_open);
                    prop_assert_eq!(ruling.is_some(), was_open && !bench.is_open());
                    if let Some(ruling) = ruling {
                        prop_assert_eq!((ruling.held, ruling.note), (false, Note::Release));
                    }
                }
                Step::Query { client, server, id, same_host, sighting } => {
                    let ends = |number, port| Endpoint { address: number, port };
                    let hop = Hop { client: ends(client, 30_000), server: ends(server, 53), id, same_host, plain: true, egress: false, sighting };
                    let ruling = bench.query(&hop);
                    prop_assert!(!ruling.held || bench.is_open());
                    prop_assert!(was_open || bench.is_open() == (ruling.note == Note::Trip));
                    prop_assert!(!was_open || bench.is_open(), "only an answer closes");
                    prop_assert!(ruling.note != Note::Extend || was_open);
                    prop_assert!(!matches!(ruling.note, Note::Trip | Note::Extend) || ruling.held);
                    if matches!(ruling.note, Note::Trip | Note::Extend) {
                        held_in_hold = 0;
                        prop_assert_eq!(ruling.until, bench.now.plus(ruling.hold_ticks));
                    }
                    if ruling.held {
                        held_in_hold += 1;
                        prop_assert_eq!(ruling.held_in_hold, held_in_hold);
                        prop_assert!((rules.hold_ticks..=rules.hold_max_ticks).contains(&ruling.hold_ticks));
                        let left = ruling.until.since(bench.now);
                        prop_assert!(left <= rules.hold_max_ticks.max(rules.test_ticks), "{} ticks left", left);
                        prop_assert!(left > 0, "held by a hold that is over");
                    }
                }
            }
        }
        if bench.is_open() {
            // Whatever it was, two patient tests and an answer end it.
            bench.now = bench.now.plus(2 * (rules.hold_max_ticks + rules.test_ticks));
            prop_assert!(!bench.query(&hop(60_000, 53)).held);
            prop_assert!(bench.answer().is_some());
            prop_assert!(!bench.is_open());
        }
    }
}
