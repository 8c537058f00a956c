//! The marks that are out: what it takes to undo each of them in the answer.
//!
//! A mark is found by how it makes the name look, for it may come back to another client than the one whose query was
//! marked: a forwarder that joins equal queries answers all of them in the spelling of one.

use crate::{
    judge::bpf_spin_lock,
    key::Key,
    time::{Ticks, ticks_of_ms},
};

/// Marks in a line.
const ENTRIES: usize = 6;
/// Ticks for which a mark that is out keeps its place: 30 s, the time after which no resolver still waits.
const LIFE: u32 = ticks_of_ms(30_000);
/// Ticks for which it does so once its own answer has come: 2 s, for clients whose queries were joined with it.
const LINGER: u32 = ticks_of_ms(2_000);

/// Two cache lines of the table, picked by the digest of key and spelling. Whoever changes or reads it holds the lock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MarkLine {
    /// The lock.
    pub lock: bpf_spin_lock,
    marks: [Out; ENTRIES],
    rest_of_lines: u32,
}

/// A name, and how a mark makes it look. All zero is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Of the digest of key and spelling, the half that does not pick the line.
    digest: u32,
    /// Of the key.
    key: u32,
}

impl Look {
    /// That of a name with this key, spelled so that it has this digest.
    #[inline(always)]
    pub const fn new(digest: u64, key: Key) -> Self {
        Self {
            digest: digest as u32,
            // Keys are odd, and so is this.
            key: key.0 as u32,
        }
    }
}

/// A mark that is out; all zero is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Out {
    /// What it makes the name look like.
    look: Look,
    /// Of the flow whose query was marked.
    flow: u32,
    /// The number that its pattern was drawn with.
    nonce: u32,
    /// Until then its place is its own.
    until: Ticks,
}

const _: () = assert!(size_of::<MarkLine>() == 128);

/// How to undo a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The number that its pattern was drawn with.
    pub nonce: u32,
    /// Whether it is this very flow whose query was marked.
    pub own: bool,
}

impl Found {
    /// Both in one number, which is not zero.
    #[inline(always)]
    pub const fn number(self) -> u64 {
        1 << 33 | (self.own as u64) << 32 | self.nonce as u64
    }

    /// What is in a number; `None` for zero.
    #[inline(always)]
    pub const fn from_number(number: u64) -> Option<Self> {
        if number == 0 {
            return None;
        }
        Some(Self {
            nonce: number as u32,
            own: number >> 32 & 1 == 1,
        })
    }
}

/// Whether there is room for a mark.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// None: other names take all of it.
    TakenByOthers = 0,
    /// None: other marks of this name take some of it.
    TakenByItself = 1,
    /// There was, and it is remembered.
    Found = 2,
}

impl MarkLine {
    /// Remembers that a query of this flow goes out with a name that looks like this. Unless there is room for it, it must
    /// not be marked, for nobody could undo it.
    #[inline(always)]
    pub fn remember(&mut self, look: Look, flow: u32, nonce: u32, now: Ticks) -> Room {
        let mut room = ENTRIES;
        let mut namesakes = 0;
        for slot in 0..ENTRIES {
            let out = &self.marks[slot];
            if out.look == Look::default() || !now.is_before(out.until, LIFE) {
                room = slot;
            }
            if out.look.key == look.key {
                namesakes += 1;
            }
        }
        let Some(out) = self.marks.get_mut(room) else {
            return if namesakes == 0 {
                Room::TakenByOthers
            } else {
                Room::TakenByItself
            };
        };
        *out = Out {
            look,
            flow,
            nonce,
            until: now.plus(LIFE),
        };
        Room::Found
    }

    /// Whether there is no room for a further mark.
    pub fn is_full(&self, now: Ticks) -> bool {
        self.marks
            .iter()
            .all(|out| out.look != Look::default() && now.is_before(out.until, LIFE))
    }

    /// Whether a mark that is out makes a name look like this.
    #[inline(always)]
    pub fn knows(&self, look: Look) -> bool {
        let mut known = false;
        for slot in 0..ENTRIES {
            known |= self.marks[slot].look == look;
        }
        known
    }

