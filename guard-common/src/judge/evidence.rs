//! What speaks for a loop, hop by hop.
//!
//! A *recirculation* is a hop to a server that already has the question, after the question has been elsewhere in
//! between. A herd of clients behind a forwarder that does not merge equal queries looks the same, so a recirculation
//! counts only with one of these beside it:
//!
//! | evidence | what a loop does | and what load does |
//! |---|---|---|
//! | pace | the 5-tuple and ID come back within milliseconds to the server that was asked first | a forwarder may repeat itself for many clients, but they are slow, and so is whoever they ask |
//! | identity | goes up the ladder with the ID of a lower rung | every client brings its own ID |
//! | direction | comes from a server that is itself waiting: one this host asked, or a lower rung | clients are not servers |
//! | ladder | one host: servers take turns, each asked by the same socket all the time, and no response comes | new clients are new sockets; a name that fails gets responses |
//!
//! Each has a score that loses a point for every 50 ms between two hops; a score of [`TRIP`] is a loop.

use super::{Hop, KeyState, NO_RUNG, RUNGS, Rung};
use crate::{flow::Sighting, time::Ticks};

/// The score at which a key is taken for a loop.
const TRIP: u8 = 24;
/// The score from which on the hops are worth telling.
const SUSPECT: u8 = 12;
/// Ticks between two hops for which a score loses one point: 50 ms.
const LEAK_TICKS: u32 = 48;
/// Ticks after which hops that nobody answered no longer count: 10 s, when dnsmasq gives up on a query as well.
const FORGET_TICKS: u32 = 9_537;
/// A repeat that comes back to the first server in its turn: in a pair that is every other hop.
const PACE_POINTS: u8 = 6;
/// One more right behind it: several circulate.
const PACE_MORE_POINTS: u8 = 2;
/// A hop at a client's pace.
const PACE_RELIEF: u8 = 2;
/// Six hops that carry an ID up the ladder, or that come from a waiting server; in a pair that is every other hop.
const ECHO_POINTS: u8 = 4;
/// Twenty-four turns.
const LADDER_POINTS: u8 = 1;
/// A hop from another socket than before, or at a client's pace.
const LADDER_RELIEF: u8 = 12;

/// Why a key is taken for a loop.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Evidence {
    /// It is not.
    #[default]
    None = 0,
    /// The same 5-tuple and ID came back to the first server faster than any client retries.
    Pace = 1,
    /// The ID of a query to one server came back in a query to a server that had the question before it.
    Identity = 2,
    /// The query came from a server that was itself waiting for the answer.
    Direction = 3,
    /// On one host: servers took turns, each asked by the same socket all the time, and no response came.
    Ladder = 4,
}

impl Evidence {
    /// The evidence of a number as it stands in an event; unknown numbers are `None`.
    #[inline(always)]
    pub const fn from_u8(number: u8) -> Self {
        match number {
            1 => Self::Pace,
            2 => Self::Identity,
            3 => Self::Direction,
            4 => Self::Ladder,
            _ => Self::None,
        }
    }

    /// Its word in events, metrics and messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pace => "pace",
            Self::Identity => "identity",
            Self::Direction => "direction",
            Self::Ladder => "ladder",
        }
    }
}

/// The leaking scores.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scores {
    pace: u8,
    /// Identity and direction.
    echo: u8,
    ladder: u8,
}

/// What a hop adds up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    Nothing,
    Suspect,
    Loop,
}

impl KeyState {
    /// Weighs one more hop of a key whose breaker is closed.
    #[inline(always)]
    pub(super) fn weigh(&mut self, hop: &Hop, idle_ticks: u32, now: Ticks) -> Weight {
        if self.hops == 0 || idle_ticks > FORGET_TICKS {
            self.forget_hops();
        }
        self.scores.leak(idle_ticks);
        if !self.scores.is_suspect() {
            self.since = now;
        }
        if matches!(hop.sighting, Sighting::Elsewhere) {
            return Weight::Nothing;
        }

        let rung = self.rung_of(hop);
        let retransmit = matches!(hop.sighting, Sighting::Retransmit);
        let rapid = matches!(hop.sighting, Sighting::Rapid);
        let turned = self.last_rung != rung.index();
        let recirculates = rung.is_known() && turned && !retransmit;
        let back_at_first = rapid && rung.index() == 0 && self.rung_count > 1;
        if !retransmit {
            self.hops = self.hops.saturating_add(1);
        }
        if recirculates || back_at_first {
            self.recirculated = self.recirculated.saturating_add(1);
        }

        let mut found = Evidence::None;
        if !rapid {
            self.scores.pace = self.scores.pace.saturating_sub(PACE_RELIEF);
        } else if back_at_first {
            let points = if turned { PACE_POINTS } else { PACE_MORE_POINTS };
            self.scores.pace = self.scores.pace.saturating_add(points);
            found = Evidence::Pace;
        }
        if recirculates && !rapid {
            let echo = self.echo(hop, rung.index());
            if !matches!(echo, Evidence::None) {
                self.scores.echo = self.scores.echo.saturating_add(ECHO_POINTS);
                found = echo;
            } else if hop.same_host && rung.is_same_socket() {
                self.scores.ladder = self.scores.ladder.saturating_add(LADDER_POINTS);
                found = Evidence::Ladder;
            }
        }
        if rung.is_known() && !rung.is_same_socket() || retransmit {
            self.scores.ladder = self.scores.ladder.saturating_sub(LADDER_RELIEF);
        }
        self.last_rung = rung.index();
        self.note_rung(hop, rung.index());

        let suspect = self.scores.highest() >= SUSPECT;
        if matches!(found, Evidence::None) {
            // A hop between those that count: it tells where the loop goes.
            return if suspect && recirculates {
                Weight::Suspect
            } else {
                Weight::Nothing
            };
        }
        self.evidence = found as u8;
        match self.scores.highest() {
            TRIP.. => Weight::Loop,
            _ if suspect => Weight::Suspect,
            _ => Weight::Nothing,
        }
    }

