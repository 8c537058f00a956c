//! All that the demo measured, and the few figures that it comes down to.

use std::{collections::BTreeMap, time::Duration};

use guard_tests::storm::{LIMIT_PPS, Sample, StormReport};
use serde_json::{Map, Value, json};

use super::verdict::Verdict;
use crate::demo::told::Told;

#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Versions of what the good clients use.
    pub(crate) programs: BTreeMap<&'static str, String>,
    pub(crate) kernel: String,
    /// How long good clients were watched in each storm.
    pub(crate) length: Duration,
    /// No sweep, no guard.
    pub(crate) calm: StormReport,
    /// The storm without the guard.
    pub(crate) free: StormReport,
    /// The storm with it.
    pub(crate) held: StormReport,
    pub(crate) told: Told,
}

impl Outcome {
    pub(crate) fn named_within_ms(&self) -> Option<u64> {
        let named = self.held.named.as_ref()?;
        Some(u64::try_from(named.after.as_millis()).unwrap_or(u64::MAX))
    }

    /// Packets per second that left the node for link-local services, for each 100 ms of the watched time.
    pub(crate) fn left_pps(&self, report: &StormReport) -> Vec<f64> {
        pps(&report.series, self.length, |sample| sample.left)
    }

    /// Of those, packets per second that the policer let through.
    fn passed_pps(&self, report: &StormReport) -> Vec<f64> {
        pps(&report.series, self.length, |sample| sample.passed)
    }

    /// Packets per second that the node wanted to send there, on average.
    pub(crate) fn offered_pps(&self, report: &StormReport) -> f64 {
        let offered = pps(&report.series, self.length, |sample| sample.offered);
        mean(&offered)
    }

    pub(crate) fn json(&self, verdict: &Verdict) -> Value {
        let (free, held) = (&self.free, &self.held);
        let (good_before, good) = (free.good(), held.good());
        json!({
            "limit_pps": LIMIT_PPS,
            "sweep_pps_before": free.sweep.pps().round(),
            "sweep_pps": held.sweep.pps().round(),
            "offered_pps_before": self.offered_pps(free).round(),
            "offered_pps": self.offered_pps(held).round(),
            "policer_drops_before": free.dropped(),
            "policer_drops_after": held.dropped(),
            "shed_by_guard": held.shed(),
            "good_sent": good.sent,
            "good_answered_ratio_calm": self.calm.good().answered_ratio(),
            "good_answered_ratio_before": good_before.answered_ratio(),
            "good_answered_ratio": good.answered_ratio(),
            "good_first_try_ratio_before": good_before.first_try_ratio(),
            "good_first_try_ratio": good.first_try_ratio(),
            "good_p99_us_calm": self.calm.good().p99_us(),
            "good_p99_us_before": good_before.p99_us(),
            "good_p99_us": good.p99_us(),
            "good_by_client_before": by_client(free),
            "good_by_client": by_client(held),
            "imds_ntp_ok_ratio_before": free.imds_ntp().answered_ratio(),
            "imds_ntp_ok_ratio": held.imds_ntp().answered_ratio(),
            "named_within_ms": self.named_within_ms(),
            "zone": held.named.as_ref().map(|named| &named.zone),
            "client": held.named.as_ref().map(|named| &named.client),
            "explanation": held.named.as_ref().map(|named| &named.event["reason"]),
            "left_pps_before": rounded(&self.left_pps(free)),
            "left_pps": rounded(&self.left_pps(held)),
            "passed_pps_before": rounded(&self.passed_pps(free)),
            "passed_pps": rounded(&self.passed_pps(held)),
            "verdict": verdict.word(),
            "reasons": verdict.reasons,
            "programs": self.programs,
            "dnsguard": self.told.version,
            "hooks": self.told.hooks,
            "kernel": self.kernel,
        })
    }
}

/// The share of each kind of client's look-ups that was answered.
fn by_client(report: &StormReport) -> Map<String, Value> {
    let crowds = report.crowds.iter();
    crowds
        .map(|crowd| (crowd.kind.to_string(), crowd.tally.answered_ratio().into()))
        .collect()
}

