//! Time as the judge knows it: a number the caller passes in.

/// Ticks by which the clock of one CPU may seem ahead of another's, with a lot to spare: a minute.
const AHEAD: u32 = 1 << 16;

/// A moment, in ticks of 2^20 ns (about 1.05 ms) since boot.
///
/// Ticks are a shift away from the kernel's nanoseconds, and 32 bits of them last 52 days; comparisons wrap.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ticks(pub u32);

impl Ticks {
    /// log2 of the nanoseconds in a tick.
    pub const SHIFT: u32 = 20;

    /// The tick that a moment of the monotonic clock falls in.
    #[inline(always)]
    pub const fn from_ns(ns: u64) -> Self {
        Self((ns >> Self::SHIFT) as u32)
    }

    /// Ticks that have gone by since `earlier`; 0 when `earlier` is up to a minute in the future, as it can be by a tick
    /// or two when two CPUs read the clock at about the same time.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> u32 {
        let elapsed = self.0.wrapping_sub(earlier.0);
        if elapsed > u32::MAX - AHEAD { 0 } else { elapsed }
    }

    /// Whether this moment is before `end`, which was set `longest` ticks ahead at the most, by a CPU whose clock may seem
    /// ahead. What is further ahead is long past: the ticks have wrapped since.
    #[inline(always)]
    pub const fn is_before(self, end: Self, longest: u32) -> bool {
        let left = end.0.wrapping_sub(self.0);
        left != 0 && (left <= longest || left - longest <= AHEAD)
    }

    /// The moment `ticks` later; `ticks` at most 26 days.
    #[inline(always)]
    pub const fn plus(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks))
    }

    /// The moment `ticks` earlier; `ticks` at most 26 days.
    #[inline(always)]
    pub const fn minus(self, ticks: u32) -> Self {
        Self(self.0.wrapping_sub(ticks))
    }
}

/// Ticks in a number of milliseconds, rounded up.
pub const fn ticks_of_ms(ms: u32) -> u32 {
    ((ms as u64 * 1_000_000).div_ceil(1 << Ticks::SHIFT)) as u32
}

/// Milliseconds in a number of ticks, rounded down.
pub const fn ms_of_ticks(ticks: u32) -> u64 {
    ((ticks as u64) << Ticks::SHIFT) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_survive_the_wrap() {
        let before = Ticks(u32::MAX - 1);
        let after = before.plus(5);
        assert_eq!(after.since(before), 5);
        assert_eq!(before.since(after), 0);
        assert!(before.is_before(after, 5));
        assert!(!after.is_before(before, 5) && !after.is_before(after, 5));
    }

    #[test]
    fn a_clock_that_lags_behind_the_one_that_set_an_end_is_before_it() {
        let set = Ticks(u32::MAX - 1);
        let end = set.plus(300_000);
        for lag in [1, 2, 1_000] {
            assert!(Ticks(set.0 - lag).is_before(end, 300_000), "{lag} ticks");
        }
    }

    #[test]
    fn what_was_set_weeks_ago_is_past() {
        let set = Ticks(7);
        for days in 1..52 {
            let later = set.plus(days * 82_397_461);
            assert!(!later.is_before(set, 300_000), "{days} days");
            assert!(later.since(set) > 300_000, "{days} days");
        }
    }

    #[test]
    fn a_second_is_a_second() {
        assert_eq!(ticks_of_ms(1_000), 954);
        assert_eq!(ms_of_ticks(ticks_of_ms(1_000)), 1_000);
        assert_eq!(Ticks::from_ns(1 << 20), Ticks(1));
    }
}
