//! What is fed: each target is one piece of the guard that reads bytes of others.

mod answer;
mod config;
mod control;
mod door;
mod edit;
mod headers;
mod kernel;
mod name;
mod question;
mod spelling;

use anyhow::Result;
use guard_common::{
    packet::{Packet, Transport},
    question::Message,
};
use guard_sim::random::Random;

use crate::driver::{self, Verdict};

/// A piece of the guard, with all that it takes to judge what it makes of a case.
pub trait Target {
    /// Makes up a case.
    fn draw(&self, random: &mut Random) -> Vec<u8>;

    /// Has the guard read a case. A panic is wrong as well.
    fn check(&mut self, case: &[u8]) -> Verdict;

    /// Smaller cases made of one that is wrong, those first that leave most out.
    fn smaller(&self, case: &[u8]) -> Vec<Vec<u8>> {
        driver::smaller(case)
    }

    /// Forgets what the cases before have left, so that a case is judged as if it were the first.
    ///
    /// # Errors
    ///
    /// There is no clean state to be had.
    fn forget(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The packet and the message of a UDP datagram, if the guard reads one; else the class of a frame that has none.
fn question_in(frame: &[u8]) -> Result<(Packet, Message), &'static str> {
    let packet = Packet::walk(frame).map_err(|_| "no ports")?;
    if packet.transport == Transport::Tcp {
        return Err("not UDP");
    }
    let (start, end) = packet.payload(frame).ok_or("no payload")?;
    let message = Message::read(frame, start, end).map_err(|_| "no question")?;
    Ok((packet, message))
}

/// A target that can be made.
#[derive(Clone, Copy)]
pub struct Kind {
    /// What it is called.
    pub name: &'static str,
    /// Of a million cases, so many are for this one: some are slower than others.
    pub per_million: u64,
    /// Whether it loads the kernel object, which takes root, and one at a time.
    pub in_kernel: bool,
    make: fn() -> Result<Box<dyn Target>>,
}

impl Kind {
    /// One of its own.
    ///
    /// # Errors
    ///
    /// What it needs is not there.
    pub fn make(&self) -> Result<Box<dyn Target>> {
        (self.make)()
    }

    /// The target of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|kind| kind.name == name)
    }

    const fn new(name: &'static str, per_million: u64, make: fn() -> Result<Box<dyn Target>>) -> Self {
        Self {
            name,
            per_million,
            in_kernel: false,
            make,
        }
    }
}

/// All targets.
pub const ALL: [Kind; 10] = [
    Kind::new("headers", 1_000_000, || Ok(Box::new(headers::Headers))),
    Kind::new("question", 1_000_000, || Ok(Box::new(question::Question::default()))),
    Kind::new("answer", 1_000_000, || Ok(Box::new(answer::Answer))),
    Kind::new("spelling", 1_000_000, || Ok(Box::new(spelling::Spelling))),
    Kind::new("door", 50_000, || Ok(Box::new(door::Door::new()))),
    Kind::new("name", 500_000, || Ok(Box::new(name::Name))),
    Kind::new("config", 4_000, || Ok(Box::new(config::Config))),
    Kind::new("edit", 4_000, || Ok(Box::new(edit::Edit))),
    Kind::new("control", 10_000, || Ok(Box::new(control::Control::new()?))),
    Kind {
        name: "kernel",
        per_million: 20_000,
        in_kernel: true,
        make: || Ok(Box::new(kernel::Kernel::new()?)),
    },
];
