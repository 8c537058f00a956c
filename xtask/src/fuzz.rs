//! `cargo xtask fuzz`: hostile bytes for everything that reads bytes of others, by the driver of `guard-fuzz`.
//!
//! The driver runs as the person; only what loads the kernel object runs as root.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    agent::{Build, KernelObject},
    root::Root,
    step,
    workspace::Workspace,
};

/// The target that loads the kernel object.
const IN_KERNEL: &str = "kernel";

/// Feed hostile bytes to everything that reads bytes of others, and compare with independent libraries.
///
/// Draws cases from the seed: frames, messages, requests and files, as they come and spoiled in all ways. Each target has
/// them read by the guard and by somebody else: headers by etherparse, questions and answers by hickory-proto and domain,
/// whole packets by the kernel object and by the judge natively. Each line of the summary is a class of cases and how
/// many there were; what falls into none is wrong. Such a case is made smaller and kept in target/fuzz, and the command
/// that shows it again is printed. The exit code is 1 then.
///
/// The kernel object needs root, by sudo if need be. Nothing is sent: packets go through test runs of the programs.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  cargo xtask fuzz\n  cargo xtask fuzz --cases 100000000 --seed 7 --target headers\n  \
    cargo xtask fuzz --target kernel --replay target/fuzz/kernel-0123456789abcdef.case"
)]
pub(crate) struct FuzzArgs {
    /// Cases of a fast target; slower ones have a share of it.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    cases: u64,
    /// What everything is drawn from. A case is the same for the same seed, however many there are.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Only these: headers, question, answer, spelling, door, name, config, edit, control, kernel.
    #[arg(long = "target", value_name = "T")]
    targets: Vec<String>,
    /// Check the case in this file, and nothing else.
    #[arg(long, value_name = "FILE", requires = "targets")]
    replay: Option<PathBuf>,
    /// Write cases for `cargo fuzz` to start from into this folder, and do nothing else.
    #[arg(long, value_name = "FOLDER", conflicts_with = "replay")]
    corpus: Option<PathBuf>,
}

pub(crate) fn run(workspace: &Workspace, args: &FuzzArgs) -> Result<ExitCode> {
    let object = KernelObject::at_hand(workspace)?;
    let build = Build { workspace, object };
    step::stream("building the driver", &mut build.cargo(&["build", "-p", "guard-fuzz"]))?;
    let root = Root::find().filter(|_| args.corpus.is_none());
    let run = |root: Option<Root>, targets: &[String]| -> Result<bool> {
        let mut command = root.map_or_else(|| Command::new("env"), |root| root.command("env"));
        command.arg(format!("DNSGUARD_OBJECT={}", object.path(workspace).display()));
        command.arg(workspace.target.join("debug/guard-fuzz"));
        command.args(["--cases", &args.cases.to_string(), "--seed", &args.seed.to_string()]);
        command.args(targets.iter().flat_map(|target| ["--target", target]));
        for (flag, path) in [("--replay", &args.replay), ("--corpus", &args.corpus)] {
            if let Some(path) = path {
                command.arg(flag).arg(path);
            }
        }
        Ok(command.status().context("cannot start the driver")?.success())
    };
    let wants_kernel = args.targets.iter().any(|target| target == IN_KERNEL);
    let all_right = match root {
        Some(Root::BySudo) if args.targets.is_empty() => {
            // It says itself that it leaves out what needs root.
            let as_person = run(None, &[])?;
            run(root, &[IN_KERNEL.to_owned()])? && as_person
        }
        Some(Root::BySudo) if !wants_kernel => run(None, &args.targets)?,
        root => run(root, &args.targets)?,
    };
    Ok(if all_right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
