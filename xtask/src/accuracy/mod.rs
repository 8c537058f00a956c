//! `cargo xtask accuracy`: how often the judge is wrong, over millions of queries.
//!
//! The judge is asked natively, on a simulated clock, and then as the kernel object, at the pace of the real one. What it is
//! asked about is drawn in `sim`; [`report`] shows what came of it.

mod report;

use std::{num::NonZero, process::ExitCode, thread};

use anyhow::Result;
use clap::Args;
use guard_sim::accuracy::{self, Findings};
use guard_tests::simulated;

use self::report::Report;
use crate::{
    agent::KernelObject,
    number,
    progress::{Done, Progress},
    root::Root,
    second_half, step,
    workspace::Workspace,
};

/// Of so many queries one goes through the kernel object as well.
const KERNEL_SHARE: u64 = 100;
/// Copies of the kernel object that are asked at once.
const KERNEL_COPIES: u64 = 16;

/// Judge millions of queries that are no loop, and loops among them; count what is mistaken for what.
///
/// Draws small networks from the seed, one after the other: herds behind forwarders that merge equal queries or do not,
/// with upstreams that take 1 ms to 3 s, say SERVFAIL or nothing; retry storms; clients that spell at random; names of 0 to
/// 200 letters; two hosts that ask each other. One in five is a loop. First the judge has them natively, on a simulated
/// clock; then a hundredth as many go through the kernel object, at the pace of the real clock. The exit code is 1 if a load
/// was taken for a loop, a loop was not cut in time or not proven, or a client got an answer in another spelling than its
/// query's.
///
/// The kernel object needs root, by sudo if need be; without it that half is left out. Nothing is sent: packets go through
/// test runs of the programs.
#[derive(Args)]
#[command(after_help = "Examples:\n  cargo xtask accuracy\n  \
    cargo xtask accuracy --queries 100000000 --seed 7 --native\n  \
    cargo xtask accuracy --json | jq .false_trips")]
pub(crate) struct AccuracyArgs {
    /// Queries that are no loop, at least.
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    queries: u64,
    /// What everything is drawn from. Native findings are the same for the same seed and count.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Leave the kernel object out.
    #[arg(long)]
    native: bool,
    /// The kernel object is built, and this is root. Set by the first half.
    #[arg(long, hide = true)]
    prepared: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &AccuracyArgs) -> Result<ExitCode> {
    if !args.native && !args.prepared {
        if let Some(root) = Root::find() {
            let object = KernelObject::at_hand(workspace)?.path(workspace);
            return second_half::start(root, &[("DNSGUARD_OBJECT", object.as_os_str())]);
        }
        step::note("the kernel object is left out: it needs root, and there is no sudo to ask");
    }
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let natively = |tell: &(dyn Fn(u64) + Sync)| Ok(accuracy::natively(args.seed, args.queries, threads, tell));
    let native = shown("judged natively", args.queries, natively)?;
    let kernel = if args.prepared {
        let queries = args.queries.div_ceil(KERNEL_SHARE);
        let in_kernel = |tell: &(dyn Fn(u64) + Sync)| simulated::accuracy(args.seed, queries, KERNEL_COPIES, tell);
        Some(shown("judged by the kernel object", queries, in_kernel)?)
    } else {
        None
    };
    let report = Report {
        seed: args.seed,
        native,
        kernel,
    };
    if args.json {
        println!("{:#}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(if report.is_right() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs a half with its progress on the screen.
fn shown(what: &str, queries: u64, run: impl FnOnce(&(dyn Fn(u64) + Sync)) -> Result<Findings>) -> Result<Findings> {
    let done = Done::nothing(queries);
    let progress = Progress::counted(format!("{} {what}", number::queries(queries)), &done);
    let findings = run(&|more| done.add(more))?;
    progress.done(&number::queries(findings.queries));
    Ok(findings)
}
