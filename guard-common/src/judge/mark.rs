//! The mark: proof that a query went round.
//!
//! A query of a key under suspicion goes on with some of its letters flipped, in a pattern that nobody can guess
//! ([`Pattern`](crate::spelling::Pattern)). Only the server that it goes to learns the pattern, and whoever that one asks
//! in turn. So a query that carries it to another server descends from the marked one; it is marked anew on its way, and
//! what it carries then, only the next server learns. A query that carries the last pattern to a server which the
//! marked one has been to has gone round.
//!
//! ```text
//!  client -> A   marked with P
//!       A -> B   carries P: it descends from the marked one; marked anew with Q
//!       B -> A   carries Q, and A has been there: it went round
//! ```
//!
//! Who merely asks A again, a client or a forwarder that has lost its patience, does not know Q.
//!
//! By chance, a name of n letters that is spelled at random carries a pattern once in 2^n: each round gives as many bits
//! of evidence as the name has letters, and some more for what else speaks for a loop. Only the hop that closes a round
//! gives any: in a chain of forwarders, one query that looks like the mark by chance is carried on in earnest. And one
//! return is not enough, whatever it gives, for it may be a way through one address twice, such as that of a service with
//! several servers behind it; unless it has the ID of the query that went out.

use super::{ALL_RUNGS, Evidence, Hop, KeyState, Note, RUNGS, Rules, Ruling, breaker, evidence::Position};
use crate::{choice, flow::Sighting, spelling::Spelling, time::Ticks};

/// Bits that prove a loop. Beside them is what it takes to be looked at at all: hops that nobody answers, and one that
/// came back.
pub(super) const PROOF_BITS: u8 = 18;
/// The same where some queries are spelled at random, and not by a mark: many that guess must not add up.
const PROOF_BITS_AMONG_RANDOM: u8 = 48;
/// Bits that a query takes away which is spelled at random and carries no mark.
const RANDOM_RELIEF: u8 = 2;
/// Returns that prove a loop.
pub(super) const PROOF_RETURNS: u8 = 2;
/// The same where the ID came back as well.
pub(super) const PROOF_RETURNS_OF_ID: u8 = 1;
/// Letters of the shortest name that is marked.
const FEWEST_LETTERS: u32 = 3;
/// Letters of the shortest name of which an earlier mark can be told from a spelling at random: of fewer, too many
/// spellings have been a mark.
const TELLING_LETTERS: u32 = 7;

/// Hops without an answer after which a key is under suspicion, if one of them came back to a server.
const SUSPICIOUS_HOPS: u16 = 3;
/// The same once marks of this key were answered: a busy name is not marked over and over.
const SUSPICIOUS_HOPS_AT_MOST: u16 = 12;
/// Hops without an answer to one server of this host, after which it might ask itself.
pub(super) const SUSPICIOUS_HOPS_TO_ONE: u16 = 16;
/// Hops without an answer from which on a key whose marks are all lost is judged without: more than any crowd makes before
/// it gives up. Behind a dead server marks are lost as well, and so they are in a forwarder that makes all letters small.
pub(super) const HOPS_WITHOUT_PROOF: u16 = 1 << 15;
/// Hops that come back without the mark before it is given up; doubling each time.
const LOST_AFTER: u8 = 8;
/// Ticks after which the first of them is enough: half a second, in which most of what circulates would be back.
pub(super) const STALE_TICKS: u32 = 477;
/// Ticks after which a mark is given up in any case: 10 s, like hops.
pub(super) const MARK_TICKS: u32 = 9_537;

/// What a query is that the judge looked at more closely.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spelled {
    /// How its name is spelled, and how it would be with a mark.
    pub spelling: Spelling,
    /// Whether it goes to a server that already had the question; [`Ruling::returns`].
    pub returns: bool,
    /// What else this hop says: [`Ruling::found`].
    pub found: Evidence,
    /// Whether it may be marked: nobody has signed it.
    pub unsigned: bool,
    /// Whether it is spelled by a mark that is out, be it the last one or another.
    pub ours: bool,
}

