//! `cargo xtask demo`: real trouble between real resolvers, without the guard and with it.
//!
//! Two halves, in two processes. [`preparation`] fetches, builds, and belongs to the person; then it becomes the
//! [`scene`], as root, which only measures: [`looped`], [`storm`] or [`flood`]. All that a scene starts lives in network
//! namespaces that die with it, so there is nothing to clean up, however it ends.

pub(crate) mod flood;
mod looped;
mod scene;
mod storm;
mod text;
mod told;

use std::{
    env,
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::Value;

use self::scene::Scene;
use crate::{agent::Profile, interrupt, preparation, workspace::Workspace};

/// Watch a real DNS loop burn, and dnsguard cut it; or a storm, and dnsguard hold it.
///
/// A loop: starts real resolvers that forward one name to each other, in a network of their own, and sends one query:
/// first without dnsguard, then with it. Meanwhile good clients ask those resolvers for other names. Prints what came of
/// both as a short table; the exit code is 1 if dnsguard did not do its job: it did not cut the loop, let more than
/// 32 queries go round, left more than 1 % of the packets, failed one good client, or made the slowest of them wait
/// more than 1.5 times as long as without a loop.
///
/// A storm: one client of a node sweeps 5,000 names a second, and what stands for AWS drops all above 1,024 packets/s,
/// from 50 good clients, from instance metadata and from time as well. The exit code is 1 if with dnsguard it drops one
/// packet, if less than 99.9 % of the good look-ups are answered, if metadata or time fail once, or if dnsguard does not
/// name the zone and the client within 1 s.
///
/// Needs root, by sudo if need be. Missing resolvers are fetched into target/programs; nothing is installed, and
/// nothing is left running, also after Ctrl-C.
#[derive(Args)]
#[command(after_help = "Examples:\n  cargo xtask demo              two dnsmasq\n  \
    cargo xtask demo consul       the incident: dnsmasq and consul\n  \
    cargo xtask demo storm        a PTR sweep against AWS's limit\n  \
    cargo xtask demo flood        one query as fast as it goes, beside other protections\n  \
    cargo xtask demo --json       the same as one JSON object")]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DemoArgs {
    /// Which resolvers form the loop; or a storm.
    #[arg(value_enum, default_value_t)]
    scene: Scene,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Seconds that each act takes, 3 to 30; a loop's comparison of p99 takes six times as long, a storm without dnsguard
    /// 10 s more [default: 3, a storm 6].
    // dnsmasq loops from its client's first retry on, which comes after 2 s.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(3..=30))]
    seconds: Option<u8>,
    /// Everything is built, and this is root: measure. Set by the first half of the demo.
    #[arg(long, hide = true, global = true)]
    prepared: bool,
    #[command(subcommand)]
    other: Option<Other>,
}

/// What takes options of its own.
#[derive(Subcommand)]
enum Other {
    Flood(flood::FloodArgs),
}

/// A debug build costs the figures nothing: packets are judged in the kernel, by an object that is always optimised.
const AGENT: Option<Profile> = Some(Profile::Dev);

/// What a scene came to.
struct Shown {
    json: Value,
    table: String,
    /// Whether the guard did its job.
    good: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &DemoArgs) -> Result<ExitCode> {
    match &args.other {
        Some(Other::Flood(flood)) => flood::run(workspace, flood, args.prepared),
        None => run_scene(workspace, args),
    }
}

fn run_scene(workspace: &Workspace, args: &DemoArgs) -> Result<ExitCode> {
    if !args.prepared {
        return preparation::run(workspace, "demo", AGENT, || args.scene.provide());
    }
    interrupt::watch("demo")?;
    let length = |default: u8| Duration::from_secs(args.seconds.unwrap_or(default).into());
    let shown = match args.scene {
        Scene::Loop(pair) => looped::show(pair, length(3), wants_colours())?,
        Scene::Storm => storm::show(length(6), wants_colours())?,
    };
    if args.json {
        println!("{:#}", shown.json);
    } else {
        print!("{}", shown.table);
    }
    Ok(if shown.good {
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
