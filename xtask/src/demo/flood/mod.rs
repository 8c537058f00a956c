//! `cargo xtask demo flood`: one query as fast as it goes, and what good clients get beside it, behind one protection
//! after the other.
//!
//! [`measurement`] takes the figures, [`outcome`] sums them up, [`verdict`] says what they mean for the guard, and
//! [`table`] shows them.

pub(crate) mod measurement;
mod outcome;
mod table;
mod verdict;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, ValueEnum};
use guard_tests::flood::{Protection, Site};

use self::{outcome::Outcome, verdict::Verdict};
use super::{AGENT, wants_colours};
use crate::{interrupt, preparation, workspace::Workspace};

/// Flood a server with one query, and see what good clients get.
///
/// Two hosts in networks of their own, one core each. One of them sends one query, again and again: at 300,000 packets/s,
/// and as fast as a core makes them. Beside it good clients ask for other names, from another network, from the same /24
/// and from the very same address. Before the server stands nothing, then nftables, dnsdist and dnsguard in turn, all of
/// which allow 1,000 packets/s. The exit code is 1 if dnsguard did not do its job: at 300,000 packets/s fewer than 99.9 %
/// of the good clients were answered in any of the places, or at full speed fewer, by more than 10 points, than behind the
/// best of the others.
///
/// Needs root, by sudo if need be. Missing programs are fetched into target/programs; nothing is installed, and nothing
/// is left running, also after Ctrl-C.
#[derive(Args)]
pub(crate) struct FloodArgs {
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// How often each is measured, 1 to 50; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    rounds: u8,
    /// Seconds for which good clients ask in each measurement, 1 to 30.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=30))]
    seconds: u8,
    /// Measure these only, separated by commas.
    #[arg(long, value_name = "WHICH", value_delimiter = ',')]
    only: Vec<Program>,
}

/// Whose protection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Program {
    /// No protection
    None,
    /// A rule on the bytes of the name, at ingress and at input
    Nftables,
    /// In front of the server, with its limiters
    Dnsdist,
    /// With a limit for each name and type, at each hook
    Dnsguard,
}

impl Program {
    /// None of those that the demo does not show.
    const fn of(protection: Protection) -> Option<Self> {
        Some(match protection {
            Protection::None => Self::None,
            Protection::NftIngress | Protection::NftInput => Self::Nftables,
            Protection::DnsdistName | Protection::DnsdistAddress | Protection::DnsdistBlock => Self::Dnsdist,
            Protection::Guard(_) => Self::Dnsguard,
            Protection::Iptables | Protection::Judge(_) | Protection::Empty(_) | Protection::Filter(_) => return None,
        })
    }
}

/// The second half of it if `prepared`, else the first.
pub(crate) fn run(workspace: &Workspace, args: &FloodArgs, prepared: bool) -> Result<ExitCode> {
    let chosen = |protection: &Protection| {
        let program = Program::of(*protection);
        args.only.is_empty() || program.is_some_and(|program| args.only.contains(&program))
    };
    let protections: Vec<Protection> = Protection::ALL.into_iter().filter(chosen).collect();
    if !prepared {
        let further = protections.iter().flat_map(|protection| protection.programs());
        let programs: Vec<&str> = Site::PROGRAMS.iter().chain(further).copied().collect();
        return preparation::run(workspace, "demo", AGENT, || guard_tests::programs::provide(&programs));
    }
    interrupt::watch("demo")?;
    let outcome = Outcome::take(&protections, args.rounds, Duration::from_secs(args.seconds.into()))?;
    let verdict = Verdict::of(&outcome);
    if args.json {
        println!("{:#}", outcome.json(&verdict));
    } else {
        print!("{}", table::render(&outcome, &verdict, wants_colours()));
    }
    Ok(if verdict.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
