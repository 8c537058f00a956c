//! All lists below each other, for a file, a mail or a pipe.

use super::tab::{Column, Row, Tab, duration, widths};
use crate::{
    print::{BAD, GOOD, HEAD, WARN, harmless, painted},
    view::View,
};

/// A view as text.
pub(super) fn text(view: &View) -> String {
    let mode = if view.mode == "enforce" { GOOD } else { WARN };
    let last = &view.last_second;
    let loops = match view.loops.len() {
        0 => painted(GOOD, "no loop open"),
        1 => painted(BAD, "1 loop open"),
        many => painted(BAD, &format!("{many} loops open")),
    };
    let mut text = format!(
        "{} on {}, up {}: {loops}\n",
        painted(mode, &harmless(&view.mode)),
        harmless(&view.interfaces.join(", ")),
        duration(view.uptime_seconds as u64),
    );
    text += &format!(
        "last second: {:.0} queries/s, {} held, {} shed\n",
        last.queries,
        count(last.held),
        count(last.shed),
    );
    text += &format!(
        "last 10 s or so, from samples: {:.0} queries/s; +- is what a number can be off by\n",
        view.queries_per_second
    );
    for tab in [Tab::Loops, Tab::Keys, Tab::Zones, Tab::Clients, Tab::Budgets] {
        let rows = tab.rows(view);
        if rows.is_empty() && matches!(tab, Tab::Loops | Tab::Budgets) {
            continue;
        }
        text += "\n";
        text += &painted(HEAD, tab.title());
        text += "\n";
        text += &list(tab, &rows);
    }
    text
}

fn count(per_second: f64) -> String {
    let text = format!("{per_second:.0}/s");
    if per_second > 0.0 { painted(WARN, &text) } else { text }
}

fn list(tab: Tab, rows: &[Row]) -> String {
    let columns = tab.columns();
    let widths = widths(columns, rows);
    let titles: Vec<_> = columns.iter().map(|column| column.title).collect();
    let mut text = line(columns, &widths, &titles);
    for row in rows {
        let cells: Vec<_> = row.iter().map(|cell| cell.text.as_str()).collect();
        text += &line(columns, &widths, &cells);
    }
    if rows.is_empty() {
        text += &format!("{:>width$}  {}\n", "-", tab.nothing(), width = widths[0]);
    }
    text
}

fn line(columns: &[Column], widths: &[usize], cells: &[&str]) -> String {
    let mut line = String::new();
    for ((column, width), cell) in columns.iter().zip(widths).zip(cells) {
        line += &if column.is_number {
            format!("{cell:>width$}  ")
        } else {
            format!("{cell:<width$}  ")
        };
    }
    line.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::view;

    fn plain(view: &View) -> String {
        anstream::adapter::strip_str(&text(view)).to_string()
    }

    #[test]
    fn there_is_a_section_for_each_list() {
        let text = plain(&view());
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
            .collect();
        for expected in [
            &["QUERIES/S", "+-", "SHARE", "+-%", "ZONE"][..],
            &["4600.1", "12.2", "92.0", "%", "1.0", "%", "104.in-addr.arpa."],
            &["4600.1", "12.2", "92.0", "%", "1.0", "%", "10.9.0.66"],
            &["4600.1", "12.2", "92.0", "%", "1.0", "%", "A", "x.consul."],
            &["200", "100", "30", "-", "170", "37", "per", "client"],
            &["900", "811", "0", "875", "-", "-", "eth0", "link-local"],
            &[
                "140000",
                "3.0",
                "s",
                "2s",
                "2",
                "proven",
                "mark",
                "eth0",
                "A",
                "x.consul.",
            ],
        ] {
            assert!(
                lines.iter().any(|line| line == expected),
                "{expected:?} is not in\n{text}"
            );
        }
        let head: Vec<_> = text.lines().take(3).collect();
        let expected = [
            "enforce on eth0, up 1s: 1 loop open",
            "last second: 5000 queries/s, 4000/s held, 30/s shed",
            "last 10 s or so, from samples: 5000 queries/s; +- is what a number can be off by",
        ];
        assert_eq!(head, expected);
    }

    #[test]
    fn numbers_stand_below_each_other() {
        let text = plain(&view());
        let mut lines = text.lines().skip_while(|line| !line.ends_with("ZONE"));
        let (heading, row) = (lines.next().unwrap(), lines.next().unwrap());
        assert_eq!(heading.find("ZONE"), row.find("104.in-addr.arpa."));
        assert_eq!(
            heading.find("QUERIES/S").map(|at| at + 9),
            row.find("4600.1").map(|at| at + 6)
        );
    }

    #[test]
    fn calm_is_said_and_what_is_not_configured_is_left_out() {
        let text = plain(&View::default());
        assert!(
            text.contains("none stands out") && text.contains("no loop open"),
            "{text}"
        );
        assert!(!text.contains("BUDGET"), "{text}");
    }
}
