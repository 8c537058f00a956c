//! The lab with the guard in front of the loop.

use std::{panic::resume_unwind, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use guard_tests::{
    client::{self, Reply},
    guard::{Guard, GuardOptions},
    topology::{Loop, Topology},
};

use super::{
    pace::{LOOPING_PPS, Pace},
    sight::Sight,
};
use crate::demo::told::Told;

/// Loading and verifying the programs takes a fraction of it.
const READY: Duration = Duration::from_secs(20);

/// Fresh resolvers, and the guard on the device that their loop goes over.
pub(crate) struct Guarded {
    built: Loop,
    guard: Guard,
}

impl Guarded {
    /// Starts all of it; nothing loops yet.
    pub(crate) fn start(topology: Topology) -> Result<Self> {
        let built = topology.start()?;
        let options = GuardOptions {
            extra_toml: format!("ports = {:?}\n", built.ports()),
            ..GuardOptions::enforce(&[built.device()])
        };
        let guard = Guard::start(built.namespace(), &options)?;
        guard.wait_ready(READY).context("the guard does not start")?;
        Sight::warm_up(&built)?;
        Ok(Self { built, guard })
    }

    /// The query that loops, as in the act without a guard; and good clients meanwhile.
    pub(crate) fn ignite(&self, length: Duration) -> Result<Sight> {
        self.look(length, || self.built.ignite())
    }

    /// The same query again, with a retry within `length`: enough to set fire to any of the loops.
    pub(crate) fn ask_again(&self, length: Duration) -> Result<Sight> {
        let built = &self.built;
        let timeout = length.mul_f64(0.45);
        self.look(length, || {
            client::ask(built.namespace(), built.server(), built.question(), 2, timeout)
        })
    }

    fn look(&self, length: Duration, client: impl FnOnce() -> Result<Reply> + Send) -> Result<Sight> {
        let (mut sight, reply) = thread::scope(|scope| {
            let client = scope.spawn(client);
            let sight = Sight::take(&self.built, length);
            let reply = client.join().unwrap_or_else(|panic| resume_unwind(panic));
            anyhow::Ok((sight?, reply.context("cannot send the query")?))
        })?;
        // What this client sends and gets is no loop either.
        let own = u64::from(reply.tries) + u64::from(reply.message.is_some());
        sight.packets = sight.packets.saturating_sub(own);
        if let Some(status) = self.guard.process().ended() {
            let words = self.guard.process().last_words();
            bail!("dnsguard ended in mid-demo with {status}:\n{words}");
        }
        Ok(sight)
    }

    /// Whether the loop goes on, with nobody asking.
    pub(crate) fn burns(&self) -> Result<bool> {
        let sample = Pace::from(self.built.packets()?).sample(&self.built)?;
        Ok(sample.pps() >= LOOPING_PPS)
    }

    /// What the guard has told so far.
    pub(crate) fn told(&self) -> Result<Told> {
        Told::from_events(&self.guard.events()?, &self.built.question().to_string())
    }

    /// Takes the guard out, as an operator does; says what went wrong with that.
    pub(crate) fn stop(self) -> Option<String> {
        self.guard.stop().err().map(|error| format!("{error:#}"))
    }
}
