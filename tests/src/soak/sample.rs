//! What is seen of a node now and then.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    balance::{Judged, Wire},
    footprint::Footprint,
};

/// One look at a node.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// Seconds since the soak began.
    pub at_s: f64,
    /// `steady`, whose agent lives, or `restarted`, whose agent is killed and stopped.
    pub node: &'static str,
    /// Agents that this node had, this one included.
    pub agents: u64,
    /// What the agent takes.
    pub footprint: Footprint,
    /// The number of the policy in force.
    pub policy_generation: u64,
    /// Breakers that are open.
    pub loops_open: u64,
    /// Of each of the larger maps, the share of its lines that are full.
    pub map_pressure: BTreeMap<String, f64>,
    /// Milliseconds that each scrape of the metrics took since the sample before.
    pub scrapes_ms: Vec<f64>,
    /// If everybody rested: what was compared.
    pub settled: Option<Settled>,
    /// What was done so far.
    pub done: Done,
}

/// What was done at a node so far.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Done {
    /// Queries that clients put on their wire.
    pub asked: u64,
    /// Good queries, of those: neither looped, nor over a budget, nor spoiled.
    pub good: u64,
    /// Of these, the ones that were answered.
    pub good_answered: u64,
    /// Breakers that opened, since the agent's counters began.
    pub trips: u64,
    /// Loops that were lit.
    pub lit: u64,
    /// Loops that were put out, after which their name resolved.
    pub put_out: u64,
    /// Interfaces that came, were renamed, flapped, and went.
    pub churned: u64,
    /// Queries over some of them, each counted at its own.
    pub over_churned: u64,
    /// Changes of the policy over the control socket.
    pub set: u64,
    /// Changes of the configuration file.
    pub rewritten: u64,
    /// Agents that were killed with SIGKILL.
    pub killed: u64,
    /// Agents that were stopped with SIGTERM and left the guard in force.
    pub stopped: u64,
    /// Agents that were stopped with SIGTERM and took the guard out.
    pub detached: u64,
}

/// What was compared while everybody rested: sums over all devices since the guard's counters began.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Settled {
    /// What does not add up, a sentence each.
    pub wrong: Vec<String>,
    /// Queries that were sent over guarded devices.
    pub queries: u64,
    /// Of these, the ones that passed.
    pub passed: u64,
    /// Of these, the ones that were dropped.
    pub dropped: u64,
    /// Of these, the ones that were answered.
    pub answered: u64,
    /// Responses that were sent.
    pub responses: u64,
    /// Packets that the kernel itself had no room for.
    pub no_room: u64,
    /// Programs in the kernel that use this guard's maps.
    pub programs: usize,
    /// Links of these programs.
    pub links: usize,
    /// Maps that they use.
    pub maps: usize,
}

impl Settled {
    /// Adds a device.
    pub(super) const fn add(&mut self, wire: &Wire, judged: &Judged) {
        self.queries += wire.queries_sent;
        self.passed += wire.queries_arrived;
        self.dropped += judged.dropped;
        self.answered += judged.answered;
        self.responses += wire.responses_sent;
        self.no_room += wire.no_room;
    }
}
