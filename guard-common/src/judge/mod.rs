//! Is this query part of a loop?
//!
//! What is sure: in a loop the same key is on its way several times, unanswered, and a server that waits for the
//! answer asks for it again. The judge keeps a few facts for each key ([`KeyState`]), weighs what each hop adds to
//! them (`evidence`), and opens a breaker for a hold when they suffice (`breaker`). It has no clock and does no I/O:
//! a function of (state, hop, time, rules).
//!
//! Keys live in buckets of seven ([`KeyBucket`]), one spin lock each, so that two CPUs never judge a key at once.

mod breaker;
mod bucket;
mod evidence;
#[cfg(test)]
mod tests;

pub use breaker::Note;
pub use bucket::{KeyBucket, SLOTS, bpf_spin_lock};
pub use evidence::Evidence;

use crate::{flow::Sighting, time::Ticks};

/// Servers remembered for a key, in the order in which it was first seen going to them: the rungs of its ladder.
pub const RUNGS: usize = 4;

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
    /// Whether it is leaving, where it was seen first.
    pub egress: bool,
    /// What is known of this very query.
    pub sighting: Sighting,
}

/// The times that the operator sets.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Ticks of the first hold.
    pub hold_ticks: u32,
    /// Ticks of the longest hold.
    pub hold_max_ticks: u32,
    /// Ticks that the query which is let through after a hold has to get its answer.
    pub test_ticks: u32,
}

impl Rules {
    /// The most ticks that a hold or a test lasts.
    #[inline(always)]
    const fn longest_ticks(&self) -> u32 {
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
    /// Whether this very query went to a server that already had the question.
    pub recirculates: bool,
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

/// A server that has been asked for the key and has not answered.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyState {
    /// When a query or an answer last touched it.
    touched: Ticks,
    /// The first hop that spoke for a loop, or the last one that did not.
    since: Ticks,
    /// The end of the hold, or of the test.
    until: Ticks,
    /// Queries held since the breaker opened.
    held: u32,
    hops: u16,
    recirculated: u16,
    phase: u8,
    level: u8,
    rung_count: u8,
    last_rung: u8,
    evidence: u8,
    /// Rungs that the test query has been let through to.
    visited: u8,
    /// Whether a query was let through since the breaker opened: 0 or 1.
    tested: u8,
    scores: evidence::Scores,
    /// Where the hop that is being judged goes.
    found: evidence::Position,
    /// Rungs whose last query left this host: a bit each.
    outgoing: u8,
    rungs: [Rung; RUNGS],
}

const _: () = assert!(size_of::<KeyState>() == 64);

impl KeyState {
    /// Whether the breaker is open or testing.
    pub const fn is_open(&self) -> bool {
        self.phase != breaker::CLOSED
    }

    /// The end of the hold, or of the test.
    pub const fn until(&self) -> Ticks {
        self.until
    }

    /// Queries held since the breaker opened.
    pub const fn held(&self) -> u32 {
        self.held
    }

    /// Forgets the hops, not the breaker.
    #[inline(always)]
    fn forget_hops(&mut self) {
        self.hops = 0;
        self.recirculated = 0;
        self.rung_count = 0;
        self.last_rung = NO_RUNG;
        self.outgoing = 0;
        self.scores = evidence::Scores::default();
    }

    #[inline(always)]
    fn ruling(&self, held: bool, note: Note, now: Ticks, rules: &Rules) -> Ruling {
        Ruling {
            held,
            tests: false,
            recirculates: false,
            note,
            held_in_hold: self.held,
            until: self.until,
            hold_ticks: self.hold_ticks(rules),
            age_ticks: now.since(self.since),
            hops: self.hops,
            recirculated: self.recirculated,
            evidence: Evidence::from_u8(self.evidence),
        }
    }
}

/// The `last_rung` of a key whose last hop went to a server that is not remembered.
const NO_RUNG: u8 = 0x0f;
