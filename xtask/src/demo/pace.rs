//! Packets per second, from one look to the next.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use guard_tests::topology::Loop;

/// What one query with its retries stays far below, and every loop is far above while it burns.
pub(crate) const LOOPING_PPS: f64 = 1_000.0;

/// How far apart the looks are.
const SAMPLE: Duration = Duration::from_millis(100);

/// The last look.
pub(crate) struct Pace {
    then: Instant,
    count: u64,
}

impl Pace {
    /// Begins now, with this count of packets.
    pub(crate) fn from(count: u64) -> Self {
        Self {
            then: Instant::now(),
            count,
        }
    }

    /// Waits a moment, looks again, and tells the pace in between.
    pub(crate) fn sample(&mut self, built: &Loop) -> Result<f64> {
        thread::sleep(SAMPLE);
        let (now, count) = (Instant::now(), built.packets()?);
        let pps = count.saturating_sub(self.count) as f64 / (now - self.then).as_secs_f64();
        *self = Self { then: now, count };
        Ok(pps)
    }
}
