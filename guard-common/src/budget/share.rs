//! A count that decays.

use crate::time::Ticks;

/// A number of packets, in sixteenths, that halves again and again. All zero is none.
///
/// Between two halvings it falls in a straight line, which is at most 6 % above the exponential.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    sixteenths: u32,
    at: Ticks,
}

/// One packet.
pub(super) const PACKET: u32 = 16;

impl Share {
    /// What is left of it now, in sixteenths of a packet; it halves in 2^`half_shift` ticks.
    #[inline(always)]
    pub fn value(&self, now: Ticks, half_shift: u32) -> u32 {
        let elapsed = now.since(self.at);
        let halvings = elapsed >> (half_shift & 31);
        if halvings > 31 {
            return 0;
        }
        let value = (self.sixteenths >> (halvings & 31)) as u64;
        let rest = (elapsed & ((1 << (half_shift & 31)) - 1)) as u64;
        (value - (((value >> 1) * rest) >> (half_shift & 31))) as u32
    }

    /// What is left of it since the last halving: up to twice its value.
    #[inline(always)]
    pub(super) fn roughly(&self, now: Ticks, half_shift: u32) -> u32 {
        let halvings = now.since(self.at) >> (half_shift & 31);
        if halvings > 31 { 0 } else { self.sixteenths >> halvings }
    }

    /// Whether at least so many packets were in it when it was changed last, at most so many ticks ago.
    #[inline(always)]
    pub(super) fn is_at_least(&self, packets: u32, now: Ticks, ticks: u32) -> bool {
        self.sixteenths >= packets * PACKET && now.since(self.at) <= ticks
    }

    /// Adds packets to what is left.
    #[inline(always)]
    pub fn add(&mut self, now: Ticks, half_shift: u32, packets: u32) {
        let packets = if packets < 1 << 16 { packets } else { 1 << 16 };
        self.sixteenths = self.value(now, half_shift).saturating_add(packets * PACKET);
        self.at = now;
    }

    /// The two words in one, to keep where a bucket might be kept.
    #[inline(always)]
    pub(super) const fn from_word(word: u64) -> Self {
        Self {
            sixteenths: word as u32,
            at: Ticks((word >> 32) as u32),
        }
    }

    #[inline(always)]
    pub(super) const fn word(self) -> u64 {
        (self.at.0 as u64) << 32 | self.sixteenths as u64
    }
}
