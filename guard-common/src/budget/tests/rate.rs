//! The bucket in one word against a bucket with exact fractions.

use proptest::prelude::*;

use super::{Random, SECOND};
use crate::budget::{Bucket, Rate};

/// A token bucket as a textbook has it: what it holds, in 1/(10^9 * seconds) of a packet, and when that was.
struct Reference {
    packets: u128,
    whole: u128,
    full: u128,
    level: u128,
    at_ns: u64,
}

impl Reference {
    fn new(packets: u64, seconds: u32, burst: u32) -> Self {
        let whole = u128::from(SECOND) * u128::from(seconds);
        let full = u128::from(burst) * whole;
        Self {
            packets: packets.into(),
            whole,
            full,
            level: full,
            at_ns: 0,
        }
    }

    /// What it holds now, in packets: above this it takes, by whatever less than `slack` it is off.
    fn level(&mut self, now_ns: u64) -> f64 {
        // A clock that seems to go back brings nothing and takes nothing.
        if now_ns > self.at_ns {
            let gained = u128::from(now_ns - self.at_ns) * self.packets;
            self.level = (self.level + gained).min(self.full);
            self.at_ns = now_ns;
        }
        self.level as f64 / self.whole as f64
    }

    fn take(&mut self, packets: u32) {
        self.level = self.level.saturating_sub(u128::from(packets) * self.whole);
    }
}

/// Rates from one in an hour to 100 million a second: packets, seconds, burst.
fn rates() -> impl Strategy<Value = (u64, u32, u32)> {
    let rate = prop_oneof![
        (1_u64..100, prop_oneof![Just(60_u32), Just(3_600)]),
        (1_u64..100_000, Just(1_u32)),
        (1_u64..=100_000_000, Just(1_u32)),
    ];
    (rate, 1_u32..2_000).prop_map(|((packets, seconds), burst)| (packets, seconds, burst))
}

proptest! {
    #[test]
    fn it_takes_what_an_exact_bucket_takes(
        (packets, seconds, burst) in rates(),
        start in 0..1_u64 << 55,
        steps in prop::collection::vec((0..4_000_u64, 1..3_u32, any::<bool>()), 1..300),
    ) {
        let Some(rate) = Rate::new(packets, seconds, burst) else {
            // More than a day to fill.
            prop_assert!(u64::from(burst) * u64::from(seconds) / packets >= 86_399);
            return Ok(());
        };
        let mut bucket = Bucket::default();
        let mut reference = Reference::new(packets, seconds, burst);
        reference.at_ns = start;
        let interval_ns = u64::from(seconds) * SECOND / packets;
        let (mut now, mut asked) = (start, 0_u32);
        for (thousandths, count, other_cpu) in steps {
            now += interval_ns * thousandths / 1_000 + thousandths % 7;
            // The clock of the other CPU is a little behind.
            let seen = if other_cpu { now.saturating_sub(interval_ns / 50 + 40) } else { now };
            asked += count;
            let level = reference.level(now);
            let took = bucket.take(&rate, seen, count);
            // Units of the bucket round each packet's cost by up to 1/8192; the other CPU is behind by 2 % of a packet.
            let slack = 0.03 + f64::from(asked) / 4_096.0 + 50.0 / interval_ns.max(1) as f64;
            if level > f64::from(count) + slack {
                prop_assert!(took, "{level} and refused");
            }
            if level < f64::from(count) - slack {
                prop_assert!(!took, "{level} and taken");
            }
            if took {
                reference.take(count);
            }
        }
    }

    #[test]
    // A bucket of one packet has no room for the step of a clock: a packet that comes a nanosecond early is refused.
    fn one_flow_gets_its_rate_within_two_percent(
        (packets, burst) in (10_u64..200_000, 2_u32..500),
        overload in 2_u64..50,
        step in prop_oneof![Just(1_u64), Just(4_000_000)],
    ) {
        let rate = Rate::new(packets, 1, burst).unwrap();
        // A coarse clock needs a bucket that outlasts its steps.
        prop_assume!(!rate.needs_finer_than(step));
        let mut bucket = Bucket::default();
        let seconds = (4_000 / packets).max(1);
        let offered = packets * overload * seconds;
        prop_assume!(offered < 2_000_000);
        let start = 77 * SECOND;
        let mut took = 0_u64;
        for packet in 0..offered {
            let now = start + packet * seconds * SECOND / offered;
            took += u64::from(bucket.take(&rate, now / step * step, 1));
        }
        let due = packets * seconds + u64::from(burst);
        let off = took.abs_diff(due) as f64 / due as f64;
        prop_assert!(off < 0.02, "{took} for {due}");
    }

    #[test]
    fn no_clock_makes_it_overflow(
        (packets, seconds, burst) in rates(),
        moments in prop::collection::vec((any::<u64>(), 1..=u32::from(u16::MAX), any::<bool>()), 1..100),
    ) {
        let Some(rate) = Rate::new(packets, seconds, burst) else { return Ok(()) };
        let mut bucket = Bucket::default();
        for (now, count, forced) in moments {
            if forced {
                bucket.overdraw(&rate, now, count);
            } else {
                bucket.take(&rate, now, count);
            }
            prop_assert!(bucket.level(&rate, now) <= u64::from(burst) * 17);
            // Whatever the clock does, an idle bucket fills: at the latest after twice its time.
            prop_assert!(bucket.take(&rate, now.wrapping_add(2 * rate.fill_ns() + SECOND), 1));
        }
    }
}