/// What a round counts for beside its letters, in bits. A client that spells at random does not look like that, or seldom:
/// it does not repeat a query in another spelling, is no server, brings its own ID, and mostly its own socket.
const fn bits_beside(hop: &Hop, found: Evidence) -> u8 {
    if matches!(hop.sighting, Sighting::Rapid) {
        return 8;
    }
    match found {
        Evidence::Identity => 12,
        Evidence::Direction => 4,
        Evidence::Ladder => 2,
        Evidence::Pace | Evidence::None | Evidence::Mark => 0,
    }
}

/// Flag: a breaker has let a query through since it opened.
pub(super) const TESTED: u8 = 1;
/// Flag: some queries are spelled at random, and not by a mark.
pub(super) const RANDOM: u8 = 2;
/// Flag: it cannot be marked.
pub(super) const UNMARKABLE: u8 = 4;
/// Flag: somebody spells at random who may well take marks off.
pub(super) const SHUFFLED: u8 = 8;
/// Above the flags, two bits each, how often a mark was lost, and how often one was answered; [`OFTEN`] is the most.
pub(super) const LOST_SHIFT: u32 = 4;
pub(super) const ANSWERED_SHIFT: u32 = 6;
/// Often, and anything above it.
const OFTEN: u8 = 3;

impl KeyState {
    /// Whether the judge wants to know how this query is spelled.
    #[inline(always)]
    pub(super) const fn wants_spelling(&self, hop: &Hop) -> bool {
        self.phase == breaker::SUSPECT || self.is_suspicious(hop)
    }

    /// Whether so much of it is on its way without an answer that it is worth a mark.
    #[inline(always)]
    const fn is_suspicious(&self, hop: &Hop) -> bool {
        let doubled = SUSPICIOUS_HOPS << (self.flags >> ANSWERED_SHIFT);
        let enough = if doubled < SUSPICIOUS_HOPS_AT_MOST {
            doubled
        } else {
            SUSPICIOUS_HOPS_AT_MOST
        };
        self.recirculated != 0 && self.hops >= enough || hop.same_host && self.hops >= SUSPICIOUS_HOPS_TO_ONE
    }

    /// Takes in how a query is spelled that [`Self::wants_spelling`] asked for.
    #[inline(always)]
    pub(super) fn spelled(&mut self, hop: &Hop, query: &Spelled, now: Ticks, rules: &Rules) -> Option<Ruling> {
        // Another CPU may have had an answer since, or a trip.
        if self.phase != breaker::CLOSED && self.phase != breaker::SUSPECT || self.hops == 0 {
            return None;
        }
        let ours = query.ours && query.spelling.letters >= TELLING_LETTERS;
        let is_random = !hop.plain && !ours && !self.is_carrying(query);
        if is_random {
            self.set(RANDOM);
        }
        if is_random && !query.ours {
            self.set(SHUFFLED);
        }
        let rung = self.rung_of(hop);
        if self.phase == breaker::SUSPECT && !now.is_before(self.until, MARK_TICKS) {
            self.lose_mark();
        }
        if self.phase == breaker::SUSPECT {
            if self.is_carrying(query) {
                return self.carried(hop, rung, query, now, rules);
            }
            self.passed_without(is_random, query, now);
        }
        let can_be_marked = self.can_mark(query);
        let is_free = self.phase == breaker::CLOSED;
        let is_alone = self.ladder.is_one_asked();
        let is_worth_it = query.returns || hop.same_host && is_alone;
        // One that was lost without a trace may have gone to a server that asks nobody. If there is no other, it may be the
        // mark that was lost, and not the server's fault.
        let elsewhere = self.lost() & 1 == 0 || is_alone || rung.index() != self.marked();
        if is_free && is_worth_it && elsewhere && self.is_suspicious(hop) && can_be_marked {
            self.phase = breaker::SUSPECT;
            self.since = now;
            self.visited = 0;
            self.begin_round();
            return Some(self.mark(hop, rung, query, now, rules));
        }
        None
    }

