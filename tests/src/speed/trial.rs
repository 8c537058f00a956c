//! One kind of packet at one gate, with so many keys alive: what it costs there.

use anyhow::{Context as _, Result, ensure};

use super::{
    cost::Round,
    feeder::Feed,
    packet::Packet,
    rig::Rig,
    turns::{MEASURING, Turns},
};
use crate::{
    bench::{Bench, Gate, WIRE, Way},
    flood::cpu,
    names::{Names, Order},
};

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
    turns: Turns,
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
        let (frame, feed) = (packet.frame()?, packet.feed(live_keys)?);
        let bench = packet.bench()?;
        if let Some(names) = feed.names {
            let in_turn = Feed {
                names: Some(Names {
                    order: Order::InTurn,
                    ..names
                }),
                ..feed
            };
            let program = bench.program(gate)?;
            Rig::new(gate, Way::on(WIRE), &frame, in_turn, program.descriptor()?)?.run(live_keys)?;
        }
        let turns = Turns::new(gate, &frame, feed, bench.program(gate)?.descriptor()?)?;
        Ok(Self { subject, bench, turns })
    }

    /// Measures it in turn with what it is compared to, so often, after one turn that does not count.
    pub fn rounds(&self, rounds: usize) -> Result<Vec<Round>> {
        let Subject { gate, packet, .. } = self.subject;
        let context = || format!("{} at {}", packet, gate.program());
        let before = self.bench.counters_of(WIRE)?;
        let taken = self.turns.rounds(rounds, |returned| {
            let due = packet.returns(gate);
            ensure!(returned == due, "{}: it returns {returned} and not {due}", context());
            Ok(())
        })?;
        packet
            .check(self.turns.runs(rounds), &before, &self.bench.counters_of(WIRE)?)
            .with_context(context)?;
        Ok(taken)
    }

    /// Instructions that the verifier looked at; `None` before Linux 5.16.
    pub fn verified_instructions(&self) -> Result<Option<u32>> {
        self.bench.verified_instructions(self.subject.gate)
    }
}
