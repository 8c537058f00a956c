//! `cargo xtask demo`: a real loop between real resolvers, without the guard and with it.
//!
//! Two halves, in two processes. [`preparation`] fetches, builds, and belongs to the person; then it becomes
//! [`act`], as root, which only measures. All that `act` starts lives in network namespaces that die with it, so
//! there is nothing to clean up, however it ends.

mod act;
mod flood;
mod free;
mod guarded;
mod interrupt;
mod number;
mod outcome;
mod pace;
mod pair;
mod preparation;
mod progress;
mod sight;
mod table;
mod told;
mod turns;
mod verdict;

use std::{
    env,
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use clap::{Args, Subcommand};

use self::{pair::Pair, verdict::Verdict};
use crate::workspace::Workspace;

/// Watch a real DNS loop burn, and dnsguard cut it.
///
/// Starts real resolvers that forward one name to each other, in a network of their own, and sends one query: first
/// without dnsguard, then with it. Meanwhile good clients ask those resolvers for other names. Prints what came of
/// both as a short table; the exit code is 1 if dnsguard did not do its job: it did not cut the loop, let more than
/// 32 queries go round, left more than 1 % of the packets, failed one good client, or made the slowest of them wait
/// more than 1.5 times as long as without a loop.
///
/// Needs root, by sudo if need be. Missing resolvers are fetched into target/programs; nothing is installed, and
/// nothing is left running, also after Ctrl-C.
#[derive(Args)]
#[command(after_help = "Examples:\n  cargo xtask demo              two dnsmasq\n  \
    cargo xtask demo consul       the incident: dnsmasq and consul\n  \
    cargo xtask demo --json       the same as one JSON object")]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DemoArgs {
    /// Which resolvers form the loop.
    #[arg(value_enum, default_value_t)]
    pair: Pair,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Seconds that each of the three acts takes, 3 to 30; the comparison of p99 takes six times as long.
    // dnsmasq loops from its client's first retry on, which comes after 2 s.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=30))]
    seconds: u8,
    /// Everything is built, and this is root: measure. Set by the first half of the demo.
    #[arg(long, hide = true, global = true)]
    prepared: bool,
    #[command(subcommand)]
    other: Option<Other>,
}

/// What is not a loop.
#[derive(Subcommand)]
enum Other {
    Flood(flood::FloodArgs),
}

pub(crate) fn run(workspace: &Workspace, args: &DemoArgs) -> Result<ExitCode> {
    match &args.other {
        Some(Other::Flood(flood)) => flood::run(workspace, flood, args.prepared),
        None => run_loop(workspace, args),
    }
}

fn run_loop(workspace: &Workspace, args: &DemoArgs) -> Result<ExitCode> {
    if !args.prepared {
        return preparation::run(workspace, args.pair.topology().programs());
    }
    interrupt::watch()?;
    let outcome = act::run(args.pair, Duration::from_secs(args.seconds.into()))?;
    let verdict = Verdict::of(&outcome);
    if args.json {
        println!("{:#}", outcome.json(&verdict));
    } else {
        print!("{}", table::render(&outcome, &verdict, wants_colours()));
    }
    Ok(if verdict.is_cut() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// <https://no-color.org>
fn wants_colours() -> bool {
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stdout().is_terminal()
}
