//! The kernel object in simulated networks: it takes no load for a loop, finds the loops, and mangles no answer.

use anyhow::{Result, ensure};
use guard_tests::simulated;

/// Queries that are no loop.
const QUERIES: u64 = 10_000;
const SEED: u64 = 4;
/// Copies of the object, at once.
const SHARDS: u64 = 16;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn it_takes_no_load_for_a_loop_and_no_loop_for_a_load() -> Result<()> {
    let found = simulated::accuracy(SEED, QUERIES, SHARDS, |_| ())?;
    println!("{found:?}");
    ensure!(found.queries >= QUERIES, "{} queries only", found.queries);
    ensure!(found.false_trips.is_empty(), "{:#?}", found.false_trips);
    ensure!(found.mangled.is_empty(), "{:#?}", found.mangled);
    ensure!(found.loops_missed.is_empty(), "{:#?}", found.loops_missed);
    ensure!(found.loops_proven > 0, "no loop was proven");
    Ok(())
}
