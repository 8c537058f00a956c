//! A token bucket in one word: the generic cell rate algorithm (ITU-T I.371), with the bucket's theoretical arrival
//! time as its only state.
//!
//! The word is the moment at which the bucket will be full again. Whatever lies between now and then is debt; each
//! packet adds an interval of the rate to it, and a packet whose debt would not fit the bucket does not conform. That is
//! a token bucket without its rounding: nothing is lost between two packets, however the rate and the step of the clock
//! lie to each other.

/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;
/// An interval has at least this many units, so that its rounding costs less than 0.03 % of the rate.
const FINE_INTERVAL: u64 = 4_096;
/// The finest unit is 2^-10 ns. 64 bits of it still last 208 days, and what is compared lies closer together.
const MAX_SHIFT: u32 = 10;
/// Units that a bucket holds at most: a day of the finest ones.
const MAX_DEPTH: u64 = (86_400 * SECOND_NS) << MAX_SHIFT;

/// How fast a bucket fills, and how much it holds. Times are in units of 2^-`shift` ns.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Units that a packet costs.
    interval: u64,
    /// Units that the bucket holds.
    depth: u64,
    shift: u32,
    spare: u32,
}

impl Rate {
    /// Allows nothing.
    pub const EMPTY: Self = Self {
        interval: 1,
        depth: 0,
        shift: 0,
        spare: 0,
    };

    /// `packets` in every `seconds`, and `burst` at once. `None` if one of them is 0, if the rate is above 10^9 packets
    /// a second, or if the bucket would take more than a day to fill.
    pub const fn new(packets: u64, seconds: u32, burst: u32) -> Option<Self> {
        if packets == 0 || seconds == 0 || burst == 0 {
            return None;
        }
        let ns = seconds as u64 * SECOND_NS;
        let mut shift = 0;
        while shift < MAX_SHIFT && (ns << shift) / packets < FINE_INTERVAL {
            shift += 1;
        }
        let interval = ((ns << shift) + packets / 2) / packets;
        if interval < 1 << MAX_SHIFT {
            return None;
        }
        match interval.checked_mul(burst as u64) {
            Some(depth) if depth <= MAX_DEPTH >> (MAX_SHIFT - shift) => Some(Self {
                interval,
                depth,
                shift,
                spare: 0,
            }),
            _ => None,
        }
    }

    /// Nanoseconds in which the whole bucket fills.
    pub const fn fill_ns(&self) -> u64 {
        self.depth >> self.shift
    }

    /// Whether a clock with steps of `step_ns` is too coarse: a step would bring more than an eighth of the bucket.
    pub const fn needs_finer_than(&self, step_ns: u64) -> bool {
        self.fill_ns() < 8 * step_ns
    }

    /// A moment of the monotonic clock in units.
    #[inline(always)]
    const fn moment(&self, now_ns: u64) -> u64 {
        now_ns << (self.shift & 63)
    }
}

/// A bucket: the moment, in units of its rate, at which it will be full. 0 is full.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket(pub(super) u64);

impl Bucket {
    /// Takes `packets` if the bucket has them, all or none.
    #[inline(always)]
    pub fn take(&mut self, rate: &Rate, now_ns: u64, packets: u32) -> bool {
        let (now, debt) = self.debt_with(rate, now_ns, packets);
        if debt > rate.depth {
            return false;
        }
        self.0 = now.wrapping_add(debt);
        true
    }

    /// Whether it has `packets`.
    #[inline(always)]
    pub(super) const fn has(self, rate: &Rate, now_ns: u64, packets: u32) -> bool {
        self.debt_with(rate, now_ns, packets).1 <= rate.depth
    }

    /// Takes `packets` whether the bucket has them or not. It goes no deeper into debt than it can hold.
    #[inline(always)]
    pub fn overdraw(&mut self, rate: &Rate, now_ns: u64, packets: u32) {
        let (now, debt) = self.debt_with(rate, now_ns, packets);
        let most = rate.depth * 2;
        self.0 = now.wrapping_add(if debt < most { debt } else { most });
    }

    /// What is in the bucket, in sixteenths of a packet; 0 when it is overdrawn.
    #[inline(always)]
    pub fn level(&self, rate: &Rate, now_ns: u64) -> u64 {
        let debt = self.debt(rate, rate.moment(now_ns));
        if debt >= rate.depth || rate.interval < 16 {
            return 0;
        }
        (rate.depth - debt) / (rate.interval >> 4)
    }

    /// The moment, and what the bucket owes then with `packets` taken.
    #[inline(always)]
    const fn debt_with(self, rate: &Rate, now_ns: u64, packets: u32) -> (u64, u64) {
        let now = rate.moment(now_ns);
        (now, self.debt(rate, now) + rate.interval * packets as u64)
    }

    /// Units until the bucket is full. More than it can owe is no debt: the clock has jumped, or wrapped since.
    #[inline(always)]
    const fn debt(&self, rate: &Rate, now: u64) -> u64 {
        let debt = self.0.wrapping_sub(now);
        if debt > rate.depth * 2 { 0 } else { debt }
    }
}
