//! Packets per second, from one look to the next.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use guard_tests::topology::Loop;

use super::sight::ratio;

/// What one query with its retries stays far below, and every loop is far above while it burns.
pub(crate) const LOOPING_PPS: f64 = 1_000.0;

/// How far apart the looks are.
const SAMPLE: Duration = Duration::from_millis(100);

/// The last look.
pub(crate) struct Pace {
    then: Instant,
    count: u64,
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) packets: f64,
    pub(crate) seconds: f64,
}

impl Sample {
    pub(crate) fn pps(self) -> f64 {
        ratio(self.packets, self.seconds)
    }

    /// Without packets that come at a steady pace of their own.
    pub(crate) fn without(self, pps: f64) -> Self {
        Self {
            packets: (self.packets - pps * self.seconds).max(0.0),
            ..self
        }
    }
}

impl Pace {
    /// Begins now, with this count of packets.
    pub(crate) fn from(count: u64) -> Self {
        Self {
            then: Instant::now(),
            count,
        }
    }

    /// Waits a moment, and looks again.
    pub(crate) fn sample(&mut self, built: &Loop) -> Result<Sample> {
        thread::sleep(SAMPLE);
        let (now, count) = (Instant::now(), built.packets()?);
        let sample = Sample {
            packets: count.saturating_sub(self.count) as f64,
            seconds: (now - self.then).as_secs_f64(),
        };
        *self = Self { then: now, count };
        Ok(sample)
    }
}
