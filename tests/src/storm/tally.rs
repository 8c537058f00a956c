//! What good clients got.

use std::time::Duration;

/// How one question of one client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lookup {
    /// How long until the answer, if one came within the client's patience.
    pub(super) waited: Option<Duration>,
    /// Whether the first packet of the client was enough.
    pub(super) first_try: bool,
}

impl Lookup {
    /// One by a client that tries once.
    pub(super) fn single(waited: Option<Duration>) -> Self {
        Self {
            waited,
            first_try: waited.is_some(),
        }
    }
}

/// Counts of look-ups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Questions that were begun.
    pub sent: u64,
    /// Of those, answered without a retry.
    pub first_try: u64,
    /// Of those, answered at all.
    pub answered: u64,
    /// Times of the answers in microseconds, in order.
    times_us: Vec<u64>,
}

impl Tally {
    /// Of so many questions, some were answered at once, and the answers took so long.
    pub fn new(sent: u64, first_try: u64, times: impl IntoIterator<Item = Duration>) -> Self {
        let mut tally = Self {
            sent,
            first_try,
            ..Self::default()
        };
        tally.add_times(times.into_iter());
        tally
    }

    pub(super) fn of(lookups: &[Lookup]) -> Self {
        let first_try = lookups.iter().filter(|lookup| lookup.first_try).count() as u64;
        let times = lookups.iter().filter_map(|lookup| lookup.waited);
        Self::new(lookups.len() as u64, first_try, times)
    }

    /// All of several.
    pub fn sum<'a>(tallies: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for tally in tallies {
            sum.sent += tally.sent;
            sum.first_try += tally.first_try;
            sum.add_times(tally.times_us.iter().copied().map(Duration::from_micros));
        }
        sum
    }

    /// The share that was answered at all, 0 to 1; 0 if nothing was asked.
    pub fn answered_ratio(&self) -> f64 {
        ratio(self.answered, self.sent)
    }

    /// The share that was answered without a retry, 0 to 1; 0 if nothing was asked.
    pub fn first_try_ratio(&self) -> f64 {
        ratio(self.first_try, self.sent)
    }

    /// 99 of 100 answers came within this many microseconds (nearest rank); 0 without answers.
    pub fn p99_us(&self) -> u64 {
        let rank = (self.times_us.len() * 99).div_ceil(100);
        self.times_us.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }

    fn add_times(&mut self, times: impl Iterator<Item = Duration>) {
        self.times_us
            .extend(times.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)));
        self.times_us.sort_unstable();
        self.answered = self.times_us.len() as u64;
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "nobody asks 2^52 questions")]
    let ratio = part as f64 / whole as f64;
    ratio
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_has_the_slow_answers_of_all() {
        let lookup = |ms, first_try| Lookup {
            waited: Some(Duration::from_millis(ms)),
            first_try,
        };
        let quick = Tally::of(&[lookup(1, true); 98]);
        let slow = Tally::of(&[lookup(1_700, false), Lookup::single(None)]);
        let sum = Tally::sum([&slow, &quick]);
        assert_eq!((sum.sent, sum.first_try, sum.answered), (100, 98, 99));
        assert_eq!(
            (quick.p99_us(), sum.p99_us(), Tally::default().p99_us()),
            (1_000, 1_700_000, 0)
        );
        assert_eq!((sum.answered_ratio(), Tally::default().answered_ratio()), (0.99, 0.0));
    }
}
