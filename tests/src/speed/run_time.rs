//! What programs take inside the running kernel, under a flood: packets that another processor wrote, and caches that
//! the rest of the kernel has been through. The kernel times each run for that (`BPF_ENABLE_STATS`), which itself takes
//! some 20 ns of each.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::AsRawFd as _,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};

use crate::flood::{Asked, Hook, Pace, Protection, Site};

/// How long the flood goes on before anything is counted.
const LEAD: Duration = Duration::from_millis(1_500);
/// For how long is counted.
const LENGTH: Duration = Duration::from_secs(3);

/// What programs take, of some million runs of each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunTime {
    /// A program that lets everything pass.
    pub empty: Timed,
    /// One that drops what has eight bytes of the name that the flood asks for: it has to read the packet, and does nothing
    /// else.
    pub filter: Timed,
    /// The guard's, which limits the name that the flood asks for.
    pub guard: Timed,
}

/// What one takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timed {
    /// Nanoseconds a run.
    pub ns: f64,
    /// Runs a second.
    pub per_second: f64,
}

impl RunTime {
    /// Floods a server that has nothing but an empty program at this hook, then one with a filter there, then the guard.
    pub fn measure(hook: Hook) -> Result<Self> {
        Ok(Self {
            empty: under_flood(Protection::Empty(hook))?,
            filter: under_flood(Protection::Filter(hook))?,
            guard: under_flood(Protection::Guard(hook))?,
        })
    }
}

/// What the kernel knows of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    ns: u64,
    runs: u64,
}

/// What the program takes that the protection brings and that runs most.
fn under_flood(protection: Protection) -> Result<Timed> {
    let _counting = enable_stats(Stats::RunTime).context("have the kernel time its programs")?;
    let others = ids()?;
    let site = Site::start(protection, Asked::OneName)?;
    let programs: Vec<u32> = ids()?.difference(&others).copied().collect();
    let flood = site.flood(Pace::Full)?;
    sleep(LEAD);
    let begin = Instant::now();
    let before: Vec<Counted> = programs.iter().map(|&id| counted(id)).collect::<Result<_>>()?;
    sleep(LENGTH);
    let after: Vec<Counted> = programs.iter().map(|&id| counted(id)).collect::<Result<_>>()?;
    let seconds = begin.elapsed().as_secs_f64();
    flood.stop()?;
    let taken = before.iter().zip(&after).map(|(before, after)| Counted {
        ns: after.ns - before.ns,
        runs: after.runs - before.runs,
    });
    let busiest = taken.max_by_key(|taken| taken.runs).filter(|taken| taken.runs > 0);
    let busiest = busiest.with_context(|| format!("no packet came to {protection}"))?;
    let runs = busiest.runs as f64;
    Ok(Timed {
        ns: busiest.ns as f64 / runs,
        per_second: runs / seconds,
    })
}

/// The numbers of all programs in the kernel.
fn ids() -> Result<BTreeSet<u32>> {
    // One may go while they are listed.
    Ok(loaded_programs().flatten().map(|program| program.id()).collect())
}

fn counted(id: u32) -> Result<Counted> {
    let program = loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .with_context(|| format!("program {id} is gone"))?;
    let descriptor = program.fd()?;
    let path = format!(
        "/proc/self/fdinfo/{}",
        std::os::fd::AsFd::as_fd(&descriptor).as_raw_fd()
    );
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse(&text).with_context(|| format!("no run times in {path}"))
}

fn parse(fdinfo: &str) -> Option<Counted> {
    let number = |name: &str| {
        let value = fdinfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().parse().ok()
    };
    Some(Counted {
        ns: number("run_time_ns")?,
        runs: number("run_cnt")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_times_stand_among_what_is_told_of_a_program() {
        let text = "pos:\t0\nprog_type:\t6\nrun_time_ns:\t1400\nrun_cnt:\t50\nrecursion_misses:\t0\n";
        assert_eq!(parse(text), Some(Counted { ns: 1_400, runs: 50 }));
        assert_eq!(parse("pos:\t0\n"), None);
    }
}
