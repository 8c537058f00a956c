//! What to do with a held query: answer it, or drop it.
//!
//! An answer must not make a storm worse. It goes only to trusted ranges and to ports that a client has (CVE-2024-2169:
//! two servers that answer each other's errors never stop), only for a plain query, and only so often: some retry at
//! once after a SERVFAIL.

use crate::{
    answer::Remark,
    judge::{Note, Ruling},
    key::{Key, Secret},
    policy::{Action, Mode, Policy},
    time::Ticks,
};

/// The lowest port that a client sends from (RFC 6335 section 6: below are the system ports).
const FIRST_CLIENT_PORT: u16 = 1_024;

/// What happens to a packet.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as it came.
    Pass = 0,
    /// Its sender gets an answer, made of the packet itself.
    Answer = 1,
    /// It is dropped in silence.
    Drop = 2,
    /// It goes on; in `enforce` mode it would have been answered.
    WouldAnswer = 3,
    /// It goes on; in `enforce` mode it would have been dropped.
    WouldDrop = 4,
}

impl Verdict {
    /// Its word in events and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Answer => "answer",
            Self::Drop => "drop",
            Self::WouldAnswer => "would_answer",
            Self::WouldDrop => "would_drop",
        }
    }

    /// The verdict of a number as it stands in an event; unknown numbers are `Pass`.
    pub const fn from_u8(number: u8) -> Self {
        match number {
            1 => Self::Answer,
            2 => Self::Drop,
            3 => Self::WouldAnswer,
            4 => Self::WouldDrop,
            _ => Self::Pass,
        }
    }
}

/// Why a query is answered or dropped.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The breaker of its key is open.
    Loop = 0,
    /// The breaker is open, and the sender is in no trusted range or sends from a system port: dropped.
    Untrusted = 1,
    /// The breaker is open, and the sender has had its answers: dropped.
    Silenced = 2,
    /// The breaker is open, and the query is not one that can be answered in place: dropped.
    Unanswerable = 3,
    /// A budget has no room for it.
    Budget = 4,
    /// The link-local budget runs short, and its source waits for the same answer already.
    Repeat = 5,
    /// The link-local budget runs short, and its source is above its share.
    Share = 6,
    /// The link-local budget is empty, and so is its reserve for DNS.
    Exhausted = 7,
    /// It leaves for a server that is none of the listed resolvers.
    Resolver = 8,
    /// It leaves from an address that is none of the listed sources.
    Source = 9,
    /// It asks for recursion from outside of the listed ranges.
    Recursion = 10,
}

impl Reason {
    /// The reason of a number; unknown numbers are `Loop`.
    #[inline(always)]
    pub const fn from_u8(number: u8) -> Self {
        match number {
            1 => Self::Untrusted,
            2 => Self::Silenced,
            3 => Self::Unanswerable,
            4 => Self::Budget,
            5 => Self::Repeat,
            6 => Self::Share,
            7 => Self::Exhausted,
            8 => Self::Resolver,
            9 => Self::Source,
            10 => Self::Recursion,
            _ => Self::Loop,
        }
    }

    /// All of them, in the order of their counters.
    pub const ALL: [Self; 11] = [
        Self::Loop,
        Self::Untrusted,
        Self::Silenced,
        Self::Unanswerable,
        Self::Budget,
        Self::Repeat,
        Self::Share,
        Self::Exhausted,
        Self::Resolver,
        Self::Source,
        Self::Recursion,
    ];

    /// Its word in events and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Loop => "loop",
            Self::Untrusted => "untrusted",
            Self::Silenced => "silenced",
            Self::Unanswerable => "unanswerable",
            Self::Budget => "budget",
            Self::Repeat => "repeat",
            Self::Share => "share",
            Self::Exhausted => "exhausted",
            Self::Resolver => "resolver",
            Self::Source => "source",
            Self::Recursion => "recursion",
        }
    }
}

/// What is known of a held query.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Whether the source address is in a trusted range.
    pub trusted: bool,
    /// The port it was sent from.
    pub source_port: u16,
    /// Whether an answer can be made of it: no records in the answer and authority sections, no IP options.
    pub answerable: bool,
    /// Queries of its key held so far in this hold, this one included.
    pub held_in_hold: u32,
}

