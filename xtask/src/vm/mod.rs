//! `cargo xtask test vm`: the guard on kernels that this machine does not run.
//!
//! Each kernel boots in a guest of its own, which is given the agent, two real dnsmasq and the kernel tests themselves,
//! as they are built for this machine. What fits the kernel is run; what was measured goes into a table.

mod plan;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::{Args, ValueEnum};
use guard_tests::{
    kernel_log, knob, programs,
    vm::{self, Ending, Image, Kernel, Machine, Run},
};
use serde_json::Value;

use self::{plan::Plan, table::Row};
use crate::{
    advice::Advice as _,
    agent::{Build, KernelObject, Profile},
    progress::Progress,
    step,
    tally::Tally,
    workspace::Workspace,
};

/// How long one kernel may take: several times what it takes on a machine with much else to do.
const TIMEOUT: Duration = Duration::from_secs(1_800);
/// MiB of a guest. Half of it is files.
const MEMORY: u32 = 1_024;

/// The agent in the guest.
const AGENT: &str = "/dnsguard";
/// The kernel object in the guest.
const OBJECT: &str = "/dnsguard.bpf.o";
/// What the lab runs in the guest.
const CARRIED: [&str; 5] = ["ip", "tc", "dnsmasq", "ethtool", "unbound"];
/// The tests that are carried there.
const BINARIES: [&str; 5] = ["faults", "fuzz", "hooks", "kernel", "kernels"];
/// What tests ask for less, and wait for longer, on an emulated machine, unless the environment says otherwise.
const LIGHTER: [(&str, u64); 6] = [
    ("DNSGUARD_KILLS", 3),
    ("DNSGUARD_START", 180),
    ("DNSGUARD_PPS", 2_000),
    ("DNSGUARD_QPS", 20),
    ("DNSGUARD_QPS_ON_LO", 10),
    ("DNSGUARD_SCRIPTS", 2_000),
];

/// Run what depends on the kernel on other kernels, each in a virtual machine.
///
/// Boots stock Debian kernels in QEMU, and in each loads the programs, attaches them in every way that the kernel has,
/// compares answers with those of other libraries, and has the agent cut a loop of two dnsmasq. Kernels, QEMU and what
/// else is missing are downloaded from the Debian mirrors that this system uses. Needs no root and no /dev/kvm. What
/// the guests say is in target/vm.
#[derive(Args)]
#[command(after_help = "Examples:\n  cargo xtask test vm                    all kernels\n  \
    cargo xtask test vm --kernel 6.1       one of them\n  \
    cargo xtask test vm --save             and write docs/KERNELS.md\n  \
    cargo xtask test vm --update           look for newer kernels first")]
pub(crate) struct VmArgs {
    /// Run only the tests whose name contains this.
    filter: Option<String>,
    /// Which kernels.
    #[arg(long = "kernel", value_name = "KERNEL", value_delimiter = ',')]
    #[arg(default_values_t = Choice::value_variants().to_vec())]
    kernels: Vec<Choice>,
    /// Write docs/KERNELS.md from what was measured; takes all kernels.
    #[arg(long, conflicts_with_all = ["kernels", "filter"])]
    save: bool,
    /// Download the kernels anew.
    #[arg(long)]
    update: bool,
}

/// A kernel by its name on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    /// Debian 11's: too old, and the agent has to say so.
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12's.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's.
    #[value(name = "6.12")]
    V6_12,
    /// The newest one that Debian has.
    Newest,
}

impl Choice {
    const fn kernel(self) -> Kernel {
        match self {
            Self::V5_10 => Kernel::V5_10,
            Self::V6_1 => Kernel::V6_1,
            Self::V6_12 => Kernel::V6_12,
            Self::Newest => Kernel::Newest,
        }
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.kernel().fmt(out)
    }
}

/// The files that every guest is given, on this side.
struct Built {
    init: PathBuf,
    agent: PathBuf,
    object: PathBuf,
    tests: Vec<PathBuf>,
}