    /// A query carries the mark.
    #[inline(always)]
    fn carried(&mut self, hop: &Hop, rung: Position, query: &Spelled, now: Ticks, rules: &Rules) -> Option<Ruling> {
        // The same query behind a NAT goes to the same server from another socket. On this host there is none, and a
        // server that is alone may ask itself.
        let moved_on = rung.index() != self.marked() || hop.same_host && self.ladder.is_one_asked();
        let comes_back = rung.is_known() && moved_on;
        if comes_back && self.visited >> rung.index() & 1 == 1 {
            self.level = self.level.saturating_add(1);
            // Others were looked at in between, and none of them was spelled at random.
            if self.overtaken != 0 && !self.has(RANDOM) {
                self.bits = self.bits.saturating_add(1);
            }
        }
        if comes_back && self.round() >> rung.index() & 1 == 1 {
            // A name has 250 letters at most.
            let letters = query.spelling.letters as u8;
            let beside = if self.has(RANDOM) {
                0
            } else {
                bits_beside(hop, query.found)
            };
            self.bits = self.bits.saturating_add(letters).saturating_add(beside);
            self.begin_round();
        }
        let bits = if self.has(RANDOM) {
            PROOF_BITS_AMONG_RANDOM
        } else {
            PROOF_BITS
        };
        let returns = if matches!(query.found, Evidence::Identity) {
            PROOF_RETURNS_OF_ID
        } else {
            PROOF_RETURNS
        };
        if self.bits >= bits && self.level >= returns {
            self.evidence = Evidence::Mark as u8;
            let bits = self.bits;
            self.begin_hold(now, rules);
            let mut ruling = self.ruling(true, Note::Trip, now, rules);
            ruling.bits = bits;
            ruling.found = query.found;
            return Some(ruling);
        }
        if self.can_mark(query) {
            return Some(self.mark(hop, rung, query, now, rules));
        }
        self.went_to(hop, rung, now);
        Some(self.ruling(false, Note::Suspect, now, rules))
    }

    /// A query that does not carry the mark.
    #[inline(always)]
    fn passed_without(&mut self, is_random: bool, query: &Spelled, now: Ticks) {
        if is_random {
            self.bits = self.bits.saturating_sub(RANDOM_RELIEF);
        }
        if query.returns {
            self.overtaken = self.overtaken.saturating_add(1);
        }
        let fresh_until = self.until.minus(MARK_TICKS - STALE_TICKS);
        let stale = query.returns && !now.is_before(fresh_until, STALE_TICKS);
        if stale || self.overtaken >= LOST_AFTER << self.lost() {
            self.lose_mark();
        }
    }

    /// Whether a query can be marked; if it never can, that is put down.
    #[inline(always)]
    fn can_mark(&mut self, query: &Spelled) -> bool {
        let can = query.unsigned && query.spelling.letters >= FEWEST_LETTERS;
        if !can {
            self.set(UNMARKABLE);
        }
        can && query.spelling.is_a_mark()
    }

    /// Takes back a mark that is not put on, because there is no room for it: the query goes on as it is spelled. If it
    /// carries an earlier mark, and others do not spell at random, that one is out; else the mark is lost, and if `others`
    /// take the room, nothing can be proven for now.
    #[inline(always)]
    pub(super) fn unmark(&mut self, digest: u64, flipped: u64, others: bool) {
        let visited = self.visited & ALL_RUNGS;
        // Another CPU may have had an answer since, or a trip, and put another mark on.
        if self.phase != breaker::SUSPECT || self.count != flipped as u32 {
            return;
        }
        let carries = self.level != 0 || visited & visited.wrapping_sub(1) != 0;
        if carries && !self.has(RANDOM) {
            self.count = digest as u32;
            return;
        }
        self.lose_mark();
        if others {
            self.set(UNMARKABLE);
        }
    }

    /// Marks a query.
    #[inline(always)]
    fn mark(&mut self, hop: &Hop, rung: Position, query: &Spelled, now: Ticks, rules: &Rules) -> Ruling {
        self.count = query.spelling.flipped as u32;
        self.went_to(hop, rung, now);
        let mut ruling = self.ruling(false, Note::Suspect, now, rules);
        ruling.marks = true;
        ruling
    }

