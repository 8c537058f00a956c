//! A poisoned victim: somebody who cannot break into anything wants an innocent name held, by queries with forged
//! addresses. How many does he need, for how long is the name held, and what ends it?
//!
//! The guard stands on host 2, a forwarder that joins nothing and asks host 3 for everything that it is asked. The
//! attacker sends queries to host 2 that say they come from host 3. What host 2 makes of them goes out through the guard.
//! docs/LIMITATIONS.md has the figures.

use std::collections::BTreeMap;

use guard_common::{judge::Evidence, policy::Action};
use guard_sim::{
    Guard, Kind, MS, Native, Packet, S, Socket, at, frame,
    guard::{Fate, Trip, Way, policy},
    name::{Caps, Name},
    random::Random,
};

const NAME: &str = "www.bank.example";
const NETWORK: [u8; 2] = [10, 0];
const FORWARDER: Socket = at(2, 53);
const UPSTREAM: Socket = at(3, 53);
const IFINDEX: u32 = 2;
/// How long somebody attacks.
const ATTACK_NS: u64 = 10 * S;

/// How forged queries are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spells {
    /// In small letters.
    Plain,
    /// At random, so that a mark on what they become tells nothing.
    AtRandom,
    /// As the last query that left host 2: the attacker stands on the way.
    AsItLeft,
}

/// What an attacker does.
#[derive(Clone, Copy, Debug)]
struct Attack {
    spells: Spells,
    /// Nanoseconds between two forged queries.
    every_ns: u64,
    /// Nanoseconds until host 3 answers what host 2 asks; `None` if it is down.
    answers_in_ns: Option<u64>,
    marks: bool,
}

impl Attack {
    /// Blind, against a name that is answered within 20 ms, with marks.
    const BLIND: Self = Self {
        spells: Spells::Plain,
        every_ns: MS,
        answers_in_ns: Some(20 * MS),
        marks: true,
    };
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    /// Forged queries that passed before the name was held, if it ever was.
    needed: Option<u32>,
    evidence: Option<Evidence>,
    /// Of an honest client that asks every 100 ms: how often, and how often it got its answer.
    asked: u32,
    answered: u32,
    /// Nanoseconds from the end of the attack to the first query of that client which was answered.
    free_after_ns: Option<u64>,
}

/// Host 2, the wire behind it, host 3, and the guard on the wire.
struct Scene {
    guard: Native,
    attack: Attack,
    name: Name,
    random: Random,
    /// Responses of host 3 that are on their way, by the time of their arrival.
    coming: BTreeMap<(u64, u32), (Packet, Option<u64>)>,
    serial: u32,
    left: Caps,
    trip: Option<Trip>,
    outcome: Outcome,
}

impl Scene {
    fn new(attack: Attack, seed: u64) -> Self {
        Self {
            guard: Native::new(policy(attack.marks, Action::Answer)),
            attack,
            name: Name::new(NAME),
            random: Random(seed),
            coming: BTreeMap::new(),
            serial: 0,
            left: Caps::default(),
            trip: None,
            outcome: Outcome::default(),
        }
    }

    /// Puts a packet through the guard: whether it goes on, and how it is spelled then.
    fn pass(&mut self, packet: &Packet, egress: bool, now_ns: u64) -> Option<Caps> {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, packet, &self.name, NETWORK);
        let way = Way {
            ifindex: IFINDEX,
            egress,
            packets: 1,
        };
        let word = self.guard.pass(&mut bytes, way, now_ns);
        self.trip = self.trip.or(word.trip);
        (word.fate == Fate::Pass).then(|| frame::caps(&bytes, &self.name))
    }

    /// A query comes to host 2, which asks host 3. An honest one has been asked at a moment that is told.
    fn ask(&mut self, from: Socket, caps: Caps, honest: Option<u64>, now_ns: u64) {
        let query = Packet {
            from,
            to: FORWARDER,
            id: self.random.next() as u16,
            kind: Kind::Query,
            name: 0,
            caps,
            path: 0,
        };
        let Some(caps) = self.pass(&query, false, now_ns) else {
            return;
        };
        let onward = Packet {
            from: at(2, 20_000 + self.random.below(40_000) as u16),
            to: UPSTREAM,
            id: self.random.next() as u16,
            caps,
            ..query
        };
        let Some(caps) = self.pass(&onward, true, now_ns) else {
            return;
        };
        self.left = caps;
        if let Some(answers_in_ns) = self.attack.answers_in_ns {
            self.serial += 1;
            let response = onward.spelled(caps).reply(Kind::Answer);
            self.coming
                .insert((now_ns + answers_in_ns, self.serial), (response, honest));
        }
    }

    fn deliver(&mut self, now_ns: u64) {
        while let Some(first) = self.coming.first_entry()
            && first.key().0 <= now_ns
        {
            let ((at_ns, _), (response, honest)) = first.remove_entry();
            if self.pass(&response, false, at_ns).is_some()
                && let Some(asked_ns) = honest
            {
                self.outcome.answered += 1;
                if asked_ns >= ATTACK_NS && self.outcome.free_after_ns.is_none() {
                    self.outcome.free_after_ns = Some(asked_ns - ATTACK_NS);
                }
            }
        }
    }

    /// Attacks for [`ATTACK_NS`], while an honest client asks, and for as long again.
    fn run(mut self) -> Outcome {
        let mut forged = 0;
        let (mut next_forged, mut next_honest) = (0, 50 * MS);
        for step in 0..20 * ATTACK_NS / MS {
            let now_ns = step * MS / 10;
            self.deliver(now_ns);
            // The last ones get their answers before all is over.
            if now_ns >= next_honest && now_ns < 2 * ATTACK_NS - S {
                next_honest += 100 * MS;
                self.outcome.asked += 1;
                let client = at(9, 20_000 + self.random.below(40_000) as u16);
                self.ask(client, Caps::default(), Some(now_ns), now_ns);
            }
            if now_ns >= next_forged && now_ns < ATTACK_NS {
                next_forged += self.attack.every_ns;
                let caps = match self.attack.spells {
                    Spells::Plain => Caps::default(),
                    Spells::AtRandom => self.name.at_random(&mut self.random),
                    Spells::AsItLeft => self.left,
                };
                let forger = at(3, 20_000 + self.random.below(40_000) as u16);
                self.ask(forger, caps, None, now_ns);
                forged += 1;
                if let Some(trip) = self.trip
                    && self.outcome.needed.is_none()
                {
                    self.outcome.needed = Some(forged);
                    self.outcome.evidence = Some(trip.evidence);
                }
            }
        }
        self.outcome
    }
}

