//! Whether the guard did its job.

use super::outcome::Outcome;
use crate::number;

/// Queries of the looped key that may go round before it is cut.
const MAX_RECIRCULATED: u64 = 32;

/// What may be left of the loop's packets.
const MAX_LEFT: f64 = 0.01;

/// How much longer the slowest good clients may wait than without a loop.
pub(crate) const MAX_P99_RATIO: f64 = 1.5;

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
        match outcome.recirculated() {
            None => unless(false, "the guard did not see the loop: no trip".to_owned()),
            Some(count) => unless(
                count <= MAX_RECIRCULATED,
                format!(
                    "{} went round before the loop was cut, more than {MAX_RECIRCULATED}",
                    number::queries(count)
                ),
            ),
        }
        for what in &outcome.told.false_trips {
            unless(false, format!("something else was taken for a loop: {what}"));
        }
        let (before, after) = (outcome.looped_pps_before(), outcome.looped_pps_after());
        unless(
            after <= before * MAX_LEFT,
            format!(
                "{} looped packets/s without the guard and {} with it: more than 1 % is left",
                number::rate(before),
                number::rate(after)
            ),
        );
        let (answered, quiet) = (outcome.answered_ratio(), outcome.answered_ratio_quiet());
        let busy = if quiet < 1.0 {
            format!(
                " (without a loop {}: this machine is too busy to tell)",
                number::share(quiet)
            )
        } else {
            String::new()
        };
        unless(
            answered >= 1.0,
            format!(
                "only {} of the good clients were answered{busy}",
                number::share(answered)
            ),
        );
        let ratio = outcome.p99_ratio();
        unless(
            ratio.is_none_or(|ratio| ratio <= MAX_P99_RATIO),
            format!(
                "the p99 of other names is {:.2} times the quiet one, more than {MAX_P99_RATIO}",
                ratio.unwrap_or_default()
            ),
        );
        if let Some(why) = &outcome.unclean {
            unless(false, format!("the guard did not stop cleanly: {why}"));
        }
        Self { reasons }
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.reasons.is_empty()
    }

    pub(crate) fn word(&self) -> &'static str {
        if self.is_cut() { "cut" } else { "failed" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::looped::{outcome::tests::cut, sight::Sight};

    fn guarded(outcome: &mut Outcome) -> &mut Sight {
        &mut outcome.turns[0].0[1].guarded
    }

    fn reasons(change: impl FnOnce(&mut Outcome)) -> Vec<String> {
        let mut outcome = cut();
        change(&mut outcome);
        Verdict::of(&outcome).reasons
    }

    fn the_only_reason(change: impl FnOnce(&mut Outcome)) -> String {
        let mut reasons = reasons(change);
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        reasons.remove(0)
    }

    #[test]
    fn a_loop_that_was_cut_is_a_success() {
        let verdict = Verdict::of(&cut());
        assert_eq!(verdict.reasons, [""; 0]);
        assert!(verdict.is_cut() && verdict.word() == "cut");
    }

    #[test]
    fn a_loop_that_nobody_saw_is_a_failure() {
        let reason = the_only_reason(|outcome| outcome.told.trips.clear());
        assert!(reason.contains("no trip"), "{reason}");
    }

    #[test]
    fn thirty_two_queries_may_go_round() {
        assert!(reasons(|outcome| outcome.told.trips[0].recirculated = 32).is_empty());
        let reason = the_only_reason(|outcome| outcome.told.trips[0].recirculated = 33);
        assert!(reason.starts_with("33 queries went round"), "{reason}");
    }

    #[test]
    fn one_packet_in_a_hundred_may_be_left() {
        // 100,000 packets/s before; three turns of 3 s.
        assert!(reasons(|outcome| guarded(outcome).packets += 8_900).is_empty());
        let reason = the_only_reason(|outcome| guarded(outcome).packets += 9_100);
        assert!(
            reason.starts_with("100,000 looped packets/s without the guard"),
            "{reason}"
        );
    }

    #[test]
    fn one_good_client_without_an_answer_is_a_failure() {
        let reason = the_only_reason(|outcome| {
            let sight = guarded(outcome);
            sight.report.answered -= 1;
            sight.report.lost += 1;
        });
        assert!(reason.contains("only 99.9 %"), "{reason}");
        assert!(!reason.contains("busy"), "{reason}");
    }

    #[test]
    fn the_second_measurement_of_the_p99_counts() {
        let slow = |outcome: &mut Outcome| {
            let mut second = outcome.turns[0].clone();
            second.0.iter_mut().for_each(|turn| turn.guarded.report.p99_us = 601);
            outcome.turns.push(second);
        };
        let reason = the_only_reason(slow);
        assert!(reason.contains("1.50 times"), "{reason}");
        assert!(
            reasons(|outcome| {
                slow(outcome);
                outcome.turns.reverse();
            })
            .is_empty()
        );
    }

    #[test]
    fn a_trip_of_another_name_and_a_guard_that_stays_are_failures() {
        let reason = the_only_reason(|outcome| outcome.told.false_trips.push("q1.example. A".to_owned()));
        assert!(reason.contains("q1.example. A"), "{reason}");
        let reason = the_only_reason(|outcome| outcome.unclean = Some("it had to be killed".to_owned()));
        assert!(reason.contains("it had to be killed"), "{reason}");
    }
}