/// Decides what happens to a held query of `key`. `client` is asked only if everything else speaks for an answer, and tells
/// whether this client may have one more.
#[inline(always)]
pub fn remedy(policy: &Policy, key: Key, held: &Held, client: impl FnOnce() -> bool) -> (Verdict, Reason) {
    let (answer, reason) = if matches!(policy.action(), Action::Drop) {
        (false, Reason::Loop)
    } else if !held.trusted || held.source_port < FIRST_CLIENT_PORT {
        (false, Reason::Untrusted)
    } else if !held.answerable {
        (false, Reason::Unanswerable)
    } else if held.held_in_hold > policy.answers_per_hold || !client() {
        (false, Reason::Silenced)
    } else {
        (true, Reason::Loop)
    };
    let mode = if policy.allows(key) {
        Mode::Observe
    } else {
        policy.mode()
    };
    (carried_out(mode, answer), reason)
}

/// Decides what happens to a query that is shed: it is answered under the same conditions as a held one.
#[inline(always)]
pub fn remedy_of_shed(policy: &Policy, shed: &Shed, held: &Held, client: impl FnOnce() -> bool) -> Verdict {
    let answer = matches!(shed.action, Action::Answer)
        && held.trusted
        && held.source_port >= FIRST_CLIENT_PORT
        && held.answerable
        && client();
    let mode = if shed.observes { Mode::Observe } else { policy.mode() };
    carried_out(mode, answer)
}

#[inline(always)]
const fn carried_out(mode: Mode, answer: bool) -> Verdict {
    match (mode, answer) {
        (Mode::Enforce, true) => Verdict::Answer,
        (Mode::Enforce, false) => Verdict::Drop,
        (Mode::Observe, true) => Verdict::WouldAnswer,
        (Mode::Observe, false) => Verdict::WouldDrop,
    }
}

/// A query that no budget has room for, or that a rule of egress hygiene does not allow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shed {
    /// The row of the policy that says so; [`Shed::NO_ROW`] if it is none.
    pub row: u32,
    /// Why.
    pub reason: Reason,
    /// What happens to it.
    pub action: Action,
    /// Whether it is only watched, whatever the policy's mode.
    pub observes: bool,
}

impl Shed {
    /// The `row` of what no row has decided.
    pub const NO_ROW: u32 = u32::MAX;
    /// What no budget has anything against.
    pub const NOTHING: Self = Self {
        row: Self::NO_ROW,
        reason: Reason::Loop,
        action: Action::Answer,
        observes: false,
    };

    /// Whether anything has something against it.
    #[inline(always)]
    pub const fn is_shed(&self) -> bool {
        !matches!(self.reason, Reason::Loop)
    }

    /// Puts down what one has decided, unless it only watches and another one did before. False if it only watches.
    #[inline(always)]
    pub const fn decide(&mut self, by: Self) -> bool {
        if !by.observes || !self.is_shed() {
            *self = by;
        }
        !by.observes
    }

    /// Stands for who sheds, in the table of meters: all answers to what it sheds are charged there. It is odd.
    #[inline(always)]
    pub const fn tag(&self, secret: &Secret) -> u64 {
        let by = (self.row as u64) << 8 | self.reason as u64;
        secret.mix(by ^ secret.0[0], secret.0[2]) | 1
    }

    /// Stands for who sheds and one client, in the table of allowances.
    #[inline(always)]
    pub const fn client_tag(&self, client: u16, secret: &Secret) -> u64 {
        secret.mix(self.tag(secret), client as u64 ^ secret.0[1])
    }
}

/// Stands for a held key and one client, in the table of allowances. `client` is the digest of its address.
#[inline(always)]
pub const fn client_tag(key: Key, client: u16, secret: &Secret) -> u64 {
    secret.mix(key.0, client as u64 ^ secret.0[2])
}

/// What to say of itself in the answer to a query that was held, or shed.
#[inline(always)]
pub const fn remark(ruling: &Ruling, shed: &Shed) -> Remark {
    if matches!(shed.reason, Reason::Recursion) {
        Remark::Prohibited
    } else if shed.is_shed() && !ruling.held {
        Remark::RateLimit
    } else if matches!(ruling.note, Note::Trip) {
        Remark::Loop
    } else {
        Remark::Held
    }
}

