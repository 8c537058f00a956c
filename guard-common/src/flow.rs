//! Has this very query been seen before, and where?
//!
//! A flow is one query of one client socket to one server socket: 5-tuple, DNS ID and key. Seen again on the same
//! interface at a client's pace it is a retransmit; faster than any client retries it is a hop of a loop; on another
//! interface it is the same packet on its way through the node.
//!
//! The table is a flat array of cache lines of eight entries. An entry is a single word, so that CPUs that race for it
//! tear nothing: the worst that happens is that a sighting is forgotten, or is there twice.

use crate::time::Ticks;

/// Entries in a line.
pub const ENTRIES: usize = 8;

/// A cache line of the table, picked by a hash of the flow. An entry is, from its top bit: 32 bits of the flow's
/// digest, one that says whether it has gone the other way since, 11 of its place, one that says whether its name is all
/// small letters, one that says whether it was marked, 18 of the time it was last seen there, in units of 8 ticks; 0 is
/// empty.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowLine {
    entries: [u64; ENTRIES],
}

const TIME_BITS: u32 = 18;
const TIME_MASK: u32 = (1 << TIME_BITS) - 1;
const TIME_UNIT_SHIFT: u32 = 3;
const MARKED: u64 = 1 << TIME_BITS;
const PLAIN: u64 = 1 << (TIME_BITS + 1);
const PLACE_SHIFT: u32 = TIME_BITS + 2;
const PLACE_BITS: u32 = 11;
const PLACE_MASK: u32 = (1 << PLACE_BITS) - 1;
/// The bit that is set once the flow, which came in at its place, has gone out since, or the other way round.
const TURNED_SHIFT: u32 = PLACE_SHIFT + PLACE_BITS;

/// Units (8 ticks) after which a flow is forgotten: 30 s, the time after which no stub resolver still waits.
const LIFE: u32 = 3_600;
/// Units for which a question that is out counts as pending: 2 s, after which whoever asks again has a reason.
const PENDING: u32 = 240;
/// Units within which the same packet crosses all interfaces of a node: 1 s.
const TRANSIT: u32 = 120;

/// What a look into the table tells.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// Not seen before, or answered since.
    New = 0,
    /// Seen here before, at a client's pace: not a hop.
    Retransmit = 1,
    /// Seen here before, sooner than any client retries.
    Rapid = 2,
    /// Seen a moment ago at another place of this node: the same packet, not a hop.
    Elsewhere = 3,
}

impl Sighting {
    /// The sighting of a number; unknown numbers are `New`.
    #[inline(always)]
    pub const fn from_u8(number: u8) -> Self {
        match number {
            1 => Self::Retransmit,
            2 => Self::Rapid,
            3 => Self::Elsewhere,
            _ => Self::New,
        }
    }
}

/// A hook that a packet passes: interface and direction, folded into 11 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    /// The place of an interface index and a direction.
    #[inline(always)]
    pub const fn new(ifindex: u32, egress: bool) -> Self {
        Self((ifindex << 1 | egress as u32) & PLACE_MASK)
    }

    /// The eleven bits.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The place of eleven bits.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        Self(number & PLACE_MASK)
    }
}

/// What the response to a flow meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Whether its query was let through.
    pub asked: bool,
    /// Whether that was all small letters.
    pub plain: bool,
    /// Whether that was marked.
    pub marked: bool,
}

impl Settled {
    /// Both in one number.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.asked as u32 | (self.plain as u32) << 1 | (self.marked as u32) << 2
    }

    /// What is in a number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        Self {
            asked: number & 1 == 1,
            plain: number >> 1 & 1 == 1,
            marked: number >> 2 & 1 == 1,
        }
    }

    /// Whether a mark may have changed how the response is spelled: it was put on this query, or on another one that was
    /// joined with it. Of a query that is not known, nobody can tell.
    #[inline(always)]
    pub const fn may_be_respelled(self) -> bool {
        self.plain || self.marked || !self.asked
    }
}

