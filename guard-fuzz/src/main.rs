//! The command line of the driver: `cargo xtask fuzz` builds and runs it.

#![forbid(unsafe_code)]

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result};
use clap::Parser;
use guard_fuzz::{
    driver::{Run, corpus, keep, kept, replay},
    target::{ALL, Kind},
};

/// Feed hostile bytes to everything that reads bytes of others.
#[derive(Parser)]
#[command(name = "guard-fuzz")]
struct Args {
    /// Cases of a fast target; slower ones have a share of it.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    cases: u64,
    /// What everything is drawn from.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Only these targets.
    #[arg(long = "target", value_name = "T", value_parser = target)]
    targets: Vec<Kind>,
    /// Check the case in this file, and nothing else.
    #[arg(long, value_name = "FILE", conflicts_with = "corpus")]
    replay: Option<PathBuf>,
    /// Write cases for `cargo fuzz` to start from into this folder, one folder a target.
    #[arg(long, value_name = "FOLDER")]
    corpus: Option<PathBuf>,
}

fn target(name: &str) -> Result<Kind, String> {
    Kind::named(name).ok_or_else(|| {
        let names = ALL.map(|kind| kind.name).join(", ");
        format!("there is no such target; allowed: {names}")
    })
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let is_root = nix::unistd::geteuid().is_root();
    let all = ALL.into_iter().filter(|kind| {
        if kind.in_kernel && !is_root {
            eprintln!("{}: left out, for it needs root", kind.name);
        }
        is_root || !kind.in_kernel
    });
    let kinds = if args.targets.is_empty() {
        all.collect()
    } else {
        args.targets.clone()
    };
    if let Some(file) = &args.replay {
        return replayed(&kinds, file);
    }
    if let Some(folder) = &args.corpus {
        // libFuzzer cannot see into the kernel.
        for kind in kinds.into_iter().filter(|kind| !kind.in_kernel) {
            let written = corpus(&folder.join(kind.name), kind, args.seed)?;
            println!("{}: {written} cases in {}", kind.name, folder.join(kind.name).display());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut all_right = true;
    for kind in kinds {
        all_right &= run(&args, kind)?;
    }
    Ok(if all_right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn replayed(kinds: &[Kind], file: &Path) -> Result<ExitCode> {
    let [kind] = kinds else {
        anyhow::bail!("whose case is it? next: name it with --target");
    };
    let case = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    match replay(*kind, &case)? {
        Ok(class) => {
            println!("{}: {class}", kind.name);
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => {
            println!("{}: wrong: {why}", kind.name);
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Runs one target. False if something was wrong.
fn run(args: &Args, kind: Kind) -> Result<bool> {
    let cases = (u128::from(args.cases) * u128::from(kind.per_million) / 1_000_000).max(1) as u64;
    let progress = Progress::of(kind.name, cases);
    let run = Run {
        kind,
        seed: args.seed,
        cases,
    };
    let findings = run.run(&|more| progress.add(more));
    progress.clear();
    let findings = findings?;
    println!("{}: {findings}", kind.name);
    let Some(failure) = findings.failure else {
        return Ok(true);
    };
    let path = keep(&kept(), kind, &failure.case)?;
    println!("{}", failure.report(&run, &path));
    Ok(false)
}

/// One line at a terminal that says how far it is; elsewhere one line at the start.
struct Progress {
    name: &'static str,
    of: u64,
    done: AtomicU64,
    is_shown: bool,
}

impl Progress {
    fn of(name: &'static str, of: u64) -> Self {
        let is_shown = io::stderr().is_terminal();
        if !is_shown {
            eprintln!("{name}: {of} cases");
        }
        Self {
            name,
            of,
            done: AtomicU64::new(0),
            is_shown,
        }
    }

    fn add(&self, more: u64) {
        let before = self.done.fetch_add(more, Ordering::Relaxed);
        let percent = |done: u64| done * 100 / self.of;
        if self.is_shown && percent(before + more) != percent(before) {
            eprint!("\r\x1b[K{}: {} % of {}", self.name, percent(before + more), self.of);
            // A lost line is no reason to stop.
            let _ = io::stderr().flush();
        }
    }

    fn clear(&self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}