pub(crate) fn run(workspace: &Workspace, args: &VmArgs) -> Result<ExitCode> {
    let folder = workspace.target.join("vm");
    let built = build(workspace, &folder)?;
    programs::provide(&vm::PROGRAMS)?;
    programs::provide(&CARRIED)?;
    let image = image(&built)?;

    let mut tally = Tally::default();
    let mut rows = Vec::new();
    for kernel in args.kernels.iter().map(|choice| choice.kernel()) {
        if args.update {
            kernel.forget()?;
        }
        let plan = Plan::of(kernel).only(args.filter.as_deref().unwrap_or_default());
        if plan.tests() == 0 {
            continue;
        }
        match boot(kernel, &plan, &image, &folder, &mut tally) {
            Ok(row) => rows.push(row),
            Err(error) => tally.fail(&format!("Linux {kernel}"), &error),
        }
    }
    if let Some(filter) = args.filter.as_ref().filter(|_| tally.is_empty()) {
        tally.fail(
            "the filter",
            &anyhow!("no test for these kernels has a name that contains `{filter}`"),
        );
    }
    print!("{}", table::of(&rows));
    if args.save {
        let path = workspace.root.join("docs/KERNELS.md");
        table::save(&rows, &path)?;
        println!("{} is written", workspace.shown(&path));
    }
    println!("{}", tally.report());
    Ok(if tally.failed() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Boots one kernel and runs what is planned for it.
fn boot(kernel: Kernel, plan: &Plan, image: &Image, folder: &Path, tally: &mut Tally) -> Result<Row> {
    let version = kernel.version()?;
    let progress = Progress::start(format!("Linux {version}: {} tests in a guest", plan.tests()));
    let numbers = LIGHTER.map(|(name, usual)| Ok(format!("{name}={}", knob(name, usual)?)));
    let machine = Machine {
        kernel,
        image,
        commands: plan.commands(|binary| format!("/{binary}")),
        variables: [
            format!("DNSGUARD_BIN={AGENT}"),
            format!("DNSGUARD_OBJECT={OBJECT}"),
            format!("DNSGUARD_CACHE={}", programs::cache().canonicalize()?.display()),
        ]
        .into_iter()
        .map(Ok)
        .chain(numbers)
        .collect::<Result<_>>()?,
        memory: MEMORY,
        timeout: TIMEOUT,
    };
    let run = machine.run(folder)?;
    progress.done(&format!("{:.0} s, {}", run.took.as_secs_f64(), ending(&run.ending)));
    let before = tally.passed();
    if let Err(error) = judge(&run, plan, tally) {
        let log = folder.join(format!("{kernel}.log"));
        tally.fail(
            &format!("Linux {version}"),
            &error.context(format!("see {}", log.display())),
        );
    }
    Ok(Row {
        version,
        took: run.took,
        passed: tally.passed() - before,
        planned: plan.tests(),
        measured: measured(&run.output)?,
    })
}

/// Whether everything ran that was planned, and nothing failed without a word.
fn judge(run: &Run, plan: &Plan, tally: &mut Tally) -> Result<()> {
    let (failed, counted) = (tally.failed(), tally.passed());
    run.output.lines().for_each(|line| tally.read(line));
    match &run.ending {
        Ending::Ended(codes) if codes.iter().all(|code| *code == 0) => {}
        // Failed tests are counted already.
        Ending::Ended(_) if tally.failed() > failed => return Err(anyhow!("tests failed")),
        other => return Err(anyhow!("{}", ending(other))),
    }
    let is_bad = |line: &&str| kernel_log::is_bad(line) && !kernel_log::is_late(line);
    let bad: Vec<&str> = run.console.lines().filter(is_bad).collect();
    ensure!(bad.is_empty(), "its kernel said:\n{}", bad.join("\n"));
    let passed = tally.passed() - counted;
    ensure!(
        passed == plan.tests(),
        "{passed} tests ran, and {} were planned: one has another name now",
        plan.tests()
    );
    Ok(())
}

fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Ended(codes) if codes.iter().all(|code| *code == 0) => "all passed".to_owned(),
        Ending::Ended(codes) => format!("exit codes {codes:?}"),
        Ending::Failed(why) => format!("the guest could not run its tests: {why}"),
        Ending::Panicked(words) => format!("the kernel panicked; it said last:\n{words}"),
        Ending::TimedOut => format!("not done within {} s, ended", TIMEOUT.as_secs()),
    }
}

/// What the tests measured, all in one.
fn measured(output: &str) -> Result<Value> {
    let mut all = serde_json::Map::new();
    for line in output.lines().filter_map(|line| line.split_once("measured: ")) {
        let Value::Object(some) = serde_json::from_str(line.1).with_context(|| format!("not JSON: {}", line.1))? else {
            continue;
        };
        all.extend(some);
    }
    Ok(Value::Object(all))
}

