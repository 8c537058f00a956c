//! Whether the guard did its job.

use guard_tests::flood::Place;

use super::{
    measurement::STEADY_PPS,
    outcome::{Outcome, Row},
};
use crate::number;

/// What part of the good clients has to be answered in each place while the flood is steady.
pub(crate) const MIN_ANSWERED: f64 = 0.999;

/// How much less than the best of the others is still as good, at full speed: the core is saturated then, and from one run
/// to the next the same protection differs by as much.
pub(crate) const TOLERANCE: f64 = 0.10;

/// What speaks against the guard; nothing if it did its job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) reasons: Vec<String>,
    /// Whether the guard was among those that were measured.
    guarded: bool,
}

impl Verdict {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        let (guards, others): (Vec<&Row>, Vec<&Row>) = outcome.rows.iter().partition(|row| row.protection.is_guard());
        let mut reasons = Vec::new();
        for guard in &guards {
            let [steady, full] = &guard.floods;
            let name = guard.protection;
            let busy = if steady.is_steady() {
                ""
            } else {
                " (the flood did not get its core: this machine is too busy to tell)"
            };
            for (index, place) in Place::ALL.into_iter().enumerate() {
                let answered = steady.answered[index];
                if answered < MIN_ANSWERED {
                    reasons.push(format!(
                        "{name}: at {} packets/s only {} of the good clients {} were answered{busy}",
                        number::grouped(STEADY_PPS.into()),
                        number::share(answered),
                        within(place),
                    ));
                }
                let best = others
                    .iter()
                    .map(|row| (row.floods[1].answered[index], row.protection))
                    .max_by(|a, b| a.0.total_cmp(&b.0));
                if let Some((best, other)) = best
                    && full.answered[index] < best - TOLERANCE
                {
                    reasons.push(format!(
                        "{name}: at full speed {} of the good clients {} were answered, {} with {other}{busy}",
                        number::share(full.answered[index]),
                        within(place),
                        number::share(best),
                    ));
                }
            }
        }
        Self {
            reasons,
            guarded: !guards.is_empty(),
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.reasons.is_empty()
    }

    pub(crate) fn word(&self) -> &'static str {
        match (self.guarded, self.is_good()) {
            (false, _) => "none: dnsguard was not measured",
            (true, true) => "good",
            (true, false) => "failed",
        }
    }
}

const fn within(place: Place) -> &'static str {
    match place {
        Place::OtherNetwork => "in another network",
        Place::SameNetwork => "in the same /24",
        Place::SameAddress => "at the same address",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::flood::outcome::tests::good;

    fn reasons(change: impl FnOnce(&mut [Row])) -> Vec<String> {
        let mut outcome = good();
        change(&mut outcome.rows);
        Verdict::of(&outcome).reasons
    }

    #[test]
    fn as_good_as_the_best_of_the_others_is_good() {
        let verdict = Verdict::of(&good());
        assert_eq!(verdict.reasons, [""; 0]);
        assert!(verdict.is_good() && verdict.word() == "good");
    }

    #[test]
    fn a_place_in_which_clients_are_hurt_is_named() {
        let reasons = reasons(|rows| rows[2].floods[0].answered[1] = 0.998);
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(
            reasons[0].contains("only 99.8 % of the good clients in the same /24"),
            "{reasons:?}"
        );
    }

    #[test]
    fn worse_than_the_best_at_full_speed_is_a_failure() {
        let reasons = reasons(|rows| rows[2].floods[1].answered[2] = 0.84);
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(
            reasons[0].contains("at the same address were answered, 95.0 % with nftables, ingress"),
            "{reasons:?}"
        );
    }

    #[test]
    fn a_flood_without_a_core_is_said_to_be_one() {
        let reasons = reasons(|rows| {
            rows[2].floods[0].offered_pps = 200_000.0;
            rows[2].floods[0].answered[0] = 0.9;
        });
        assert!(reasons[0].ends_with("too busy to tell)"), "{reasons:?}");
    }

    #[test]
    fn without_the_guard_there_is_no_verdict() {
        let mut outcome = good();
        outcome.rows.pop();
        assert_eq!(Verdict::of(&outcome).word(), "none: dnsguard was not measured");
    }
}
