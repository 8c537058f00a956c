//! The short way through the judge, for what says nothing.
//!
//! Most queries are of keys that nothing speaks against, and go where the last one went. Of those only a few numbers
//! change. What this module lets through, `breaker` and `evidence` would let through as well, and leave the key in the
//! same state, but for what is counted of very many.

use core::mem::offset_of;

use super::{Hop, KeyState, Taken, breaker, evidence, evidence::Scores, mark};
use crate::{flow::Sighting, time::Ticks};

/// Queries of a key after which single ones count for less.
pub(super) const VERY_MANY: u32 = 1_024;
/// Held queries that one of them stands for from there on.
pub(super) const MANY_ARE_ONE: u32 = 64;

impl KeyState {
    /// Takes in a query that says nothing. False, with nothing changed, if it may say something: then it is for
    /// [`KeyState::query`] to judge.
    #[inline(always)]
    pub(super) fn passes(&mut self, hop: &Hop, now: Ticks) -> bool {
        matches!(self.takes(hop, now, false), Taken::Passes)
    }

    /// The same; one that begins is left alone if it `may_wait`.
    #[inline(always)]
    pub(super) fn takes(&mut self, hop: &Hop, now: Ticks, may_wait: bool) -> Taken {
        if !self.is_quiet(hop) {
            return Taken::Unclear;
        }
        let passes = if matches!(hop.sighting, Sighting::Elsewhere) {
            let is_asked = self.is_asked(now);
            if is_asked {
                (self.touched, self.since) = (now, now);
            }
            is_asked
        } else if self.is_asked(now) {
            let repeats = self.goes_there_again(hop);
            if repeats {
                self.note_repeat(hop, now);
            }
            repeats
        } else if may_wait {
            return if self.may_begin(hop, now) {
                Taken::Begins
            } else {
                Taken::Unclear
            };
        } else {
            self.begins(hop, now)
        };
        if passes { Taken::Passes } else { Taken::Unclear }
    }

    /// Whether a query that was not seen elsewhere says nothing because it goes to the only server that has been asked, and
    /// nothing speaks against the key.
    #[inline(always)]
    pub(super) fn repeats(&self, hop: &Hop, now: Ticks) -> bool {
        self.is_quiet(hop) && self.is_asked(now) && self.goes_there_again(hop)
    }

    /// Whether its queries are held, whatever they are: the breaker is open, and the hold lasts. `longest` is that of
    /// [`Rules::longest_ticks`].
    ///
    /// [`Rules::longest_ticks`]: super::Rules::longest_ticks
    #[inline(always)]
    pub(super) fn holds(&self, now: Ticks, longest: u32) -> bool {
        self.phase == breaker::OPEN && now.is_before(self.until, longest)
    }

    /// Puts down one that is held: how many have been in this hold. A CPU that does this without the lock may miss those
    /// that another one holds at the same moment. Of very many, one in [`MANY_ARE_ONE`] is drawn by `random` to stand for
    /// them all: CPUs that hold the same key write its line that much less often.
    #[inline(always)]
    pub(super) fn note_held(&mut self, now: Ticks, random: u32) -> u32 {
        if self.touched != now {
            self.touched = now;
        }
        if self.count < VERY_MANY {
            self.count += 1;
        } else if random.is_multiple_of(MANY_ARE_ONE) {
            self.count = self.count.saturating_add(MANY_ARE_ONE);
        }
        self.count
    }

    /// Whether so many hops of it count that one more within the same step of the clock tells nothing. Where a proof is
    /// given up, each counts again.
    #[inline(always)]
    pub(super) fn is_busy(&self, now: Ticks) -> bool {
        let has_many = self.hops >= VERY_MANY as u16 && self.hops < mark::HOPS_WITHOUT_PROOF || self.hops == u16::MAX;
        has_many && self.touched == now && self.since == now
    }

    /// Puts down such a query. Whole words are written, and none that a breaker or a mark depends on: a CPU that does this
    /// without the lock spoils at most the count of hops.
    #[inline(always)]
    pub(super) fn note_repeat(&mut self, hop: &Hop, now: Ticks) {
        self.hops = self.hops.saturating_add(1);
        self.step_on(hop, self.last.index(), evidence::KNOWN);
        (self.touched, self.since) = (now, now);
    }

    /// Whether neither its scores nor its count of hops that came back say anything.
    #[inline(always)]
    fn counts_nothing(&self) -> bool {
        const AT: usize = offset_of!(KeyState, recirculated);
        const { assert!(AT.is_multiple_of(4) && offset_of!(Self, scores) == AT + 1 && size_of::<Scores>() == 3) };
        let state: *const Self = self;
        // They lie side by side. The optimiser would read each byte by itself.
        // SAFETY: four bytes of the state, aligned to four.
        unsafe { *state.cast::<u8>().add(AT).cast::<u32>() == 0 }
    }

    /// Whether nothing speaks against the key, and a further hop would not alone.
    #[inline(always)]
    fn is_quiet(&self, hop: &Hop) -> bool {
        self.counts_nothing()
            && self.phase == breaker::CLOSED
            && !(hop.same_host && self.hops >= mark::SUSPICIOUS_HOPS_TO_ONE - 1)
    }

    /// Whether hops of it count that nobody has answered.
    #[inline(always)]
    fn is_asked(&self, now: Ticks) -> bool {
        self.hops != 0 && now.since(self.touched) <= evidence::FORGET_TICKS
    }

    /// Whether a query that was not seen elsewhere says nothing because it is the first of a key that has not been asked for
    /// lately, or not since its last answer.
    #[inline(always)]
    pub(super) fn would_begin(&self, hop: &Hop, now: Ticks) -> bool {
        self.is_quiet(hop) && !self.is_asked(now) && self.may_begin(hop, now)
    }

    /// Whether a query is the first, as far as the servers go that are remembered.
    #[inline(always)]
    fn may_begin(&self, hop: &Hop, now: Ticks) -> bool {
        now.since(self.touched) > evidence::CALM_TICKS || self.may_be_first(hop)
    }

    /// Puts down the first query of a key that has not been asked for lately, or not since its last answer. False, with
    /// nothing changed, if it goes to another server than the first that is remembered.
    #[inline(always)]
    fn begins(&mut self, hop: &Hop, now: Ticks) -> bool {
        let idle_ticks = now.since(self.touched);
        let ladder = self.ladder;
        if idle_ticks > evidence::CALM_TICKS {
            self.ladder = evidence::Ladder::default();
        }
        if !self.goes_to_first(hop) {
            self.ladder = ladder;
            return false;
        }
        if idle_ticks > evidence::FORGET_TICKS {
            self.forget_spelling();
        }
        self.hops = 1;
        (self.touched, self.since) = (now, now);
        true
    }
}
