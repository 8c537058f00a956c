//! What is to hold at the end of a soak.

use serde::Serialize;

use super::sample::{Done, Sample, Settled};

/// Threads that wait for work for a while, and end.
const POOL: u64 = 2;

/// How much is flat.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// An agent may have grown by so many KiB from the second third to the last one.
    pub growth_kib: u64,
    /// Maps may have so much more of their lines full.
    pub pressure: f64,
    /// 99 of 100 scrapes take no more milliseconds; none where a busy machine decides that.
    pub scrape_ms: Option<f64>,
    /// So much of what is good is answered; none where a busy machine decides that.
    pub good: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            growth_kib: 5 * 1_024,
            pressure: 0.05,
            scrape_ms: Some(50.0),
            good: Some(0.999),
        }
    }
}

/// A rule, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What it is about.
    pub what: String,
    /// What is to hold.
    pub rule: String,
    /// What was measured.
    pub figure: String,
    /// Whether it holds.
    pub holds: bool,
}

/// All findings; `nodes` are the names of the nodes.
pub(super) fn all(samples: &[Sample], bad: &[String], nodes: &[&'static str], limits: &Limits) -> Vec<Finding> {
    let mut findings = Vec::new();
    for &name in nodes {
        let of: Vec<&Sample> = samples.iter().filter(|sample| sample.node == name).collect();
        let mut tell = |what: &str, rule: String, figure: String, holds: bool| {
            let what = format!("{name}: {what}");
            findings.push(Finding {
                what,
                rule,
                figure,
                holds,
            });
        };
        node(&of, limits, &mut tell);
    }
    let figure = if bad.is_empty() {
        "none".to_owned()
    } else {
        bad.join("; ")
    };
    findings.push(Finding {
        what: "kernel log".to_owned(),
        rule: "no line with WARNING, BUG, stall, Oops, hung task".to_owned(),
        figure,
        holds: bad.is_empty(),
    });
    findings
}

fn node(samples: &[&Sample], limits: &Limits, tell: &mut impl FnMut(&str, String, String, bool)) {
    let settled: Vec<&Sample> = samples
        .iter()
        .copied()
        .filter(|sample| sample.settled.is_some())
        .collect();
    let compared: Vec<&Settled> = settled.iter().filter_map(|sample| sample.settled.as_ref()).collect();
    let Some((last, done)) = compared.last().zip(samples.last().map(|sample| &sample.done)) else {
        tell("counters", "are compared".to_owned(), "never".to_owned(), false);
        return;
    };
    let wrong: Vec<&str> = compared
        .iter()
        .flat_map(|settled| &settled.wrong)
        .map(String::as_str)
        .collect();
    let sum = format!(
        "{} queries = {} passed + {} dropped + {} answered; {} comparisons",
        last.queries,
        last.passed,
        last.dropped,
        last.answered,
        compared.len()
    );
    let figure = if wrong.is_empty() { sum } else { wrong.join("; ") };
    tell(
        "packets",
        "in = pass + drop + answer, exactly".to_owned(),
        figure,
        wrong.is_empty(),
    );

    let busy = is_busy(done, last);
    let figure = format!(
        "{} trips; loops: {} lit, {} put out; policies: {} set, {} files; {} interfaces, {} queries over some; \
         agents: {} killed, {} stopped, {} detached",
        done.trips,
        done.lit,
        done.put_out,
        done.set,
        done.rewritten,
        done.churned,
        done.over_churned,
        done.killed,
        done.stopped,
        done.detached
    );
    tell("all that is to happen", "happens".to_owned(), figure, busy);

    #[expect(clippy::cast_precision_loss, reason = "no run asks 2^52 times")]
    let good = done.good_answered as f64 / done.good.max(1) as f64;
    let least = limits.good.unwrap_or_default();
    let figure = format!("{} of {}", done.good_answered, done.good);
    tell(
        "good queries answered",
        format!("at least {:.1} %", least * 100.0),
        figure,
        good >= least,
    );

    let (before, after) = thirds(&settled, |sample| sample.footprint.rss_kib);
    tell(
        "memory of the agent",
        format!("at most {} MiB more", limits.growth_kib / 1_024),
        format!("{:.1} MiB, then {:.1} MiB", mib(before), mib(after)),
        after <= before + limits.growth_kib,
    );
    same(&settled, "open files", |sample| sample.footprint.fds, tell);
    let (before, after) = thirds(&settled, |sample| sample.footprint.threads as u64);
    tell(
        "threads",
        format!("at most {POOL} more: those of a pool come and go"),
        format!("{before}, then {after}"),
        after <= before + POOL,
    );
    for (what, part) in [
        (
            "programs in the kernel",
            (|settled: &Settled| settled.programs) as fn(&Settled) -> usize,
        ),
        ("links in the kernel", |settled| settled.links),
        ("maps in the kernel", |settled| settled.maps),
    ] {
        same(&settled, what, |sample| sample.settled.as_ref().map_or(0, part), tell);
    }
    let fill = |sample: &Sample| sample.map_pressure.values().copied().fold(0.0, f64::max);
    let (before, after) = thirds_of_shares(samples, fill);
    tell(
        "full lines of the fullest map",
        format!("at most {} more", limits.pressure),
        format!("{before:.3}, then {after:.3}"),
        after <= before + limits.pressure,
    );
    let mut scrapes: Vec<f64> = samples.iter().flat_map(|sample| &sample.scrapes_ms).copied().collect();
    scrapes.sort_unstable_by(f64::total_cmp);
    let rank = |of_100: usize| {
        scrapes
            .get((scrapes.len() * of_100).div_ceil(100).saturating_sub(1))
            .copied()
    };
    let (half, most) = (rank(50).unwrap_or(f64::MAX), rank(99).unwrap_or(f64::MAX));
    // An agent that has just begun has other things to do.
    let limit = limits
        .scrape_ms
        .filter(|_| done.killed + done.stopped + done.detached == 0);
    tell(
        "time of a scrape",
        limit.map_or_else(|| "is measured".to_owned(), |most| format!("p99 at most {most} ms")),
        format!("p50 {half:.1} ms, p99 {most:.1} ms of {}", scrapes.len()),
        limit.is_none_or(|limit| most <= limit),
    );
}

/// Whether each thing happened that the others are to stand.
fn is_busy(done: &Done, last: &Settled) -> bool {
    let always = [
        done.trips,
        done.lit,
        done.set,
        done.good,
        last.dropped,
        last.answered,
        last.passed,
    ];
    // One node has an agent that lives, among interfaces that come and go, the other one agents that do not.
    let either = [
        [done.churned, done.over_churned, done.rewritten, done.put_out],
        [done.killed, done.stopped, 1, 1],
    ];
    always.iter().all(|&count| count > 0) && either.iter().any(|all| all.iter().all(|&count| count > 0))
}

/// The most in the second third of the samples and in the last one.
fn thirds(samples: &[&Sample], value: impl Fn(&Sample) -> u64) -> (u64, u64) {
    let third = samples.len().div_ceil(3);
    let most = |part: &[&Sample]| part.iter().map(|sample| value(sample)).max().unwrap_or(0);
    let (first, last) = (samples.len() - samples.len().min(2 * third), samples.len() - third);
    (most(&samples[first..last]), most(&samples[last..]))
}

fn thirds_of_shares(samples: &[&Sample], value: impl Fn(&Sample) -> f64) -> (f64, f64) {
    let millionths = |sample: &Sample| (value(sample) * 1e6) as u64;
    let (before, after) = thirds(samples, millionths);
    #[expect(clippy::cast_precision_loss, reason = "a share is at most a million millionths")]
    let shares = (before as f64 / 1e6, after as f64 / 1e6);
    shares
}

/// Tells that something has the same number each time, from the second third on.
fn same(
    samples: &[&Sample],
    what: &str,
    value: impl Fn(&Sample) -> usize,
    tell: &mut impl FnMut(&str, String, String, bool),
) {
    let rest = &samples[samples.len() / 3..];
    let least = rest.iter().map(|sample| value(sample)).min().unwrap_or(0);
    let most = rest.iter().map(|sample| value(sample)).max().unwrap_or(0);
    let figure = if least == most {
        least.to_string()
    } else {
        format!("{least} to {most}")
    };
    tell(what, "the same each time".to_owned(), figure, least == most && most > 0);
}

fn mib(kib: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "no process has 2^52 KiB")]
    let mib = kib as f64 / 1_024.0;
    mib
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::footprint::Footprint;

    type Spoil = fn(&mut Sample);

    fn samples() -> Vec<Sample> {
        let sample = |number: u64| Sample {
            node: "steady",
            footprint: Footprint {
                rss_kib: 30_000 + number * 10,
                fds: 40,
                threads: 6,
            },
            scrapes_ms: vec![5.0; 1_000],
            settled: Some(Settled {
                queries: 100,
                passed: 80,
                dropped: 5,
                answered: 15,
                programs: 3,
                links: 5,
                maps: 17,
                ..Settled::default()
            }),
            done: Done {
                good: 1_000,
                good_answered: 1_000,
                trips: 1,
                lit: 1,
                put_out: 1,
                churned: 1,
                over_churned: 1,
                set: 1,
                rewritten: 1,
                ..Done::default()
            },
            ..Sample::default()
        };
        (0..9).map(sample).collect()
    }

    fn wrong(samples: &[Sample], bad: &[String]) -> Vec<String> {
        let findings = all(samples, bad, &["steady"], &Limits::default());
        findings
            .into_iter()
            .filter(|finding| !finding.holds)
            .map(|finding| finding.what)
            .collect()
    }

    #[test]
    fn what_is_flat_holds() {
        assert_eq!(wrong(&samples(), &[]), [""; 0]);
    }

    #[test]
    fn each_thing_that_grows_is_found() {
        let spoils: [(&str, Spoil); 8] = [
            ("steady: memory of the agent", |last| {
                last.footprint.rss_kib += 5 * 1_024 + 100;
            }),
            ("steady: open files", |last| last.footprint.fds += 1),
            ("steady: threads", |last| last.footprint.threads += 3),
            ("steady: maps in the kernel", |last| {
                last.settled.as_mut().unwrap().maps += 1;
            }),
            ("steady: packets", |last| {
                last.settled.as_mut().unwrap().wrong.push("1 is not 2".to_owned());
            }),
            ("steady: good queries answered", |last| last.done.good_answered = 998),
            ("steady: full lines of the fullest map", |last| {
                last.map_pressure.insert("KEYS".to_owned(), 0.06);
            }),
            ("steady: all that is to happen", |last| last.done.put_out = 0),
        ];
        for (what, spoil) in spoils {
            let mut samples = samples();
            spoil(samples.last_mut().unwrap());
            assert_eq!(wrong(&samples, &[]), [what]);
        }
        let mut slow = samples();
        slow[0].scrapes_ms = vec![51.0; 100];
        assert_eq!(wrong(&slow, &[]), ["steady: time of a scrape"]);
        assert_eq!(wrong(&samples(), &["BUG: x".to_owned()]), ["kernel log"]);
        assert_eq!(wrong(&[], &[]), ["steady: counters"]);
    }
}
