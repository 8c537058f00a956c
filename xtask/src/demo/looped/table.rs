//! The result, in plain text.

use super::{outcome::Outcome, verdict::Verdict};
use crate::{
    demo::text::{self, row, wrapped},
    number,
};

/// `paint` adds colours, which a terminal shows and a pipe should not get.
pub(crate) fn render(outcome: &Outcome, verdict: &Verdict, paint: bool) -> String {
    let mut text = format!("\ndnsguard demo: {} {}\n\n", outcome.question, outcome.place);
    text += &row("", ["quiet", "without dnsguard", "with dnsguard"]);
    for (label, cells) in rows(outcome) {
        text += &row(label, cells.each_ref().map(String::as_str));
    }
    text.push('\n');
    for remark in remarks(outcome, verdict) {
        text += &wrapped(&remark);
    }
    text + &text::verdict(verdict.word(), &verdict.reasons, paint)
}

fn rows(outcome: &Outcome) -> [(&'static str, [String; 3]); 7] {
    let none = || "-".to_owned();
    let p99 = |us: u64| if us == 0 { none() } else { number::milliseconds(us) };
    let count = |packets: f64| number::grouped(packets.round() as u64);
    [
        (
            "looped packets/s",
            [
                none(),
                number::rate(outcome.looped_pps_before()),
                number::rate(outcome.looped_pps_after()),
            ],
        ),
        (
            "  in the worst 100 ms",
            [none(), number::rate(outcome.looped_pps_peak()), none()],
        ),
        (
            "looped packets in all",
            [
                none(),
                count(outcome.looped_packets_before()),
                count(outcome.looped_packets_guarded()),
            ],
        ),
        (
            "other names answered",
            [
                number::share(outcome.answered_ratio_quiet()),
                number::share(outcome.answered_ratio_before()),
                number::share(outcome.answered_ratio()),
            ],
        ),
        (
            "p99 of their answers",
            [
                p99(outcome.p99_quiet_us()),
                p99(outcome.fire.sight.report.p99_us),
                p99(outcome.p99_guarded_us()),
            ],
        ),
        (
            "  against quiet (median)",
            [
                none(),
                none(),
                outcome.p99_ratio().map_or_else(none, |ratio| format!("{ratio:.2}x")),
            ],
        ),
        (
            "resolvers' CPU, of a core",
            [
                number::cores(outcome.cores_quiet()),
                number::cores(outcome.cores_before()),
                number::cores(outcome.cores_guarded()),
            ],
        ),
    ]
}

fn remarks(outcome: &Outcome, verdict: &Verdict) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some((trip, (recirculated, cut_ms))) = outcome.first_trip().zip(outcome.recirculated().zip(outcome.cut_ms()))
    {
        remarks.push(format!(
            "{} after {} that went round, in {}: {}",
            if verdict.is_cut() { "cut" } else { "trip" },
            number::queries(recirculated),
            number::cut(cut_ms),
            trip.reason,
        ));
    }
    if let Some(ratio) = outcome.discarded_p99_ratio() {
        remarks.push(format!(
            "the p99 was measured twice: {ratio:.2}x the first time, which did not count"
        ));
    }
    remarks.push(format!(
        "dnsguard {}, {}; Linux {}",
        outcome.told.version,
        outcome.told.hooks.join(", "),
        outcome.kernel
    ));
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{looped::outcome::tests::cut, text::WIDTH};

    #[test]
    fn the_table_is_one_to_paste() {
        let outcome = cut();
        let expected = "
dnsguard demo: A x.consul. between two dnsmasq 2.90 on lo

                                      quiet without dnsguard    with dnsguard
looped packets/s                          -          100,000                0
  in the worst 100 ms                     -          104,000                -
looped packets in all                     -          300,000               36
other names answered                  100 %            0.0 %            100 %
p99 of their answers                0.40 ms                -          0.40 ms
  against quiet (median)                  -                -            1.00x
resolvers' CPU, of a core              10 %            190 %             10 %
";
        let text = render(&outcome, &Verdict::of(&outcome), false);
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("verdict: cut\n"), "{text}");
        assert!(!text.contains('\x1b'));
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH && line == line.trim_end(), "{line:?}");
        }
    }

    #[test]
    fn a_failure_says_why_in_red() {
        let mut outcome = cut();
        outcome.told.trips.clear();
        let text = render(&outcome, &Verdict::of(&outcome), true);
        assert!(
            text.contains("verdict: \x1b[31;1mfailed\x1b[0m\n- the guard did not see the loop"),
            "{text}"
        );
    }
}
