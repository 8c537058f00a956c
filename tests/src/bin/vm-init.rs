//! The first process of a guest: mounts what programs expect, loads modules, runs what it was told to, and switches the
//! machine off.

#![forbid(unsafe_code)]

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use guard_tests::vm::guest;
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
    unistd::sync,
};

/// What is mounted, and where.
const MOUNTS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// What cgroups below the root may limit.
const CONTROLLERS: (&str, &str) = ("/sys/fs/cgroup/cgroup.subtree_control", "+memory");

/// Where programs look for others.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

fn main() -> Result<()> {
    let done = prepare().and_then(|()| work());
    if let Err(error) = done {
        say(&format!("{}{error:#}", guest::FAILED).replace('\n', " "))?;
    }
    sync();
    // Without this the kernel would panic, because its first process ended.
    reboot(RebootMode::RB_POWER_OFF).context("switch off")?;
    Ok(())
}

fn prepare() -> Result<()> {
    for (kind, place) in MOUNTS {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount a {kind} on {place}"))?;
    }
    let (place, controllers) = CONTROLLERS;
    fs::write(place, controllers).with_context(|| format!("write {controllers} to {place}"))?;
    for path in lines(guest::MODULES)? {
        let module = File::open(&path).with_context(|| format!("open {path}"))?;
        finit_module(&module, c"", ModuleInitFlags::empty()).with_context(|| format!("load {path}"))?;
    }
    Ok(())
}

/// Runs one command after the other, also after one has failed.
fn work() -> Result<()> {
    let variables = lines(guest::ENVIRONMENT)?;
    for line in lines(guest::COMMANDS)? {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command")?;
        let mut command = Command::new(program);
        command.args(words).current_dir("/root").env_clear();
        command.env("PATH", PATH).env("HOME", "/root");
        command.envs(variables.iter().filter_map(|variable| variable.split_once('=')));
        let output = OpenOptions::new().write(true).open(guest::OUTPUT);
        let output = output.with_context(|| format!("open {}", guest::OUTPUT))?;
        command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
        let status = command.status().with_context(|| format!("start {program}"))?;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        say(&format!("{}{code}", guest::EXIT))?;
    }
    Ok(())
}

fn lines(path: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Tells whoever booted this.
fn say(text: &str) -> Result<()> {
    let report = OpenOptions::new().write(true).open(guest::REPORT);
    let mut report = report.with_context(|| format!("open {}", guest::REPORT))?;
    writeln!(report, "{text}").context("report")
}