    /// Takes note of an error: whoever asks again after it does so for a reason, and is not one that circulates.
    #[inline(always)]
    pub(super) fn failed(&mut self) {
        self.scores.ladder = 0;
        self.last_rung = NO_RUNG;
    }

    /// Whether the hop to this rung brings back what an earlier hop took away.
    #[inline(always)]
    fn echo(&self, hop: &Hop, index: u8) -> Evidence {
        let mut found = Evidence::None;
        for other in 0..RUNGS {
            if other as u8 >= self.rung_count || other as u8 == index {
                continue;
            }
            let Rung { address, id, .. } = self.rungs[other];
            let later = other as u8 > index;
            // This host asked it, and it asks this host. The first server that is seen may be the other side's, and this
            // host may have more addresses than one, so the order of the rungs is not all that counts.
            let came_back = !hop.egress && self.outgoing >> other & 1 == 1;
            if !hop.same_host && address == hop.client.address && (later || came_back) {
                found = Evidence::Direction;
            } else if later && id == hop.id {
                found = Evidence::Identity;
            }
        }
        found
    }

    /// Finds the rung that a hop goes to. The result goes through memory that the kernel's verifier does not follow: it
    /// would check everything that comes after once for each rung.
    #[inline(always)]
    pub(super) fn rung_of(&mut self, hop: &Hop) -> Position {
        let vacant = if (self.rung_count as usize) < RUNGS {
            self.rung_count
        } else {
            NO_RUNG
        };
        self.found = Position(vacant);
        for index in 0..RUNGS {
            let Rung {
                address, port, socket, ..
            } = self.rungs[index];
            if (index as u8) < self.rung_count && address == hop.server.address && port == hop.server.port {
                let same_socket = if socket == folded(hop) { SAME_SOCKET } else { 0 };
                self.found = Position(index as u8 | KNOWN | same_socket);
            }
        }
        core::hint::black_box(self).found
    }

    /// Remembers the hop at its rung, as a new rung if there is room.
    #[inline(always)]
    pub(super) fn note_rung(&mut self, hop: &Hop, index: u8) {
        let Some(rung) = self.rungs.get_mut(index as usize) else {
            return;
        };
        *rung = Rung {
            address: hop.server.address,
            port: hop.server.port,
            id: hop.id,
            socket: folded(hop),
        };
        let bit = 1 << index;
        self.outgoing = if hop.egress {
            self.outgoing | bit
        } else {
            self.outgoing & !bit
        };
        if index >= self.rung_count {
            self.rung_count = index + 1;
        }
    }
}

/// Where on the ladder a hop goes: the rung, or where it would be added, or [`NO_RUNG`] in the lower four bits, and two
/// flags.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position(u8);

const KNOWN: u8 = 0x10;
const SAME_SOCKET: u8 = 0x20;

impl Position {
    #[inline(always)]
    pub(super) const fn index(self) -> u8 {
        self.0 & NO_RUNG
    }

    /// Whether this server has been asked before.
    #[inline(always)]
    pub(super) const fn is_known(self) -> bool {
        self.0 & KNOWN != 0
    }

    /// Whether by the same socket.
    #[inline(always)]
    pub(super) const fn is_same_socket(self) -> bool {
        self.0 & SAME_SOCKET != 0
    }
}

impl Scores {
    #[inline(always)]
    fn leak(&mut self, idle_ticks: u32) {
        let points = idle_ticks / LEAK_TICKS;
        let points = if points > u8::MAX as u32 { u8::MAX } else { points as u8 };
        self.pace = self.pace.saturating_sub(points);
        self.echo = self.echo.saturating_sub(points);
        self.ladder = self.ladder.saturating_sub(points);
    }

    #[inline(always)]
    const fn highest(&self) -> u8 {
        let mut highest = self.pace;
        if self.echo > highest {
            highest = self.echo;
        }
        if self.ladder > highest {
            highest = self.ladder;
        }
        highest
    }

    /// Whether anything speaks for a loop.
    #[inline(always)]
    pub(super) const fn is_suspect(&self) -> bool {
        self.highest() != 0
    }
}

/// The socket that a hop comes from, in 16 bits.
#[inline(always)]
const fn folded(hop: &Hop) -> u16 {
    hop.client.address.rotate_left(5).wrapping_add(hop.client.port)
}
