//! A program that runs in a namespace.
//!
//! **Invariant: whoever holds a [`Process`] holds its life.** Dropping it kills and reaps the child; only the
//! child itself is ever signalled, by its pid, and only while it is ours to reap.

use std::{
    fs,
    path::PathBuf,
    process::{Child, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::Namespace;

/// Clock ticks per second in `/proc/<pid>/stat`: `USER_HZ` is 100 in the ABI of every Linux we run on.
const USER_HZ: f64 = 100.0;

/// How long a program may take to end by itself before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running child and its output.
#[derive(Debug)]
pub struct Process {
    namespace: Namespace,
    name: String,
    child: Mutex<Child>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    pub(crate) fn new(namespace: Namespace, name: String, child: Child, stdout: PathBuf, stderr: PathBuf) -> Self {
        Self {
            namespace,
            name,
            child: Mutex::new(child),
            stdout,
            stderr,
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// The program's file name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// Waits until it ends by itself; an error means that it did not.
    pub fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                anyhow::bail!("{} still runs after {timeout:?}:\n{}", self.name, self.last_words());
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// Kills it at once (SIGKILL) and reaps it. Does nothing to one that has ended.
    pub fn kill(&self) {
        let mut child = self.child();
        // Both fail only for a child that is already reaped, which is what was asked for.
        drop(child.kill());
        drop(child.wait());
    }

    /// Asks it to end (SIGTERM), waits up to 5 s, then kills it.
    ///
    /// Returns how it ended; an error means that it had to be killed.
    pub fn stop(&self) -> Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        kill(pid, Signal::SIGTERM).with_context(|| format!("stop {}", self.name))?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            sleep(Duration::from_millis(5));
        }
        self.kill();
        anyhow::bail!("{} ignored SIGTERM for {PATIENCE:?} and was killed", self.name)
    }

    /// Processor time used so far, user and system, in seconds (to 1/100).
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.pid()).with_context(|| format!("{} has ended", self.name))
    }

    /// Memory that is its own or shared and in use now, in KiB.
    pub fn rss_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).with_context(|| format!("{} has ended", self.name))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        kib.with_context(|| format!("no VmRSS in {path}"))
    }

    /// Files that it has open.
    pub fn open_files(&self) -> Result<usize> {
        self.entries("fd")
    }

    /// Its threads.
    pub fn threads(&self) -> Result<usize> {
        self.entries("task")
    }

    /// Entries of one of its folders in `/proc`.
    fn entries(&self, folder: &str) -> Result<usize> {
        let path = format!("/proc/{}/{folder}", self.pid());
        let entries = fs::read_dir(&path).with_context(|| format!("{} has ended", self.name))?;
        Ok(entries.count())
    }

    /// What it wrote to standard output so far.
    pub fn output(&self) -> String {
        self.read(&self.stdout)
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        self.read(&self.stderr)
    }

    /// The last lines of both, for error messages.
    pub fn last_words(&self) -> String {
        let (out, log) = (self.output(), self.log());
        let lines: Vec<&str> = out.lines().chain(log.lines()).collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    fn read(&self, path: &PathBuf) -> String {
        self.namespace
            .run(|| fs::read(path))
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        // A panic while it was held cannot leave a pid half changed.
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Processor time that a process, or a thread of the kernel, has used so far, in seconds (to 1/100).
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The second field is the name in parentheses, which may contain blanks; utime and stime are 14 and 15.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc stat")?;
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u32>)
        .sum::<Result<u32, _>>()?;
    Ok(f64::from(ticks) / USER_HZ)
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
