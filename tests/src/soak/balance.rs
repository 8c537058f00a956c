//! Every packet is accounted for: what nftables counted on both sides of the hooks against what the guard counted.
//!
//! For each guarded device, with the queries and responses that both ends of its wire sent and got:
//!
//! ```text
//! seen:       queries sent + responses sent + answers that pass the hook  =  queries + responses + unread + lease over
//! queries:    queries sent    =  queries that arrived + dropped + answered
//! responses:  responses sent  =  responses that arrived - answers made
//! ```
//!
//! The second line is "packets in = pass + drop + answer". An answer that cannot be built is a drop that is counted as
//! an answer. What the kernel itself had no room for is known by device, and is nought unless a queue was full.

use super::{count::Count, exposition::Exposition};

/// What the guard counted at one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    /// Queries, responses, what was not read, and what passed because the lease was over.
    pub(super) seen: u64,
    /// Queries that were answered.
    pub(super) answered: u64,
    /// Queries that were dropped.
    pub(super) dropped: u64,
    /// Of those that were to be answered, the ones that were dropped.
    pub(super) failed: u64,
}

impl Judged {
    /// What the metrics say of a device.
    pub(super) fn of(device: &str, metrics: &Exposition) -> Self {
        let device = format!("device=\"{device}\"");
        let count = |name: &str, label: &str| metrics.count(name, &[&device, label]);
        let read = ["queries", "responses"].map(|what| count(&format!("dnsguard_dns_{what}_total"), ""));
        let unread = count("dnsguard_unread_total", "");
        let unjudged = count("dnsguard_passed_total", "reason=\"lease_over\"");
        Self {
            seen: read.iter().sum::<u64>() + unread + unjudged,
            answered: count("dnsguard_actions_total", "action=\"answer\""),
            dropped: count("dnsguard_actions_total", "action=\"drop\""),
            failed: count("dnsguard_answer_failures_total", ""),
        }
    }

    /// What was added since; none if it counted less than before.
    pub(super) fn since(self, before: Self) -> Option<Self> {
        Some(Self {
            seen: self.seen.checked_sub(before.seen)?,
            answered: self.answered.checked_sub(before.answered)?,
            dropped: self.dropped.checked_sub(before.dropped)?,
            failed: self.failed.checked_sub(before.failed)?,
        })
    }
}

/// What went over a wire, both of its ends together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wire {
    /// Queries that were sent.
    pub(super) queries_sent: u64,
    /// Queries that arrived.
    pub(super) queries_arrived: u64,
    /// Responses that were sent.
    pub(super) responses_sent: u64,
    /// Responses that arrived.
    pub(super) responses_arrived: u64,
    /// Packets that the kernel had no room for.
    pub(super) no_room: u64,
}

impl Wire {
    /// The ends of one wire; `lo` has one.
    pub(super) fn of(ends: &[Count]) -> Self {
        let sum = |part: fn(&Count) -> u64| ends.iter().map(part).sum();
        Self {
            queries_sent: sum(|end| end.queries_out),
            queries_arrived: sum(|end| end.queries_in),
            responses_sent: sum(|end| end.responses_out),
            responses_arrived: sum(|end| end.responses_in),
            no_room: sum(|end| end.no_room),
        }
    }

    /// What was added since.
    pub(super) const fn since(&self, before: &Self) -> Self {
        Self {
            queries_sent: self.queries_sent - before.queries_sent,
            queries_arrived: self.queries_arrived - before.queries_arrived,
            responses_sent: self.responses_sent - before.responses_sent,
            responses_arrived: self.responses_arrived - before.responses_arrived,
            no_room: self.no_room - before.no_room,
        }
    }
}

/// What does not add up at a device, a sentence each.
pub(super) fn check(device: &str, wire: &Wire, judged: &Judged) -> Vec<String> {
    let made = judged.answered - judged.failed;
    let sent = wire.queries_sent + wire.responses_sent;
    let mut wrong = Vec::new();
    let mut compare = |what: &str, there: u64, here: u64| {
        // Whatever a full queue took is missing on the one side or the other.
        if there.abs_diff(here) > wire.no_room {
            wrong.push(format!(
                "{device}: {what}: {there} and not {here} ({wire:?}, {judged:?})"
            ));
        }
    };
    compare("packets that came, and that the guard saw", sent + made, judged.seen);
    compare(
        "queries that were sent, and that passed, were dropped or answered",
        wire.queries_sent,
        wire.queries_arrived + judged.dropped + judged.answered,
    );
    compare(
        "responses that arrived, and that were sent or made",
        wire.responses_arrived,
        wire.responses_sent + made,
    );
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> Wire {
        Wire {
            queries_sent: 100,
            queries_arrived: 70,
            responses_sent: 60,
            responses_arrived: 80,
            no_room: 0,
        }
    }

    const JUDGED: Judged = Judged {
        seen: 180,
        answered: 20,
        dropped: 10,
        failed: 0,
    };

    #[test]
    fn one_packet_too_many_or_too_few_is_told() {
        assert_eq!(check("lo", &wire(), &JUDGED), Vec::<String>::new());
        for spoil in [
            |wire: &mut Wire, _: &mut Judged| wire.queries_sent += 1,
            |wire: &mut Wire, _: &mut Judged| wire.queries_arrived -= 1,
            |wire: &mut Wire, _: &mut Judged| wire.responses_sent += 1,
            |wire: &mut Wire, _: &mut Judged| wire.responses_arrived -= 1,
            |_: &mut Wire, judged: &mut Judged| judged.seen += 1,
            |_: &mut Wire, judged: &mut Judged| judged.answered += 1,
            |_: &mut Wire, judged: &mut Judged| judged.dropped -= 1,
            |_: &mut Wire, judged: &mut Judged| judged.failed += 1,
        ] {
            let (mut wire, mut judged) = (wire(), JUDGED);
            spoil(&mut wire, &mut judged);
            assert!(!check("lo", &wire, &judged).is_empty(), "{wire:?} {judged:?}");
        }
    }

    #[test]
    fn what_a_full_queue_took_is_no_fault() {
        let mut wire = wire();
        wire.queries_arrived -= 2;
        assert!(!check("lo", &wire, &JUDGED).is_empty());
        wire.no_room = 2;
        assert_eq!(check("lo", &wire, &JUDGED), Vec::<String>::new());
    }

    #[test]
    fn counts_that_went_back_have_no_difference() {
        assert_eq!(JUDGED.since(JUDGED), Some(Judged::default()));
        let less = Judged { dropped: 9, ..JUDGED };
        assert_eq!(less.since(JUDGED), None);
    }
}
