//! How often the judge is wrong: millions of queries that are no loop, and loops among them.
//!
//! A run is a row of small networks, one after the other, that one guard watches: its tables go on, and so does its clock.
//! Each is drawn from the seed: of a hundred, some are a [`Load`], the others a [`Loop`].

mod load;
mod looped;
mod shards;

use std::collections::BTreeMap;

pub use load::Load;
pub use looped::Loop;
pub use shards::{Shard, in_shards, natively};

use crate::{Guard, S, random::Random};

/// Kinds of names, by their letters: the fewer, the less a mark proves.
pub const LETTERS: [&str; 4] = ["3 to 4", "5 to 8", "9 to 17", "18 or more"];
/// The most letters of each but the last.
const MOST_LETTERS: [usize; LETTERS.len() - 1] = [4, 8, 17];

/// What a run found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Queries that are no loop.
    pub queries: u64,
    /// Of what shape they were.
    pub queries_by_load: BTreeMap<&'static str, u64>,
    /// Names among them that were taken for a loop, in words.
    pub false_trips: Vec<String>,
    /// Loads in which a strict client got a response in another spelling than its query's, in words.
    pub mangled: Vec<String>,
    /// Loops.
    pub loops: u64,
    /// Those that were not cut before more than [`Loop::most_recirculated`] queries had gone round, in words, or that were
    /// not proven although they could be.
    pub loops_missed: Vec<String>,
    /// Those that a mark proved.
    pub loops_proven: u64,
    /// The most queries that went round before a mark proved a loop.
    pub recirculated_before_proof_max: u32,
    /// The same by the letters of the name: [`LETTERS`].
    pub proof_max_by_letters: [u32; LETTERS.len()],
    /// The most queries that went round before a loop was cut that nothing proved.
    pub recirculated_before_suspicion_max: u32,
}

impl Findings {
    /// Adds what another run found.
    pub fn add(&mut self, other: Self) {
        self.queries += other.queries;
        for (load, queries) in other.queries_by_load {
            *self.queries_by_load.entry(load).or_default() += queries;
        }
        self.false_trips.extend(other.false_trips);
        self.mangled.extend(other.mangled);
        self.loops += other.loops;
        self.loops_missed.extend(other.loops_missed);
        self.loops_proven += other.loops_proven;
        self.recirculated_before_proof_max = self
            .recirculated_before_proof_max
            .max(other.recirculated_before_proof_max);
        for (most, others) in self.proof_max_by_letters.iter_mut().zip(other.proof_max_by_letters) {
            *most = (*most).max(others);
        }
        self.recirculated_before_suspicion_max = self
            .recirculated_before_suspicion_max
            .max(other.recirculated_before_suspicion_max);
    }
}

/// A row of networks.
pub struct Run<'g> {
    guard: &'g mut dyn Guard,
    random: Random,
    /// The guard's clock.
    now_ns: u64,
    number: u8,
    findings: Findings,
}

/// Between two networks: all that was forgotten by itself in the first is forgotten.
const PAUSE_NS: u64 = 15 * S;
/// Loops among a hundred networks.
const LOOPS: u64 = 20;

impl<'g> Run<'g> {
    /// A run of this seed that has not begun.
    pub fn new(guard: &'g mut dyn Guard, seed: u64) -> Self {
        Self {
            guard,
            random: Random(seed),
            now_ns: 0,
            number: 0,
            findings: Findings::default(),
        }
    }

    /// One network more.
    pub fn step(&mut self) {
        self.number = self.number.wrapping_add(1);
        let seed = self.random.next();
        let (number, now_ns) = (self.number, self.now_ns);
        let lasted_ns = if self.random.below(100) < LOOPS {
            let looped = Loop::drawn(&mut self.random);
            self.findings.loops += 1;
            let (cut, lasted_ns) = looped.run(self.guard, now_ns, number, seed);
            self.note(&looped, cut, seed);
            lasted_ns
        } else {
            let load = Load::drawn(&mut self.random);
            let (tally, lasted_ns) = load.run(self.guard, now_ns, number, seed);
            self.findings.queries += tally.queries;
            if tally.mangled != 0 {
                self.findings
                    .mangled
                    .push(format!("{load:?}, seed {seed}: {}", tally.mangled));
            }
            *self.findings.queries_by_load.entry(load.word()).or_default() += tally.queries;
            let words = |trip| format!("{load:?}, seed {seed}: {trip:?}");
            self.findings.false_trips.extend(tally.trips.iter().map(words));
            lasted_ns
        };
        self.now_ns += lasted_ns + PAUSE_NS;
    }

    fn note(&mut self, looped: &Loop, cut: Option<looped::Cut>, seed: u64) {
        let findings = &mut self.findings;
        let Some(cut) = cut else {
            findings.loops_missed.push(format!("{looped:?}, seed {seed}: not cut"));
            return;
        };
        if cut.proven {
            findings.loops_proven += 1;
            let kind = MOST_LETTERS.partition_point(|most| *most < looped.letters());
            let most = &mut findings.proof_max_by_letters[kind];
            *most = (*most).max(cut.recirculated);
            findings.recirculated_before_proof_max = findings.recirculated_before_proof_max.max(*most);
        } else {
            let most = &mut findings.recirculated_before_suspicion_max;
            *most = (*most).max(cut.recirculated);
        }
        if cut.recirculated > looped.most_recirculated() || looped.can_be_proven() && !cut.proven {
            findings.loops_missed.push(format!("{looped:?}, seed {seed}: {cut:?}"));
        }
    }

    /// What was found so far.
    pub const fn findings(&self) -> &Findings {
        &self.findings
    }
}
