//! What speaks for a loop, hop by hop, without proving it.
//!
//! A *recirculation* is a hop to a server that already has the question, after the question has been elsewhere in
//! between. A herd of clients behind a forwarder that does not merge equal queries looks the same, so a recirculation
//! counts only with one of these beside it:
//!
//! | evidence | what a loop does | and what load does |
//! |---|---|---|
//! | pace | one 5-tuple and ID come back within milliseconds, over and over, to the server that was asked first | a forwarder may repeat itself for many clients, but they are slow; and of many clients each repeats himself once |
//! | identity | goes up the ladder with the ID of a lower rung | every client brings its own ID |
//! | direction | comes from a server that is itself waiting: one this host asked, or a lower rung | clients are not servers |
//! | ladder | one host: servers take turns, each asked by the same socket all the time, and no response comes | new clients are new sockets; a name that fails gets responses |
//!
//! Each has a score that loses points while nothing comes; a score of [`TRIP`] is taken for a loop. But all of it but the
//! pace counts for nothing once a mark has shown that the forwarders on the way hand marks on (`mark`): then only a mark
//! that comes back is proof.

use super::{ALL_RUNGS, Hop, KeyState, RUNGS, Rules, Rung, breaker, mark::HOPS_WITHOUT_PROOF};
use crate::{choice, flow::Sighting, time::Ticks};

/// The score at which a key is taken for a loop.
pub(super) const TRIP: u8 = 24;
/// The score from which on the hops are worth telling.
const SUSPECT: u8 = 12;
/// Ticks between two hops for which the score for pace loses one point: 50 ms.
pub(super) const PACE_LEAK_TICKS: u32 = 48;
/// The same for the other scores: 4 ms. Clients that come one by one look the same, but are slower.
pub(super) const TURN_LEAK_TICKS: u32 = 4;
/// Ticks after which hops that nobody answered no longer count: 10 s, when dnsmasq gives up on a query as well.
pub(super) const FORGET_TICKS: u32 = 9_537;
/// Ticks without a query, of a key that has no hops, after which its servers may be seen in another order: 50 ms.
pub(super) const CALM_TICKS: u32 = 48;
/// A repeat that comes back to the first server in its turn: in a pair that is every other hop.
const PACE_POINTS: u8 = 6;
/// One more right behind it: several circulate.
const PACE_MORE_POINTS: u8 = 3;
/// A hop at a client's pace.
const PACE_RELIEF: u8 = 2;
/// Twelve hops that carry an ID up the ladder, or that come from a waiting server; in a pair that is every other hop.
const ECHO_POINTS: u8 = 2;
/// Twenty-four turns.
const LADDER_POINTS: u8 = 1;
/// Turns that are enough where the last one came faster than any client retries.
pub(super) const RAPID_TURNS: u8 = 20;
/// The same of a key that is past proof, where only fast ones count: before an upstream that is dead, forwarders take turns
/// for as long as clients ask, but each time with an ID of its own. They count from the moment when it came to be so, and
/// anew after as many hops.
const LATE_TURNS: u8 = 100;

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
    /// A mark came back: proven.
    Mark = 5,
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
            5 => Self::Mark,
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
            Self::Mark => "mark",
        }
    }
}

/// The leaking scores.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Scores {
    pub(super) pace: u8,
    /// Identity and direction.
    pub(super) echo: u8,
    pub(super) ladder: u8,
}

/// What a hop adds up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    Nothing,
    Suspect,
    Loop,
}

/// What the judge says of one hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weighed {
    pub(super) weight: Weight,
    /// Whether it counts as a recirculation.
    pub(super) recirculates: bool,
    /// Whether it goes to a server that already had the question, and that was not the last one.
    pub(super) returns: bool,
    /// What speaks for a loop.
    pub(super) found: Evidence,
}

impl Weighed {
    pub(super) const NOTHING: Self = Self {
        weight: Weight::Nothing,
        recirculates: false,
        returns: false,
        found: Evidence::None,
    };
}

