//! The loop without a guard: one query, and everything that comes of it.

use std::{
    panic::resume_unwind,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use guard_tests::topology::{Loop, Topology};

use super::{
    pace::{LOOPING_PPS, Pace},
    sight::{CLIENTS_PER_SECOND, Sight, ratio},
};

/// The first retry comes after 2 s, the second after 4.
const PATIENCE: Duration = Duration::from_millis(5_500);

/// What a loop did until it was killed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fire {
    /// Packets from the query on until the good clients came.
    pub(crate) packets_before: u64,
    /// From the moment the loop caught fire until the good clients came.
    pub(crate) seconds_before: f64,
    /// Packets per second in the first 100 ms of the loop.
    pub(crate) first_pps: f64,
    /// The most packets per second in any later 100 ms, those for the good clients included.
    pub(crate) peak_pps: f64,
    /// What the good clients got, with the loop burning beside them.
    pub(crate) sight: Sight,
}

impl Fire {
    /// Builds the loop, sets fire to it, watches it for `length`, and kills it.
    pub(crate) fn watch(topology: Topology, length: Duration) -> Result<Self> {
        let built = topology.start()?;
        Sight::warm_up(&built)?;
        let start = built.packets()?;
        thread::scope(|scope| {
            let client = scope.spawn(|| built.ignite());
            let fire = watch(&built, start, length);
            // The client goes on asking the dead until its tries are over.
            built.kill();
            let reply = client.join().unwrap_or_else(|panic| resume_unwind(panic));
            reply.context("cannot send the query")?;
            fire
        })
    }

    /// All packets of the loop, if an answered client costs `per_client`.
    pub(crate) fn looped_packets(&self, per_client: f64) -> f64 {
        self.packets_before as f64 + self.sight.looped(per_client)
    }

    /// From the moment it caught fire until it was killed.
    pub(crate) fn mean_pps(&self, per_client: f64) -> f64 {
        ratio(
            self.looped_packets(per_client),
            self.seconds_before + self.sight.seconds,
        )
    }

    /// In the worst 100 ms.
    pub(crate) fn peak_pps(&self, per_client: f64) -> f64 {
        let clients = f64::from(CLIENTS_PER_SECOND) * per_client;
        self.first_pps.max(self.peak_pps - clients)
    }
}

fn watch(built: &Loop, start: u64, length: Duration) -> Result<Fire> {
    let (caught, first_pps) = wait_for_fire(built, start)?;
    let packets_before = built.packets()?.saturating_sub(start);
    let seconds_before = caught.elapsed().as_secs_f64();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let peak = scope.spawn(|| peak_until(&over, built));
        let sight = Sight::take(built, length);
        over.store(true, Ordering::Relaxed);
        let peak = peak.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok(Fire {
            packets_before,
            seconds_before,
            first_pps,
            peak_pps: peak?,
            sight: sight?,
        })
    })
}

/// When the loop caught fire, and how fast it was then.
fn wait_for_fire(built: &Loop, start: u64) -> Result<(Instant, f64)> {
    let mut pace = Pace::from(start);
    let ignited = Instant::now();
    while ignited.elapsed() < PATIENCE {
        let began = Instant::now();
        let pps = pace.sample(built)?;
        if pps >= LOOPING_PPS {
            return Ok((began, pps));
        }
    }
    bail!(
        "{} did not loop within {PATIENCE:?} of its query; next: try again, or another pair (cargo xtask demo --help)",
        built.topology()
    )
}

fn peak_until(over: &AtomicBool, built: &Loop) -> Result<f64> {
    let mut pace = Pace::from(built.packets()?);
    let mut peak = 0.0_f64;
    while !over.load(Ordering::Relaxed) {
        peak = peak.max(pace.sample(built)?);
    }
    Ok(peak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_are_no_part_of_the_loop_s_figures() {
        let sight = Sight {
            packets: 300_000 + 1_200,
            seconds: 3.0,
            report: guard_tests::Report {
                sent: 600,
                lost: 600,
                ..guard_tests::Report::default()
            },
            ..Sight::default()
        };
        let fire = Fire {
            packets_before: 20_600,
            seconds_before: 0.2,
            first_pps: 103_000.0,
            peak_pps: 101_200.0,
            sight,
        };
        let per_client = 6.0;
        assert_eq!(fire.looped_packets(per_client), 321_200.0);
        assert_eq!(fire.mean_pps(per_client).round(), 100_375.0);
        assert_eq!(fire.peak_pps(per_client), 103_000.0);
    }
}
