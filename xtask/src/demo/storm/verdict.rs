//! Whether the guard did its job.

use guard_tests::storm::SWEPT;

use super::outcome::Outcome;
use crate::number;

/// The share of good look-ups that must be answered.
const MIN_ANSWERED: f64 = 0.999;

/// How long the guard may take to say who it is.
const MAX_NAMED_MS: u64 = 1_000;

/// Below this it was no storm: the limit is 1,024.
const MIN_SWEEP_PPS: f64 = 4_000.0;

/// What speaks against the guard; nothing if it did its job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) reasons: Vec<String>,
}

impl Verdict {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        let mut reasons = Vec::new();
        let mut unless = |good: bool, why: String| {
            if !good {
                reasons.push(why);
            }
        };
        let (free, held) = (&outcome.free, &outcome.held);
        for (report, when) in [(free, "without"), (held, "with")] {
            unless(
                report.sweep.pps() >= MIN_SWEEP_PPS,
                format!(
                    "{when} the guard the sweep only made {} queries/s: this machine is too busy to tell",
                    number::rate(report.sweep.pps())
                ),
            );
        }
        unless(
            free.dropped() > 0,
            "without the guard the policer dropped nothing: there was no storm to hold".to_owned(),
        );
        unless(
            held.dropped() == 0,
            format!("the policer still dropped {}", number::packets(held.dropped())),
        );
        let calm = outcome.calm.good();
        let busy = if calm.answered < calm.sent {
            format!(
                " (without a storm {}: this machine is too busy to tell)",
                number::share(calm.answered_ratio())
            )
        } else {
            String::new()
        };
        let good = held.good();
        unless(
            good.answered_ratio() >= MIN_ANSWERED,
            format!(
                "only {} of the good look-ups were answered{busy}",
                number::share(good.answered_ratio())
            ),
        );
        for (what, tally) in [("metadata", &held.imds), ("time", &held.ntp)] {
            unless(
                tally.sent > 0 && tally.answered == tally.sent,
                format!("{what}: {} of {} were answered", tally.answered, tally.sent),
            );
        }
        match outcome.named_within_ms() {
            None => unless(false, format!("the guard did not name {SWEPT} and the client")),
            Some(ms) => unless(
                ms <= MAX_NAMED_MS,
                format!(
                    "the guard took {} ms to name zone and client, more than {}",
                    number::grouped(ms),
                    number::grouped(MAX_NAMED_MS)
                ),
            ),
        }
        for what in &outcome.told.false_trips {
            unless(false, format!("something was taken for a loop: {what}"));
        }
        if let Some(why) = &held.unclean {
            unless(false, format!("the guard did not stop cleanly: {why}"));
        }
        Self { reasons }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.reasons.is_empty()
    }

    pub(crate) fn word(&self) -> &'static str {
        if self.is_held() { "held" } else { "failed" }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use guard_tests::storm::{Policed, Service, Tally};

    use super::*;
    use crate::demo::storm::outcome::tests::held;

    fn the_only_reason(change: impl FnOnce(&mut Outcome)) -> String {
        let mut outcome = held();
        change(&mut outcome);
        let mut reasons = Verdict::of(&outcome).reasons;
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        reasons.remove(0)
    }

    fn answered(answered: u64) -> Tally {
        Tally::new(1_000, answered, (0..answered).map(|_| Duration::from_millis(1)))
    }

    #[test]
    fn a_storm_that_was_held_is_a_success() {
        let verdict = Verdict::of(&held());
        assert_eq!(verdict.reasons, [""; 0]);
        assert!(verdict.is_held() && verdict.word() == "held");
    }

    #[test]
    fn one_packet_that_the_policer_dropped_is_a_failure() {
        let reason = the_only_reason(|outcome| {
            let one = Policed { passed: 0, dropped: 1 };
            outcome.held.policed.insert(Service::Ntp, one);
        });
        assert!(reason.contains("still dropped 1 packet"), "{reason}");
    }

    #[test]
    fn one_good_look_up_in_a_thousand_may_fail() {
        let mut outcome = held();
        outcome.held.crowds[0].tally = answered(999);
        assert!(Verdict::of(&outcome).is_held());
        let reason = the_only_reason(|outcome| outcome.held.crowds[0].tally = answered(998));
        assert!(reason.starts_with("only 99.8 %"), "{reason}");
        assert!(!reason.contains("busy"), "{reason}");
    }

    #[test]
    fn metadata_and_time_may_not_fail_once() {
        let reason = the_only_reason(|outcome| outcome.held.imds = answered(999));
        assert_eq!(reason, "metadata: 999 of 1000 were answered");
        let reason = the_only_reason(|outcome| outcome.held.ntp = Tally::default());
        assert_eq!(reason, "time: 0 of 0 were answered");
    }

    #[test]
    fn the_guard_has_a_second_to_say_who_it_is() {
        let after = |ms: u64| {
            move |outcome: &mut Outcome| {
                if let Some(named) = &mut outcome.held.named {
                    named.after = Duration::from_millis(ms);
                }
            }
        };
        let mut outcome = held();
        after(1_000)(&mut outcome);
        assert!(Verdict::of(&outcome).is_held());
        let reason = the_only_reason(after(1_001));
        assert!(reason.contains("took 1,001 ms"), "{reason}");
        let reason = the_only_reason(|outcome| outcome.held.named = None);
        assert!(reason.contains("did not name 104.in-addr.arpa."), "{reason}");
    }

    #[test]
    fn without_a_storm_there_is_nothing_to_show() {
        let reason = the_only_reason(|outcome| outcome.free.policed.clear());
        assert!(reason.contains("no storm"), "{reason}");
        let reason = the_only_reason(|outcome| outcome.held.sweep.sent = 300);
        assert!(
            reason.starts_with("with the guard the sweep only made 100 queries/s"),
            "{reason}"
        );
    }

    #[test]
    fn a_trip_and_a_guard_that_stays_are_failures() {
        let reason = the_only_reason(|outcome| outcome.told.false_trips.push("q1.example. A".to_owned()));
        assert!(reason.contains("q1.example. A"), "{reason}");
        let reason = the_only_reason(|outcome| outcome.held.unclean = Some("it had to be killed".to_owned()));
        assert!(reason.contains("it had to be killed"), "{reason}");
    }
}
