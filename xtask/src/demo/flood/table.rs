//! The result as a person would paste it into a chat: plain text, aligned, no line longer than 80 columns.

use guard_tests::flood::{FLOODED, Pace};

use super::{
    measurement::Measurement,
    outcome::{Outcome, PACES},
    verdict::Verdict,
};
use crate::{
    demo::text::{self, wrapped},
    number,
};

/// `paint` adds colours, which a terminal shows and a pipe should not get.
pub(crate) fn render(outcome: &Outcome, verdict: &Verdict, paint: bool) -> String {
    let mut text = format!("\ndnsguard demo: a flood of A {FLOODED}\n");
    for (index, pace) in PACES.into_iter().enumerate() {
        let pace = match pace {
            Pace::PerSecond(rate) => format!("{} packets/s", number::grouped(rate.into())),
            Pace::Full => "full speed".to_owned(),
        };
        text += "\n";
        text += &line(
            &pace,
            ["1,000/s", "1,000/s", "good answered, %", "", "", "ms", "ms", "core"],
        );
        text += &line("", ["offered", "taken", "other", "/24", "same", "p50", "p99", "%"]);
        for row in &outcome.rows {
            let mark = if row.protection.is_told() { " *" } else { "" };
            text += &line(
                &format!("{}{mark}", row.protection),
                cells(&row.floods[index]).each_ref().map(String::as_str),
            );
        }
    }
    text.push('\n');
    for remark in remarks(outcome) {
        text += &wrapped(&remark);
    }
    text + &text::verdict(verdict.word(), &verdict.reasons, paint)
}

fn cells(one: &Measurement) -> [String; 8] {
    let thousands = |pps: f64| number::grouped((pps / 1_000.0).round() as u64);
    let milliseconds = |us: f64| match us {
        0.0 => "-".to_owned(),
        0.0..10_000.0 => format!("{:.2}", us / 1_000.0),
        _ => format!("{:.0}", us / 1_000.0),
    };
    let [other, network, address] = one.answered.map(number::percent);
    [
        thousands(one.offered_pps),
        thousands(one.taken_pps),
        other,
        network,
        address,
        milliseconds(one.p50_us),
        milliseconds(one.p99_us),
        format!("{:.0}", one.busy * 100.0),
    ]
}

fn remarks(outcome: &Outcome) -> [String; 4] {
    let programs: Vec<String> = outcome
        .programs
        .iter()
        .map(|(program, version)| format!("{program} {version}"))
        .collect();
    [
        "* was told the name beforehand. The others were not: dnsdist per address and its dynamic block go by the \
         source, dnsguard limits every name and has to find this one. All allow 1,000 packets/s."
            .to_owned(),
        "Good clients ask for other names, 300 a second in each place: in another network, in the same /24 as the \
         flood, at the same address. Answered within 1 s counts."
            .to_owned(),
        "One core makes the flood and the good clients; the other is the server's, its receive queue and its programs."
            .to_owned(),
        format!(
            "Medians of {} rounds of {} s; {}; Linux {}",
            outcome.rounds,
            outcome.length.as_secs(),
            programs.join(", "),
            outcome.kernel
        ),
    ]
}

fn line(label: &str, cells: [&str; 8]) -> String {
    let [offered, taken, other, network, address, p50, p99, core] = cells;
    let answered = if network.is_empty() {
        format!("{other:>19}")
    } else {
        format!("{other:>7}{network:>6}{address:>6}")
    };
    let line = format!("{label:<25}{offered:>8}{taken:>8}{answered}{p50:>8}{p99:>7}{core:>5}");
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::flood::outcome::tests::good;

    #[test]
    fn the_table_is_one_to_paste() {
        let outcome = good();
        let expected = "
dnsguard demo: a flood of A flood.example.

300,000 packets/s         1,000/s 1,000/s   good answered, %      ms     ms core
                          offered   taken  other   /24  same     p50    p99    %
none                          300     290   50.0  50.0  50.0    0.12   4.00   42
nftables, ingress *           300     300    100   100   100    0.12   0.40   42
dnsguard                      300     300   99.9  99.9  99.9    0.12   0.40   42

full speed                1,000/s 1,000/s   good answered, %      ms     ms core
                          offered   taken  other   /24  same     p50    p99    %
none                        5,000     800    0.0   0.0   0.0    0.12      -   42
nftables, ingress *         5,000   1,400   95.0  95.0  95.0    0.12   9.00   42
dnsguard                    5,000   1,400   91.0  91.0  91.0    0.12   9.00   42

* was told";
        let text = render(&outcome, &Verdict::of(&outcome), false);
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("verdict: good\n"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 80 && line == line.trim_end(), "{line:?}");
        }
    }
}
