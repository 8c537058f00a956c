//! Which processor does what, and how busy one was.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::{Pid, SysconfVar, sysconf},
};

/// The core of the flood and of the good clients; the server's, if there is no other.
pub(super) const SENDER: usize = 1;
/// The core of the server: its receive queue and its programs.
pub(super) const RECEIVER: usize = 0;

/// Keeps a thread on one core; 0 is the calling thread.
pub(crate) fn pin(thread: i32, cpu: usize) -> Result<()> {
    let cpus = online();
    let mut set = CpuSet::new();
    set.set(cpu.min(cpus - 1))?;
    sched_setaffinity(Pid::from_raw(thread), &set).with_context(|| format!("keep thread {thread} on CPU {cpu}"))
}

/// How many cores there are, also for a thread that is kept on one of them.
pub(crate) fn online() -> usize {
    let count = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    count.and_then(|count| usize::try_from(count).ok()).unwrap_or(1)
}

/// Keeps every thread of a process on one core.
pub(super) fn pin_all(process: u32, cpu: usize) -> Result<()> {
    for thread in numbers(&format!("/proc/{process}/task")) {
        pin(thread, cpu)?;
    }
    Ok(())
}

/// The threads that poll receive queues of devices called `device`, in any network.
pub(super) fn queue_threads(device: &str) -> BTreeSet<i32> {
    let prefix = format!("napi/{device}-");
    numbers("/proc")
        .filter(|thread| {
            let name = fs::read_to_string(format!("/proc/{thread}/comm"));
            name.is_ok_and(|name| name.starts_with(&prefix))
        })
        .collect()
}

/// The entries of a directory of `/proc` that are numbers.
fn numbers(directory: &str) -> impl Iterator<Item = i32> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// How busy the server's core has been since boot, in ticks of `/proc/stat`.
#[derive(Clone, Copy, Debug)]
pub struct Busy {
    busy: u64,
    all: u64,
}

impl Busy {
    /// As it is now.
    pub fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Self::of(&stat).context("no server's core in /proc/stat")
    }

    /// The share of its time that the core was busy since `earlier`, 0 to 1.
    pub fn since(self, earlier: Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all);
        #[expect(clippy::cast_precision_loss, reason = "no run takes 2^52 ticks")]
        let share = self.busy.saturating_sub(earlier.busy) as f64 / all.max(1) as f64;
        share
    }

    /// user, nice, system, idle, iowait, irq, softirq, steal (proc_stat(5)).
    fn of(stat: &str) -> Option<Self> {
        let label = format!("cpu{RECEIVER} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&label))?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .take(8)
            .map_while(|tick| tick.parse().ok())
            .collect();
        let all: u64 = ticks.iter().sum();
        Some(Self {
            busy: all - ticks.get(3)? - ticks.get(4)?,
            all,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_idles_or_waits_is_not_busy() {
        let earlier = Busy::of("cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 10 0 10 70 10 0 0 0 0 0\n").unwrap();
        let later =
            Busy::of("cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 20 0 30 100 30 0 20 0 5 0\ncpu1 1 1 1 1 1 1 1 1\n").unwrap();
        assert_eq!(later.since(earlier), 0.5);
        assert_eq!(later.since(later), 0.0);
    }
}
