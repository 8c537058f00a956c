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
    pace::{LOOPING_PPS, Pace, Sample},
    sight::{CLIENTS_PER_SECOND, Sight, looped, ratio},
};

/// The first retry comes after 2 s, the second after 4.
const PATIENCE: Duration = Duration::from_millis(5_500);

/// What a loop did until it was killed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fire {
    /// Packets from the query on until the good clients came.
    pub(crate) packets_before: u64,
    /// The sample in which it caught fire: no good clients yet.
    pub(crate) first: Sample,
    /// Those that followed, with the packets of good clients in them.
    pub(crate) later: Vec<Sample>,
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
        self.packets_before as f64 + looped([&self.sight].into_iter(), per_client)
    }

    /// While it burns. Some loops pause until the client's next try, and those pauses are no part of their pace.
    pub(crate) fn pps(&self, per_client: f64) -> f64 {
        let (packets, seconds) = self.looping(per_client).fold((0.0, 0.0), |(packets, seconds), sample| {
            (packets + sample.packets, seconds + sample.seconds)
        });
        ratio(packets, seconds)
    }

    /// How long it burnt, pauses left out.
    pub(crate) fn seconds(&self, per_client: f64) -> f64 {
        self.looping(per_client).map(|sample| sample.seconds).sum()
    }

    /// In the worst 100 ms.
    pub(crate) fn peak_pps(&self, per_client: f64) -> f64 {
        self.looping(per_client).map(Sample::pps).fold(0.0, f64::max)
    }

    /// The samples in which it burnt, without the good clients.
    fn looping(&self, per_client: f64) -> impl Iterator<Item = Sample> {
        let clients = f64::from(CLIENTS_PER_SECOND) * per_client;
        let later = self.later.iter().map(move |sample| sample.without(clients));
        [self.first]
            .into_iter()
            .chain(later)
            .filter(|sample| sample.pps() >= LOOPING_PPS)
    }
}

fn watch(built: &Loop, start: u64, length: Duration) -> Result<Fire> {
    let first = wait_for_fire(built, start)?;
    let packets_before = built.packets()?.saturating_sub(start);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let later = scope.spawn(|| samples_until(&over, built));
        let sight = Sight::take(built, length);
        over.store(true, Ordering::Relaxed);
        let later = later.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok(Fire {
            packets_before,
            first,
            later: later?,
            sight: sight?,
        })
    })
}

fn wait_for_fire(built: &Loop, start: u64) -> Result<Sample> {
    let mut pace = Pace::from(start);
    let ignited = Instant::now();
    while ignited.elapsed() < PATIENCE {
        let sample = pace.sample(built)?;
        if sample.pps() >= LOOPING_PPS {
            return Ok(sample);
        }
    }
    bail!(
        "{} did not loop within {PATIENCE:?} of its query; next: try again, or another pair (cargo xtask demo --help)",
        built.topology()
    )
}

fn samples_until(over: &AtomicBool, built: &Loop) -> Result<Vec<Sample>> {
    let mut pace = Pace::from(built.packets()?);
    let mut samples = Vec::new();
    while !over.load(Ordering::Relaxed) {
        samples.push(pace.sample(built)?);
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use guard_tests::Report;

    use super::*;

    const PER_CLIENT: f64 = 6.0;

    fn sample(packets: f64) -> Sample {
        Sample { packets, seconds: 0.1 }
    }

    #[test]
    fn pauses_and_good_clients_are_no_part_of_a_loop_s_pace() {
        let clients = f64::from(CLIENTS_PER_SECOND) * PER_CLIENT * 0.1;
        let fire = Fire {
            packets_before: 310,
            first: sample(300.0),
            later: [500.0, 0.0, 0.0, 400.0].map(|looped| sample(looped + clients)).to_vec(),
            sight: Sight {
                packets: 900 + 1_200,
                report: Report {
                    sent: 1_200,
                    lost: 1_200,
                    ..Report::default()
                },
                ..Sight::default()
            },
        };
        assert_eq!(fire.pps(PER_CLIENT).round(), 4_000.0);
        assert_eq!(fire.peak_pps(PER_CLIENT).round(), 5_000.0);
        assert_eq!((fire.seconds(PER_CLIENT) * 10.0).round(), 3.0);
        assert_eq!(fire.looped_packets(PER_CLIENT), 1_210.0);
    }
}