fn pps(series: &[Sample], length: Duration, count: fn(&Sample) -> u64) -> Vec<f64> {
    let mut end = 0.0;
    let watched = series.iter().take_while(|sample| {
        end += sample.seconds;
        end <= length.as_secs_f64()
    });
    watched.map(|sample| count(sample) as f64 / sample.seconds).collect()
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.iter().sum::<f64>() / values.len() as f64
}

fn rounded(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.round() as u64).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use guard_tests::storm::{Crowd, Kind, Named, Policed, Service, Swept, Tally};

    use super::*;

    fn report(sweep_pps: u64, left_pps: u64, answered: u64) -> StormReport {
        let passed = left_pps.min(LIMIT_PPS.into());
        let tally = |sent, answered| {
            let times = (0..answered).map(|_| Duration::from_micros(700));
            Tally::new(sent, answered, times)
        };
        let sample = Sample {
            seconds: 0.1,
            offered: (sweep_pps + 200) / 10,
            left: left_pps / 10,
            passed: passed / 10,
        };
        let dns = Policed {
            passed: 3 * passed,
            dropped: 3 * (left_pps - passed),
        };
        StormReport {
            crowds: vec![Crowd {
                kind: Kind::Stub,
                clients: 50,
                tally: tally(1_000, answered),
            }],
            imds: tally(15, 15 * answered / 1_000),
            ntp: tally(15, 15 * answered / 1_000),
            offered: 3 * (sweep_pps + 200),
            policed: BTreeMap::from([(Service::Dns, dns)]),
            series: vec![sample; 40],
            sweep: Swept {
                sent: 3 * sweep_pps,
                seconds: 3.0,
            },
            named: None,
            events: Vec::new(),
            unclean: None,
        }
    }

    /// A good demo: 3 s, and a second in which nobody looks at good clients any more.
    pub(crate) fn held() -> Outcome {
        let mut held = report(5_000, 880, 1_000);
        held.named = Some(Named {
            after: Duration::from_millis(240),
            zone: "104.in-addr.arpa.".to_owned(),
            client: "10.60.50.250".to_owned(),
            event: json!({"event": "over_budget", "reason": "too much for 104.in-addr.arpa."}),
        });
        Outcome {
            programs: BTreeMap::from([("glibc", "2.36".to_owned())]),
            kernel: "6.12.0".to_owned(),
            length: Duration::from_secs(3),
            calm: report(0, 200, 1_000),
            free: report(5_000, 5_200, 200),
            held,
            told: Told {
                version: "0.1.0".to_owned(),
                hooks: vec!["tc-ingress by tcx".to_owned()],
                ..Told::default()
            },
        }
    }

    #[test]
    fn the_object_has_what_a_reader_counts_on() {
        let outcome = held();
        let json = outcome.json(&Verdict::of(&outcome));
        for (field, value) in [
            ("policer_drops_before", json!(12_528)),
            ("policer_drops_after", json!(0)),
            ("shed_by_guard", json!(12_960)),
            ("good_answered_ratio_before", json!(0.2)),
            ("good_answered_ratio", json!(1.0)),
            ("good_by_client_before", json!({"stub": 0.2})),
            ("imds_ntp_ok_ratio_before", json!(0.2)),
            ("imds_ntp_ok_ratio", json!(1.0)),
            ("named_within_ms", json!(240)),
            ("sweep_pps", json!(5_000.0)),
            ("offered_pps", json!(5_200.0)),
            ("zone", json!("104.in-addr.arpa.")),
            ("client", json!("10.60.50.250")),
            ("verdict", json!("held")),
            ("reasons", json!([])),
            ("programs", json!({"glibc": "2.36"})),
            ("kernel", json!("6.12.0")),
        ] {
            assert_eq!(json[field], value, "{field}");
        }
        let series = json["passed_pps_before"].as_array().unwrap();
        assert!(
            (29..=30).contains(&series.len()),
            "only what was watched: {}",
            series.len()
        );
    }

    #[test]
    fn who_was_not_named_has_no_figures() {
        let mut outcome = held();
        outcome.held.named = None;
        let json = outcome.json(&Verdict::of(&outcome));
        for field in ["named_within_ms", "zone", "client", "explanation"] {
            assert_eq!(json[field], Value::Null, "{field}");
        }
    }
}
