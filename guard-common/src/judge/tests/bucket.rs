//! Buckets: a flood of names cannot flush what matters.

use std::vec::Vec;

use proptest::prelude::*;

use super::{RULES, cases};
use crate::{
    flow::Sighting,
    judge::{Endpoint, Hop, KeyBucket, Look, Note, Ruling, SLOTS},
    key::Key,
    sample::Sampler,
    time::{Ticks, ticks_of_ms},
};

const START: Ticks = Ticks(u32::MAX - 500);

const fn hop(port: u16, sighting: Sighting) -> Hop {
    Hop {
        client: Endpoint {
            address: 1,
            port: 30_000 + port,
        },
        server: Endpoint { address: 1, port },
        id: 7,
        same_host: true,
        plain: true,
        egress: false,
        sighting,
    }
}

fn ask(bucket: &mut KeyBucket, key: u64, now: Ticks) -> Option<Ruling> {
    bucket.query(Key(key), &hop(53, Sighting::New), now, &RULES)
}

fn trip(bucket: &mut KeyBucket, key: u64, now: Ticks) {
    for round in 0..64 {
        let sighting = if round < 2 { Sighting::New } else { Sighting::Rapid };
        let ruling = bucket
            .query(Key(key), &hop(53 + round % 2, sighting), now, &RULES)
            .unwrap();
        if ruling.note == Note::Trip {
            return;
        }
    }
    panic!("a ping-pong did not trip");
}

const fn later(ms: u32) -> Ticks {
    START.plus(ticks_of_ms(ms))
}

fn is_known(bucket: &KeyBucket, key: u64) -> bool {
    bucket.state(Key(key)).is_some()
}

#[test]
fn the_quietest_key_makes_room() {
    let mut bucket = KeyBucket::default();
    for key in 1..=SLOTS as u64 {
        ask(&mut bucket, key, later(key as u32 * 10));
    }
    // The first one is asked for once more: now the second is the quietest.
    ask(&mut bucket, 1, later(100));
    ask(&mut bucket, 8, later(110));
    assert!(!is_known(&bucket, 2));
    assert!([1, 3, 4, 5, 6, 7, 8].into_iter().all(|key| is_known(&bucket, key)));
}

#[test]
fn a_bucket_is_full_while_every_key_waits_or_is_held() {
    let mut bucket = KeyBucket::default();
    for key in 1..=SLOTS as u64 {
        assert!(!bucket.is_full(later(0)));
        ask(&mut bucket, key, later(0));
    }
    assert!(bucket.is_full(later(9_000)));
    assert!(!bucket.is_full(later(11_000)), "their hops are forgotten");
    bucket.answered(Key(1), true, later(1), &RULES);
    assert!(!bucket.is_full(later(1)), "one is answered");
    trip(&mut bucket, 1, later(2));
    assert!(bucket.is_full(later(9_000)));
    for key in 2..=SLOTS as u64 {
        trip(&mut bucket, key, later(2));
    }
    assert!(bucket.is_full(later(500_000)) && !bucket.is_full(later(700_000)));
}

/// A million random names a second are one for each bucket in 16 ms.
#[test]
fn a_suspect_outlasts_a_flood_of_other_names() {
    let mut bucket = KeyBucket::default();
    for round in 0..7 {
        let sighting = if round < 2 { Sighting::New } else { Sighting::Rapid };
        bucket
            .query(Key(1), &hop(53 + round % 2, sighting), later(0), &RULES)
            .unwrap();
    }
    for name in 0..40 {
        ask(&mut bucket, 100 + name, later(1 + name as u32 * 16));
    }
    assert!(is_known(&bucket, 1));
}

#[test]
fn an_open_breaker_is_never_flushed() {
    let mut bucket = KeyBucket::default();
    trip(&mut bucket, 1, START);
    for name in 0..10_000 {
        ask(&mut bucket, 100 + name, later(name as u32 / 10)).unwrap();
    }
    assert!(bucket.state(Key(1)).unwrap().is_open());
    assert!(ask(&mut bucket, 1, later(900)).unwrap().held);
}

#[test]
fn when_every_slot_is_an_open_breaker_another_name_passes() {
    let mut bucket = KeyBucket::default();
    for key in 1..=SLOTS as u64 {
        trip(&mut bucket, key, START);
    }
    assert!(ask(&mut bucket, 8, later(1)).is_none());
    assert!(bucket.answered(Key(8), true, later(2), &RULES).is_none());
    assert!((1..=SLOTS as u64).all(|key| ask(&mut bucket, key, later(3)).unwrap().held));
    // Their owners are long gone: one of them makes room.
    assert!(ask(&mut bucket, 8, later(601_000)).is_some());
}

#[test]
fn a_key_that_takes_over_a_slot_inherits_nothing() {
    let mut bucket = KeyBucket::default();
    for key in 1..=SLOTS as u64 {
        for round in 0..7 {
            let sighting = if round < 2 { Sighting::New } else { Sighting::Rapid };
            bucket
                .query(Key(key), &hop(53 + round % 2, sighting), START, &RULES)
                .unwrap();
        }
    }
    let ruling = ask(&mut bucket, 8, later(100)).unwrap();
    assert_eq!((ruling.hops, ruling.recirculated, ruling.held), (1, 0, false));
}

#[test]
fn an_answer_for_a_key_that_nobody_asked_for_takes_no_slot() {
    let mut bucket = KeyBucket::default();
    assert!(bucket.answered(Key(5), true, START, &RULES).is_none());
    assert!(!is_known(&bucket, 5));
}

