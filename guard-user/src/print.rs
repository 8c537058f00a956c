//! How commands print: a table for people, JSON for programs, colours where they are wanted.
//!
//! Colours are put into the text as it is made and taken out again on the way, unless standard output is a terminal and
//! `NO_COLOR` is not set.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write as _},
};

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

/// All is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Somebody should look at it.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default().bold();
/// It is broken.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// A heading.
pub(crate) const HEAD: Style = Style::new().bold();
/// What is not looked at first.
pub(crate) const FAINT: Style = Style::new().dimmed();

/// What a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns and sentences for people.
    #[default]
    Table,
    /// One JSON document with a versioned schema.
    Json,
    /// JSON too, an object a line.
    Jsonl,
}

/// A text in a style.
pub(crate) fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// A JSON document, over several lines unless lines are asked for.
pub(crate) fn json(value: &impl Serialize, format: Format) -> String {
    let text = match format {
        Format::Jsonl => serde_json::to_string(value),
        Format::Json | Format::Table => serde_json::to_string_pretty(value),
    };
    // Strings, numbers and lists: nothing in it can fail.
    text.unwrap_or_default() + "\n"
}

/// Rows below a heading, in columns two blanks apart. Where standard output is a terminal, cells wrap to its width;
/// elsewhere a row is a line.
pub(crate) fn table(heading: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    table_within(width(), heading, rows)
}

fn table_within(width: Option<u16>, heading: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(heading);
    for row in rows {
        table.add_row(row);
    }
    if let Some(width) = width {
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

/// Columns of the terminal; `None` where standard output is none.
pub(crate) fn width() -> Option<u16> {
    if !io::stdout().is_terminal() {
        return None;
    }
    terminal_size::terminal_size().map(|(width, _)| width.0)
}

/// A text that cannot steer a terminal, whoever sent it.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let is_plain = |letter: char| letter == ' ' || letter.is_ascii_graphic();
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_plain(letter) {
            shown.push(letter);
        } else {
            shown.extend(letter.escape_unicode());
        }
    }
    Cow::Owned(shown)
}

/// Writes to standard output as it comes. False if nobody reads any more.
pub(crate) fn print_all(text: &str) -> bool {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Writes to standard output. Whoever reads it may leave when he has seen enough.
///
/// # Errors
///
/// Standard output cannot be written to, and is not a pipe that somebody has closed.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_below_their_heading() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["longer".to_owned(), "22".to_owned()],
        ];
        assert_eq!(table(&["NAME", "N"], rows), "NAME    N\na       1\nlonger  22\n");
    }

    #[test]
    fn a_narrow_terminal_wraps_cells_and_loses_nothing() {
        let row = vec![
            "x.consul. DS".to_owned(),
            "proven (mark)".to_owned(),
            "a long sentence that says why".to_owned(),
        ];
        let text = table_within(Some(40), &["LOOP", "PROOF", "WHY"], [row]);
        assert!(
            text.lines().count() > 2 && text.lines().all(|line| line.len() <= 40),
            "{text}"
        );
        let letters = |text: &str| text.chars().filter(|letter| letter.is_ascii_lowercase()).count();
        assert_eq!(
            letters(&text),
            letters("x.consul. proven (mark) a long sentence that says why")
        );
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(harmless("a.example."), "a.example.");
        assert_eq!(harmless("\x1b[2J\u{202e}"), "\\u{1b}[2J\\u{202e}");
    }

    #[test]
    fn json_is_one_line_only_where_lines_are_asked_for() {
        let value = serde_json::json!({"a": [1]});
        assert_eq!(json(&value, Format::Jsonl), "{\"a\":[1]}\n");
        assert_eq!(json(&value, Format::Json), "{\n  \"a\": [\n    1\n  ]\n}\n");
    }
}
