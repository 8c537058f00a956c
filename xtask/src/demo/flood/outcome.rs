//! All that was measured.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use guard_tests::{
    flood::{Asked, FLOODED, Pace, Protection},
    programs,
};
use serde_json::{Value, json};

use super::{
    measurement::{CLIENTS_PER_SECOND, LEAD, Measurement, STEADY_PPS},
    verdict::{MIN_ANSWERED, TOLERANCE, Verdict},
};
use crate::{host, number, progress::Progress};

/// The two floods, in the order of their tables.
pub(crate) const PACES: [Pace; 2] = [Pace::PerSecond(STEADY_PPS), Pace::Full];

/// What one protection did against each of [`PACES`]: medians.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) protection: Protection,
    pub(crate) floods: [Measurement; PACES.len()],
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) rows: Vec<Row>,
    pub(crate) rounds: u8,
    pub(crate) length: Duration,
    /// Versions of the programs.
    pub(crate) programs: BTreeMap<&'static str, String>,
    pub(crate) kernel: String,
}

impl Outcome {
    /// Measures each protection once in every round, so that a busy moment of this machine spoils one round only.
    pub(crate) fn take(protections: &[Protection], rounds: u8, length: Duration) -> Result<Self> {
        let further = protections.iter().flat_map(|protection| protection.programs());
        let versions = ["dnsmasq"].iter().chain(further).copied();
        let versions = versions.map(|program| Ok((program, programs::version(program)?)));
        let programs = versions.collect::<Result<_>>()?;
        let mut taken = vec![<[Vec<Measurement>; PACES.len()]>::default(); protections.len()];
        for round in 1..=rounds {
            for (protection, taken) in protections.iter().zip(&mut taken) {
                for (pace, taken) in PACES.into_iter().zip(taken) {
                    let flood = match pace {
                        Pace::PerSecond(rate) => format!("{} packets/s", number::grouped(rate.into())),
                        Pace::Full => "full speed".to_owned(),
                    };
                    let progress = Progress::start(format!("round {round} of {rounds}: {protection}, {flood}"));
                    let measurement = Measurement::quiet(*protection, Asked::OneName, pace, length)?;
                    progress.done(&format!(
                        "good clients answered: {}",
                        measurement.answered.map(number::share).join(", ")
                    ));
                    taken.push(measurement);
                }
            }
        }
        let row = |(&protection, taken): (&Protection, &[Vec<Measurement>; 2])| Row {
            protection,
            floods: taken.each_ref().map(|taken| Measurement::median(taken)),
        };
        Ok(Self {
            rows: protections.iter().zip(&taken).map(row).collect(),
            rounds,
            length,
            programs,
            kernel: host::kernel()?,
        })
    }

    pub(crate) fn json(&self, verdict: &Verdict) -> Value {
        let measurement = |one: &Measurement| {
            let [other_network, same_network, same_address] = one.answered;
            json!({
                "offered_pps": one.offered_pps.round() as u64,
                "taken_pps": one.taken_pps.round() as u64,
                "answered_ratio_other_network": other_network,
                "answered_ratio_same_24": same_network,
                "answered_ratio_same_address": same_address,
                "p50_us": one.p50_us,
                "p99_us": one.p99_us,
                "server_core_busy": (one.busy * 100.0).round() / 100.0,
            })
        };
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "protection": row.protection.to_string(),
                    "told_the_name": row.protection.is_told(),
                    "steady": measurement(&row.floods[0]),
                    "full": measurement(&row.floods[1]),
                })
            })
            .collect();
        json!({
            "flood": format!("A {FLOODED}"),
            "steady_pps": STEADY_PPS,
            "rounds": self.rounds,
            "seconds": self.length.as_secs(),
            "lead_seconds": LEAD.as_secs_f64(),
            "clients_per_second_and_place": CLIENTS_PER_SECOND,
            "rows": rows,
            "min_answered_ratio": MIN_ANSWERED,
            "tolerance": TOLERANCE,
            "verdict": verdict.word(),
            "reasons": verdict.reasons,
            "programs": self.programs,
            "kernel": self.kernel,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use guard_tests::flood::Hook;

    use super::*;

    /// A guard that does what the best of the others does.
    pub(crate) fn good() -> Outcome {
        let one = |offered_pps, taken_pps, answered, p99_us| Measurement {
            offered_pps,
            taken_pps,
            busy: 0.42,
            receiving: 0.4,
            undisturbed: 0.9,
            answered: [answered; 3],
            p50_us: 120.0,
            p99_us,
        };
        let row = |protection, floods| Row { protection, floods };
        Outcome {
            rows: vec![
                row(
                    Protection::None,
                    [one(300_000.0, 290_000.0, 0.5, 4_000.0), one(5e6, 8e5, 0.0, 0.0)],
                ),
                row(
                    Protection::NftIngress,
                    [one(300_000.0, 300_000.0, 1.0, 400.0), one(5e6, 1.4e6, 0.95, 9_000.0)],
                ),
                row(
                    Protection::Guard(Hook::Auto),
                    [one(300_000.0, 300_000.0, 0.999, 400.0), one(5e6, 1.4e6, 0.91, 9_000.0)],
                ),
            ],
            rounds: 3,
            length: Duration::from_secs(3),
            programs: BTreeMap::from([("dnsmasq", "2.90".to_owned()), ("nft", "1.0.6".to_owned())]),
            kernel: "6.12.0".to_owned(),
        }
    }

    #[test]
    fn the_object_has_what_a_reader_counts_on() {
        let outcome = good();
        let json = outcome.json(&Verdict::of(&outcome));
        assert_eq!(json["verdict"], "good");
        assert_eq!(json["rows"][1]["protection"], "nftables, ingress");
        assert_eq!(json["rows"][1]["told_the_name"], true);
        assert_eq!(json["rows"][2]["told_the_name"], false);
        assert_eq!(json["rows"][2]["full"]["taken_pps"], 1_400_000);
        assert_eq!(json["rows"][2]["steady"]["answered_ratio_same_address"], 0.999);
    }
}
