//! All that the demo measured, and the few figures that it comes down to.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    free::Fire,
    sight::{Sight, looped, packets_per_client, ratio},
    turns::Turns,
    verdict::Verdict,
};
use crate::demo::told::{Told, Trip};

#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// `between two dnsmasq 2.90 on lo`
    pub(crate) place: String,
    /// `A x.consul.`
    pub(crate) question: String,
    /// Versions of the resolvers.
    pub(crate) programs: BTreeMap<&'static str, String>,
    pub(crate) kernel: String,
    /// Nothing loops, no guard.
    pub(crate) quiet: Sight,
    /// The loop without the guard.
    pub(crate) fire: Fire,
    /// The loop cut by the guard.
    pub(crate) cut: Sight,
    /// With the guard and quiet, in turns. Twice if the first time the p99 was too high; never if nothing was cut.
    pub(crate) turns: Vec<Turns>,
    pub(crate) told: Told,
    /// What went wrong when the guard was stopped.
    pub(crate) unclean: Option<String>,
}

impl Outcome {
    /// Packets that one good client costs while nothing loops.
    fn per_client(&self) -> f64 {
        packets_per_client(self.quiet())
    }

    /// While the loop burns.
    pub(crate) fn looped_pps_before(&self) -> f64 {
        self.fire.pps(self.per_client())
    }

    pub(crate) fn looped_pps_peak(&self) -> f64 {
        self.fire.peak_pps(self.per_client())
    }

    pub(crate) fn looped_packets_before(&self) -> f64 {
        self.fire.looped_packets(self.per_client())
    }

    /// All of them, also those from before the trip.
    pub(crate) fn looped_packets_guarded(&self) -> f64 {
        looped(self.guarded(), self.per_client())
    }

    /// Once the loop has been cut, and the client goes on asking; from the query on if it was never cut.
    pub(crate) fn looped_pps_after(&self) -> f64 {
        let never_cut = self.turns.is_empty().then_some(&self.cut);
        let after: Vec<&Sight> = self.guarded_turns().chain(never_cut).collect();
        let packets = looped(after.iter().copied(), self.per_client());
        ratio(packets, after.iter().map(|sight| sight.seconds).sum())
    }

    /// The worst trip: a loop that is tested again after a hold, and goes on, may trip again.
    pub(crate) fn recirculated(&self) -> Option<u64> {
        self.told.trips.iter().map(|trip| trip.recirculated).max()
    }

    /// The slowest of the trips.
    pub(crate) fn cut_ms(&self) -> Option<u64> {
        self.told.trips.iter().map(|trip| trip.cut_ms).max()
    }

    pub(crate) fn first_trip(&self) -> Option<&Trip> {
        self.told.trips.first()
    }

    pub(crate) fn answered_ratio_before(&self) -> f64 {
        self.fire.sight.report.answered_ratio()
    }

    pub(crate) fn answered_ratio(&self) -> f64 {
        answered(self.guarded())
    }

    pub(crate) fn answered_ratio_quiet(&self) -> f64 {
        answered(self.quiet())
    }

    /// Of the last turns: they were taken because the first ones did not count.
    pub(crate) fn p99_ratio(&self) -> Option<f64> {
        self.turns.last()?.p99_ratio()
    }

    pub(crate) fn p99_quiet_us(&self) -> u64 {
        self.turns.last().map_or(self.quiet.report.p99_us, Turns::p99_quiet_us)
    }

    pub(crate) fn p99_guarded_us(&self) -> u64 {
        self.turns.last().map_or(self.cut.report.p99_us, Turns::p99_guarded_us)
    }

    /// The ratio that did not count, if there were two.
    pub(crate) fn discarded_p99_ratio(&self) -> Option<f64> {
        match self.turns.as_slice() {
            [first, _] => first.p99_ratio(),
            _ => None,
        }
    }

    pub(crate) fn cores_quiet(&self) -> f64 {
        cores(self.quiet())
    }

    pub(crate) fn cores_before(&self) -> f64 {
        self.fire.sight.cores()
    }

    pub(crate) fn cores_guarded(&self) -> f64 {
        cores(self.guarded())
    }

    pub(crate) fn json(&self, verdict: &Verdict) -> Value {
        json!({
            "loop": format!("{} {}", self.question, self.place),
            "looped_pps_before": hundredths(self.looped_pps_before()),
            "looped_pps_before_peak": hundredths(self.looped_pps_peak()),
            "looped_seconds_before": hundredths(self.fire.seconds(self.per_client())),
            "looped_pps_after": hundredths(self.looped_pps_after()),
            "looped_packets_before": self.looped_packets_before().round() as u64,
            "looped_packets_guarded": self.looped_packets_guarded().round() as u64,
            "recirculated_before_trip": self.recirculated(),
            "cut_ms": self.cut_ms(),
            "trips": self.told.trips.len(),
            "evidence": self.first_trip().map(|trip| &trip.evidence),
            "explanation": self.first_trip().map(|trip| &trip.reason),
            "others_answered_ratio_quiet": self.answered_ratio_quiet(),
            "others_answered_ratio_before": self.answered_ratio_before(),
            "others_answered_ratio": self.answered_ratio(),
            "others_p99_us_quiet": self.p99_quiet_us(),
            "others_p99_us_before": self.fire.sight.report.p99_us,
            "others_p99_us": self.p99_guarded_us(),
            "others_p99_ratio": self.p99_ratio().map(hundredths),
            "others_p99_ratio_discarded": self.discarded_p99_ratio().map(hundredths),
            "resolver_cores_quiet": hundredths(self.cores_quiet()),
            "resolver_cores_before": hundredths(self.cores_before()),
            "resolver_cores": hundredths(self.cores_guarded()),
            "verdict": verdict.word(),
            "reasons": verdict.reasons,
            "programs": self.programs,
            "dnsguard": self.told.version,
            "hooks": self.told.hooks,
            "kernel": self.kernel,
        })
    }

