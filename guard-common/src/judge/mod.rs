//! Is this query part of a loop?
//!
//! What is sure: in a loop the same key is on its way several times, unanswered, and a server that waits for the
//! answer asks for it again. The judge keeps a few facts for each key ([`KeyState`]) and weighs what each hop adds to
//! them (`evidence`). What looks like a loop gets a mark, and if that comes back it is one (`mark`). Then a breaker
//! opens for a hold (`breaker`). It has no clock and does no I/O: a function of (state, hop, time, rules).
//!
//! Keys live in buckets of seven ([`KeyBucket`]), one spin lock each, so that two CPUs never judge a key at once.

mod breaker;
mod bucket;
mod evidence;
mod insight;
mod mark;
mod quiet;
#[cfg(test)]
mod tests;

pub use breaker::Note;
pub use bucket::{KeyBucket, Look, SLOTS, Taken, bpf_spin_lock};
pub use evidence::Evidence;
pub use insight::{Insight, Phase};
pub use mark::Spelled;

use crate::{flow::Sighting, time::Ticks};

/// Servers remembered for a key, in the order in which it was first seen going to them: the rungs of its ladder.
pub const RUNGS: usize = 4;
/// A bit for each of them.
const ALL_RUNGS: u8 = (1 << RUNGS) - 1;

/// One end of a hop: its address, folded to 16 bits of a keyed digest, and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Digest of the address.
    pub address: u16,
    /// Port.
    pub port: u16,
}

/// One query of a key, on its way to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Where it comes from.
    pub client: Endpoint,
    /// Where it goes to.
    pub server: Endpoint,
    /// The DNS ID.
    pub id: u16,
    /// Whether both ends are this very host, so that addresses tell nothing.
    pub same_host: bool,
    /// Whether its name is all small letters.
    pub plain: bool,
    /// Whether it is leaving, where it was seen first.
    pub egress: bool,
    /// What is known of this very query.
    pub sighting: Sighting,
}

impl Hop {
    /// Both ends in one number, and in another what else is asked of a query that begins: not how its name is spelled, and it
    /// is not on its way within this host.
    #[inline(always)]
    pub const fn pack(&self) -> (u64, u32) {
        let ends = (self.client.address as u64) << 48
            | (self.client.port as u64) << 32
            | (self.server.address as u64) << 16
            | self.server.port as u64;
        (ends, self.id as u32 | (self.egress as u32) << 16)
    }

    /// The hop of two numbers that begins.
    #[inline(always)]
    pub const fn unpack(ends: u64, rest: u32, sighting: Sighting) -> Self {
        Self {
            client: Endpoint {
                address: (ends >> 48) as u16,
                port: (ends >> 32) as u16,
            },
            server: Endpoint {
                address: (ends >> 16) as u16,
                port: ends as u16,
            },
            id: rest as u16,
            same_host: false,
            plain: false,
            egress: rest >> 16 & 1 != 0,
            sighting,
        }
    }
}

/// What the operator sets.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Ticks of the first hold.
    pub hold_ticks: u32,
    /// Ticks of the longest hold.
    pub hold_max_ticks: u32,
    /// Ticks that the query which is let through after a hold has to get its answer.
    pub test_ticks: u32,
    /// Whether suspect queries are marked: 0 or 1.
    pub marks: u32,
}

impl Rules {
    /// The most ticks that a hold or a test lasts.
    #[inline(always)]
    pub const fn longest_ticks(&self) -> u32 {
        if self.hold_max_ticks > self.test_ticks {
            self.hold_max_ticks
        } else {
            self.test_ticks
        }
    }
}

/// What the judge says of a query.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Whether the breaker of its key is open.
    pub held: bool,
    /// Whether it is let through to see whether the loop is still there.
    pub tests: bool,
    /// Whether this very query counts as one that went to a server which already had the question.
    pub recirculates: bool,
    /// Whether it goes to such a server, be it for the first time or once more.
    pub returns: bool,
    /// What this very query says beside that.
    pub found: Evidence,
    /// Whether its key is under suspicion: the judge wants to know how it is spelled.
    pub suspects: bool,
    /// Whether it is to be marked on its way.
    pub marks: bool,
    /// Bits of the proof, if it is one.
    pub bits: u8,
    /// Whether the pace speaks for a loop as well: 5-tuples and IDs came back faster than any client retries.
    pub rapid: bool,
    /// What has just changed, if anything.
    pub note: Note,
    /// Queries held since the breaker opened, this one included.
    pub held_in_hold: u32,
    /// The moment at which the hold ends.
    pub until: Ticks,
    /// Length of the hold in ticks.
    pub hold_ticks: u32,
    /// Ticks since the first hop that spoke for a loop.
    pub age_ticks: u32,
    /// Hops that nobody has answered.
    pub hops: u16,
    /// Hops among them that went to a server which already had the question.
    pub recirculated: u16,
    /// Why it is taken for a loop.
    pub evidence: Evidence,
}

