//! One run in several pieces, for several threads.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use guard_common::policy::Action;

use super::{Findings, Run};
use crate::{Guard, Native, guard::policy, random::Random};

/// Pieces of a native run: always as many, so that a seed gives the same findings on every machine.
const NATIVE_SHARDS: u64 = 16;

/// A piece of a run.
#[derive(Clone, Copy, Debug)]
pub struct Shard {
    /// Its number, from 0 on.
    pub number: u64,
    /// Its networks are drawn from this.
    pub seed: u64,
    /// Queries that are no loop, at least.
    pub queries: u64,
}

impl Shard {
    /// Takes networks before the guard until it has seen enough; `tell` hears how many queries each had.
    pub fn run(&self, guard: &mut dyn Guard, tell: impl Fn(u64)) -> Findings {
        let mut run = Run::new(guard, self.seed);
        while run.findings().queries < self.queries {
            let before = run.findings().queries;
            run.step();
            tell(run.findings().queries - before);
        }
        run.findings().clone()
    }
}

/// Shares a run out to `threads`, in `shards` pieces of which each has a guard of its own; what they found, together. The
/// first error ends it.
pub fn in_shards<E: Send>(
    seed: u64,
    queries: u64,
    shards: u64,
    threads: usize,
    run: impl Fn(Shard) -> Result<Findings, E> + Sync,
) -> Result<Findings, E> {
    let mut seeds = Random(seed);
    let seeds: Vec<u64> = (0..shards).map(|_| seeds.next()).collect();
    let next = AtomicU64::new(0);
    let found = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&seed) = seeds.get(number as usize) else {
                        break;
                    };
                    let findings = run(Shard {
                        number,
                        seed,
                        queries: queries.div_ceil(shards),
                    });
                    if findings.is_err() {
                        next.store(shards, Ordering::Relaxed);
                    }
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.push((number, findings));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(number, _)| *number);
    let mut all = Findings::default();
    for (_, findings) in found {
        all.add(findings?);
    }
    Ok(all)
}

/// A run before the judge natively, with marks; `tell` hears how many queries each network had.
pub fn natively(seed: u64, queries: u64, threads: usize, tell: impl Fn(u64) + Sync) -> Findings {
    let run = |shard: Shard| -> Result<Findings, std::convert::Infallible> {
        Ok(shard.run(&mut Native::new(policy(true, Action::Drop)), &tell))
    };
    let Ok(findings) = in_shards(seed, queries, NATIVE_SHARDS, threads, run);
    findings
}