    /// Looks for the mark that makes a name look like this in a response to this flow.
    #[inline(always)]
    pub fn find(&mut self, look: Look, flow: u32, now: Ticks) -> Option<Found> {
        let mut found: Option<Found> = None;
        for slot in 0..ENTRIES {
            let out = &mut self.marks[slot];
            if out.look != look {
                continue;
            }
            let own = out.flow == flow;
            // A short name looks the same by more marks than one, and a client that asked twice may get two responses.
            let first = match found {
                Some(found) => own && !found.own,
                None => true,
            };
            if first && own {
                out.until = now.plus(LINGER);
            }
            if first {
                found = Some(Found { nonce: out.nonce, own });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Ticks = Ticks(u32::MAX - 7);

    fn look(name: u64, spelling: u64) -> Look {
        Look::new(spelling, Key(name << 1 | 1))
    }

    fn later(ms: u32) -> Ticks {
        NOW.plus(ticks_of_ms(ms))
    }

    #[test]
    fn a_mark_is_found_by_its_spelling_by_whomever_it_comes_to() {
        let mut line = MarkLine::default();
        assert_eq!(line.remember(look(77, 5), 9, 3, NOW), Room::Found);
        assert_eq!(line.find(look(77, 5), 9, later(1)), Some(Found { nonce: 3, own: true }));
        assert_eq!(
            line.find(look(77, 5), 8, later(1)),
            Some(Found { nonce: 3, own: false })
        );
        assert_eq!(line.find(look(77, 6), 9, later(1)), None);
        assert_eq!(line.find(look(78, 5), 9, later(1)), None);
        assert!(line.knows(look(77, 5)) && !line.knows(look(77, 6)));
    }

    #[test]
    fn a_line_is_full_while_every_mark_may_come_back() {
        let mut line = MarkLine::default();
        for number in 1..=ENTRIES as u32 {
            assert!(!line.is_full(NOW));
            line.remember(look(77, u64::from(number)), number, number, NOW);
        }
        assert!(line.is_full(later(29_000)));
        assert!(!line.is_full(later(31_000)), "after the longest wait");
        line.find(look(77, 1), 1, later(1));
        assert!(
            line.is_full(later(1_000)) && !line.is_full(later(3_000)),
            "after an answer"
        );
    }

    #[test]
    fn of_marks_that_look_alike_each_flow_has_its_own() {
        let mut line = MarkLine::default();
        for number in 1..=ENTRIES as u32 {
            assert_eq!(line.remember(look(77, 5), 10 + number, number, NOW), Room::Found);
        }
        assert_eq!(line.remember(look(77, 5), 9, 9, later(1)), Room::TakenByItself);
        assert_eq!(line.remember(look(77, 6), 9, 9, later(1)), Room::TakenByItself);
        assert_eq!(line.remember(look(78, 5), 9, 9, later(1)), Room::TakenByOthers);
        for (flow, nonce) in (1..=ENTRIES as u32).map(|number| (10 + number, number)) {
            assert_eq!(line.find(look(77, 5), flow, later(1)), Some(Found { nonce, own: true }));
        }
        assert!(line.find(look(77, 5), 6, later(1)).is_some_and(|found| !found.own));
    }

    #[test]
    fn a_flow_that_was_marked_twice_gets_two_responses() {
        let mut line = MarkLine::default();
        line.remember(look(77, 5), 9, 1, NOW);
        line.remember(look(77, 5), 9, 2, NOW);
        assert!(line.find(look(77, 5), 9, later(1)).is_some_and(|found| found.own));
        for number in 3..=ENTRIES as u32 {
            line.remember(look(78, 5), 9, number, later(2));
        }
        // The second one keeps its place.
        assert_eq!(line.remember(look(79, 5), 9, 7, later(3_000)), Room::Found);
        assert_eq!(line.remember(look(79, 5), 9, 8, later(3_000)), Room::TakenByItself);
        assert!(line.find(look(77, 5), 9, later(5_000)).is_some_and(|found| found.own));
    }

    #[test]
    fn a_mark_that_is_out_is_never_pushed_aside() {
        let mut line = MarkLine::default();
        for number in 1..=ENTRIES as u64 {
            assert_eq!(line.remember(look(number, 1), 9, 3, later(number as u32)), Room::Found);
        }
        for second in 0..29 {
            assert_eq!(
                line.remember(look(99, 1), 9, 3, later(second * 1_000)),
                Room::TakenByOthers
            );
        }
        assert!((1..=ENTRIES as u64).all(|number| line.find(look(number, 1), 9, later(29_000)).is_some()));
        // Found by its own flow: answered, so it soon makes room.
        assert_eq!(line.remember(look(99, 1), 9, 3, later(30_900)), Room::TakenByOthers);
        assert_eq!(line.remember(look(99, 1), 9, 3, later(31_100)), Room::Found);
    }

    #[test]
    fn after_half_a_minute_a_mark_makes_room_and_is_good_until_then() {
        let mut line = MarkLine::default();
        for number in 1..=ENTRIES as u64 {
            line.remember(look(number, 1), 9, 3, NOW);
        }
        assert!(line.find(look(1, 1), 8, later(40_000)).is_some());
        assert_eq!(line.remember(look(99, 1), 9, 3, later(40_000)), Room::Found);
        assert!(line.find(look(99, 1), 9, later(40_000)).is_some());
        let left = (1..=ENTRIES as u64).filter(|number| line.find(look(*number, 1), 8, later(40_001)).is_some());
        assert_eq!(left.count(), ENTRIES - 1);
    }

    #[test]
    fn what_is_found_goes_through_a_number() {
        for own in [false, true] {
            for nonce in [0, 1, u32::MAX] {
                let found = Found { nonce, own };
                assert_eq!(Found::from_number(found.number()), Some(found));
            }
        }
        assert_eq!(Found::from_number(0), None);
    }
}
