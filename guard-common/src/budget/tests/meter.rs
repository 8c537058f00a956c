//! The table under floods.

use std::{vec, vec::Vec};

use super::{Random, SECOND};
use crate::{
    abi::{METER_LINES, meter_line},
    budget::{MeterLine, Rate, SLOTS},
    time::Ticks,
};

/// The whole table.
struct Table(Vec<MeterLine>);

impl Table {
    fn new() -> Self {
        Self(vec![MeterLine::default(); METER_LINES])
    }

    /// As a door does.
    fn charge(&mut self, tag: u64, rate: &Rate, now_ns: u64) -> bool {
        let line = &mut self.0[meter_line(tag) as usize];
        !line.is_known_empty(tag, rate, now_ns, 1) && line.charge(tag, rate, now_ns, 1)
    }
}

#[test]
fn each_tag_has_a_bucket_of_its_own() {
    let mut line = MeterLine::default();
    let rate = Rate::new(1, 1, 2).unwrap();
    for tag in 1..=SLOTS as u64 {
        assert!(line.charge(tag, &rate, SECOND, 1) && line.charge(tag, &rate, SECOND, 1));
        assert!(!line.charge(tag, &rate, SECOND, 1));
    }
    assert!((1..=SLOTS as u64).all(|tag| line.has(tag)));
}

#[test]
fn a_newcomer_takes_the_place_of_the_lightest() {
    let mut line = MeterLine::default();
    let rate = Rate::new(100, 1, 100).unwrap();
    for tag in 1..=SLOTS as u64 {
        for _ in 0..tag {
            line.charge(tag, &rate, SECOND, 1);
        }
    }
    line.charge(99, &rate, SECOND, 1);
    assert!(!line.has(1) && line.has(2) && line.has(5) && line.has(99));
}

#[test]
fn a_line_is_full_while_all_of_it_is_warm() {
    let mut line = MeterLine::default();
    let rate = Rate::new(100, 1, 100).unwrap();
    let later = |seconds: u64| Ticks::from_ns(seconds * SECOND);
    for tag in 1..=SLOTS as u64 {
        assert!(!line.is_full(later(1)));
        line.charge(tag, &rate, SECOND, 1);
    }
    assert!(line.is_full(later(1)) && line.is_full(later(3)));
    assert!(!line.is_full(later(10)), "nobody came for nine seconds");
}

#[test]
fn who_was_heavy_long_ago_makes_way() {
    let mut line = MeterLine::default();
    let rate = Rate::new(100, 1, 100).unwrap();
    for _ in 0..1_000 {
        line.charge(1, &rate, SECOND, 1);
    }
    let later = 60 * SECOND;
    for tag in 2..=SLOTS as u64 {
        line.charge(tag, &rate, later, 1);
        line.charge(tag, &rate, later, 1);
    }
    line.charge(99, &rate, later, 1);
    assert!(!line.has(1) && line.has(2) && line.has(99));
}

/// A million names a second that come once, and one that comes 200 times a second where 20 are allowed.
#[test]
fn a_heavy_hitter_is_limited_while_a_million_random_names_pass() {
    let mut table = Table::new();
    let mut random = Random::new();
    let rate = Rate::new(20, 1, 20).unwrap();
    let heavy = 0xdead_beef_0bad_cafe;
    let (mut heavy_took, mut refused_strangers) = (0, 0);
    let (seconds, per_second) = (4, 1_000_000_u64);
    for packet in 0..seconds * per_second {
        let now = 100 * SECOND + packet * SECOND / per_second;
        refused_strangers += u32::from(!table.charge(random.next() | 1, &rate, now));
        if packet % (per_second / 200) == 0 {
            heavy_took += u32::from(table.charge(heavy, &rate, now));
        }
    }
    // 4 x 20 and the burst.
    assert!(
        (98..=103).contains(&heavy_took),
        "{heavy_took} of 800 were let through, 100 allowed"
    );
    assert_eq!(refused_strangers, 0);
}

/// Forged sources, each a few times, cannot flush a client that is over its limit, with one try and a small burst.
#[test]
fn a_limited_client_stays_limited_under_forged_sources() {
    let mut table = Table::new();
    let mut random = Random::new();
    let rate = Rate::new(10, 1, 1).unwrap();
    let client = 0x0123_4567_89ab_cdef;
    let mut took = 0;
    for packet in 0..2_000_000_u64 {
        let now = 7 * SECOND + packet * 1_000;
        let forged = random.next() | 1;
        for _ in 0..=random.below(3) {
            table.charge(forged, &rate, now);
        }
        if packet % 2_000 == 0 {
            took += u32::from(table.charge(client, &rate, now));
        }
    }
    assert!((20..=22).contains(&took), "{took} of 1,000 in 2 s, 21 allowed");
}

/// Who only looks says what who takes the lock says, and sees no bucket empty that is not; of those that are, all but the
/// first few.
#[test]
fn a_look_finds_a_bucket_empty_that_a_charge_finds_empty() {
    let mut random = Random::new();
    let rate = Rate::new(50, 1, 10).unwrap();
    let (mut looked, mut charged) = (MeterLine::default(), MeterLine::default());
    let (mut now, mut seen, mut empty) = (SECOND, 0, 0);
    for _ in 0..400_000 {
        now += random.below(2_000_000);
        let (tag, packets) = (1 + random.below(SLOTS as u64), 1 + random.below(3) as u32);
        let has = charged.charge(tag, &rate, now, packets);
        let known_empty = looked.is_known_empty(tag, &rate, now, packets);
        assert!(!(known_empty && has), "tag {tag} at {now}");
        assert_eq!(!known_empty && looked.charge(tag, &rate, now, packets), has);
        empty += u32::from(!has);
        seen += u32::from(known_empty);
    }
    assert!(empty > 100_000 && seen > empty / 2, "{seen} seen of {empty} empty");
    assert!(!looked.is_known_empty(99, &rate, now, 1), "nobody's");
}

/// What a look refuses is counted on no meter, but no meter cools by that below the newcomers of a flood.
#[test]
fn who_is_refused_by_a_look_stays_warm() {
    let mut table = Table::new();
    let rate = Rate::new(1, 60, 1).unwrap();
    let mut took = 0;
    for packet in 0..3_000_000_u64 {
        let now = 9 * SECOND + packet * 10_000;
        took += u32::from(table.charge(1, &rate, now));
        // All of them in its line.
        let newcomer = packet + 2;
        assert_eq!(meter_line(newcomer), meter_line(1));
        table.charge(newcomer, &rate, now);
    }
    assert_eq!(took, 1, "in 30 s, one in a minute allowed");
}

#[test]
fn a_share_is_added_up_to_its_limit_and_halves_in_a_quarter_of_a_second() {
    let mut line = MeterLine::default();
    let now = Ticks(5_000);
    for packet in 0..10 {
        assert_eq!(line.share(7, 1_000, now, 1), packet * 16);
    }
    assert_eq!(line.share(7, 160, now, 1), 160);
    assert_eq!(line.share(7, 0, now, 1), 160);
    assert_eq!(line.share(7, 0, now.plus(256), 1), 80);
    assert_eq!(line.share(7, 0, now.plus(512), 1), 40);
    assert_eq!(line.share(7, 0, now.plus(60_000), 1), 0);
}