impl KeyState {
    /// Weighs one more hop of a key whose breaker is closed.
    #[inline(always)]
    pub(super) fn weigh(&mut self, hop: &Hop, idle_ticks: u32, now: Ticks, rules: &Rules) -> Weighed {
        let forgets = idle_ticks > FORGET_TICKS;
        if self.hops == 0 || forgets {
            self.forget_hops();
            // What comes sooner may still be on its way up.
            if idle_ticks > CALM_TICKS {
                self.ladder = Ladder::default();
            }
        }
        if forgets {
            self.forget_spelling();
        }
        self.scores.leak(idle_ticks);
        if !self.is_suspect() {
            self.since = now;
        }
        if matches!(hop.sighting, Sighting::Elsewhere) {
            return Weighed::NOTHING;
        }

        let before = self.last;
        let rung = self.rung_of(hop);
        let retransmit = matches!(hop.sighting, Sighting::Retransmit);
        let rapid = matches!(hop.sighting, Sighting::Rapid);
        let turned = before.index() != rung.index() && !before.is_nowhere();
        let returns = rung.is_known() && turned;
        let back_at_first = rapid && rung.is_first_again() && !self.ladder.is_one_asked();
        let recirculates = returns && !retransmit;
        self.hops = self.hops.saturating_add(1);
        if recirculates || back_at_first {
            self.recirculated = self.recirculated.saturating_add(1);
        }

        let echo = self.echo(hop, rung.index());
        let mut found = Evidence::None;
        if !rapid {
            self.scores.pace = self.scores.pace.saturating_sub(PACE_RELIEF);
        } else if back_at_first && (hop.same_host || matches!(echo, Evidence::Direction)) {
            let points = if turned { PACE_POINTS } else { PACE_MORE_POINTS };
            self.scores.pace = self.scores.pace.saturating_add(points);
            found = Evidence::Pace;
        }
        let unprovable = self.is_unprovable(rules);
        let late = self.is_past_proof();
        // At either end of the hops that are past proof, turns count anew.
        let ends = choice::is_below((self.hops.wrapping_add(1) & (HOPS_WITHOUT_PROOF - 1)) as u64, 2);
        let anew = late & ends & !choice::is_zero(self.recirculated as u32);
        self.hops = choice::choose(anew, self.hops as u64, HOPS_WITHOUT_PROOF as u64) as u16;
        self.scores.ladder = choice::choose(anew, self.scores.ladder as u64, 0) as u8;
        // In a loop that was entered at another address nothing comes back to the server that was asked first. A client that
        // is as fast repeats his ID.
        let counts = !rapid || unprovable && !back_at_first;
        let may_echo = !rapid || matches!(echo, Evidence::Direction);
        if recirculates && counts {
            if may_echo && !matches!(echo, Evidence::None) {
                self.scores.echo = self.scores.echo.saturating_add(ECHO_POINTS);
                found = echo;
            } else if hop.same_host && rung.is_same_socket() {
                let points = choice::choose(late & !rapid as u64, LADDER_POINTS as u64, 0) as u8;
                self.scores.ladder = self.scores.ladder.saturating_add(points);
                found = Evidence::Ladder;
            }
        }
        // Of the first server, whoever is fast is remembered and not the clients in between; of the one that the mark went
        // to, the marked query.
        if (rapid || rung.index() != 0 || self.scores.pace == 0) && !self.awaits_mark_of(rung) {
            self.note_rung(hop, rung.index());
        }

        let weighed = |weight| Weighed {
            weight,
            recirculates: recirculates || back_at_first,
            returns,
            found,
        };
        let suspect = self.scores.highest() >= SUSPECT;
        if matches!(found, Evidence::None) {
            // A hop between those that count: it tells where the loop goes.
            return weighed(if suspect && recirculates {
                Weight::Suspect
            } else {
                Weight::Nothing
            });
        }
        self.evidence = found as u8;
        // On one host, those who spell at random and those who hand on what they get look alike.
        let echoes = self.scores.echo >= TRIP && (unprovable || self.is_shuffled());
        let enough = choice::choose(late, if rapid { RAPID_TURNS } else { TRIP } as u64, LATE_TURNS as u64);
        let takes_turns =
            unprovable && self.scores.ladder as u16 >= self.turns_of_clients(late).saturating_add(enough as u16);
        weighed(if self.scores.pace >= TRIP || echoes || takes_turns {
            Weight::Loop
        } else if suspect {
            Weight::Suspect
        } else {
            Weight::Nothing
        })
    }

    /// How often servers may take turns for those who came from elsewhere: a query passes each of them once.
    #[inline(always)]
    const fn turns_of_clients(&self, late: u64) -> u16 {
        let before = late as u16 * HOPS_WITHOUT_PROOF;
        let came = self
            .hops
            .saturating_sub(before + self.scores.ladder as u16 + RUNGS as u16);
        came.saturating_mul(RUNGS as u16 - 1)
    }

