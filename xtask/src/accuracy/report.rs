//! What was found, for people and for programs.

use std::fmt::Write as _;

use guard_sim::accuracy::{Findings, LETTERS};
use serde_json::{Map, Value, json};

use crate::number::grouped;

/// Mistakes that are shown in words; there may be thousands.
const SHOWN: usize = 20;

const LABEL: usize = 44;
const COLUMN: usize = 17;

/// The findings of a run.
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) native: Findings,
    /// Of the kernel object, if it was asked.
    pub(super) kernel: Option<Findings>,
}

impl Report {
    /// Whether nothing was mistaken for anything.
    pub(super) fn is_right(&self) -> bool {
        self.mistakes().next().is_none()
    }

    fn total(&self) -> Findings {
        let mut total = self.native.clone();
        self.kernel.iter().for_each(|kernel| total.add(kernel.clone()));
        total
    }

    fn mistakes(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let halves = [
            ("natively", Some(&self.native)),
            ("kernel object", self.kernel.as_ref()),
        ];
        halves.into_iter().flat_map(|(half, findings)| {
            let mistakes = findings.into_iter().flat_map(|findings| {
                let false_trips = findings.false_trips.iter();
                false_trips.chain(&findings.loops_missed).chain(&findings.mangled)
            });
            mistakes.map(move |words| (half, words))
        })
    }

    pub(super) fn json(&self) -> Value {
        let mut object = figures(&self.total());
        object.insert("seed".into(), self.seed.into());
        object.insert("native".into(), figures(&self.native).into());
        let kernel = self.kernel.as_ref().map(|kernel| Value::from(figures(kernel)));
        object.insert("kernel".into(), kernel.unwrap_or_default());
        let mistakes = self.mistakes().take(SHOWN);
        let mistakes: Vec<_> = mistakes.map(|(half, words)| format!("{half}: {words}")).collect();
        object.insert("mistakes".into(), mistakes.into());
        object.into()
    }

    pub(super) fn table(&self) -> String {
        let mut text = format!("dnsguard accuracy, seed {}\n\n", self.seed);
        if self.kernel.is_some() {
            let _ = writeln!(
                text,
                "{:>width$}{:>COLUMN$}",
                "natively",
                "kernel object",
                width = LABEL + COLUMN
            );
        }
        let mut line = |label: &str, figure: &dyn Fn(&Findings) -> String| {
            let kernel = self.kernel.as_ref().map(figure).unwrap_or_default();
            let row = format!("{label:<LABEL$}{:>COLUMN$}{kernel:>COLUMN$}", figure(&self.native));
            let _ = writeln!(text, "{}", row.trim_end());
        };
        line("queries that are no loop", &|found| grouped(found.queries));
        for load in self.total().queries_by_load.keys() {
            line(&format!("  {}", in_words(load)), &|found| {
                grouped(found.queries_by_load.get(load).copied().unwrap_or_default())
            });
        }
        line("taken for a loop", &|found| grouped(found.false_trips.len() as u64));
        line("clients answered in another spelling", &|found| {
            grouped(found.mangled.len() as u64)
        });
        line("loops", &|found| grouped(found.loops));
        line("  cut too late, or not proven", &|found| {
            grouped(found.loops_missed.len() as u64)
        });
        line("  proven", &|found| grouped(found.loops_proven));
        line("most queries that went round before the proof", &|found| {
            grouped(found.recirculated_before_proof_max.into())
        });
        for (index, letters) in LETTERS.iter().enumerate() {
            line(&format!("  name of {letters} letters"), &|found| {
                grouped(found.proof_max_by_letters[index].into())
            });
        }
        line("  where nothing can be proven", &|found| {
            grouped(found.recirculated_before_suspicion_max.into())
        });
        let all = self.mistakes().count();
        let verdict = if all == 0 { "right" } else { "wrong" };
        let _ = writeln!(text, "verdict: {verdict}");
        for (half, words) in self.mistakes().take(SHOWN) {
            let _ = writeln!(text, "- {half}: {words}");
        }
        if all > SHOWN {
            let _ = writeln!(text, "- and {} more", all - SHOWN);
        }
        text
    }
}

fn figures(findings: &Findings) -> Map<String, Value> {
    let by_letters = LETTERS.iter().zip(findings.proof_max_by_letters);
    let by_letters: Map<_, _> = by_letters
        .map(|(letters, max)| ((*letters).into(), max.into()))
        .collect();
    let value = json!({
        "queries": findings.queries,
        "queries_by_load": findings.queries_by_load,
        "false_trips": findings.false_trips.len(),
        "mangled": findings.mangled.len(),
        "loops": findings.loops,
        "loops_missed": findings.loops_missed.len(),
        "loops_proven": findings.loops_proven,
        "recirculated_before_proof_max": findings.recirculated_before_proof_max,
        "recirculated_before_proof_max_by_letters": by_letters,
        "recirculated_before_suspicion_max": findings.recirculated_before_suspicion_max,
    });
    match value {
        Value::Object(figures) => figures,
        _ => Map::new(),
    }
}

fn in_words(load: &str) -> &str {
    match load {
        "chain" => "chains of forwarders that merge nothing",
        "merging" => "forwarders that join equal queries",
        "mutual" => "two hosts that ask each other",
        "random_case" => "clients that spell at random",
        "retries" => "retry storms",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(queries: u64) -> Findings {
        Findings {
            queries,
            loops: 3,
            loops_proven: 2,
            ..Findings::default()
        }
    }

    #[test]
    fn one_mistake_is_enough() {
        let mut report = Report {
            seed: 7,
            native: findings(1_000),
            kernel: Some(findings(10)),
        };
        assert!(report.is_right() && report.table().ends_with("verdict: right\n"));
        let json = report.json();
        assert_eq!(json["queries"], 1_010);
        assert_eq!(json["kernel"]["queries"], 10);
        assert_eq!((&json["false_trips"], &json["seed"]), (&json!(0), &json!(7)));
        if let Some(kernel) = &mut report.kernel {
            kernel.loops_missed.push("a ring".into());
        }
        assert!(!report.is_right());
        assert!(report.table().ends_with("verdict: wrong\n- kernel object: a ring\n"));
        assert_eq!(report.json()["mistakes"][0], "kernel object: a ring");
    }

    #[test]
    fn without_the_kernel_object_there_is_one_column() {
        let report = Report {
            seed: 1,
            native: findings(1_000),
            kernel: None,
        };
        assert!(!report.table().contains("kernel object"));
        assert!(report.json()["kernel"].is_null());
    }
}
