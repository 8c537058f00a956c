//! The kernel object as the guard of simulated networks ([`guard_sim`]): the same frames, the same nodes, and the kernel's
//! own clock.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use guard_common::policy::{Action, Policy};
use guard_sim::{
    Guard,
    accuracy::{Findings, in_shards},
    guard::{self, Fate, Word},
};

use crate::{
    Namespace,
    bench::{Bench, Gate, Way},
};

/// Interfaces beside `lo` that a network may stand on: 2 and those after it.
const WIRES: u32 = 2;
/// The kernel's clock moves in steps of this length or less: nothing can be told of what is late by less.
const STEP: Duration = Duration::from_millis(4);
/// Shorter waits are not worth a sleep.
const NAP: Duration = Duration::from_millis(1);

/// A copy of the kernel object that watches networks, which go at the pace of the real clock.
pub struct Kernel {
    bench: Bench,
    /// What packets come in by where they do not come in on `lo`.
    ingress: Gate,
    pace: Pace,
    failed: Option<anyhow::Error>,
}

impl Kernel {
    /// A guard under this policy, on interfaces that [`in_a_namespace`] has made.
    fn new(policy: Policy, ingress: Gate) -> Result<Self> {
        Ok(Self {
            bench: Bench::new(|bench| *bench = policy)?,
            ingress,
            pace: Pace::new(),
            failed: None,
        })
    }

    fn judge(&mut self, frame: &mut Vec<u8>, way: guard::Way) -> Result<Word> {
        let gate = match way {
            guard::Way { egress: true, .. } => Gate::TcOut,
            guard::Way { ifindex: 1, .. } => Gate::TcIn,
            _ => self.ingress,
        };
        let outcome = self.bench.run_by(Way::on(way.ifindex), gate, frame)?;
        let mut fate = Fate::Drop;
        if outcome.returned == gate.pass() {
            fate = Fate::Pass;
            *frame = outcome.frame;
        }
        Ok(Word::new(fate, &self.bench.events()?))
    }
}

impl Guard for Kernel {
    fn begin(&mut self, now_ns: u64) {
        self.pace.begin(now_ns);
    }

    fn wait(&mut self, now_ns: u64) {
        self.pace.wait(now_ns);
    }

    fn pass(&mut self, frame: &mut Vec<u8>, way: guard::Way, _now_ns: u64) -> Word {
        self.judge(frame, way).unwrap_or_else(|error| {
            self.failed.get_or_insert(error);
            Word::new(Fate::Pass, [])
        })
    }
}

/// Simulated time at the pace of the real one. Who is late stays late: time may be stretched, and is never made up for,
/// so that what is to come after a second never comes sooner.
struct Pace {
    real: Instant,
    simulated_ns: u64,
}

impl Pace {
    fn new() -> Self {
        Self {
            real: Instant::now(),
            simulated_ns: 0,
        }
    }

    fn begin(&mut self, now_ns: u64) {
        self.real = Instant::now();
        self.simulated_ns = now_ns;
    }

    fn wait(&mut self, now_ns: u64) {
        let due = self.real + Duration::from_nanos(now_ns.saturating_sub(self.simulated_ns));
        let now = Instant::now();
        if due > now + NAP {
            sleep(due - now);
        } else if now > due + STEP {
            self.real += now - due - STEP;
        }
    }
}

/// A run before copies of the kernel object, as many as there are shards, all at once: most of the time each waits for
/// its clock. In every other one packets come in by XDP where they do not come in on `lo`. `tell` hears how many queries
/// each network had.
pub fn accuracy(seed: u64, queries: u64, shards: u64, tell: impl Fn(u64) + Sync) -> Result<Findings> {
    in_shards(seed, queries, shards, shards as usize, |shard| {
        let ingress = if shard.number % 2 == 0 { Gate::TcIn } else { Gate::Xdp };
        in_a_namespace(|| {
            let mut kernel = Kernel::new(guard::policy(true, Action::Drop), ingress)?;
            let findings = shard.run(&mut kernel, &tell);
            match kernel.failed {
                Some(error) => Err(error.context("put a packet through the kernel object")),
                None => Ok(findings),
            }
        })
    })
}

/// Runs in a network that has the interfaces which simulated networks stand on.
fn in_a_namespace<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace = Namespace::new()?;
    for pair in 0..WIRES {
        let (wire, other) = (2 + 2 * pair, 3 + 2 * pair);
        namespace
            .ip(&format!(
                "link add wire{wire} index {wire} type veth peer name wire{other} index {other}"
            ))
            .context("the interfaces of simulated networks")?;
    }
    namespace.run(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_late_is_not_hurried() {
        let mut pace = Pace::new();
        pace.begin(0);
        sleep(Duration::from_millis(50));
        pace.wait(1_000_000);
        let start = Instant::now();
        pace.wait(41_000_000);
        assert!(start.elapsed() >= Duration::from_millis(40) - STEP - NAP);
    }
}
