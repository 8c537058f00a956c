//! The kernel object on this kernel, packet by packet (`BPF_PROG_TEST_RUN`): what goes in, what comes out, byte for byte
//! as other libraries build it, and what is counted and told.

mod accuracy;
mod adversaries;
mod answers;
mod budgets;
mod feeder;
mod hygiene;
mod link;
mod marks;
mod passes;
mod peer;
mod rows;
mod samples;
mod state;

use anyhow::{Context as _, Result, ensure};
use guard_tests::bench::{Bench, Gate};
use serde_json::json;

/// Instructions that the verifier may look at in one program.
const INSTRUCTION_BUDGET: u32 = 140_000;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_program_stays_within_the_verifiers_budget() -> Result<()> {
    let bench = Bench::new(|_| ())?;
    let mut counts = Vec::new();
    for gate in Gate::ALL {
        let count = bench.verified_instructions(gate)?;
        counts.push(count.context("the kernel does not say (before 5.16)")?);
    }
    // `cargo xtask test vm` has a table of these.
    println!("measured: {}", json!({ "instructions": counts }));
    for (gate, count) in Gate::ALL.into_iter().zip(counts) {
        ensure!(
            count < INSTRUCTION_BUDGET,
            "{gate:?}: {count} instructions, {INSTRUCTION_BUDGET} allowed"
        );
    }
    Ok(())
}