    /// Takes note of an error: that hop is over, and whoever asks again after it does so for a reason, and is not one
    /// that circulates. `asked` says whether its query was let through.
    #[inline(always)]
    pub(super) fn failed(&mut self, asked: bool) {
        self.scores.ladder = 0;
        self.last = Position::NOWHERE;
        if asked {
            self.hops = self.hops.saturating_sub(1);
        }
    }

    /// Whether anything speaks for a loop.
    #[inline(always)]
    pub(super) const fn is_suspect(&self) -> bool {
        self.scores.highest() != 0 || self.phase == breaker::SUSPECT
    }

    /// Whether the hop to this rung brings back what an earlier hop took away.
    #[inline(always)]
    fn echo(&self, hop: &Hop, index: u8) -> Evidence {
        let (mut direction, mut identity) = (0, 0);
        for other in 0..RUNGS {
            let Rung { address, id, .. } = self.rungs[other];
            let waits = self.ladder.is_asked(other) & !choice::is_zero(index as u32 ^ other as u32);
            let later = choice::is_below(index as u64, other as u64);
            // This host asked it, and it asks this host. The first server that is seen may be the other side's, and this
            // host may have more addresses than one, so the order of the rungs is not all that counts.
            let came_back = !hop.egress as u64 & (self.outgoing >> other) as u64;
            let asks = !hop.same_host as u64 & choice::is_zero(address as u32 ^ hop.client.address as u32);
            let directed = waits & asks & (later | came_back);
            direction |= directed;
            // Of one server, both are one.
            identity |= waits & later & choice::is_zero(id as u32 ^ hop.id as u32) & !directed;
        }
        match (direction & 1, identity & 1) {
            (_, 1) => Evidence::Identity,
            (1, _) => Evidence::Direction,
            _ => Evidence::None,
        }
    }

    /// Finds the rung that a hop goes to, and puts it down as that of the last hop. The result goes through memory that the
    /// kernel's verifier does not follow: it would check everything that comes after once for each rung.
    #[inline(always)]
    pub(super) fn rung_of(&mut self, hop: &Hop) -> Position {
        let mut position = self.ladder.vacant() as u64;
        for index in 0..RUNGS {
            let Rung {
                address, port, socket, ..
            } = self.rungs[index];
            let others = (address ^ hop.server.address) as u32 | (port ^ hop.server.port) as u32;
            let is_it = self.ladder.has(index) & choice::is_zero(others);
            let known = self.ladder.is_asked(index) * KNOWN as u64;
            let same_socket = choice::is_zero((socket ^ folded(hop)) as u32) * SAME_SOCKET as u64;
            position = choice::choose(is_it, position, index as u64 | known | same_socket);
        }
        self.last = Position(position as u8);
        core::hint::black_box(self).last
    }

    /// Whether a hop goes to the only server which has been asked.
    #[inline(always)]
    pub(super) fn goes_there_again(&self, hop: &Hop) -> bool {
        let index = self.last.index();
        self.ladder.is_asked_alone(index) && self.rungs[index as usize & (RUNGS - 1)].is_of(hop)
    }

    /// Whether a hop goes to the first server that is remembered, or none is.
    #[inline(always)]
    pub(super) fn may_be_first(&self, hop: &Hop) -> bool {
        !self.ladder.remembers() || (self.ladder.has(0) != 0 && self.rungs[0].is_of(hop))
    }

    /// Puts down the first hop of a key whose hops are forgotten, if it may be that. False, with nothing changed, if not.
    #[inline(always)]
    pub(super) fn goes_to_first(&mut self, hop: &Hop) -> bool {
        if !self.may_be_first(hop) {
            return false;
        }
        let remembers = self.ladder.remembers();
        self.forget_hops();
        if remembers {
            self.step_on(hop, 0, 0);
        } else {
            self.last = Position(0);
            self.note_rung(hop, 0);
        }
        true
    }

    /// Puts down a hop to a server that is remembered.
    #[inline(always)]
    pub(super) fn step_on(&mut self, hop: &Hop, index: u8, known: u8) {
        let index = index & (RUNGS as u8 - 1);
        let same_socket = self.rungs[index as usize].socket == folded(hop);
        self.last = Position(index | known | if same_socket { SAME_SOCKET } else { 0 });
        self.note_rung(hop, index);
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
        self.ladder.ask(index);
    }
}