proptest! {
    #![proptest_config(cases(256))]

    /// At any moment a key lives in one slot at most, open breakers stay, and a key just asked for is there.
    #[test]
    fn a_bucket_keeps_its_promises_under_any_mix(
        steps in prop::collection::vec((1..12_u64, 0..200_u32, prop::bool::weighted(0.05)), 1..300),
    ) {
        let mut bucket = KeyBucket::default();
        let mut now = START;
        let mut open = Vec::new();
        for (key, pause, trips) in steps {
            now = now.plus(pause);
            let full = open.len() == SLOTS && !open.contains(&key);
            if trips && !full && !open.contains(&key) {
                trip(&mut bucket, key, now);
                open.push(key);
            }
            prop_assert_eq!(ask(&mut bucket, key, now).is_none(), full);
            prop_assert_eq!(is_known(&bucket, key), !full);
            for key in &open {
                prop_assert!(bucket.state(Key(*key)).is_some_and(|state| state.is_open()));
            }
        }
    }
}

/// Takes a query in as a door does that looks first. False if that needs the long way.
fn look_first(bucket: &mut KeyBucket, key: Key, hop: &Hop, now: Ticks) -> bool {
    look_with(bucket, key, hop, now, 0)
}

/// The same, with the number that is drawn for it.
fn look_with(bucket: &mut KeyBucket, key: Key, hop: &Hop, now: Ticks, random: u32) -> bool {
    let Look(look) = bucket.look(key, hop, now, RULES.hold_max_ticks);
    if look == Look::UNCLEAR.0 {
        return false;
    }
    let slot = look % 8;
    if look == Look::BEGINS.0 {
        bucket.begin(key, hop, now);
    } else if look & Look::HELD == 0 {
        bucket.note_repeat(slot, hop, now);
    } else {
        bucket.note_held(slot, now, random);
    }
    true
}

#[test]
fn of_very_many_held_queries_a_few_are_written_down_for_all() {
    let mut bucket = KeyBucket::default();
    trip(&mut bucket, 1, START);
    let (mut sampler, mut written) = (Sampler::default(), 0);
    let held = 1_000_000;
    for _ in 0..held {
        let before = *bucket.state(Key(1)).unwrap();
        assert!(look_with(
            &mut bucket,
            Key(1),
            &hop(53, Sighting::New),
            START,
            sampler.random(0)
        ));
        written += u32::from(*bucket.state(Key(1)).unwrap() != before);
    }
    let counted = bucket.state(Key(1)).unwrap().held();
    assert!(counted.abs_diff(held) < held / 50, "{counted} of {held}");
    assert!(written < held / 12, "{written} of {held} written");
}

#[test]
fn of_very_many_repeats_one_is_written_down_in_a_step_of_the_clock() {
    let away = |id| Hop {
        same_host: false,
        id,
        ..hop(53, Sighting::New)
    };
    let mut bucket = KeyBucket::default();
    let mut written = 0;
    for id in 0..50_000 {
        // A thousand in a step of 4 ms.
        let now = later(u32::from(id) / 1_000 * 4);
        let before = bucket.state(Key(1)).copied();
        assert!(look_first(&mut bucket, Key(1), &away(id), now));
        written += u32::from(bucket.state(Key(1)).copied() != before);
    }
    let hops = bucket.state(Key(1)).unwrap().insight(later(200), &RULES).hops;
    assert!((1_024..1_100).contains(&written), "{written} written");
    assert_eq!(u32::from(hops), written, "all those that were written count");
    // An answer ends that.
    assert!(bucket.answered(Key(1), true, later(200), &RULES).is_none());
    for id in 0..100 {
        assert!(look_first(&mut bucket, Key(1), &away(id), later(200)));
    }
    assert_eq!(bucket.state(Key(1)).unwrap().insight(later(200), &RULES).hops, 100);
}

proptest! {
    #![proptest_config(cases(3_000))]

    /// Whatever order keys come in, and however many there are: a look and what follows it leaves all of them as the long
    /// way does.
    #[test]
    fn who_looks_first_leaves_every_key_as_the_long_way_does(
        packets in prop::collection::vec(
            (
                1..12_u64,
                0..3_u16,
                prop::sample::select(std::vec![Sighting::New, Sighting::Retransmit, Sighting::Rapid]),
                prop::bool::weighted(0.2),
                0..3_000_u32,
            ),
            1..200,
        ),
        held in 0..=SLOTS as u64,
    ) {
        let mut short = KeyBucket::default();
        for key in 1..=held {
            trip(&mut short, key, START);
        }
        let mut long = short;
        let mut now = START;
        for (key, port, sighting, answers, wait) in packets {
            now = now.plus(wait / 10);
            if answers {
                let ends = |bucket: &mut KeyBucket| bucket.answered(Key(key), true, now, &RULES);
                prop_assert_eq!(ends(&mut short), ends(&mut long));
                continue;
            }
            let hop = Hop {
                same_host: false,
                ..hop(port, sighting)
            };
            let was_short = look_first(&mut short, Key(key), &hop, now);
            let ruling = long.query(Key(key), &hop, now, &RULES);
            if was_short {
                prop_assert!(ruling.is_none_or(|ruling| ruling.note == Note::None && !ruling.suspects && !ruling.tests));
            } else {
                prop_assert_eq!(short.query(Key(key), &hop, now, &RULES), ruling);
            }
            for key in 1..12 {
                prop_assert_eq!(short.state(Key(key)), long.state(Key(key)), "key {}", key);
            }
        }
    }
}
