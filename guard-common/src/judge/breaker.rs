//! The breaker of a key.
//!
//! ```text
//!         one is marked       the mark comes back        the hold is over
//!  closed ------------> suspect ---------> open (hold) ------------------> test
//!   ^ ^ '---------------- | -----------------^   ^                          | |
//!   | |    a loop by its looks                   '---- no answer in time ---' |
//!   | '-- answered, lost -'                                                   |
//!   '------------------------------- answered --------------------------------'
//! ```
//!
//! A hold lasts 1 s and doubles with every test that fails, to 300 s at most (RFC 9520 section 3.2). In a test the key
//! may go to each server once, eight at the most: that is enough for one query to get its answer, and not enough for a
//! loop.

use super::{
    Hop, KeyState, RUNGS, Rules, Ruling,
    evidence::{Weighed, Weight},
    mark::TESTED,
};
use crate::{flow::Sighting, time::Ticks};

/// Phase: queries pass and are weighed. The zero of a fresh state.
pub(super) const CLOSED: u8 = 0;
/// Phase: queries are held.
pub(super) const OPEN: u8 = 1;
/// Phase: one query is on its way to see whether the loop is still there.
pub(super) const TEST: u8 = 2;
/// Phase: queries pass and are weighed, and one of them is marked.
pub(super) const SUSPECT: u8 = 3;

/// Holds double this often at the most, whatever the rules: 2^16 times the first.
const MAX_LEVEL: u8 = 16;

/// Hops of a test to servers beyond those that are remembered.
const MORE_SERVERS: u8 = 4;
/// They are counted in `visited` above the bits of the rungs.
const MORE_STEP: u8 = 1 << RUNGS;

/// What has just changed for a key.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Note {
    /// Nothing worth telling.
    #[default]
    None = 0,
    /// A hop speaks for a loop, others did before; or it is marked.
    Suspect = 1,
    /// A loop: the breaker opened.
    Trip = 2,
    /// The test got no answer: the breaker stays open, for twice as long.
    Extend = 3,
    /// The test was answered: the breaker closed.
    Release = 4,
}

impl Note {
    /// The note of a number as it stands in an event; unknown numbers are `None`.
    pub const fn from_u8(number: u8) -> Self {
        match number {
            1 => Self::Suspect,
            2 => Self::Trip,
            3 => Self::Extend,
            4 => Self::Release,
            _ => Self::None,
        }
    }
}

impl KeyState {
    /// Judges one query of the key.
    #[inline(always)]
    pub(super) fn query_into(&mut self, hop: &Hop, now: Ticks, rules: &Rules, ruling: &mut Ruling) {
        let idle_ticks = now.since(self.touched);
        self.touched = now;
        ruling.suspects = false;
        let weighed = if self.is_open() {
            (ruling.held, ruling.tests, ruling.note) = self.query_while_open(hop, now, rules);
            Weighed::NOTHING
        } else {
            let weighed = self.weigh(hop, idle_ticks, now, rules);
            ruling.tests = false;
            (ruling.held, ruling.note) = match weighed.weight {
                Weight::Loop => {
                    self.begin_hold(now, rules);
                    (true, Note::Trip)
                }
                Weight::Suspect => (false, Note::Suspect),
                Weight::Nothing => (false, Note::None),
            };
            ruling.suspects = rules.marks != 0
                && !matches!(weighed.weight, Weight::Loop)
                && !matches!(hop.sighting, Sighting::Elsewhere)
                && self.wants_spelling(hop);
            weighed
        };
        ruling.recirculates = weighed.recirculates;
        ruling.returns = weighed.returns;
        ruling.found = weighed.found;
        // What is written is read again, and not followed on each way that led here (see `choice`).
        let (this, ruling) = core::hint::black_box((self, ruling));
        this.describe(ruling, now, rules);
    }

    /// The same while the breaker is open: whether the query is held, whether it tests, and what has changed.
    #[inline(always)]
    fn query_while_open(&mut self, hop: &Hop, now: Ticks, rules: &Rules) -> (bool, bool, Note) {
        let mut note = Note::None;
        if !now.is_before(self.until, rules.longest_ticks()) {
            // A test that nobody waited for says nothing: a query that comes much later begins another one.
            let stale = now.since(self.until) > self.hold_ticks(rules);
            if self.phase == TEST && !stale {
                self.level = if self.level < MAX_LEVEL {
                    self.level + 1
                } else {
                    MAX_LEVEL
                };
                self.open(now, rules);
                note = Note::Extend;
            } else {
                self.phase = TEST;
                self.until = now.plus(rules.test_ticks);
                // The rule that looped may lead elsewhere by now.
                self.forget_hops();
            }
            self.set(TESTED);
        }
        if self.phase == TEST && self.admits(hop) {
            return (false, true, note);
        }
        self.count = self.count.saturating_add(1);
        (true, false, note)
    }

    /// Takes note of a response that settles the key; `asked` says whether its query was let through.
    #[inline(always)]
    pub(super) fn answered(&mut self, asked: bool, now: Ticks, rules: &Rules) -> Option<Ruling> {
        if !self.is_open() {
            self.forget_hops();
            return None;
        }
        // An answer to something that was under way before the breaker opened does not prove that the loop is gone, nor
        // does one that the guard has made.
        if !self.has(TESTED) || !asked {
            return None;
        }
        let ruling = self.ruling(false, Note::Release, now, rules);
        self.touched = now;
        self.phase = CLOSED;
        self.level = 0;
        self.forget_hops();
        Some(ruling)
    }

    /// Ticks of the present hold.
    #[inline(always)]
    pub(super) fn hold_ticks(&self, rules: &Rules) -> u32 {
        let doubled = (rules.hold_ticks as u64) << (self.level & 31);
        if doubled < rules.hold_max_ticks as u64 {
            doubled as u32
        } else {
            rules.hold_max_ticks
        }
    }

    /// Opens the breaker of a key that was closed, and holds the query that gave the loop away.
    #[inline(always)]
    pub(super) fn begin_hold(&mut self, now: Ticks, rules: &Rules) {
        self.level = 0;
        self.open(now, rules);
        self.count = 1;
    }

    #[inline(always)]
    fn open(&mut self, now: Ticks, rules: &Rules) {
        self.phase = OPEN;
        self.until = now.plus(self.hold_ticks(rules));
        self.count = 0;
        self.flags = 0;
    }

    /// Whether the test may include this hop: each server is asked once, and a client may ask again.
    #[inline(always)]
    fn admits(&mut self, hop: &Hop) -> bool {
        if matches!(hop.sighting, Sighting::Elsewhere) {
            return true;
        }
        let rung = self.rung_of(hop);
        if rung.index() as usize >= RUNGS {
            // A chain may have more servers than are remembered.
            let passed = self.visited >= MORE_SERVERS * MORE_STEP;
            self.visited = if passed { self.visited } else { self.visited + MORE_STEP };
            return !passed;
        }
        let bit = 1 << rung.index();
        if self.visited & bit != 0 {
            return matches!(hop.sighting, Sighting::Retransmit) && rung.is_same_socket();
        }
        self.visited |= bit;
        self.note_rung(hop, rung.index());
        true
    }
}
