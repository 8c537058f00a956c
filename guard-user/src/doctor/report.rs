//! What came of it, as lines for people or as JSON, and as an exit code.

use serde::Serialize;

use super::finding::{Finding, Level};
use crate::{
    exit,
    print::{self, BAD, FAINT, Format, GOOD, HEAD, WARN, harmless, painted},
};

/// Goes up with every change that breaks a reader.
const SCHEMA: u32 = 1;

/// Columns where standard output is no terminal.
const WIDTH: usize = 120;
/// Columns below which nothing is wrapped any further.
const LEAST_WIDTH: usize = 40;
/// Where the text of a finding begins, behind its level.
const INDENT: usize = 8;

/// All findings, in the order of the checks.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: u32,
    /// The worst of all levels.
    level: Level,
    findings: Vec<Finding>,
}

/// A finding in a line of its own.
#[derive(Debug, Serialize)]
struct Line<'f> {
    schema: u32,
    #[serde(flatten)]
    finding: &'f Finding,
}

impl Report {
    pub(super) fn new(findings: Vec<Finding>) -> Self {
        let level = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        Self {
            schema: SCHEMA,
            level,
            findings,
        }
    }

    /// 0 if nothing is to be mended.
    pub(super) fn exit_code(&self) -> u8 {
        if self.level >= Level::Warn { exit::FOUND } else { 0 }
    }

    /// What to print.
    pub(super) fn text(&self, format: Format) -> String {
        match format {
            Format::Json => print::json(self, format),
            Format::Jsonl => {
                let lines = self.findings.iter().map(|finding| {
                    let schema = self.schema;
                    print::json(&Line { schema, finding }, format)
                });
                lines.collect()
            }
            Format::Table => self.table(print::width().map_or(WIDTH, usize::from).max(LEAST_WIDTH)),
        }
    }

    fn table(&self, width: usize) -> String {
        let mut text = String::new();
        let mut group = "";
        for finding in &self.findings {
            if finding.group() != group {
                group = finding.group();
                let gap = if text.is_empty() { "" } else { "\n" };
                text += &format!("{gap}{}\n", painted(HEAD, group));
            }
            text += &paragraph(&level_word(finding.level), &finding.what, width);
            if let Some(why) = &finding.why {
                text += &paragraph(&" ".repeat(INDENT), &format!("  {why}"), width);
            }
            if let Some(remedy) = &finding.remedy {
                // One line, however long: it is there to be pasted.
                let arrow = painted(FAINT, "->");
                text += &format!("{}{arrow} {}\n", " ".repeat(INDENT), harmless(remedy));
            }
        }
        text + &format!("\n{}\n", self.verdict())
    }

    /// One line that says how it stands.
    fn verdict(&self) -> String {
        let count = |fits: fn(&Finding) -> bool| self.findings.iter().filter(|finding| fits(finding)).count();
        let all = count(|finding| finding.level >= Level::Warn);
        if all == 0 {
            return painted(GOOD, "nothing to mend");
        }
        let things = if all == 1 { "thing" } else { "things" };
        let mut parts = vec![format!("{all} {things} to mend")];
        let is_loop = |finding: &Finding| finding.level == Level::Fail && finding.group() == "loops";
        let stops = |finding: &Finding| finding.level == Level::Fail && finding.group() != "loops";
        for (count, says) in [(count(stops), "from working"), (count(is_loop), "can take DNS down")] {
            let verb = if says == "from working" {
                if count == 1 {
                    "stops dnsguard "
                } else {
                    "stop dnsguard "
                }
            } else {
                ""
            };
            match count {
                0 => {}
                _ if all == 1 => parts.push(format!("it {verb}{says}")),
                _ => parts.push(format!("{count} of them {verb}{says}")),
            }
        }
        let style = if self.level == Level::Fail { BAD } else { WARN };
        painted(style, &parts.join(", "))
    }
}