    /// Takes note of where the query that carries the mark goes.
    #[inline(always)]
    fn went_to(&mut self, hop: &Hop, rung: Position, now: Ticks) {
        self.until = now.plus(MARK_TICKS);
        self.overtaken = 0;
        let mut bit = 0;
        if (rung.index() as usize) < RUNGS {
            self.note_rung(hop, rung.index());
            bit = 1 << rung.index();
        }
        self.visited = rung.index() << RUNGS | self.visited & ALL_RUNGS | bit;
        self.outgoing |= bit << RUNGS;
    }

    /// Gives up the mark that is out. The suspicion stays.
    #[inline(always)]
    fn lose_mark(&mut self) {
        self.phase = breaker::CLOSED;
        self.bits = 0;
        self.level = 0;
        self.overtaken = 0;
        if self.lost() < OFTEN {
            self.flags += 1 << LOST_SHIFT;
        }
    }

    /// Takes back the mark that is out, if any, because the question was answered or forgotten.
    #[inline(always)]
    pub(super) fn withdraw(&mut self) {
        self.bits = 0;
        self.overtaken = 0;
        let answered = self.flags >> ANSWERED_SHIFT;
        self.flags &= TESTED | RANDOM | SHUFFLED | 3 << ANSWERED_SHIFT;
        if self.phase == breaker::SUSPECT {
            self.phase = breaker::CLOSED;
            self.level = 0;
            if answered < OFTEN {
                self.flags += 1 << ANSWERED_SHIFT;
            }
        }
    }

    /// The rung that the last mark went to.
    #[inline(always)]
    const fn marked(&self) -> u8 {
        self.visited >> RUNGS
    }

    /// Whether the mark went to this rung last, and nobody seems to take it off.
    #[inline(always)]
    pub(super) const fn awaits_mark_of(&self, rung: Position) -> bool {
        self.phase == breaker::SUSPECT && self.marked() == rung.index() && !self.has(SHUFFLED)
    }

    /// Rungs that the mark has been to in this round: a bit each.
    #[inline(always)]
    const fn round(&self) -> u8 {
        self.outgoing >> RUNGS
    }

    #[inline(always)]
    const fn begin_round(&mut self) {
        self.outgoing &= ALL_RUNGS;
    }

    /// Whether nothing can be proven of this key: there are no marks, or it cannot be marked, or so much went on its way while
    /// mark after mark was lost that somebody must take them off.
    #[inline(always)]
    pub(super) fn is_unprovable(&self, rules: &Rules) -> bool {
        choice::is_zero(rules.marks) | (self.flags & UNMARKABLE) as u64 | self.is_past_proof() != 0
    }

    /// 1 if so much went on its way while mark after mark was lost, else 0.
    #[inline(always)]
    pub(super) const fn is_past_proof(&self) -> u64 {
        let lost_often = (self.flags >> LOST_SHIFT & self.flags >> (LOST_SHIFT + 1)) as u64;
        lost_often & (self.hops / HOPS_WITHOUT_PROOF) as u64
    }

    /// Whether somebody takes marks off, or seems to, because he spells at random.
    #[inline(always)]
    pub(super) const fn is_shuffled(&self) -> bool {
        self.has(SHUFFLED)
    }

    /// Whether a query carries the mark that is out.
    #[inline(always)]
    const fn is_carrying(&self, query: &Spelled) -> bool {
        self.phase == breaker::SUSPECT && self.count == query.spelling.digest as u32
    }

    #[inline(always)]
    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    #[inline(always)]
    pub(super) const fn set(&mut self, flag: u8) {
        self.flags |= flag;
    }

    /// How often a mark was lost since the question was last answered.
    #[inline(always)]
    const fn lost(&self) -> u8 {
        self.flags >> LOST_SHIFT & 3
    }

    /// Forgets how often marks were answered, and who spells at random.
    #[inline(always)]
    pub(super) const fn forget_spelling(&mut self) {
        self.flags &= TESTED;
    }
}
