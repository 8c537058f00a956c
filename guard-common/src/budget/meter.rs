//! The bounded table of meters: what a flood of new names or forged sources cannot flush.
//!
//! A meter is a bucket or a share of one client, key, zone or interface. Meters live in lines of five under one spin
//! lock. A newcomer takes the place of the one in its line that fewest packets were counted on lately: whoever is heavy
//! is heavier than each of a million that come once.

use super::{Bucket, Rate, Share};
use crate::{judge::bpf_spin_lock, time::Ticks};

/// Meters in a line.
pub const SLOTS: usize = 5;

/// Heat halves in 2^10 ticks, about a second.
const HEAT_HALF_SHIFT: u32 = 10;
/// A meter on which so many packets were counted is safe from newcomers that come once.
const HOT_PACKETS: u32 = 64;
/// Ticks, a quarter of a second, for which that is so.
const RECENT_TICKS: u32 = 256;
/// Shares halve in 2^8 ticks, about a quarter of a second.
pub(super) const SHARE_HALF_SHIFT: u32 = 8;

/// One meter. All zero is nobody's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    /// Whose it is: a keyed digest, never 0.
    tag: u64,
    /// A [`Bucket`], or both words of a [`Share`].
    word: u64,
    /// Packets counted on it lately, let through or not: how much it is worth to keep.
    heat: Share,
}

/// Meters whose digests fall into the same place: two cache lines. Whoever changes it holds the lock.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct MeterLine {
    /// The lock.
    pub lock: bpf_spin_lock,
    /// The slot that was picked last.
    picked: u32,
    meters: [Meter; SLOTS],
}

const _: () = assert!(size_of::<MeterLine>() == 128);

impl MeterLine {
    /// Charges `packets` to the bucket with this tag. False if it has not got them: it stays as it is.
    #[inline(always)]
    pub fn charge(&mut self, tag: u64, rate: &Rate, now_ns: u64, packets: u32) -> bool {
        let Some(meter) = self.meter(tag, Ticks::from_ns(now_ns), packets) else {
            return true;
        };
        let mut bucket = Bucket::from_word(meter.word);
        let conforms = bucket.take(rate, now_ns, packets);
        meter.word = bucket.word();
        conforms
    }

    /// Whether the bucket with this tag has not got `packets`, and so many were counted on it lately that it may go without
    /// these. It needs no lock, and leaves the line to the CPUs that read it as well.
    #[inline(always)]
    pub fn is_known_empty(&self, tag: u64, rate: &Rate, now_ns: u64, packets: u32) -> bool {
        let (mut word, mut heat) = (0, Share::default());
        for slot in 0..SLOTS {
            let meter = &self.meters[slot];
            if meter.tag == tag {
                (word, heat) = (meter.word, meter.heat);
                break;
            }
        }
        heat.is_at_least(HOT_PACKETS, Ticks::from_ns(now_ns), RECENT_TICKS)
            && !Bucket::from_word(word).has(rate, now_ns, packets)
    }

    /// What the share with this tag has left, in sixteenths of a packet; `packets` are added to it unless that is
    /// `limit` or more.
    #[inline(always)]
    pub fn share(&mut self, tag: u64, limit: u32, now: Ticks, packets: u32) -> u32 {
        let Some(meter) = self.meter(tag, now, packets) else {
            return 0;
        };
        let mut share = Share::from_word(meter.word);
        let value = share.value(now, SHARE_HALF_SHIFT);
        if value < limit {
            share.add(now, SHARE_HALF_SHIFT, packets);
            meter.word = share.word();
        }
        value
    }

    /// The meter with this tag, fresh if it has none. The slot's number goes through memory that the kernel's verifier
    /// does not follow: it would check everything that comes after once for each slot.
    #[inline(always)]
    fn meter(&mut self, tag: u64, now: Ticks, packets: u32) -> Option<&mut Meter> {
        let mut line = self;
        line.picked = SLOTS as u32;
        for slot in 0..SLOTS {
            if line.meters[slot].tag == tag {
                line.picked = slot as u32;
                break;
            }
        }
        line = core::hint::black_box(line);
        if line.picked as usize >= SLOTS {
            line = line.make_room(tag, now);
        }
        let meter = line.meters.get_mut(line.picked as usize)?;
        meter.heat.add(now, HEAT_HALF_SHIFT, packets);
        Some(meter)
    }

    /// Picks the coolest meter, and gives it to this tag.
    #[inline(always)]
    fn make_room(&mut self, tag: u64, now: Ticks) -> &mut Self {
        let mut line = self;
        let mut least = u64::MAX;
        line.picked = 0;
        for slot in 0..SLOTS {
            let Meter { tag: owner, heat, .. } = line.meters[slot];
            // Nobody's meter is cooler than any.
            let worth = (heat.roughly(now, HEAT_HALF_SHIFT) as u64) << 1 | (owner != 0) as u64;
            if worth < least {
                least = worth;
                line.picked = slot as u32;
            }
            line = core::hint::black_box(line);
        }
        if let Some(meter) = line.meters.get_mut(line.picked as usize) {
            *meter = Meter {
                tag,
                ..Meter::default()
            };
        }
        core::hint::black_box(line)
    }

    /// Whether a newcomer takes the place of a meter that packets were counted on lately.
    pub fn is_full(&self, now: Ticks) -> bool {
        let in_use = |meter: &Meter| meter.tag != 0 && meter.heat.value(now, HEAT_HALF_SHIFT) > 0;
        self.meters.iter().all(in_use)
    }

    /// Whether the meter with this tag is in the line.
    #[cfg(test)]
    pub(super) fn has(&self, tag: u64) -> bool {
        self.meters.iter().any(|meter| meter.tag == tag)
    }
}

impl Bucket {
    #[inline(always)]
    const fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    const fn word(self) -> u64 {
        self.0
    }
}