impl Rung {
    /// Whether a hop goes to it.
    #[inline(always)]
    const fn is_of(&self, hop: &Hop) -> bool {
        (self.address ^ hop.server.address) | (self.port ^ hop.server.port) == 0
    }
}

/// Which rungs there are: in the lower half of the byte those that are remembered, in the upper half those that were asked
/// since the question was last answered; a bit each.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Ladder(pub(super) u8);

impl Ladder {
    #[inline(always)]
    const fn has(self, index: usize) -> u64 {
        (self.0 >> index & 1) as u64
    }

    /// Whether there is any.
    #[inline(always)]
    const fn remembers(self) -> bool {
        self.0 & ALL_RUNGS != 0
    }

    #[inline(always)]
    const fn is_asked(self, index: usize) -> u64 {
        (self.0 >> (RUNGS + index) & 1) as u64
    }

    /// Whether no more than one server has been asked.
    #[inline(always)]
    pub(super) const fn is_one_asked(self) -> bool {
        let asked = self.0 >> RUNGS;
        asked & asked.wrapping_sub(1) == 0
    }

    /// Whether that on this rung has been asked, and no other.
    #[inline(always)]
    const fn is_asked_alone(self, index: u8) -> bool {
        (self.0 >> RUNGS) as u32 == 1 << (index & 31)
    }

    /// The first rung that is not taken, else the first of those that were not asked, else [`NO_RUNG`].
    #[inline(always)]
    const fn vacant(self) -> u8 {
        let (taken, asked) = (self.0 & ALL_RUNGS, self.0 >> RUNGS);
        let free = (asked ^ ALL_RUNGS) << RUNGS | taken ^ ALL_RUNGS;
        if free == 0 {
            NO_RUNG
        } else {
            free.trailing_zeros() as u8 % RUNGS as u8
        }
    }

    #[inline(always)]
    const fn ask(&mut self, index: u8) {
        self.0 |= 1 << index | 1 << (RUNGS as u8 + index);
    }

    #[inline(always)]
    pub(super) const fn forget_asked(&mut self) {
        self.0 &= ALL_RUNGS;
    }
}

/// Where on the ladder a hop goes: in the lower four bits the rung, or where it would be added, or [`NO_RUNG`]; above
/// them two flags.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Position(u8);

/// The rung of a server that is not remembered.
const NO_RUNG: u8 = 0x0f;
pub(super) const KNOWN: u8 = 0x10;
const SAME_SOCKET: u8 = 0x20;

impl Position {
    /// No hop has gone anywhere.
    pub(super) const NOWHERE: Self = Self(0x0e);

    #[inline(always)]
    const fn is_nowhere(self) -> bool {
        self.0 == Self::NOWHERE.0
    }

    #[inline(always)]
    pub(super) const fn index(self) -> u8 {
        self.0 & NO_RUNG
    }

    /// Whether this server has been asked before.
    #[inline(always)]
    pub(super) const fn is_known(self) -> bool {
        self.0 & KNOWN != 0
    }

    /// Whether it is the first server, asked by the same socket once more.
    #[inline(always)]
    const fn is_first_again(self) -> bool {
        self.0 == KNOWN | SAME_SOCKET
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
        self.pace = self.pace.saturating_sub(points(idle_ticks / PACE_LEAK_TICKS));
        let turns = points(idle_ticks / TURN_LEAK_TICKS);
        self.echo = self.echo.saturating_sub(turns);
        self.ladder = self.ladder.saturating_sub(turns);
    }

    #[inline(always)]
    const fn highest(&self) -> u8 {
        higher(self.pace, higher(self.echo, self.ladder))
    }

    /// Whether the pace speaks for a loop.
    #[inline(always)]
    pub(super) const fn has_pace(&self) -> bool {
        self.pace != 0
    }
}

#[inline(always)]
const fn higher(one: u8, other: u8) -> u8 {
    if one > other { one } else { other }
}

#[inline(always)]
const fn points(number: u32) -> u8 {
    if number > u8::MAX as u32 { u8::MAX } else { number as u8 }
}

/// The socket that a hop comes from, in 16 bits.
#[inline(always)]
const fn folded(hop: &Hop) -> u16 {
    hop.client.address.rotate_left(5).wrapping_add(hop.client.port)
}
