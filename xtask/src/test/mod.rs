//! `cargo xtask test`: everything there is to test, one command, one line of counts at the end.
//!
//! The kernel object is built from source where that can be had, so that the tests see today's programs; the agent is
//! built with it; then all test binaries are ([`binary`]), and run side by side ([`lanes`]), those with labs of network
//! namespaces and real resolvers as root. A step that fails counts as a failed test, and the last line stands.

mod binary;
mod lanes;

use std::{process::ExitCode, thread};

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};
use guard_tests::{programs, storm};

use self::binary::Binary;
use crate::{
    agent::{Build, KernelObject, Profile},
    ebpf, kubernetes, package,
    root::Root,
    tally::Tally,
    vm,
    workspace::Workspace,
};

/// A check that says what it found.
type Check = fn(&Workspace) -> Result<String>;

/// The checks of what is built and committed, under names that FILTER can ask for.
const CHECKS: [(&str, Check); 2] = [
    ("the_committed_kernel_object_matches_its_sources", ebpf::check),
    ("the_committed_manifests_are_what_the_chart_renders", kubernetes::check),
];

/// Programs that no lab of this run needs: they are for virtual machines or the benchmark, or [`storm::provide`] tries for
/// them.
const NOT_NEEDED: [&str; 5] = ["iptables-nft", "musl-gcc", "qemu-system-x86_64", "xz", "zstd"];

/// Packages whose tests need no root, but for one.
const UNIT_TESTED: [&str; 7] = [
    "guard-common",
    "guard-cri",
    "guard-fuzz",
    "guard-native",
    "guard-sim",
    "guard-user",
    "xtask",
];

/// The package of the labs, whose tests need root.
const LABS: &str = "guard-tests";

/// Run every test; install first what they need.
///
/// Builds the kernel object from source (the committed one serves where no toolchain is to be had) and the agent with
/// it, then runs the unit tests, the kernel tests (as root, by sudo if need be), and the check of the committed kernel
/// object. The last line of stdout is `N passed, N failed, N skipped`; the exit code is 1 if anything failed.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:\n  cargo xtask test                  everything\n  \
    cargo xtask test --unit           what needs no root and no resolvers\n  \
    cargo xtask test a_client_retry   every test whose name contains this\n  \
    cargo xtask test vm               other kernels, in virtual machines")]
pub(crate) struct TestArgs {
    /// Run only the tests whose name contains this.
    filter: Option<String>,
    /// Run only the unit tests: no root, no resolvers, nothing beside the object's toolchain is installed.
    #[arg(long)]
    unit: bool,
    #[command(subcommand)]
    elsewhere: Option<Elsewhere>,
}

/// Where else tests can run.
#[derive(Subcommand)]
enum Elsewhere {
    Vm(vm::VmArgs),
}

pub(crate) fn run(workspace: &Workspace, args: &TestArgs) -> Result<ExitCode> {
    if let Some(Elsewhere::Vm(args)) = &args.elsewhere {
        return vm::run(workspace, args);
    }
    let mut tally = Tally::default();
    if let Err((step, error)) = run_steps(workspace, args, &mut tally) {
        tally.fail(step, &error);
    }
    if let Some(filter) = args.filter.as_ref().filter(|_| tally.is_empty()) {
        tally.fail("the filter", &anyhow!("no test has a name that contains `{filter}`"));
    }
    println!("{}", tally.report());
    Ok(if tally.failed() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs until a step fails on which the next ones stand; says which that was.
fn run_steps(workspace: &Workspace, args: &TestArgs, tally: &mut Tally) -> Result<(), (&'static str, anyhow::Error)> {
    let root = Root::find();
    if !args.unit && root.is_none() {
        let next = "run `sudo -E cargo xtask test`, or `cargo xtask test --unit` for the rest";
        return Err((
            "root",
            anyhow!("the kernel tests need root, and there is no sudo to ask; next: {next}"),
        ));
    }
    let object = KernelObject::install(workspace).map_err(|error| ("the kernel object builds", error))?;
    let build = Build { workspace, object };
    if !args.unit
        && let Err(error) = build.static_agent(Profile::Dev)
    {
        // The tests that need it will say so.
        tally.fail("the static agent builds", &error);
    }
    build.agent().map_err(|error| ("the agent builds", error))?;

    let mut packages = UNIT_TESTED.to_vec();
    let binaries = if args.unit {
        binary::build(&build, &packages)
    } else {
        packages.push(LABS);
        // Downloads take their time, and building needs none of them.
        let (binaries, provided) = thread::scope(|scope| {
            let providing = scope.spawn(provide);
            (binary::build(&build, &packages), providing.join())
        });
        // The tests that need what is not here will say so; the others still have their say.
        for (what, outcome) in provided.unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            if let Err(error) = outcome {
                tally.fail(what, &error);
            }
        }
        binaries
    };
    let binaries = binaries.map_err(|error| ("the tests build", error))?;
    let filter: Vec<&str> = args.filter.as_deref().into_iter().collect();
    let root = root.filter(|_| !args.unit);
    let start = |binary: &Binary, priority| {
        let mut command = binary.command(&build, root, priority);
        command.args(&filter);
        command
    };
    lanes::run(binaries, &start, tally);
    for (name, check) in CHECKS {
        if !args.unit && filter.iter().all(|filter| name.contains(filter)) {
            run_check(name, check(workspace), tally);
        }
    }
    Ok(())
}

/// Fetches what the labs run, all of it before the first one starts: what each part of it is called, and what came of it.
fn provide() -> [(&'static str, Result<()>); 2] {
    let needed: Vec<_> = programs::known().filter(|name| !NOT_NEEDED.contains(name)).collect();
    [
        (
            "the resolvers are here",
            programs::provide(&needed).and_then(|()| storm::provide()),
        ),
        ("cargo-deb is here", package::provide()),
    ]
}

fn run_check(name: &'static str, outcome: Result<String>, tally: &mut Tally) {
    match outcome {
        Ok(verdict) => {
            println!("test {name} ... ok ({verdict})");
            tally.pass();
        }
        Err(error) => {
            println!("test {name} ... FAILED");
            tally.fail(name, &error);
        }
    }
}