/// The word of a level in its colour, filled up to where the text begins.
fn level_word(level: Level) -> String {
    let style = match level {
        Level::Ok => GOOD,
        Level::Info => FAINT,
        Level::Warn => WARN,
        Level::Fail => BAD,
    };
    let gap = " ".repeat(INDENT - 2 - level.word().len());
    format!("  {}{gap}", painted(style, level.word()))
}

/// A text behind `lead`, wrapped at blanks; further lines are indented.
fn paragraph(lead: &str, text: &str, width: usize) -> String {
    let text = harmless(text);
    let hang = INDENT + text.len() - text.trim_start().len();
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let room = width.saturating_sub(hang);
        let line = lines
            .last_mut()
            .filter(|line| line.is_empty() || line.len() + 1 + word.len() <= room);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    let gap = " ".repeat(hang - INDENT);
    let body = lines.join(&format!("\n{}", " ".repeat(hang)));
    format!("{lead}{gap}{body}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn findings() -> Vec<Finding> {
        vec![
            Finding::ok("kernel.version", "Linux 6.18.44"),
            Finding::fail("kernel.bpffs", "/sys/fs/bpf is no BPF file system").remedy("mount -t bpf bpf /sys/fs/bpf"),
            Finding::warn("resolvers.port", "port 8600 is not looked at").why("consul answers there"),
            Finding::info("programs.tcx", "a\u{1b}[2Jb"),
        ]
    }

    #[test]
    fn a_finding_has_its_level_its_reason_and_its_remedy_below_its_group() {
        let text = plain(&Report::new(findings()).table(80));
        let expected = "kernel\n  ok    Linux 6.18.44\n  fail  /sys/fs/bpf is no BPF file system\n        -> mount -t bpf \
                        bpf /sys/fs/bpf\n\nresolvers\n  warn  port 8600 is not looked at\n          consul answers \
                        there\n\nprograms\n  info  a\\u{1b}[2Jb\n\n2 things to mend, 1 of them stops dnsguard from \
                        working\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_narrow_terminal_gets_narrow_lines() {
        let why = "every one of these words has to go somewhere, and none of them beyond the last column";
        let report = Report::new(vec![Finding::warn("a.b", why).why(why)]);
        let text = plain(&report.table(40));
        let body: Vec<_> = text.lines().take_while(|line| !line.is_empty()).collect();
        assert!(body.len() > 6 && body.iter().all(|line| line.len() <= 40), "{text}");
        assert!(
            body[2].starts_with("        ") && body.last().unwrap().starts_with("          "),
            "{text}"
        );
    }

    #[test]
    fn the_verdict_and_the_exit_code_go_together() {
        let told = |findings: &[Finding]| {
            let report = Report::new(findings.to_vec());
            (plain(&report.verdict()), report.exit_code())
        };
        let all = findings();
        assert_eq!(told(&[]), ("nothing to mend".to_owned(), 0));
        assert_eq!(told(&all[..1]), ("nothing to mend".to_owned(), 0));
        assert_eq!(told(&all[2..]), ("1 thing to mend".to_owned(), 3));
        assert_eq!(
            told(&all[1..2]),
            ("1 thing to mend, it stops dnsguard from working".to_owned(), 3)
        );
        let looped = [Finding::fail("loops.cycle", ""), all[2].clone()];
        assert_eq!(
            told(&looped),
            ("2 things to mend, 1 of them can take DNS down".to_owned(), 3)
        );
    }

    #[test]
    fn json_names_the_worst_level_and_every_line_its_schema() {
        let report = Report::new(findings());
        let json: serde_json::Value = serde_json::from_str(&report.text(Format::Json)).unwrap();
        assert_eq!((&json["schema"], &json["level"]), (&1.into(), &"fail".into()));
        assert_eq!(json["findings"][1]["remedy"], "mount -t bpf bpf /sys/fs/bpf");
        assert!(json["findings"][0]["why"].is_null());
        let lines = report.text(Format::Jsonl);
        assert_eq!(lines.lines().count(), 4);
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["schema"], 1);
            assert!(line["check"].is_string() && line["level"].is_string());
        }
    }
}
