//! What is remembered of a key, in words that an operator can read.

use super::{
    Evidence, KeyState, Rules, breaker,
    evidence::TRIP,
    mark::{RANDOM, SHUFFLED, UNMARKABLE},
};
use crate::time::Ticks;

/// Where the breaker of a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Queries pass and are weighed.
    Closed,
    /// The same, and one of them is marked.
    Suspect,
    /// Queries are held.
    Open,
    /// The hold is over, and the next query is let through or is on its way.
    Test,
}

impl Phase {
    /// Its word in messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Suspect => "suspect",
            Self::Open => "open",
            Self::Test => "test",
        }
    }
}

/// What is remembered of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insight {
    /// Where its breaker stands.
    pub phase: Phase,
    /// Hops that nobody has answered.
    pub hops: u16,
    /// Hops among them that went to a server which already had the question.
    pub recirculated: u8,
    /// Why it is taken for a loop, or what spoke for one last.
    pub evidence: Evidence,
    /// The scores of pace, of identity and direction, and of the ladder: at [`Insight::TRIP`] one of them is taken for a loop.
    pub scores: [u8; 3],
    /// Bits of proof that marks have brought so far.
    pub bits: u8,
    /// How often the hold was doubled.
    pub level: u8,
    /// Queries held since the breaker opened.
    pub held: u32,
    /// Ticks since the last query or answer.
    pub idle_ticks: u32,
    /// Ticks until the hold or the test is over; 0 where there is none.
    pub left_ticks: u32,
    /// Ports of the servers it went to, in the order in which they were first seen; 0 where there is none.
    pub ports: [u16; super::RUNGS],
    /// Whether its name has too few letters for a mark.
    pub unmarkable: bool,
    /// Whether somebody on the way spells names at random.
    pub spelled_at_random: bool,
}

impl Insight {
    /// The score at which a key is taken for a loop.
    pub const TRIP: u8 = TRIP;
}

impl KeyState {
    /// What is remembered, as of `now`.
    pub fn insight(&self, now: Ticks, rules: &Rules) -> Insight {
        let over = !now.is_before(self.until, rules.longest_ticks());
        let phase = match self.phase {
            breaker::OPEN if over => Phase::Test,
            breaker::OPEN => Phase::Open,
            breaker::TEST => Phase::Test,
            breaker::SUSPECT => Phase::Suspect,
            _ => Phase::Closed,
        };
        let has_end = self.is_open() && !over;
        let mut ports = [0; super::RUNGS];
        for (port, rung) in ports.iter_mut().zip(&self.rungs) {
            *port = rung.port;
        }
        Insight {
            phase,
            hops: self.hops,
            recirculated: self.recirculated,
            evidence: Evidence::from_u8(self.evidence),
            scores: [self.scores.pace, self.scores.echo, self.scores.ladder],
            bits: self.bits,
            level: if self.is_open() { self.level } else { 0 },
            held: self.held(),
            idle_ticks: now.since(self.touched),
            left_ticks: if has_end { self.until.since(now) } else { 0 },
            ports,
            unmarkable: self.has(UNMARKABLE),
            spelled_at_random: self.has(RANDOM) || self.has(SHUFFLED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Endpoint, Hop, KeyBucket};
    use crate::{flow::Sighting, key::Key};

    const KEY: Key = Key(7);
    const RULES: Rules = Rules {
        hold_ticks: 1_000,
        hold_max_ticks: 8_000,
        test_ticks: 2_000,
        marks: 0,
    };

    /// Two servers that send a query to each other with its ID, as consul does.
    fn looped(bucket: &mut KeyBucket, now: Ticks) -> Insight {
        for round in 0..200 {
            let (client, server) = if round % 2 == 0 { (8_600, 53) } else { (53, 8_600) };
            let hop = Hop {
                client: Endpoint {
                    address: 1,
                    port: 40_000 + client,
                },
                server: Endpoint {
                    address: 1,
                    port: server,
                },
                id: 5,
                same_host: true,
                plain: true,
                egress: false,
                sighting: Sighting::New,
            };
            bucket.query(KEY, &hop, now, &RULES);
        }
        bucket.state(KEY).unwrap().insight(now, &RULES)
    }

    #[test]
    fn an_open_breaker_says_why_and_for_how_long() {
        let mut bucket = KeyBucket::default();
        let now = Ticks(u32::MAX - 500);
        let insight = looped(&mut bucket, now);
        assert_eq!((insight.phase, insight.evidence), (Phase::Open, Evidence::Identity));
        assert_eq!((insight.left_ticks, insight.level), (1_000, 0));
        assert!(insight.held > 0 && insight.ports[..2] == [53, 8_600], "{insight:?}");
        let later = bucket.state(KEY).unwrap().insight(now.plus(1_001), &RULES);
        assert_eq!(
            (later.phase, later.left_ticks, later.idle_ticks),
            (Phase::Test, 0, 1_001)
        );
    }

    #[test]
    fn a_released_key_is_one_never_seen() {
        let mut bucket = KeyBucket::default();
        looped(&mut bucket, Ticks(1));
        assert!(bucket.forget(KEY));
        assert!(bucket.state(KEY).is_none() && !bucket.forget(KEY));
    }
}
