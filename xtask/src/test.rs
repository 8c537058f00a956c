//! `cargo xtask test`: everything there is to test, one command, one line of counts at the end.
//!
//! The kernel object is built from source where that can be had, so that the tests see today's programs; the agent is
//! built with it; then the unit tests run in parallel and the kernel tests, which own network namespaces and real
//! resolvers, one after the other as root. A step that fails counts as a failed test, and the last line stands.

use std::{env, process::Command, process::ExitCode, thread};

use anyhow::{Context as _, Result, anyhow};
use clap::{Args, Subcommand};
use guard_tests::{programs, storm};

use crate::{
    agent::{Build, KernelObject, Profile},
    ebpf, kubernetes, package,
    root::Root,
    step,
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

/// The resolvers and tools that the kernel tests run; the lab fetches what is missing.
const PROGRAMS: [&str; 26] = [
    "dnsmasq",
    "dnsmasq-0x20",
    "dnsdist",
    "unbound",
    "consul",
    "named",
    "kresd",
    "pdns_recursor",
    "systemd-resolved",
    "dig",
    "delv",
    "nsupdate",
    "dnssec-keygen",
    "dnssec-signzone",
    "tmux",
    "chromium",
    "chromedriver",
    "debootstrap",
    "wget",
    "prometheus",
    "promtool",
    "containerd",
    "crun",
    "host-local",
    "strace",
    programs::PODMAN,
];

/// The package whose tests keep every core busy: they run one after the other, together with the one that needs root.
const FUZZED: &str = "guard-fuzz";

/// Packages whose tests need no root.
const UNIT_TESTED: [&str; 6] = [
    "guard-common",
    "guard-cri",
    "guard-native",
    "guard-sim",
    "guard-user",
    "xtask",
];

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

    let filter: Vec<&str> = args.filter.as_deref().into_iter().collect();
    let alone = args.unit.then_some(FUZZED);
    let packages = UNIT_TESTED.into_iter().chain(alone).flat_map(|package| ["-p", package]);
    let mut unit = build.cargo(&["test", "--no-fail-fast"]);
    let unit = unit.args(packages).arg("--").args(&filter);
    if args.unit {
        run_tests("unit tests", unit, tally);
    } else {
        // Downloads take their time, and the unit tests need none of them.
        let provided = thread::scope(|scope| {
            let providing = scope.spawn(provide);
            run_tests("unit tests", unit, tally);
            providing.join()
        });
        // The tests that need what is not here will say so; the others still have their say.
        for (what, outcome) in provided.unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            if let Err(error) = outcome {
                tally.fail(what, &error);
            }
        }
    }
    if let Some(root) = root.filter(|_| !args.unit) {
        let mut kernel = build.cargo(&[
            "test",
            "--no-fail-fast",
            "--all-targets",
            "-p",
            "guard-tests",
            "-p",
            FUZZED,
        ]);
        if root == Root::BySudo {
            let runner = runner_variable().map_err(|error| ("sudo as cargo's runner", error))?;
            kernel.env(runner, "sudo -E");
        }
        let args = ["--", "--include-ignored", "--test-threads=1"];
        run_tests("kernel tests", kernel.args(args).args(&filter), tally);
    }
    for (name, check) in CHECKS {
        if !args.unit && filter.iter().all(|filter| name.contains(filter)) {
            run_check(name, check(workspace), tally);
        }
    }
    Ok(())
}

/// Fetches what the kernel tests run: what each part of it is called, and what came of it.
fn provide() -> [(&'static str, Result<()>); 2] {
    [
        (
            "the resolvers are here",
            programs::provide(&PROGRAMS).and_then(|()| storm::provide()),
        ),
        ("cargo-deb is here", package::provide()),
    ]
}

/// Runs one `cargo test`; its failures go into the tally, also that of a binary which could not say a result.
fn run_tests(what: &str, command: &mut Command, tally: &mut Tally) {
    let failed_before = tally.failed();
    match step::watch(what, command, |line| tally.read(line)) {
        Ok(status) if !status.success() && tally.failed() == failed_before => {
            tally.fail(
                what,
                &anyhow!("cargo test ended with {status} and named no test; see above"),
            );
        }
        Ok(_) => {}
        Err(error) => tally.fail(what, &error),
    }
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

/// The variable that makes cargo start test binaries through sudo: what cargo builds stays the person's own.
fn runner_variable() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = step::quiet(Command::new(rustc).arg("-vV"))?;
    let host = version.stdout.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("`rustc -vV` names no host")?;
    Ok(format!(
        "CARGO_TARGET_{}_RUNNER",
        host.replace(['-', '.'], "_").to_uppercase()
    ))
}
