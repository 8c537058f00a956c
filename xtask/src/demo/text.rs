//! Text as a person would paste it into a chat: plain, aligned, no line longer than 80 columns.

/// The longest line.
pub(crate) const WIDTH: usize = 80;

const LABEL: usize = 26;
const COLUMN: usize = 17;

/// A line of a table: a label, and what it was when all was quiet, without dnsguard, and with it.
pub(crate) fn row(label: &str, cells: [&str; 3]) -> String {
    let [quiet, without, with] = cells;
    let line = format!("{label:<LABEL$}{quiet:>COLUMN$}{without:>COLUMN$}{with:>COLUMN$}");
    format!("{}\n", line.trim_end())
}

/// Broken at blanks; what goes on is indented.
pub(crate) fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > WIDTH {
            lines.push_str("\n  ");
            width = 2;
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += length;
    }
    lines + "\n"
}

/// The last lines of a demo: its verdict, and what speaks against the guard. `paint` adds colours.
pub(crate) fn verdict(word: &str, reasons: &[String], paint: bool) -> String {
    let colour = if reasons.is_empty() { "32;1" } else { "31;1" };
    let word = if paint {
        format!("\x1b[{colour}m{word}\x1b[0m")
    } else {
        word.to_owned()
    };
    let reasons = reasons.iter().map(|reason| wrapped(&format!("- {reason}")));
    format!("verdict: {word}\n{}", reasons.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sentence_is_broken_at_blanks() {
        let text = wrapped(&"word ".repeat(40));
        assert!(
            text.lines().count() == 3 && text.lines().all(|line| line.len() <= WIDTH),
            "{text}"
        );
        assert_eq!(wrapped("a b"), "a b\n");
    }

    #[test]
    fn only_a_terminal_gets_colours() {
        assert_eq!(verdict("cut", &[], false), "verdict: cut\n");
        assert_eq!(verdict("cut", &[], true), "verdict: \x1b[32;1mcut\x1b[0m\n");
    }
}