    fn quiet(&self) -> impl Iterator<Item = &Sight> {
        let turns = self.turns.iter().flat_map(|turns| &turns.0);
        [&self.quiet].into_iter().chain(turns.map(|turn| &turn.quiet))
    }

    fn guarded(&self) -> impl Iterator<Item = &Sight> {
        [&self.cut].into_iter().chain(self.guarded_turns())
    }

    fn guarded_turns(&self) -> impl Iterator<Item = &Sight> {
        let turns = self.turns.iter().flat_map(|turns| &turns.0);
        turns.map(|turn| &turn.guarded)
    }
}

fn answered<'a>(sights: impl Iterator<Item = &'a Sight>) -> f64 {
    let sums = sights.fold((0, 0), |(answered, sent), sight| {
        (answered + sight.report.answered, sent + sight.report.sent)
    });
    ratio(sums.0 as f64, sums.1 as f64)
}

fn cores<'a>(sights: impl Iterator<Item = &'a Sight>) -> f64 {
    let sums = sights.fold((0.0, 0.0), |(cpu, all), sight| {
        (cpu + sight.cpu_seconds, all + sight.seconds)
    });
    ratio(sums.0, sums.1)
}

/// More digits would claim more than was measured.
fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
pub(crate) mod tests {
    use guard_tests::Report;

    use super::*;
    use crate::demo::looped::{pace::Sample, turns::Turn};

    /// A good demo: 100,000 packets/s before, none after the trip.
    pub(crate) fn cut() -> Outcome {
        let sight = Sight {
            report: Report {
                sent: 600,
                answered: 600,
                p99_us: 400,
                ..Report::default()
            },
            packets: 3_000,
            seconds: 3.0,
            cpu_seconds: 0.3,
        };
        let burning = Sight {
            report: Report {
                sent: 600,
                lost: 600,
                ..Report::default()
            },
            packets: 300_600,
            cpu_seconds: 5.7,
            ..sight
        };
        let turn = Turn {
            quiet: sight.clone(),
            guarded: sight.clone(),
        };
        let mut cut = sight.clone();
        cut.packets += 36;
        Outcome {
            place: "between two dnsmasq 2.90 on lo".to_owned(),
            question: "A x.consul.".to_owned(),
            programs: BTreeMap::from([("dnsmasq", "2.90".to_owned())]),
            kernel: "6.12.0".to_owned(),
            quiet: sight,
            fire: Fire {
                sight: burning,
                first: Sample {
                    packets: 9_600.0,
                    seconds: 0.1,
                },
                later: vec![Sample {
                    packets: 10_600.0,
                    seconds: 0.1,
                }],
                ..Fire::default()
            },
            cut,
            turns: vec![Turns(vec![turn; 3])],
            told: Told {
                version: "0.1.0".to_owned(),
                hooks: vec!["tc-ingress by tcx".to_owned()],
                trips: vec![Trip {
                    recirculated: 11,
                    cut_ms: 0,
                    evidence: "pace".to_owned(),
                    reason: "query x.consul. A went round between 127.0.0.1:53 and 127.0.0.2:53: the same 5-tuple and \
                        ID came back faster than any client retries"
                        .to_owned(),
                }],
                false_trips: Vec::new(),
            },
            unclean: None,
        }
    }

    #[test]
    fn the_object_has_what_a_reader_counts_on() {
        let outcome = cut();
        let json = outcome.json(&Verdict::of(&outcome));
        for (field, value) in [
            ("looped_pps_before", json!(100_000.0)),
            ("looped_pps_after", json!(0.0)),
            ("looped_packets_guarded", json!(36)),
            ("recirculated_before_trip", json!(11)),
            ("cut_ms", json!(0)),
            ("others_answered_ratio", json!(1.0)),
            ("others_answered_ratio_before", json!(0.0)),
            ("others_p99_ratio", json!(1.0)),
            ("evidence", json!("pace")),
            ("verdict", json!("cut")),
            ("reasons", json!([])),
            ("programs", json!({"dnsmasq": "2.90"})),
            ("kernel", json!("6.12.0")),
        ] {
            assert_eq!(json[field], value, "{field}");
        }
    }

    #[test]
    fn what_was_never_cut_has_no_figures_of_a_cut() {
        let mut outcome = cut();
        outcome.told.trips.clear();
        outcome.turns.clear();
        outcome.cut.packets = 303_000;
        assert_eq!(outcome.looped_pps_after(), 100_000.0);
        let json = outcome.json(&Verdict::of(&outcome));
        assert_eq!(json["recirculated_before_trip"], Value::Null);
        assert_eq!(json["cut_ms"], Value::Null);
        assert_eq!(json["verdict"], "failed");
    }
}
