//! What the kernel counts, for each interface.

use crate::{
    budget::Service,
    remedy::{Reason, Verdict},
};

/// Counters of one interface on one CPU; [`Counter`] is the index.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Counters(pub [u64; COUNTERS]);

/// Room for counters: a power of two, so that an index can be masked.
pub const COUNTERS: usize = 128;

/// A counter that is not an action.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// UDP queries that were read, over IPv4.
    QueriesV4,
    /// UDP queries that were read, over IPv6.
    QueriesV6,
    /// UDP responses with NOERROR or NXDOMAIN.
    Answers,
    /// UDP responses with any other RCODE.
    Errors,
    /// TCP segments with payload to or from a DNS port.
    TcpSegments,
    /// Passed unread: fragments of UDP datagrams.
    Fragments,
    /// Passed unread: headers that contradict themselves.
    BadHeader,
    /// Passed unread: a message shorter than it says.
    ShortMessage,
    /// Passed unread: an OPCODE other than QUERY.
    OtherOpcode,
    /// Passed unread: QDCOUNT other than 1.
    QuestionCount,
    /// Passed unread: a name that is compressed or too long.
    BadName,
    /// Queries seen again at a client's pace.
    Retransmits,
    /// Queries seen already on another interface of the node.
    SeenElsewhere,
    /// Queries that went to a server which already had the question.
    Recirculations,
    /// Breakers that opened.
    Trips,
    /// Breakers that stayed open after a test.
    Extensions,
    /// Breakers that closed after an answer.
    Releases,
    /// Queries that passed unjudged because every slot of their bucket holds an open breaker.
    TableFull,
    /// DNS packets that passed because the agent's lease is over.
    LeaseOver,
    /// Events that found the ring buffer full.
    EventsLost,
    /// Answers that could not be built; the query was dropped.
    AnswerFailed,
    /// Packets let out to link-local resolvers; a GSO packet is several.
    LinkDns,
    /// Packets to the instance metadata service.
    LinkImds,
    /// Packets to the time service.
    LinkNtp,
    /// Packets to any other link-local service.
    LinkOther,
    /// Samples that found their ring buffer full.
    SamplesLost,
    /// Breakers that opened because a mark came back.
    Proofs,
    /// Queries that were marked.
    Marked,
    /// Queries that were to be marked and were not: too many marks are out.
    NotMarked,
    /// Responses whose question got its own spelling back.
    Restored,
}

/// The counter of what was passed for this reason: [`crate::question::Unreadable`] in its order.
#[inline(always)]
pub const fn unreadable_index(unreadable: u32) -> usize {
    Counter::ShortMessage as usize + (unreadable & 3) as usize
}

/// The counter of the packets to a link-local service.
#[inline(always)]
pub const fn link_index(service: Service) -> usize {
    Counter::LinkDns as usize + service as usize
}

/// The first counter of the actions: four verdicts times the reasons.
const FIRST_ACTION: usize = 48;

/// The index of the counter of a verdict other than `Pass` for a reason.
#[inline(always)]
pub const fn action_index(verdict: Verdict, reason: Reason) -> usize {
    FIRST_ACTION + (verdict as usize).wrapping_sub(1) * Reason::ALL.len() + reason as usize
}

impl Counters {
    /// What all CPUs counted together.
    pub fn sum(cpus: &[Self]) -> Self {
        let mut total = Self::default();
        for counters in cpus {
            for (sum, count) in total.0.iter_mut().zip(counters.0) {
                *sum = sum.wrapping_add(count);
            }
        }
        total
    }

    /// The value of a counter.
    pub const fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// The value of the counter of a verdict other than `Pass` for a reason.
    pub const fn action(&self, verdict: Verdict, reason: Reason) -> u64 {
        self.0[action_index(verdict, reason)]
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self([0; COUNTERS])
    }
}

/// What one row of the policy counted on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCount {
    /// Queries that the budget had room for.
    pub within: u64,
    /// Queries that it had no room for, whatever happened to them.
    pub over: u64,
}

const _: () = assert!((Counter::Restored as usize) < FIRST_ACTION);
const _: () = assert!(link_index(Service::Other) == Counter::LinkOther as usize);
const _: () = assert!(action_index(Verdict::WouldDrop, Reason::Recursion) < COUNTERS);

#[cfg(test)]
mod tests;
