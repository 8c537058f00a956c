//! QEMU, emulating every instruction: that works on any host, one that is itself a guest as well.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{guest, image::Image, kernel::Kernel};
use crate::{
    programs::{self, Program, locate},
    sys,
};

/// The emulator.
pub(super) const QEMU: &str = "qemu-system-x86_64";

/// The first one whose `cmpxchg16b` is whole: of an older one the kernel must not know that it has the instruction.
const WHOLE_CMPXCHG16B: u32 = 10;

const POLL: Duration = Duration::from_millis(50);
/// How much of what the kernel said last an error repeats.
const LAST_LINES: usize = 12;

/// A guest that can be booted.
#[derive(Debug)]
pub struct Machine<'a> {
    /// What runs in it.
    pub kernel: Kernel,
    /// Its files.
    pub image: &'a Image,
    /// What is run in it, one after the other: path and arguments, separated by blanks.
    pub commands: Vec<String>,
    /// Their environment, `NAME=value` each.
    pub variables: Vec<String>,
    /// MiB.
    pub memory: u32,
    /// How long all of it may take.
    pub timeout: Duration,
}

/// What a guest did.
#[derive(Debug)]
pub struct Run {
    /// How it ended.
    pub ending: Ending,
    /// What its programs wrote, both streams.
    pub output: String,
    /// What its kernel said.
    pub console: String,
    /// How long it took, boot and all.
    pub took: Duration,
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every program came to its end, with these exit codes; 128 and more is a signal.
    Ended(Vec<i32>),
    /// Its first process gave up.
    Failed(String),
    /// It was gone before it had said so: the kernel panicked. What it said last.
    Panicked(String),
    /// It took longer than it may, and was ended.
    TimedOut,
}

impl Machine<'_> {
    /// Boots it and waits for its end. What its programs write goes to `NAME.log` in `folder` as it comes, and what the
    /// kernel says to `NAME.console`.
    pub fn run(&self, folder: &Path) -> Result<Run> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let file = |kind: &str| folder.join(format!("{}.{kind}", self.kernel));
        let [archive, console, log, report, errors] = ["cpio", "console", "log", "report", "qemu"].map(file);
        for path in [&console, &log, &report] {
            File::create(path).with_context(|| format!("write {}", path.display()))?;
        }
        self.image
            .write(self.kernel, &self.commands, &self.variables, &archive)?;
        let mut command = qemu(&locate(QEMU)?)?;
        command
            .args(["-m", &self.memory.to_string(), "-kernel"])
            .arg(self.kernel.image()?)
            .arg("-initrd")
            .arg(&archive);
        for path in [&console, &log, &report] {
            command.arg("-serial").arg(format!("file:{}", path.display()));
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&errors)?);
        sys::die_with_spawner(&mut command);
        let start = Instant::now();
        let child = command.spawn().context("start QEMU")?;
        let is_over = wait(child, self.timeout)?;
        let took = start.elapsed();
        let read = |path: &PathBuf| -> Result<String> {
            let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
            Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
        };
        let (output, said) = (read(&log)?, read(&console)?);
        let ending = match (outcome(&read(&report)?, self.commands.len()), is_over) {
            (Some(ending), _) => ending,
            (None, false) => Ending::TimedOut,
            (None, true) => {
                let errors = read(&errors)?;
                let lines: Vec<&str> = said.lines().chain(errors.lines()).collect();
                Ending::Panicked(lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"))
            }
        };
        for path in [&archive, &report, &errors] {
            fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(Run {
            ending,
            output,
            console: said,
            took,
        })
    }
}

/// Waits for its end; kills it when time is up. Says whether it ended by itself.
fn wait(mut child: Child, timeout: Duration) -> Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        if child.try_wait().context("wait for QEMU")?.is_some() {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            child.kill().context("end QEMU")?;
            child.wait().context("wait for QEMU")?;
            return Ok(false);
        }
        sleep(POLL);
    }
}

/// What the first process reported, if it got that far.
fn outcome(report: &str, commands: usize) -> Option<Ending> {
    let failed = report.lines().find_map(|line| line.strip_prefix(guest::FAILED));
    if let Some(why) = failed {
        return Some(Ending::Failed(why.to_owned()));
    }
    let codes: Vec<i32> = report
        .lines()
        .filter_map(|line| line.strip_prefix(guest::EXIT)?.parse().ok())
        .collect();
    (codes.len() == commands).then_some(Ending::Ended(codes))
}

/// A command that emulates a machine without any device but serial lines.
fn qemu(program: &Program) -> Result<Command> {
    let version = programs::version(QEMU)?;
    let major: u32 = version.split('.').next().unwrap_or_default().parse().unwrap_or(0);
    ensure!(major > 0, "{QEMU} has no version: {version}");
    let model = if major < WHOLE_CMPXCHG16B {
        "max,la57=off,-cx16"
    } else {
        "max,la57=off"
    };
    let mut command = program.command();
    if let Some(root) = program.root() {
        for folder in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(root.join(folder));
        }
    }
    // One thread for both processors: with more, a program that is replaced under traffic crashes the guest.
    command.args(["-accel", "tcg,thread=single", "-cpu", model, "-smp", "2"]);
    for option in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        command.arg(option);
    }
    for (option, value) in [
        ("-display", "none"),
        ("-monitor", "none"),
        ("-nic", "none"),
        ("-rtc", "base=utc"),
    ] {
        command.args([option, value]);
    }
    // A panic reboots at once, and QEMU ends instead.
    let line = "console=ttyS0,115200 loglevel=5 panic=-1 oops=panic net.ifnames=0 random.trust_cpu=on";
    command.args(["-append", line]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_all_programs_said_is_an_end() {
        assert_eq!(outcome("exit 0\nexit 101\n", 2), Some(Ending::Ended(vec![0, 101])));
        assert_eq!(outcome("exit 0\n", 2), None, "it died in the second one");
        assert_eq!(outcome("", 1), None);
        assert_eq!(
            outcome("exit 0\nfailed: no /guest\n", 2),
            Some(Ending::Failed("no /guest".to_owned()))
        );
    }

    #[test]
    fn one_that_takes_too_long_is_ended() {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!wait(child, Duration::from_millis(10)).unwrap());
        let child = Command::new("true").spawn().unwrap();
        assert!(wait(child, Duration::from_secs(10)).unwrap());
    }
}
