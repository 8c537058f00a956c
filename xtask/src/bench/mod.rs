//! `cargo xtask bench`: what the guard costs, beside an empty program.
//!
//! [`plan`] says which packets are measured, [`kernel`] and [`end_to_end`] measure, by means of [`guard_tests::speed`]
//! and [`guard_tests::flood`]. Each figure is a [`record`]. [`table`] shows them to a person, [`compare`] beside those
//! of another time, [`goals`] beside what they ought to be; [`page`] keeps them, with a [`plot`], in
//! `docs/PERFORMANCE.md`.

mod compare;
mod end_to_end;
mod goals;
mod kernel;
mod machine;
mod page;
mod plan;
mod plot;
mod record;
mod table;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;
use guard_tests::{flood::Site, speed::Peer};

use self::{
    page::Page,
    plan::Plan,
    record::{Measure, Record},
};
use crate::{agent::Profile, interrupt, preparation, step, workspace::Workspace};

/// Rounds that each packet is measured in.
const ROUNDS: usize = 21;
/// The same with `--quick`.
const QUICK_ROUNDS: usize = 11;
/// How often each flood is measured.
const FLOOD_ROUNDS: usize = 3;
/// The same with `--quick`.
const QUICK_FLOOD_ROUNDS: usize = 1;

/// Measure what the guard costs, beside an empty program.
///
/// Puts packets through each of the three programs as the kernel's own test runs do (BPF_PROG_TEST_RUN), many hundred
/// thousand in a row, in turn with an empty program on the same processor: a packet's cost is told in nanoseconds and,
/// what travels from machine to machine, as a ratio to the empty program. Packets that are no DNS, queries with short
/// and long names, responses, keys in hold, a budget that is exceeded; with one key again and again, and with a
/// thousand to a million keys drawn at random, so that caches do not flatter. After each measurement the counters have
/// to say that it was what it is called; else there is no figure but an error.
///
/// Then two processors on one key, a budget of a million packets a second, instructions verified, the time to load, and
/// the memory of the maps. That takes some five minutes, half as long with --quick.
///
/// With --end-to-end also real traffic, between two hosts in networks of their own: processor time and memory of the
/// agent at up to a million packets a second; what the programs take inside the running kernel; floods of one query and
/// of random names, and what good clients get beside them, behind nothing, nftables, iptables, dnsdist and dnsguard.
/// That takes another half an hour, ten minutes with --quick, and needs both processors for itself.
///
/// Needs root, by sudo if need be. Missing programs are fetched into target/programs; nothing is installed, and nothing
/// is left running, also after Ctrl-C. Other work on the machine shows as a spread between min and max.
#[derive(Args)]
#[command(after_help = "Examples:\n  cargo xtask bench\n  \
    cargo xtask bench --quick --only xdp/held --only 'in/query, 20 bytes'\n  \
    bpftool prog load other.o /sys/fs/bpf/other && cargo xtask bench --only xdp/query --peer /sys/fs/bpf/other\n  \
    cargo xtask bench --json >before.jsonl; cargo xtask bench --compare before.jsonl\n  \
    cargo xtask bench --json | jq -r 'select(.live_keys == 1) | [.program, .packet, .ratio_to_empty] | @tsv'")]
pub(crate) struct BenchArgs {
    /// Print one JSON object a line instead of the tables.
    #[arg(long)]
    json: bool,
    /// Measure 11 rounds instead of 21, and each flood once instead of three times.
    #[arg(long)]
    quick: bool,
    /// Measure only packets whose program and name have these in them; either part may be empty.
    #[arg(long, value_name = "PROGRAM/PACKET")]
    only: Vec<String>,
    /// Measure the XDP program that is pinned there as well, whoever made and loaded it: on the packets that pass.
    #[arg(long, value_name = "PIN")]
    peer: Vec<PathBuf>,
    /// Measure real traffic as well.
    #[arg(long, conflicts_with = "only")]
    end_to_end: bool,
    /// Show the ratios beside those in this file, which --json or --save has written.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    compare: Option<PathBuf>,
    /// Keep the figures in docs/PERFORMANCE.md and docs/performance; those of real traffic stay without --end-to-end,
    /// those of programs of others without --peer.
    #[arg(long, conflicts_with = "only")]
    save: bool,
    /// Measure nothing: write docs/PERFORMANCE.md anew from the figures that are kept.
    #[arg(long, exclusive = true)]
    render: bool,
    /// Exit with 1 if a goal is not met.
    #[arg(long)]
    check: bool,
    /// Everything is built, and this is root: measure. Set by the first half.
    #[arg(long, hide = true)]
    prepared: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &BenchArgs) -> Result<ExitCode> {
    let page = Page::of(workspace);
    if args.render {
        page.write(&page.kept()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = Plan::of(&args.only)?;
    let before = args.compare.as_ref().map(|path| {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        record::read(&text).with_context(|| format!("{} has no figures", path.display()))
    });
    let before = before.transpose()?;
    if !args.prepared {
        return prepare(workspace, args);
    }
    let peers = args.peer.iter().map(|pin| {
        Peer::pinned(pin).with_context(|| {
            let pin = pin.display();
            format!("cannot measure {pin}; next: bpftool prog load FILE.o {pin}")
        })
    });
    let peers = peers.collect::<Result<Vec<Peer>>>()?;
    interrupt::watch("bench")?;
    let records = measure(&plan, &peers, args)?;
    let goals = goals::all(&records);
    if args.json {
        print!("{}", record::write(&records)?);
    } else {
        print!("{}", table::render(&records));
        if let Some(before) = &before {
            print!("{}", compare::render(before, &records));
        }
        print!("{}", table::goals(&goals));
    }
    if args.save {
        page.save(&records)?;
        step::note("docs/PERFORMANCE.md has the new figures");
    }
    let missed = goals.iter().any(|goal| !goal.is_met);
    Ok(if args.check && missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn prepare(workspace: &Workspace, args: &BenchArgs) -> Result<ExitCode> {
    // Only real traffic needs an agent: as people run it, for its own processor time and memory count.
    if !args.end_to_end {
        return preparation::run(workspace, "bench", None, || guard_tests::programs::provide(&["ip"]));
    }
    let further = end_to_end::PROTECTIONS
        .iter()
        .flat_map(|protection| protection.programs());
    let programs: Vec<&str> = Site::PROGRAMS.iter().chain(further).copied().collect();
    preparation::run(workspace, "bench", Some(Profile::Release), || {
        guard_tests::programs::provide(&programs)
    })
}

fn measure(plan: &Plan, peers: &[Peer], args: &BenchArgs) -> Result<Vec<Record>> {
    let rounds = if args.quick { QUICK_ROUNDS } else { ROUNDS };
    let mut records = vec![Record::Other(Measure::Machine(machine::here(rounds)?))];
    records.extend(kernel::packets(plan, rounds)?);
    records.extend(kernel::peers(plan, peers, rounds)?);
    if args.only.is_empty() {
        records.extend(kernel::memory(rounds)?);
        records.extend(kernel::pairs()?);
        records.push(kernel::budget()?);
        records.extend(kernel::footprint()?);
    }
    if args.end_to_end {
        records.extend(end_to_end::agent()?);
        records.extend(end_to_end::run_times()?);
        let rounds = if args.quick { QUICK_FLOOD_ROUNDS } else { FLOOD_ROUNDS };
        records.extend(end_to_end::floods(rounds)?);
    }
    Ok(records)
}
