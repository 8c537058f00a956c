//! A program and the packet that it is run over, again and again.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};

use super::feeder::{Feed, Feeder, empty};
use crate::{
    bench::{Gate, Outcome, Way},
    sys::{self, Ran},
};

/// What came of some runs in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// What the program returned at last.
    pub returned: u32,
    /// What a run took, on the average.
    ///
    /// The kernel tells whole nanoseconds, of an empty program one in ten of what there is to tell, and counts what
    /// others do on the processor meanwhile. So this is the processor time of the thread. Where nobody disturbs, it is
    /// the kernel's figure with a fraction.
    pub ns: f64,
}

/// What is put to the kernel.
#[derive(Debug)]
enum Front {
    Program(OwnedFd),
    Feeder(Feeder),
}

/// A program, what goes before it, and a packet.
#[derive(Debug)]
pub struct Rig {
    front: Front,
    frame: Vec<u8>,
    context: Option<Vec<u8>>,
}

impl Rig {
    /// Puts packets like `frame` through a program. If nothing is to be done to them before, nothing goes before it.
    pub fn new(gate: Gate, way: Way, frame: &[u8], feed: Feed, program: BorrowedFd<'_>) -> io::Result<Self> {
        let front = if feed == Feed::default() {
            Front::Program(program.try_clone_to_owned()?)
        } else {
            Front::Feeder(Feeder::new(gate, frame, feed, program)?)
        };
        Ok(Self {
            front,
            frame: frame.to_vec(),
            context: way.context(gate, frame),
        })
    }

    /// The same with a program that lets everything pass.
    pub fn empty(gate: Gate, way: Way, frame: &[u8], feed: Feed) -> io::Result<Self> {
        Self::new(gate, way, frame, feed, empty(gate)?.as_fd())
    }

    /// Runs it so many times.
    pub fn run(&self, times: u32) -> io::Result<Run> {
        let before = processor_time()?;
        let Ran { returned, .. } = self.test(times, None)?;
        let taken = processor_time()?.saturating_sub(before);
        Ok(Run {
            returned,
            ns: taken.as_nanos() as f64 / f64::from(times.max(1)),
        })
    }

    /// Runs it so many times; what it leaves of the packet, and what it returns at last.
    pub fn look(&self, times: u32) -> io::Result<Outcome> {
        // As much as a packet can become.
        let mut out = vec![0; self.frame.len() + 1_024];
        let ran = self.test(times, Some(&mut out))?;
        out.truncate(ran.length as usize);
        Ok(Outcome {
            returned: ran.returned,
            frame: out,
        })
    }

    fn test(&self, times: u32, out: Option<&mut [u8]>) -> io::Result<Ran> {
        let program = match &self.front {
            Front::Program(program) => program.as_fd(),
            Front::Feeder(feeder) => feeder.program(),
        };
        sys::run_test(program, &self.frame, self.context.as_deref(), out, times)
    }
}

/// What this thread has had of a processor.
pub(super) fn processor_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
