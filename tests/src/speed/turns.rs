//! A program in turn with an empty one.

use std::{io, os::fd::BorrowedFd};

use anyhow::Result;

use super::{cost::Round, feeder::Feed, rig::Rig};
use crate::bench::{Gate, WIRE, Way};

/// The processor that measures.
pub(super) const MEASURING: usize = 1;

/// Runs in a row last about so long, next to which the call itself is nothing.
const RUNS_NS: f64 = 20e6;
/// As few runs in a row as there may be, and as many.
const FEWEST: u32 = 50_000;
const MOST: u32 = 1_000_000;
/// Runs that tell how many there are to be.
const TRIAL_RUNS: u32 = 20_000;

/// A program and what it is measured in turn with, over packets that seem to be on [`WIRE`].
pub(super) struct Turns {
    /// An empty program, and nothing before it.
    empty: Rig,
    /// What goes before the program, with an empty one behind it.
    feeder: Rig,
    program: Rig,
    runs: u32,
}

impl Turns {
    /// Sets them up, and finds out how long the program takes.
    pub(super) fn new(gate: Gate, frame: &[u8], feed: Feed, program: BorrowedFd<'_>) -> io::Result<Self> {
        let way = Way::on(WIRE);
        let program = Rig::new(gate, way, frame, feed, program)?;
        let taken = program.run(TRIAL_RUNS)?.ns;
        Ok(Self {
            empty: Rig::empty(gate, way, frame, Feed::default())?,
            feeder: Rig::empty(gate, way, frame, feed)?,
            program,
            runs: ((RUNS_NS / taken.max(1.0)) as u32).clamp(FEWEST, MOST),
        })
    }

    /// Runs of the program in so many rounds.
    pub(super) const fn runs(&self, rounds: usize) -> u64 {
        // One more does not count.
        (rounds as u64 + 1) * self.runs as u64
    }

    /// Measures the three in turn, so often, after one turn that does not count. What the program returned at last is
    /// looked at each time.
    pub(super) fn rounds(&self, rounds: usize, look: impl Fn(u32) -> Result<()>) -> Result<Vec<Round>> {
        let mut taken = Vec::new();
        for _ in 0..=rounds {
            let empty = self.empty.run(MOST)?;
            let feeder = self.feeder.run(MOST)?;
            let program = self.program.run(self.runs)?;
            look(program.returned)?;
            taken.push(Round {
                empty: empty.ns,
                feeder: feeder.ns,
                program: program.ns,
            });
        }
        Ok(taken.split_off(1))
    }
}