/// All of the attack's paces, in ns between two queries: 10,000 to 50 a second.
const PACES: [u64; 4] = [MS / 10, MS, 10 * MS, 20 * MS];
/// How long a server takes to answer: one in the same rack, one elsewhere, one on another continent.
const DELAYS: [u64; 3] = [MS, 20 * MS, 200 * MS];

fn outcomes(attack: Attack, paces: &[u64], delays: &[u64]) -> Vec<(Attack, Outcome)> {
    let each = |every_ns: u64| {
        delays.iter().map(move |delay| Attack {
            every_ns,
            answers_in_ns: Some(*delay),
            ..attack
        })
    };
    let attacks = paces.iter().flat_map(|every_ns| each(*every_ns));
    attacks.map(|attack| (attack, Scene::new(attack, 7).run())).collect()
}

#[track_caller]
fn is_harmless(attack: Attack, paces: &[u64], delays: &[u64]) {
    for (attack, outcome) in outcomes(attack, paces, delays) {
        assert_eq!(outcome.needed, None, "{attack:?}: {outcome:?}");
        assert_eq!(outcome.answered, outcome.asked, "{attack:?}: {outcome:?}");
    }
}

#[test]
fn forged_queries_in_small_letters_hold_no_name() {
    is_harmless(Attack::BLIND, &PACES, &DELAYS);
}

#[test]
fn a_name_that_is_answered_at_once_is_not_held_whoever_spells_at_random() {
    let attack = Attack {
        spells: Spells::AtRandom,
        ..Attack::BLIND
    };
    is_harmless(attack, &PACES, &[MS]);
}

#[test]
fn fifty_forged_queries_a_second_hold_no_name() {
    let attack = Attack {
        spells: Spells::AtRandom,
        ..Attack::BLIND
    };
    is_harmless(attack, &[20 * MS], &DELAYS);
    is_harmless(Attack { marks: false, ..attack }, &[20 * MS], &DELAYS);
}

/// What docs/LIMITATIONS.md warns of: a thousand forged queries a second, each spelled at random, hold a name as long as
/// they come, and not for longer.
#[test]
fn whoever_spells_at_random_needs_twelve_and_has_to_go_on() {
    for marks in [true, false] {
        let attack = Attack {
            spells: Spells::AtRandom,
            marks,
            ..Attack::BLIND
        };
        for (attack, outcome) in outcomes(attack, &[MS / 10, MS], &[20 * MS, 200 * MS]) {
            let needed = outcome.needed.unwrap_or_else(|| panic!("{attack:?}: {outcome:?}"));
            assert!((12..=16).contains(&needed), "{attack:?}: {outcome:?}");
            assert_eq!(outcome.evidence, Some(Evidence::Direction), "{attack:?}");
            is_soon_over(attack, outcome);
        }
    }
}

/// Who sees what leaves can send it back. He could as well drop it.
#[test]
fn whoever_stands_on_the_way_needs_three() {
    let attack = Attack {
        spells: Spells::AsItLeft,
        ..Attack::BLIND
    };
    for (attack, outcome) in outcomes(attack, &[MS / 10, MS], &[20 * MS, 200 * MS]) {
        assert_eq!(
            (outcome.needed, outcome.evidence),
            (Some(3), Some(Evidence::Mark)),
            "{attack:?}"
        );
        is_soon_over(attack, outcome);
    }
}

/// The name is free when the hold is over in which the attack ended: a second, as each was released by an answer.
#[track_caller]
fn is_soon_over(attack: Attack, outcome: Outcome) {
    let free_ns = outcome
        .free_after_ns
        .unwrap_or_else(|| panic!("{attack:?}: {outcome:?}"));
    println!("{attack:?}: {outcome:?}");
    assert!(free_ns <= 2 * S, "{attack:?}: {outcome:?}");
}