impl Ruling {
    /// There is nothing to say of the query.
    pub const NOTHING: Self = Self {
        held: false,
        tests: false,
        recirculates: false,
        returns: false,
        found: Evidence::None,
        suspects: false,
        marks: false,
        bits: 0,
        rapid: false,
        note: Note::None,
        held_in_hold: 0,
        until: Ticks(0),
        hold_ticks: 0,
        age_ticks: 0,
        hops: 0,
        recirculated: 0,
        evidence: Evidence::None,
    };
}

/// A server that has been asked for the key and has not answered.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Rung {
    address: u16,
    port: u16,
    /// The ID of the last query it got.
    id: u16,
    /// The socket that the last query came from, folded.
    socket: u16,
}

/// What is remembered of a key: one cache line. All zero is a key never seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyState {
    /// When a query or an answer last touched it.
    touched: Ticks,
    /// The first hop that spoke for a loop, or the last one that did not.
    since: Ticks,
    /// The end of the hold, of the test, or of the mark.
    until: Ticks,
    /// Queries held since the breaker opened; while a mark is out, what carries it looks like.
    count: u32,
    hops: u16,
    /// How often the hold was doubled; while a mark is out, how often it came back.
    level: u8,
    ladder: evidence::Ladder,
    recirculated: u8,
    scores: evidence::Scores,
    phase: u8,
    /// Where the last hop went.
    last: evidence::Position,
    evidence: u8,
    /// Rungs that the test query has been let through to, a bit each, and a number of others above them; or those that the
    /// marked query has been to, and above them the last of them.
    visited: u8,
    flags: u8,
    /// Bits of evidence that the mark has brought.
    bits: u8,
    /// Hops that came back without the mark since it is out.
    overtaken: u8,
    /// Rungs whose last query left this host, a bit each, and above them those of the round that the mark is in.
    outgoing: u8,
    rungs: [Rung; RUNGS],
}

const _: () = assert!(size_of::<KeyState>() == 64);

impl KeyState {
    /// Whether the breaker is open or testing.
    pub const fn is_open(&self) -> bool {
        self.phase == breaker::OPEN || self.phase == breaker::TEST
    }

    /// The end of the hold, or of the test.
    pub const fn until(&self) -> Ticks {
        self.until
    }

    /// Queries held since the breaker opened.
    #[inline(always)]
    pub const fn held(&self) -> u32 {
        if self.is_open() { self.count } else { 0 }
    }

    /// Forgets the hops, not the breaker.
    #[inline(always)]
    fn forget_hops(&mut self) {
        self.hops = 0;
        self.recirculated = 0;
        self.ladder.forget_asked();
        self.last = evidence::Position::NOWHERE;
        self.visited = 0;
        self.outgoing = 0;
        self.scores = evidence::Scores::default();
        self.withdraw();
    }

    /// A ruling that says this, and nothing of the hop that led to it.
    #[inline(always)]
    fn ruling(&self, held: bool, note: Note, now: Ticks, rules: &Rules) -> Ruling {
        let mut ruling = Ruling {
            held,
            note,
            ..Ruling::NOTHING
        };
        self.describe(&mut ruling, now, rules);
        ruling
    }

    /// Fills in how things stand with the key.
    #[inline(always)]
    fn describe(&self, ruling: &mut Ruling, now: Ticks, rules: &Rules) {
        ruling.marks = false;
        ruling.bits = 0;
        ruling.rapid = self.scores.has_pace();
        ruling.held_in_hold = self.held();
        ruling.until = self.until;
        ruling.hold_ticks = self.hold_ticks(rules);
        ruling.age_ticks = now.since(self.since);
        ruling.hops = self.hops;
        ruling.recirculated = self.recirculated as u16;
        ruling.evidence = Evidence::from_u8(self.evidence);
    }
}