impl FlowLine {
    /// Notes that the flow passes here now, and tells what was known of it. `plain` says whether its name is all small
    /// letters; `rapid_ticks` is the pace below which a repeat is no client's.
    ///
    /// The line is in the order in which flows were seen: this one comes to the front, and those that were in front of it
    /// move on by one while they are looked at. The last one falls out, or the first place that is empty is filled.
    #[inline(always)]
    pub fn sight(&mut self, digest: u32, place: Place, plain: bool, now: Ticks, rapid_ticks: u32) -> Sighting {
        let time = (now.0 >> TIME_UNIT_SHIFT) & TIME_MASK;
        let fresh =
            (digest as u64) << 32 | (place.0 as u64) << PLACE_SHIFT | if plain { PLAIN } else { 0 } | time as u64;
        let (mut moving, mut known) = (fresh, 0);
        for slot in 0..ENTRIES {
            let word = self.entries[slot];
            if (word >> 32) as u32 == digest {
                if slot != 0 {
                    self.entries[slot] = moving;
                }
                known = word;
                break;
            }
            if moving != 0 {
                self.entries[slot] = moving;
                moving = word;
            }
        }
        let sighting = tell(known, place, now, rapid_ticks);
        let front = match sighting {
            Sighting::New => fresh,
            Sighting::Elsewhere => known,
            Sighting::Retransmit | Sighting::Rapid => fresh | known & MARKED,
        };
        // CPUs that see the same flow at the same time keep the line between them.
        if self.entries[0] != front {
            self.entries[0] = front;
        }
        sighting
    }

    /// Tells what [`FlowLine::sight`] would, and puts nothing down: for a flow that may end here. What ends here was not
    /// asked, and takes no other flow's place.
    #[inline(always)]
    pub fn glimpse(&self, digest: u32, place: Place, now: Ticks, rapid_ticks: u32) -> Sighting {
        let mut known = 0;
        for slot in 0..ENTRIES {
            if self.digest(slot) == digest {
                known = self.entries[slot];
                break;
            }
        }
        // Another CPU may have put another flow there meanwhile.
        if (known >> 32) as u32 != digest {
            known = 0;
        }
        tell(known, place, now, rapid_ticks)
    }

    /// The digest of an entry, the upper half of its word.
    #[inline(always)]
    const fn digest(&self, slot: usize) -> u32 {
        const UPPER: usize = cfg!(target_endian = "little") as usize;
        // SAFETY: every eight bytes are twice four.
        let halves: &[[u32; 2]; ENTRIES] = unsafe { &*(&raw const self.entries).cast() };
        halves[slot][UPPER]
    }

    /// Notes that a query of the flow goes on with a mark.
    #[inline(always)]
    pub fn mark(&mut self, digest: u32) {
        for slot in 0..ENTRIES {
            if self.entries[slot] != 0 && (self.entries[slot] >> 32) as u32 == digest {
                self.entries[slot] |= MARKED;
            }
        }
    }

    /// Whether a flow that was seen elsewhere goes in this direction for the first time: it came in there and goes out
    /// here, or the other way round.
    #[inline(always)]
    pub fn turns(&mut self, digest: u32, place: Place) -> bool {
        let mut turns = 0;
        for slot in 0..ENTRIES {
            let word = self.entries[slot];
            if word != 0 && (word >> 32) as u32 == digest {
                let other_way = (word >> PLACE_SHIFT ^ place.0 as u64) & 1;
                self.entries[slot] = word | other_way << TURNED_SHIFT;
                turns |= self.entries[slot] ^ word;
            }
        }
        turns != 0
    }

    /// Whether the flow was seen in the last 2 s and got no response.
    #[inline(always)]
    pub fn is_pending(&self, digest: u32, now: Ticks) -> bool {
        let time = (now.0 >> TIME_UNIT_SHIFT) & TIME_MASK;
        let mut pending = false;
        for slot in 0..ENTRIES {
            let word = self.entries[slot];
            if word != 0 && (word >> 32) as u32 == digest && time.wrapping_sub(word as u32) & TIME_MASK < PENDING {
                pending = true;
            }
        }
        pending
    }