/// Answers that one client has had for one key in one hold: 32 bits that stand for client and key, 16 for the hold, 16
/// of count. Whoever hashes to a slot that is not his takes it over; what all clients together get is bounded by
/// [`Policy::answers_per_hold`] all the same.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowance(u64);

impl Allowance {
    /// Takes one answer of the `limit` that `client` has in the hold that ends at `until`. False if it has had them.
    #[inline(always)]
    pub fn spend(&mut self, client: u32, until: Ticks, limit: u32) -> bool {
        let owner = client as u64 | ((until.0 & 0xffff) as u64) << 32;
        let count = if self.0 & 0xffff_ffff_ffff == owner {
            self.0 >> 48
        } else {
            0
        };
        if count >= limit as u64 {
            return false;
        }
        self.0 = owner | (count + 1) << 48;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Rules;

    fn policy(mode: Mode, action: Action) -> Policy {
        let rules = Rules {
            hold_ticks: 1,
            hold_max_ticks: 1,
            test_ticks: 1,
            marks: 0,
        };
        let mut policy = Policy::new(mode, action, rules);
        policy.answers_per_hold = 10;
        policy
    }

    const KEY: Key = Key(5);
    const HELD: Held = Held {
        trusted: true,
        source_port: 40_000,
        answerable: true,
        held_in_hold: 1,
    };

    #[test]
    fn only_a_plain_query_of_a_trusted_client_is_answered() {
        let policy = policy(Mode::Enforce, Action::Answer);
        let of = |held: Held| remedy(&policy, KEY, &held, || true);
        assert_eq!(of(HELD), (Verdict::Answer, Reason::Loop));
        assert_eq!(of(Held { trusted: false, ..HELD }), (Verdict::Drop, Reason::Untrusted));
        assert_eq!(
            of(Held {
                source_port: 53,
                ..HELD
            }),
            (Verdict::Drop, Reason::Untrusted)
        );
        assert_eq!(
            of(Held {
                answerable: false,
                ..HELD
            }),
            (Verdict::Drop, Reason::Unanswerable)
        );
        assert_eq!(
            of(Held {
                held_in_hold: 11,
                ..HELD
            }),
            (Verdict::Drop, Reason::Silenced)
        );
        assert_eq!(remedy(&policy, KEY, &HELD, || false), (Verdict::Drop, Reason::Silenced));
    }

    #[test]
    fn an_allowed_key_is_only_watched() {
        let mut policy = policy(Mode::Enforce, Action::Answer);
        assert!(policy.allow(KEY));
        assert_eq!(
            remedy(&policy, KEY, &HELD, || true),
            (Verdict::WouldAnswer, Reason::Loop)
        );
        assert_eq!(remedy(&policy, Key(6), &HELD, || true), (Verdict::Answer, Reason::Loop));
    }

    #[test]
    fn observing_touches_nothing() {
        let policy = policy(Mode::Observe, Action::Answer);
        assert_eq!(
            remedy(&policy, KEY, &HELD, || true),
            (Verdict::WouldAnswer, Reason::Loop)
        );
        assert_eq!(
            remedy(&policy, KEY, &HELD, || false),
            (Verdict::WouldDrop, Reason::Silenced)
        );
    }

    #[test]
    fn dropping_asks_nobody() {
        let policy = policy(Mode::Enforce, Action::Drop);
        assert_eq!(
            remedy(&policy, KEY, &HELD, || unreachable!()),
            (Verdict::Drop, Reason::Loop)
        );
    }

    #[test]
    fn an_allowance_is_for_one_client_and_one_hold() {
        let mut slot = Allowance::default();
        let hold = Ticks(77);
        assert!((0..3).all(|_| slot.spend(5, hold, 3)));
        assert!(!slot.spend(5, hold, 3));
        assert!(slot.spend(5, Ticks(78), 3));
        assert!(slot.spend(6, Ticks(78), 3));
        assert!(!slot.spend(6, Ticks(78), 0));
    }
}
