//! Time as the judge knows it: a number the caller passes in.

/// A moment, in ticks of 2^20 ns (about 1.05 ms) since boot.
///
/// Ticks are a shift away from the kernel's nanoseconds, and 32 bits of them last 52 days; comparisons wrap.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticks(pub u32);

impl Ticks {
    /// log2 of the nanoseconds in a tick.
    pub const SHIFT: u32 = 20;

    /// The tick that a moment of the monotonic clock falls in.
    #[inline(always)]
    pub const fn from_ns(ns: u64) -> Self {
        Self((ns >> Self::SHIFT) as u32)
    }

    /// Ticks that have gone by since `earlier`; 0 when `earlier` is up to 26 days in the future, as it can be when two
    /// CPUs read the clock at about the same time.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> u32 {
        let elapsed = self.0.wrapping_sub(earlier.0);
        if elapsed > u32::MAX / 2 { 0 } else { elapsed }
    }

    /// The moment `ticks` later; `ticks` at most 26 days.
    #[inline(always)]
    pub const fn plus(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks))
    }

    /// Whether this moment is at or after `other`.
    #[inline(always)]
    pub const fn reached(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0) <= u32::MAX / 2
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
        assert!(after.reached(before));
        assert!(!before.reached(after));
    }

    #[test]
    fn a_second_is_a_second() {
        assert_eq!(ticks_of_ms(1_000), 954);
        assert_eq!(ms_of_ticks(ticks_of_ms(1_000)), 1_000);
        assert_eq!(Ticks::from_ns(1 << 20), Ticks(1));
    }
}
