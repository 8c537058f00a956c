//! One kind of packet at one gate, with so many keys alive: what it costs there.

use anyhow::{Context as _, Result, ensure};

use super::{cost::Round, feeder::Feed, packet::Packet, rig::Rig};
use crate::{
    bench::{Bench, Gate, WIRE, Way},
    flood::cpu,
    names::{Names, Order},
};

/// The processor that measures.
const MEASURING: usize = 1;

/// Runs in a row last about so long, next to which the call itself is nothing.
const RUNS_NS: f64 = 20e6;
/// As few runs in a row as there may be, and as many.
const FEWEST: u32 = 50_000;
const MOST: u32 = 1_000_000;
/// Runs that tell how many there are to be.
const TRIAL_RUNS: u32 = 20_000;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Where the packet comes.
    pub gate: Gate,
    /// The packet.
    pub packet: Packet,
    /// Keys that are alive, and among which the packet's is drawn; 1 is the packet's own, again and again.
    pub live_keys: u32,
}

impl Subject {
    /// Whether something is done to the packet before each run.
    pub fn is_fed(&self) -> bool {
        self.packet
            .feed(self.live_keys)
            .is_ok_and(|feed| feed != Feed::default())
    }
}

/// A subject that is set up: its keys are alive.
pub struct Trial {
    subject: Subject,
    bench: Bench,
    /// An empty program, and nothing before it.
    empty: Rig,
    /// What goes before the guard's, with an empty program behind it.
    feeder: Rig,
    guard: Rig,
    runs: u32,
}

impl Trial {
    /// Sets it up, on a processor of its own. Packets seem to be on [`WIRE`], so the thread has to be where that is
    /// ([`crate::bench::beside_wires`]).
    pub fn start(subject: Subject) -> Result<Self> {
        cpu::pin(0, MEASURING)?;
        let Subject {
            gate,
            packet,
            live_keys,
        } = subject;
        let (way, frame, feed) = (Way::on(WIRE), packet.frame()?, packet.feed(live_keys)?);
        let bench = packet.bench()?;
        let guard = Rig::new(gate, way, &frame, feed, bench.program(gate)?.descriptor()?)?;
        if let Some(names) = feed.names {
            let in_turn = Feed {
                names: Some(Names {
                    order: Order::InTurn,
                    ..names
                }),
                ..feed
            };
            Rig::new(gate, way, &frame, in_turn, bench.program(gate)?.descriptor()?)?.run(live_keys)?;
        }
        let taken = guard.run(TRIAL_RUNS)?.ns;
        Ok(Self {
            subject,
            bench,
            empty: Rig::empty(gate, way, &frame, Feed::default())?,
            feeder: Rig::empty(gate, way, &frame, feed)?,
            guard,
            runs: ((RUNS_NS / taken.max(1.0)) as u32).clamp(FEWEST, MOST),
        })
    }

    /// Measures the three in turn, so often, after one turn that does not count.
    pub fn rounds(&self, rounds: usize) -> Result<Vec<Round>> {
        let Subject { gate, packet, .. } = self.subject;
        let context = || format!("{} at {}", packet, gate.program());
        let before = self.bench.counters_of(WIRE)?;
        let mut taken = Vec::new();
        for _ in 0..=rounds {
            let empty = self.empty.run(MOST)?;
            let feeder = self.feeder.run(MOST)?;
            let guard = self.guard.run(self.runs)?;
            ensure!(
                guard.returned == packet.returns(gate),
                "{}: it returns {} and not {}",
                context(),
                guard.returned,
                packet.returns(gate)
            );
            taken.push(Round {
                empty: empty.ns,
                feeder: feeder.ns,
                guard: guard.ns,
            });
        }
        let runs = taken.len() as u64 * u64::from(self.runs);
        packet
            .check(runs, &before, &self.bench.counters_of(WIRE)?)
            .with_context(context)?;
        Ok(taken.split_off(1))
    }

    /// Instructions that the verifier looked at; `None` before Linux 5.16.
    pub fn verified_instructions(&self) -> Result<Option<u32>> {
        self.bench.verified_instructions(self.subject.gate)
    }
}
