//! What was measured on each kernel, as a table.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{marks, number::grouped};

/// Where the table stands in its file.
const BEGIN: &str = "<!-- kernels -->\n";
const END: &str = "<!-- /kernels -->";
/// Columns of a page of the docs.
const WIDTH: usize = 120;

const INSTRUCTIONS: &str = "instructions verified: XDP, TC in, TC out";
const LOOP: &str = "two dnsmasq in a loop";
const TESTS: &str = "tests passed";
const SECONDS: &str = "s in all";

/// The columns. Those that are no constants here are measured under that name.
const COLUMNS: [&str; 10] = [
    "kernel",
    "starts",
    "XDP in the driver",
    "XDP generic",
    "TC",
    "lo",
    INSTRUCTIONS,
    LOOP,
    TESTS,
    SECONDS,
];

/// What one kernel gave.
pub(super) struct Row {
    /// As in `uname -r`.
    pub(super) version: String,
    pub(super) took: Duration,
    /// Tests that passed, of those that were planned.
    pub(super) passed: usize,
    pub(super) planned: usize,
    /// What they measured.
    pub(super) measured: Value,
}

impl Row {
    /// What stands in a column; `-` where this kernel did not get that far.
    fn cell(&self, column: &str) -> String {
        let cell = match column {
            "kernel" => Some(self.version.clone()),
            "starts" => self
                .text("/starts")
                .map(|said| if said == "yes" { "yes" } else { "no" }.to_owned()),
            INSTRUCTIONS => self.instructions(),
            LOOP => self.cut(),
            TESTS => Some(format!("{} of {}", self.passed, self.planned)),
            SECONDS => Some(format!("{:.0}", self.took.as_secs_f64())),
            hook => self.text(&format!("/hooks/{hook}")).map(str::to_owned),
        };
        cell.unwrap_or_else(|| "-".to_owned())
    }

    fn text(&self, place: &str) -> Option<&str> {
        self.measured.pointer(place)?.as_str()
    }

    fn instructions(&self) -> Option<String> {
        let counts = self.measured["instructions"].as_array()?;
        let counts: Option<Vec<String>> = counts.iter().map(|count| count.as_u64().map(grouped)).collect();
        Some(counts?.join(" / "))
    }

    fn cut(&self) -> Option<String> {
        let told = self.measured.get("loop")?;
        let number = |key: &str| told[key].as_u64().map(grouped);
        Some(format!(
            "{} after {} queries; {} packets/s without dnsguard",
            told["proof"].as_str()?,
            number("recirculated")?,
            number("free")?,
        ))
    }
}

/// The rows as a table in Markdown.
pub(super) fn of(rows: &[Row]) -> String {
    let mut cells = vec![COLUMNS.map(str::to_owned)];
    cells.extend(rows.iter().map(|row| COLUMNS.map(|column| row.cell(column))));
    let widths: [usize; COLUMNS.len()] = std::array::from_fn(|column| {
        let lengths = cells.iter().map(|line| line[column].chars().count());
        lengths.max().unwrap_or(0)
    });
    let mut text = String::new();
    for (number, line) in cells.iter().enumerate() {
        for (cell, width) in line.iter().zip(widths) {
            text += &format!("| {cell:<width$} ");
        }
        text += "|\n";
        if number == 0 {
            text.extend(widths.map(|width| format!("|{}", "-".repeat(width + 2))));
            text += "|\n";
        }
    }
    text
}

/// Puts the table, and what a refused kernel was told, between the marks of a file.
pub(super) fn save(rows: &[Row], path: &Path) -> Result<()> {
    let old = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut new = of(rows);
    for row in rows {
        if let Some(said) = row.text("/starts").filter(|said| *said != "yes") {
            new += &format!("\nOn {} the agent says:\n\n```\n{}```\n", row.version, wrapped(said));
        }
    }
    let text = marks::between(&old, BEGIN, &new, END).with_context(|| format!("no marks in {}", path.display()))?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// The words of a text in lines that a page has room for.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        if width > 0 && width + 1 + word.len() > WIDTH {
            lines.push('\n');
            width = 0;
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines += word;
        width += word.len();
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(measured: Value) -> Row {
        Row {
            version: "6.1.0-56".to_owned(),
            took: Duration::from_millis(80_400),
            passed: 11,
            planned: 12,
            measured,
        }
    }

    #[test]
    fn a_row_has_what_was_measured_and_no_more() {
        let full = row(json!({
            "starts": "yes",
            "instructions": [77_000, 82_123, 86_000],
            "hooks": { "XDP in the driver": "driver", "XDP generic": "generic", "TC": "clsact", "lo": "clsact" },
            "loop": { "proof": "proven", "recirculated": 4, "free": 3_200 },
        }));
        let cells = COLUMNS.map(|column| full.cell(column));
        assert_eq!(
            cells,
            [
                "6.1.0-56",
                "yes",
                "driver",
                "generic",
                "clsact",
                "clsact",
                "77,000 / 82,123 / 86,000",
                "proven after 4 queries; 3,200 packets/s without dnsguard",
                "11 of 12",
                "80"
            ]
        );
        let refused = row(json!({ "starts": "dnsguard: Linux 5.10 is too old" }));
        assert_eq!(refused.cell("starts"), "no");
        assert_eq!(refused.cell(INSTRUCTIONS), "-");
        let table = of(&[full, refused]);
        let widths: Vec<usize> = table.lines().map(str::len).collect();
        assert_eq!(widths.len(), 4);
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
    }

    #[test]
    fn a_long_message_is_wrapped_between_words() {
        assert_eq!(wrapped("one two\n"), "one two\n");
        let long = "word ".repeat(40);
        let lines = wrapped(&long);
        assert!(lines.lines().all(|line| line.len() <= WIDTH && !line.ends_with(' ')));
        assert_eq!(lines.split_whitespace().count(), 40);
    }
}
