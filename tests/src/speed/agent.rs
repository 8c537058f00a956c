//! What the agent itself takes while packets pass that are no event.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::flood::{Asked, Hook, Pace, Protection, Site};

/// How long it runs before anything is counted: it has loaded its programs, and read the host.
const LEAD: Duration = Duration::from_secs(3);

/// What it took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AgentCost {
    /// Packets a second that its device took in: queries for distinct names.
    pub pps: f64,
    /// The share of one processor that it used, to a hundredth of a second in all.
    pub cpu_ratio: f64,
    /// Memory that it used at the end, in KiB.
    pub rss_kib: u64,
}

impl AgentCost {
    /// Lets packets pass a guard that enforces without a limit, so many a second, for `length`. It has to tell nothing.
    pub fn measure(pps: u32, length: Duration) -> Result<Self> {
        let site = Site::start(Protection::Judge(Hook::Auto), Asked::RandomNames)?;
        let guard = site.guard().context("a guard is there")?;
        let flood = match pps {
            0 => None,
            _ => Some(site.flood(Pace::PerSecond(pps))?),
        };
        sleep(LEAD);
        let events = guard.events()?.len();
        let taken = || Ok::<_, anyhow::Error>((site.taken()?, guard.process().cpu_seconds()?));
        let (start, (packets, cpu)) = (Instant::now(), taken()?);
        sleep(length);
        let (seconds, (all_packets, all_cpu)) = (start.elapsed().as_secs_f64(), taken()?);
        drop(flood);
        let told = guard.events()?;
        ensure!(
            told.len() == events,
            "the guard tells of what should be no event: {}",
            told.last().map(ToString::to_string).unwrap_or_default()
        );
        Ok(Self {
            pps: (all_packets - packets) as f64 / seconds,
            cpu_ratio: (all_cpu - cpu) / seconds,
            rss_kib: guard.process().rss_kib()?,
        })
    }
}
