//! Two processors on one key.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{cost::Spread, packet::Packet, rig::Rig};
use crate::{
    bench::{Bench, Gate, WIRE, Way},
    flood::cpu,
};

/// How long both are at it. Nobody's time is passed in here: two processors have to be at it at once.
const LENGTH: Duration = Duration::from_millis(1_500);
/// Runs in a row: some hundredths of a second.
const RUNS: u32 = 50_000;

/// The gate. A test run of XDP waits for other processors at its beginning and end, and one of TC does not.
const GATE: Gate = Gate::TcIn;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// What a packet takes on each processor while the other one is not at it, in ns.
    pub alone_ns: [f64; 2],
    /// What it takes while both are.
    pub together_ns: [f64; 2],
    /// Packets that both had together, all of which were counted, once and with their verdict.
    pub packets: u64,
    /// The share of the time for which each had its processor, the lesser of the two. With less than all of it, they
    /// were not at it at once all the time, and the ratio flatters.
    pub undisturbed: f64,
}

impl Pair {
    /// Puts packets of one key through one program on two processors, first on one and then on both at once. The thread
    /// has to be where [`WIRE`] is.
    pub fn measure(packet: Packet) -> Result<Self> {
        ensure!(cpu::online() > 1, "two processors are needed, and there is one");
        let bench = packet.bench()?;
        let workers = [Worker::new(0, packet, &bench)?, Worker::new(1, packet, &bench)?];
        let before = bench.counters_of(WIRE)?;
        let [first, second] = &workers;
        let alone = [first.alone()?, second.alone()?];
        let finished = Finished::of(workers.len());
        let begin = Barrier::new(workers.len());
        let together = thread::scope(|scope| {
            let start = |worker| {
                let (finished, begin) = (&finished, &begin);
                scope.spawn(move || Worker::beside(worker, begin, finished))
            };
            let threads = workers.each_ref().map(start);
            threads.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let [first, second] = together;
        let together = [first?, second?];
        let counted = [&alone[..], &together[..]].concat();
        let runs = counted.iter().map(|taken| taken.runs).sum();
        packet.check(runs, &before, &bench.counters_of(WIRE)?)?;
        Ok(Self {
            alone_ns: alone.map(|taken| taken.ns),
            together_ns: together.map(|taken| taken.ns),
            packets: together.iter().map(|taken| taken.runs).sum(),
            undisturbed: together.iter().map(|taken| taken.undisturbed).fold(1.0, f64::min),
        })
    }

    /// Packets that two processors get done in the time in which one does one.
    pub fn throughput_ratio(&self) -> f64 {
        let pairs = self.alone_ns.iter().zip(self.together_ns);
        pairs.map(|(alone, together)| alone / together).sum()
    }
}

/// One of the processors.
struct Worker {
    cpu: usize,
    packet: Packet,
    guard: Rig,
    /// What goes before the guard's program takes so much itself, in ns.
    feeder_ns: f64,
}

#[derive(Clone, Copy)]
struct Taken {
    ns: f64,
    runs: u64,
    undisturbed: f64,
}

impl Worker {
    fn new(cpu: usize, packet: Packet, bench: &Bench) -> Result<Self> {
        let (way, frame, feed) = (Way::on(WIRE), packet.frame()?, packet.feed(1)?);
        let guard = Rig::new(GATE, way, &frame, feed, bench.program(GATE)?.descriptor()?)?;
        let feeder = Rig::empty(GATE, way, &frame, feed)?;
        let empty = Rig::empty(GATE, way, &frame, Default::default())?;
        cpu::pin(0, cpu)?;
        let median = |rig: &Rig| -> Result<f64> {
            let runs: Vec<f64> = (0..11).map(|_| Ok(rig.run(RUNS)?.ns)).collect::<Result<_>>()?;
            Ok(Spread::of(runs).median)
        };
        Ok(Self {
            cpu,
            packet,
            guard,
            feeder_ns: median(&feeder)? - median(&empty)?,
        })
    }

    fn alone(&self) -> Result<Taken> {
        cpu::pin(0, self.cpu)?;
        self.work(&Finished::of(1))
    }

    fn beside(&self, begin: &Barrier, finished: &Finished) -> Result<Taken> {
        let pinned = cpu::pin(0, self.cpu);
        begin.wait();
        let taken = pinned.and_then(|()| self.work(finished));
        if taken.is_err() {
            finished.all();
        }
        taken
    }

    /// Runs until the time is over, and for as long as somebody else does after that: what is measured is measured
    /// beside him.
    fn work(&self, finished: &Finished) -> Result<Taken> {
        let start = Instant::now();
        let end = start + LENGTH;
        let (mut taken, mut runs) = (Vec::new(), 0);
        let (mut over, mut processor_ns) = (false, 0.0);
        while !over || !finished.are_all() {
            let run = self.guard.run(RUNS)?;
            runs += u64::from(RUNS);
            processor_ns += run.ns * f64::from(RUNS);
            ensure!(
                run.returned == self.packet.returns(GATE),
                "{} returns {}",
                self.packet,
                run.returned
            );
            if !over {
                taken.push(run.ns);
            }
            if !over && Instant::now() >= end {
                over = true;
                finished.one_more();
            }
        }
        // The first run may have begun before the other's.
        let steady = taken
            .get(1..)
            .filter(|steady| !steady.is_empty())
            .context("no run in time")?;
        Ok(Taken {
            ns: Spread::of(steady.iter().copied()).median - self.feeder_ns,
            runs,
            undisturbed: processor_ns / start.elapsed().as_nanos() as f64,
        })
    }
}

/// How many have had their time.
struct Finished {
    count: AtomicUsize,
    of: usize,
}

impl Finished {
    fn of(workers: usize) -> Self {
        Self {
            count: AtomicUsize::new(0),
            of: workers,
        }
    }

    fn one_more(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// Nobody needs to wait for anybody: there is an error.
    fn all(&self) {
        self.count.fetch_add(self.of, Ordering::SeqCst);
    }

    fn are_all(&self) -> bool {
        self.count.load(Ordering::SeqCst) >= self.of
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_do_not_hinder_each_other_do_twice_as_much() {
        let pair = |together_ns| Pair {
            alone_ns: [100.0; 2],
            together_ns,
            packets: 1,
            undisturbed: 1.0,
        };
        assert_eq!(pair([100.0, 100.0]).throughput_ratio(), 2.0);
        assert_eq!(pair([200.0, 200.0]).throughput_ratio(), 1.0);
    }
}