    /// Whether a new flow takes the place of one that may still be waited for.
    pub fn is_full(&self, now: Ticks) -> bool {
        let time = (now.0 >> TIME_UNIT_SHIFT) & TIME_MASK;
        let in_use = |word: &u64| *word != 0 && time.wrapping_sub(*word as u32) & TIME_MASK < LIFE;
        self.entries.iter().all(in_use)
    }

    /// Forgets a flow that got a response, an error as well: whoever asks again after it repeats himself for a reason.
    #[inline(always)]
    pub fn settle(&mut self, digest: u32) -> Settled {
        let mut known = 0;
        for slot in 0..ENTRIES {
            let word = self.entries[slot];
            if word != 0 && (word >> 32) as u32 == digest {
                self.entries[slot] = 0;
                known = word;
            }
        }
        Settled {
            asked: known != 0,
            plain: known & PLAIN != 0,
            marked: known & MARKED != 0,
        }
    }
}

/// What an entry of a flow tells that is seen here now; 0 is none.
#[inline(always)]
fn tell(known: u64, place: Place, now: Ticks, rapid_ticks: u32) -> Sighting {
    let time = (now.0 >> TIME_UNIT_SHIFT) & TIME_MASK;
    let age = time.wrapping_sub(known as u32) & TIME_MASK;
    if known == 0 || age >= LIFE {
        return Sighting::New;
    }
    let elsewhere = (known >> PLACE_SHIFT) as u32 & PLACE_MASK != place.0;
    if elsewhere && age < TRANSIT {
        return Sighting::Elsewhere;
    }
    if age << TIME_UNIT_SHIFT < rapid_ticks {
        Sighting::Rapid
    } else {
        Sighting::Retransmit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sample::Sampler, time::ticks_of_ms};

    const HERE: Place = Place::new(2, false);
    const THERE: Place = Place::new(3, true);
    const RAPID: u32 = ticks_of_ms(100);

    fn at(ms: u32) -> Ticks {
        Ticks(0xffff_f000).plus(ticks_of_ms(ms))
    }

    #[test]
    fn a_glimpse_tells_what_a_sight_tells_and_changes_nothing() {
        let mut line = FlowLine::default();
        let mut sampler = Sampler::default();
        let (mut ms, mut seen) = (0, [0; 4]);
        for step in 0..20_000 {
            let drawn = sampler.random(0);
            let (digest, place) = (drawn >> 22, if drawn & 1 << 13 == 0 { HERE } else { THERE });
            // At the pace of clients and of loops, and now and then after all of them have given up.
            ms += if drawn >> 5 & 0x3f == 0 {
                40_000
            } else {
                drawn >> 1 & 0xff
            };
            let now = at(ms);
            let before = line.entries;
            let glimpse = line.glimpse(digest, place, now, RAPID);
            assert_eq!(line.entries, before);
            assert_eq!(line.sight(digest, place, true, now, RAPID), glimpse, "step {step}");
            seen[glimpse as usize] += 1;
        }
        assert!(seen.iter().all(|times| *times > 100), "{seen:?}");
    }

    #[test]
    fn a_client_retransmit_is_not_rapid() {
        let mut line = FlowLine::default();
        assert_eq!(line.sight(7, HERE, true, at(0), RAPID), Sighting::New);
        for second in [1, 3, 5, 10] {
            assert_eq!(
                line.sight(7, HERE, true, at(second * 1_000), RAPID),
                Sighting::Retransmit
            );
        }
    }

    #[test]
    fn a_line_is_full_while_nobody_can_be_forgotten() {
        let mut line = FlowLine::default();
        for digest in 1..=ENTRIES as u32 {
            assert!(!line.is_full(at(0)));
            line.sight(digest, HERE, true, at(0), RAPID);
        }
        assert!(line.is_full(at(29_000)));
        assert!(!line.is_full(at(31_000)), "after the longest wait");
        line.settle(1);
        assert!(!line.is_full(at(0)), "after an answer");
    }

    #[test]
    fn faster_than_any_client_is_rapid() {
        let mut line = FlowLine::default();
        line.sight(7, HERE, true, at(0), RAPID);
        assert_eq!(line.sight(7, HERE, true, at(1), RAPID), Sighting::Rapid);
        assert_eq!(line.sight(7, HERE, true, at(40), RAPID), Sighting::Rapid);
    }

    #[test]
    fn one_packet_on_several_interfaces_is_one_sighting() {
        let mut line = FlowLine::default();
        assert_eq!(line.sight(7, HERE, true, at(0), RAPID), Sighting::New);
        assert_eq!(
            line.sight(7, Place::new(4, false), true, at(0), RAPID),
            Sighting::Elsewhere
        );
        assert_eq!(line.sight(7, HERE, true, at(1_500), RAPID), Sighting::Retransmit);
    }

    #[test]
    fn a_packet_turns_once_on_its_way() {
        let mut line = FlowLine::default();
        for tries in 0..3 {
            line.sight(7, HERE, true, at(tries * 2_000), RAPID);
            let onward = Place::new(5, false);
            assert_eq!(
                line.sight(7, onward, true, at(tries * 2_000), RAPID),
                Sighting::Elsewhere
            );
            assert!(!line.turns(7, onward));
            assert_eq!(
                line.sight(7, THERE, true, at(tries * 2_000), RAPID),
                Sighting::Elsewhere
            );
            assert!(line.turns(7, THERE));
            assert!(!line.turns(7, Place::new(6, true)) && !line.turns(8, THERE));
        }
        assert!(line.is_pending(7, at(4_000)) && line.settle(7).asked);
    }

    #[test]
    fn a_response_settles_the_flow() {
        let mut line = FlowLine::default();
        line.sight(7, HERE, true, at(0), RAPID);
        assert!(line.settle(7).asked);
        assert!(!line.settle(7).asked);
        assert_eq!(line.sight(7, HERE, true, at(1), RAPID), Sighting::New);
    }

    #[test]
    fn a_response_may_be_respelled_if_its_query_was_plain_or_marked_or_is_not_known() {
        let mut line = FlowLine::default();
        let mut settled = |plain: &[bool], marked: bool| {
            for (number, plain) in plain.iter().enumerate() {
                line.sight(7, HERE, *plain, at(number as u32), RAPID);
            }
            if marked {
                line.mark(7);
                line.mark(8);
                line.sight(7, HERE, false, at(9), RAPID);
            }
            let settled = line.settle(7);
            assert_eq!(Settled::from_number(settled.number()), settled);
            (settled.asked, settled.plain, settled.marked, settled.may_be_respelled())
        };
        assert_eq!(settled(&[true], false), (true, true, false, true));
        assert_eq!(settled(&[false], false), (true, false, false, false));
        assert_eq!(settled(&[false], true), (true, false, true, true));
        assert_eq!(settled(&[true, true], false), (true, true, false, true));
        assert_eq!(settled(&[], false), (false, false, false, true));
    }

    #[test]
    fn a_flow_is_pending_until_its_response_or_for_two_seconds() {
        let mut line = FlowLine::default();
        assert!(!line.is_pending(7, at(0)));
        line.sight(7, HERE, true, at(0), RAPID);
        assert!(line.is_pending(7, at(0)) && line.is_pending(7, at(1_900)));
        assert!(!line.is_pending(8, at(1)) && !line.is_pending(7, at(2_100)));
        line.settle(7);
        assert!(!line.is_pending(7, at(1)));
    }

    #[test]
    fn a_full_line_forgets_the_oldest_only() {
        let mut line = FlowLine::default();
        for digest in 1..=8 {
            line.sight(digest, HERE, true, at(digest * 100), RAPID);
        }
        assert_eq!(line.sight(9, HERE, true, at(900), RAPID), Sighting::New);
        assert_eq!(line.sight(2, HERE, true, at(1_000), RAPID), Sighting::Retransmit);
        assert_eq!(line.sight(1, HERE, true, at(1_100), RAPID), Sighting::New);
    }

    #[test]
    fn after_half_a_minute_a_flow_is_new() {
        let mut line = FlowLine::default();
        line.sight(7, HERE, true, at(0), RAPID);
        assert_eq!(line.sight(7, HERE, true, at(40_000), RAPID), Sighting::New);
    }
}