/// Builds what is carried, without what only a debugger reads.
fn build(workspace: &Workspace, folder: &Path) -> Result<Built> {
    let object = KernelObject::install(workspace)?;
    let build = Build { workspace, object };
    let agent = build.static_agent(Profile::Dev)?;
    let mut command = build.cargo(&[
        "test",
        "--no-run",
        "-p",
        "guard-tests",
        "-p",
        "guard-fuzz",
        "--message-format",
        "json-render-diagnostics",
    ]);
    for name in BINARIES {
        command.args(["--test", name]);
    }
    let said = step::capture("building the tests", &mut command)?.stdout;
    let mut command = build.cargo(&["build", "-p", "guard-tests", "--bin", "vm-init"]);
    step::capture("building the guest's first process", &mut command)?;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let tests = executables(&said)?
        .into_iter()
        .map(|(name, path)| strip(&path, &folder.join(name)));
    Ok(Built {
        init: strip(&workspace.target.join("debug/vm-init"), &folder.join("vm-init"))?,
        agent,
        object: object.path(workspace),
        tests: tests.collect::<Result<_>>()?,
    })
}

/// The test binaries that cargo says it has built, each with the name of its test.
fn executables(said: &str) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for line in said.lines() {
        let message: Value = serde_json::from_str(line).with_context(|| format!("cargo said {line}"))?;
        if let (Some(path), Some(name)) = (message["executable"].as_str(), message["target"]["name"].as_str())
            && BINARIES.contains(&name)
        {
            found.push((name.to_owned(), PathBuf::from(path)));
        }
    }
    ensure!(found.len() == BINARIES.len(), "cargo built {found:?} only");
    Ok(found)
}

fn strip(from: &Path, to: &Path) -> Result<PathBuf> {
    let mut command = Command::new("strip");
    step::quiet(command.arg("-g").arg("-o").arg(to).arg(from)).or_next("apt-get install binutils")?;
    Ok(to.to_owned())
}

fn image(built: &Built) -> Result<Image> {
    let mut image = Image::new(&built.init)?;
    image.program(&built.agent, AGENT)?;
    image.file(&built.object, OBJECT);
    for test in &built.tests {
        let name = test.file_name().context("a test has a name")?;
        image.program(test, &format!("/{}", name.display()))?;
    }
    for name in CARRIED {
        image.located(name)?;
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s\n";

    fn run(ending: Ending, output: &str) -> Run {
        Run {
            ending,
            output: output.to_owned(),
            console: "[    0.000000] Linux version 6.1.0\n".to_owned(),
            took: Duration::from_secs(1),
        }
    }

    #[test]
    fn what_was_measured_is_found_behind_what_a_test_wrote() {
        let output = "test a ... measured: {\"a\":1}\nok\nmeasured: {\"b\":[2]}\n";
        assert_eq!(measured(output).unwrap(), serde_json::json!({ "a": 1, "b": [2] }));
        assert!(measured("measured: {").is_err());
    }

    #[test]
    fn a_guest_that_did_not_run_all_its_tests_has_failed() {
        let plan = Plan::two_tests();
        let judge = |run: Run| judge(&run, &plan, &mut Tally::default()).map_err(|error| error.to_string());
        assert_eq!(judge(run(Ending::Ended(vec![0]), PASSED)), Ok(()));
        let mut warned = run(Ending::Ended(vec![0]), PASSED);
        warned
            .console
            .push_str("[    7.000000] WARNING: CPU: 1 PID: 77 at kernel/bpf/core.c:1\n");
        warned
            .console
            .push_str("[    8.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:\n");
        let error = judge(warned).unwrap_err();
        assert!(
            error.contains("its kernel said:\n[    7.0") && !error.contains("stalls"),
            "{error}"
        );
        let one = PASSED.replace("2 passed", "1 passed");
        let error = judge(run(Ending::Ended(vec![0]), &one)).unwrap_err();
        assert!(error.contains("1 tests ran, and 2 were planned"), "{error}");
        let failed = PASSED.replace("0 failed", "1 failed");
        assert_eq!(
            judge(run(Ending::Ended(vec![101]), &failed)),
            Err("tests failed".to_owned())
        );
        assert_eq!(
            judge(run(Ending::Ended(vec![139]), PASSED)),
            Err("exit codes [139]".to_owned())
        );
        for ending in [
            Ending::TimedOut,
            Ending::Panicked("oops".into()),
            Ending::Failed("no".into()),
        ] {
            assert!(judge(run(ending, PASSED)).is_err());
        }
    }
}
