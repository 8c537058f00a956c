//! The result, in plain text.

use guard_tests::storm::{GOOD_CLIENTS, LIMIT_PPS, StormReport, Tally};

use super::{outcome::Outcome, plot::plot, verdict::Verdict};
use crate::{
    demo::text::{self, row, wrapped},
    number,
};

/// `paint` adds colours, which a terminal shows and a pipe should not get.
pub(crate) fn render(outcome: &Outcome, verdict: &Verdict, paint: bool) -> String {
    let mut text = "\ndnsguard demo: a PTR sweep on a node that AWS polices\n\n".to_owned();
    text += &row("", ["quiet", "without dnsguard", "with dnsguard"]);
    for (label, cells) in rows(outcome) {
        text += &row(label, cells.each_ref().map(String::as_str));
    }
    text += &format!(
        "\npackets/s that left the node for link-local services; AWS drops above {}:\n",
        number::grouped(LIMIT_PPS.into())
    );
    text += &plot([
        ("without dnsguard", &outcome.left_pps(&outcome.free)),
        ("with dnsguard", &outcome.left_pps(&outcome.held)),
    ]);
    text.push('\n');
    for remark in remarks(outcome) {
        text += &wrapped(&remark);
    }
    text + &text::verdict(verdict.word(), &verdict.reasons, paint)
}

fn rows(outcome: &Outcome) -> [(&'static str, [String; 3]); 9] {
    let none = || "-".to_owned();
    let each =
        |figure: &dyn Fn(&StormReport) -> String| [figure(&outcome.calm), figure(&outcome.free), figure(&outcome.held)];
    let p99 = |tally: &Tally| match tally.p99_us() {
        0 => none(),
        us => number::milliseconds(us),
    };
    [
        ("swept names/s", each(&|report| number::rate(report.sweep.pps()))),
        (
            "packets/s offered",
            each(&|report| number::rate(outcome.offered_pps(report))),
        ),
        (
            "  shed by dnsguard",
            [none(), none(), number::grouped(outcome.held.shed())],
        ),
        ("  dropped by AWS", each(&|report| number::grouped(report.dropped()))),
        (
            "good DNS answered",
            each(&|report| number::share(report.good().answered_ratio())),
        ),
        (
            "  at the first try",
            each(&|report| number::share(report.good().first_try_ratio())),
        ),
        ("  p99 of the answers", each(&|report| p99(&report.good()))),
        (
            "metadata, time answered",
            each(&|report| number::share(report.imds_ntp().answered_ratio())),
        ),
        (
            "zone and client named",
            [
                none(),
                none(),
                outcome
                    .named_within_ms()
                    .map_or_else(|| "no".to_owned(), |ms| format!("in {} ms", number::grouped(ms))),
            ],
        ),
    ]
}

fn remarks(outcome: &Outcome) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(named) = &outcome.held.named {
        remarks.push(format!("named: zone {}, client {}", named.zone, named.client));
        if let Some(reason) = named.event["reason"].as_str() {
            remarks.push(reason.to_owned());
        }
    }
    let by_client = |report: &StormReport| {
        let crowds = report.crowds.iter();
        let shares: Vec<_> = crowds
            .map(|crowd| format!("{} {}", crowd.kind, number::share(crowd.tally.answered_ratio())))
            .collect();
        shares.join(", ")
    };
    remarks.push(format!(
        "answered without dnsguard, by client: {}",
        by_client(&outcome.free)
    ));
    let programs: Vec<_> = outcome
        .programs
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    remarks.push(format!(
        "{GOOD_CLIENTS} good clients, among them of {}; dnsguard {}, {}; Linux {}",
        programs.join(", "),
        outcome.told.version,
        outcome.told.hooks.join(", "),
        outcome.kernel
    ));
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{storm::outcome::tests::held, text::WIDTH};

    #[test]
    fn the_table_is_one_to_paste() {
        let outcome = held();
        let text = render(&outcome, &Verdict::of(&outcome), false);
        let expected = "
dnsguard demo: a PTR sweep on a node that AWS polices

                                      quiet without dnsguard    with dnsguard
swept names/s                             0            5,000            5,000
packets/s offered                       200            5,200            5,200
  shed by dnsguard                        -                -           12,960
  dropped by AWS                          0           12,528                0
good DNS answered                     100 %           20.0 %            100 %
  at the first try                    100 %           20.0 %            100 %
  p99 of the answers                0.70 ms          0.70 ms          0.70 ms
metadata, time answered               100 %           20.0 %            100 %
zone and client named                     -                -        in 240 ms

packets/s that left the node for link-local services; AWS drops above 1,024:
        without dnsguard                    with dnsguard
 6,144 |▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("verdict: held\n"), "{text}");
        assert!(!text.contains('\x1b'));
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH && line == line.trim_end(), "{line:?}");
        }
    }

    #[test]
    fn a_failure_says_why_in_red() {
        let mut outcome = held();
        outcome.held.named = None;
        let text = render(&outcome, &Verdict::of(&outcome), true);
        assert!(
            text.contains("verdict: \x1b[31;1mfailed\x1b[0m\n- the guard did not name"),
            "{text}"
        );
    }
}