#[test]
fn absurd_rates_are_refused() {
    for (packets, seconds, burst) in [
        (0, 1, 1),
        (1, 0, 1),
        (1, 1, 0),
        (2_000_000_000, 1, 1),
        (u64::MAX, 1, 1),
        (1, 3_600, 25),
        (1, u32::MAX, u32::MAX),
    ] {
        assert_eq!(
            Rate::new(packets, seconds, burst),
            None,
            "{packets} in {seconds} s, {burst}"
        );
    }
    for (packets, seconds, burst) in [
        (1, 3_600, 24),
        (100_000_000, 1, 1),
        (100_000_000, 1, u32::MAX),
        (1, 1, 86_400),
    ] {
        assert!(
            Rate::new(packets, seconds, burst).is_some(),
            "{packets} in {seconds} s, {burst}"
        );
    }
}

#[test]
fn what_is_overdrawn_is_owed_up_to_one_bucket() {
    let rate = Rate::new(100, 1, 10).unwrap();
    let mut bucket = Bucket::default();
    let now = 9 * SECOND;
    for _ in 0..1_000 {
        bucket.overdraw(&rate, now, 1);
    }
    assert_eq!(bucket.level(&rate, now), 0);
    assert!(!bucket.take(&rate, now + SECOND / 10, 1));
    assert!(bucket.take(&rate, now + SECOND / 10 + SECOND / 100 + 1, 1));
}

#[test]
fn the_level_is_in_sixteenths_of_a_packet() {
    let rate = Rate::new(1_000, 1, 50).unwrap();
    let mut bucket = Bucket::default();
    assert_eq!(bucket.level(&rate, SECOND), 800);
    assert!(bucket.take(&rate, SECOND, 20));
    assert!((479..=481).contains(&bucket.level(&rate, SECOND)));
    assert!((559..=561).contains(&bucket.level(&rate, SECOND + 5_000_000)));
}

#[test]
fn two_cpus_share_one_rate() {
    let rate = Rate::new(900, 1, 90).unwrap();
    let mut bucket = Bucket::default();
    let mut random = Random::new();
    let mut took = [0_u64; 2];
    for packet in 0..60_000_u64 {
        let cpu = random.below(2);
        let now = 5 * SECOND + packet * SECOND / 6_000 - cpu * 900;
        took[cpu as usize] += u64::from(bucket.take(&rate, now, 1));
    }
    let all = took[0] + took[1];
    assert!(all.abs_diff(9_090) < 90, "{took:?}");
    assert!(took.iter().all(|one| *one > all / 3), "{took:?}");
}
