//! Queries shown to the agent, so that it can name who causes a storm.
//!
//! The kernel keeps no list of names. It shows some of the queries, each with the number of queries that it stands for,
//! and the agent adds them up. As long as there are few, that is each of them; when they become many, the kernel shows
//! every second, every fourth, and so on, drawn at random, so that what it shows costs the same whatever comes.

use crate::{event::NAME_ROOM, time::Ticks};

/// Quotas are for windows of 2^4 ticks: about a 60th of a second.
const WINDOW_SHIFT: u32 = 4;
/// A sample stands for 2^16 queries at most.
const MAX_SHIFT: u32 = 16;

/// One query; the bytes of the ring buffer entry are this struct.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Nanoseconds of the monotonic clock (coarse, unless the policy asks for more).
    pub at_ns: u64,
    /// Queries that it stands for.
    pub weight: u32,
    /// The interface on which it was seen.
    pub ifindex: u32,
    /// The row that shed it, if it is of those that were shed; [`crate::remedy::Shed::NO_ROW`] if none did.
    pub row: u32,
    /// A [`crate::remedy::Verdict`].
    pub verdict: u8,
    /// A [`crate::remedy::Reason`], if it is of those that were shed.
    pub reason: u8,
    /// 1 where it was leaving.
    pub egress: u8,
    /// A [`Kind`].
    pub kind: u8,
    /// The QTYPE.
    pub qtype: u16,
    /// Bytes of the name that count.
    pub name_len: u16,
    /// Nothing.
    pub spare: u32,
    /// Who asks, IPv4 mapped.
    pub client: [u32; 4],
    /// Who is asked, IPv4 mapped.
    pub server: [u32; 4],
    /// The name in wire form, as the packet had it. What follows `name_len` is left over from earlier samples.
    pub name: [u8; NAME_ROOM],
}

const _: () = assert!(size_of::<Sample>() == 320 && align_of::<Sample>() == 8);

/// What a sample is drawn from.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All queries, each once, however many interfaces it crosses.
    Query = 0,
    /// The queries that a budget or a rule of hygiene shed, or would have.
    Shed = 1,
}

impl Kind {
    /// The kind of a number; unknown numbers are `Query`.
    #[inline(always)]
    pub const fn from_u8(number: u8) -> Self {
        if number == Self::Shed as u8 {
            Self::Shed
        } else {
            Self::Query
        }
    }
}

impl Sample {
    /// Reads a sample from the bytes of a ring buffer entry. `None` unless the length fits.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let address = |at: usize| [word(at), word(at + 4), word(at + 8), word(at + 12)];
        let mut at_ns = [0; 8];
        at_ns.copy_from_slice(&bytes[..8]);
        let mut name = [0; NAME_ROOM];
        name.copy_from_slice(&bytes[64..]);
        Some(Self {
            at_ns: u64::from_ne_bytes(at_ns),
            weight: word(8),
            ifindex: word(12),
            row: word(16),
            verdict: bytes[20],
            reason: bytes[21],
            egress: bytes[22],
            kind: bytes[23],
            qtype: half(24),
            name_len: half(26),
            spare: word(28),
            client: address(32),
            server: address(48),
            name,
        })
    }

    /// The name in wire form.
    pub fn wire_name(&self) -> &[u8] {
        self.name.get(..self.name_len as usize).unwrap_or(&[])
    }
}

/// Decides which queries are shown, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampler {
    window: u32,
    taken: u32,
    shift: u32,
    /// The state of a generator, stirred with what nobody can foresee.
    random: u32,
}

impl Sampler {
    /// Draws a number; `digest` is a keyed one of the query.
    #[inline(always)]
    pub const fn random(&mut self, digest: u64) -> u32 {
        let (random, state) = self.foresee(digest);
        self.random = state;
        random
    }

