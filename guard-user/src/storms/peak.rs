//! The busiest second of late.

use std::collections::VecDeque;

/// A second, and a little less: what is read four times a second is never read exactly then.
const WINDOW_NS: u64 = 990_000_000;
/// Nanoseconds that a peak is kept for at least.
const KEEP_NS: u64 = 60_000_000_000;
/// Readings that are kept at most.
const MAX_READINGS: usize = 64;

/// The most packets in any second of the last minute or two.
#[derive(Debug, Default)]
pub(super) struct Peak {
    readings: VecDeque<(u64, u64)>,
    now: f64,
    before: f64,
    since_ns: u64,
}

impl Peak {
    /// Takes in how many packets there have been so far.
    pub(super) fn on_total(&mut self, total: u64, now_ns: u64) {
        if self.readings.back().is_some_and(|(before, _)| total < *before) {
            self.readings.clear();
        }
        self.readings.push_back((total, now_ns));
        // The latest reading that is a second old, or more.
        while self.readings.len() > MAX_READINGS
            || self
                .readings
                .get(1)
                .is_some_and(|(_, at_ns)| now_ns.saturating_sub(*at_ns) >= WINDOW_NS)
        {
            self.readings.pop_front();
        }
        if now_ns.saturating_sub(self.since_ns) >= KEEP_NS {
            self.before = self.now;
            (self.now, self.since_ns) = (0.0, now_ns);
        }
        if let Some((before, at_ns)) = self.readings.front() {
            let elapsed_ns = now_ns.saturating_sub(*at_ns);
            if elapsed_ns >= WINDOW_NS {
                let rate = (total - before) as f64 * 1e9 / elapsed_ns as f64;
                self.now = self.now.max(rate);
            }
        }
    }

    /// Packets per second.
    pub(super) fn per_second(&self, now_ns: u64) -> f64 {
        if now_ns.saturating_sub(self.since_ns) >= 2 * KEEP_NS {
            0.0
        } else {
            self.now.max(self.before)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_peak_is_that_of_the_busiest_second() {
        let (mut peak, mut total) = (Peak::default(), 0);
        for tick in 0..80 {
            // 1,000 packets within one second, in the middle of calm.
            total += if (40..44).contains(&tick) { 250 } else { 10 };
            peak.on_total(total, SECOND + tick * SECOND / 4);
        }
        assert!(
            (peak.per_second(21 * SECOND) - 1_000.0).abs() < 1.0,
            "{}",
            peak.per_second(21 * SECOND)
        );
    }

    #[test]
    fn what_was_there_before_the_first_reading_is_no_peak() {
        let mut peak = Peak::default();
        peak.on_total(1_000_000, SECOND);
        peak.on_total(1_000_100, 2 * SECOND);
        assert!((peak.per_second(2 * SECOND) - 100.0).abs() < 0.1);
        // Nor are counters that begin anew.
        peak.on_total(5, 3 * SECOND);
        peak.on_total(15, 4 * SECOND);
        assert!((peak.per_second(4 * SECOND) - 100.0).abs() < 0.1);
    }

    #[test]
    fn a_peak_is_forgotten_after_two_minutes_at_the_latest() {
        let (mut peak, mut total) = (Peak::default(), 0);
        for second in 0..300 {
            total += if second == 5 { 5_000 } else { 1 };
            peak.on_total(total, (100 + second) * SECOND);
            if (6..60).contains(&second) {
                assert!(peak.per_second((100 + second) * SECOND) > 4_999.0, "{second}");
            }
        }
        assert!(peak.per_second(400 * SECOND) < 2.0);
        assert!(peak.per_second(4_000 * SECOND) < 0.1);
    }
}
