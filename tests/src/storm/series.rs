//! Packets to link-local services, 100 ms at a time.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::policer::{Meter, Policed, Policer};

/// How far apart the looks are.
const INTERVAL: Duration = Duration::from_millis(100);

/// What happened from one look to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// How long that was.
    pub seconds: f64,
    /// Packets that the node wanted to send, before a guard.
    pub offered: u64,
    /// Of those, packets that left the node.
    pub left: u64,
    /// Of those, packets that the policer let through.
    pub passed: u64,
}

impl Sample {
    fn since(self, before: Self) -> Self {
        Self {
            seconds: self.seconds - before.seconds,
            offered: self.offered.saturating_sub(before.offered),
            left: self.left.saturating_sub(before.left),
            passed: self.passed.saturating_sub(before.passed),
        }
    }
}

/// Looks until it is over.
pub(super) fn record(meter: &Meter, policer: &Policer, over: &AtomicBool) -> Result<Vec<Sample>> {
    let start = Instant::now();
    let look = || -> Result<Sample> {
        let offered = meter.offered()?;
        let policed = policer.counts()?;
        let sum = |count: fn(&Policed) -> u64| policed.values().map(count).sum::<u64>();
        let passed = sum(|policed| policed.passed);
        Ok(Sample {
            seconds: start.elapsed().as_secs_f64(),
            offered,
            left: passed + sum(|policed| policed.dropped),
            passed,
        })
    };
    let mut samples = Vec::new();
    let mut before = look()?;
    while !over.load(Ordering::Relaxed) {
        sleep(INTERVAL);
        let now = look()?;
        samples.push(now.since(before));
        before = now;
    }
    Ok(samples)
}