    /// What [`Sampler::random`] would draw now, and the state of the generator after it.
    #[inline(always)]
    pub const fn foresee(&self, digest: u64) -> (u32, u32) {
        // Numerical Recipes, 3rd edition, section 7.1.
        let state = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 7) ^ digest as u32, state)
    }

    /// Puts the generator into a state that was foreseen: all that is left of a query that [`Sampler::skips`].
    #[inline(always)]
    pub const fn skip_to(&mut self, state: u32) {
        self.random = state;
    }

    /// Whether a query for which this number is drawn is not shown, and changes nothing else.
    #[inline(always)]
    pub const fn skips(&self, now: Ticks, random: u32) -> bool {
        now.0 >> WINDOW_SHIFT == self.window && random & ((1 << (self.shift & 31)) - 1) != 0
    }

    /// Whether one more query is shown, and how many it stands for. `quota` of them are taken in a window; for each
    /// quota more, half as many of what follows. `random` is asked only when not all are taken.
    #[inline(always)]
    pub fn draw(&mut self, now: Ticks, quota: u32, random: impl FnOnce() -> u32) -> Option<u32> {
        let window = now.0 >> WINDOW_SHIFT;
        let passed = window.wrapping_sub(self.window);
        if passed != 0 {
            let calmer = if passed > 1 {
                passed
            } else {
                (self.taken <= quota >> 1) as u32
            };
            self.shift = self.shift.saturating_sub(calmer);
            self.window = window;
            self.taken = 0;
        }
        let shift = self.shift & 31;
        if shift != 0 && random() & ((1 << shift) - 1) != 0 {
            return None;
        }
        self.taken += 1;
        if self.taken >= quota {
            self.taken = 0;
            if self.shift < MAX_SHIFT {
                self.shift += 1;
            }
        }
        Some(1 << shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator that any run repeats.
    fn random() -> impl FnMut() -> u32 {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) as u32
        }
    }

    /// So many queries a second for so many seconds: the samples, and the queries that they stand for.
    fn run(per_second: u64, seconds: u64, quota: u32) -> (u64, u64) {
        let mut sampler = Sampler::default();
        let mut random = random();
        let (mut samples, mut weight) = (0, 0);
        for query in 0..per_second * seconds {
            let now = Ticks::from_ns((1 << 40) + query * 1_000_000_000 / per_second);
            if let Some(stands_for) = sampler.draw(now, quota, &mut random) {
                samples += 1;
                weight += u64::from(stands_for);
            }
        }
        (samples, weight)
    }

    #[test]
    fn a_few_queries_are_all_shown() {
        assert_eq!(run(200, 10, 8), (2_000, 2_000));
    }

    #[test]
    fn many_queries_are_shown_in_part_and_stand_for_all() {
        for per_second in [5_000, 50_000, 2_000_000] {
            let (samples, weight) = run(per_second, 4, 8);
            assert!(samples < 4 * 60 * 8 * 3, "{samples} of {per_second}");
            let off = weight.abs_diff(4 * per_second) as f64 / (4 * per_second) as f64;
            assert!(off < 0.1, "{weight} for 4 x {per_second}");
        }
    }

    #[test]
    fn what_skips_is_not_shown_and_leaves_nothing_but_the_generator() {
        let mut sampler = Sampler::default();
        let (mut skipped, mut others) = (0, 0);
        for query in 0..200_000_u64 {
            let now = Ticks((query / 50) as u32);
            let (random, state) = sampler.foresee(query);
            let mut drawn = sampler;
            assert_eq!(drawn.random(query), random);
            let weight = drawn.draw(now, 8, || random);
            if sampler.skips(now, random) {
                sampler.skip_to(state);
                assert_eq!((weight, drawn), (None, sampler));
                skipped += 1;
            } else {
                sampler = drawn;
                others += 1;
            }
        }
        assert!(skipped > 100_000 && others > 1_000, "{skipped} and {others}");
    }

    #[test]
    fn after_a_storm_all_are_shown_again() {
        let mut sampler = Sampler::default();
        let mut random = random();
        for _ in 0..1_000_000 {
            sampler.draw(Ticks(99), 8, &mut random);
        }
        assert!(sampler.shift > 8);
        for second in 1..10 {
            assert_eq!(sampler.draw(Ticks(99 + second * 1_000), 8, &mut random), Some(1));
        }
    }

    #[test]
    fn a_sample_is_read_from_its_own_length_only() {
        let mut bytes = [0_u8; 320];
        bytes[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        bytes[23] = 1;
        bytes[24..26].copy_from_slice(&12_u16.to_ne_bytes());
        bytes[26..28].copy_from_slice(&3_u16.to_ne_bytes());
        bytes[47] = 9;
        bytes[64..67].copy_from_slice(b"\x01a\0");
        let sample = Sample::read(&bytes).unwrap();
        assert_eq!(
            (sample.weight, sample.qtype, sample.wire_name()),
            (7, 12, &b"\x01a\0"[..])
        );
        assert_eq!(Kind::from_u8(sample.kind), Kind::Shed);
        assert_eq!(sample.client[3], u32::from_ne_bytes([0, 0, 0, 9]));
        assert!(Sample::read(&bytes[1..]).is_none());
    }
}
