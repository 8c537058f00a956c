//! `docs/PERFORMANCE.md` and what lies beside it: the figures that are kept, their tables and their plot.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::{
    goals::{self, Goal},
    plot,
    record::{self, Measure, Record},
    table,
};
use crate::{marks, workspace::Workspace};

/// The files of it.
pub(super) struct Page {
    text: PathBuf,
    /// One record a line.
    figures: PathBuf,
    plot: PathBuf,
}

impl Page {
    pub(super) fn of(workspace: &Workspace) -> Self {
        let docs = workspace.root.join("docs");
        Self {
            text: docs.join("PERFORMANCE.md"),
            figures: docs.join("performance/bench.jsonl"),
            plot: docs.join("performance/packets.svg"),
        }
    }

    /// The figures that are kept.
    pub(super) fn kept(&self) -> Result<Vec<Record>> {
        let text =
            fs::read_to_string(&self.figures).with_context(|| format!("cannot read {}", self.figures.display()))?;
        record::read(&text).with_context(|| format!("{} has no figures", self.figures.display()))
    }

    /// Writes the figures, and what the page shows of them. Where real traffic was not measured, or no program of
    /// others, what is kept of it stays.
    pub(super) fn save(&self, records: &[Record]) -> Result<()> {
        let mut records = records.to_vec();
        for part in [is_of_traffic, is_of_peers] {
            if !records.iter().any(part) {
                records.extend(self.kept()?.into_iter().filter(part));
            }
        }
        self.write(&records)
    }

    /// Writes all of it.
    pub(super) fn write(&self, records: &[Record]) -> Result<()> {
        let write = |path: &PathBuf, text: &str| {
            // A file that is there keeps its owner, who need not be root.
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        let text = fs::read_to_string(&self.text).with_context(|| format!("cannot read {}", self.text.display()))?;
        let text = filled(&text, records)?;
        write(&self.figures, &record::write(records)?)?;
        if let Some(plot) = plot::plot(records) {
            write(&self.plot, &plot)?;
        }
        write(&self.text, &text)
    }
}

/// The page with the tables of these records between its markers.
fn filled(text: &str, records: &[Record]) -> Result<String> {
    let (packets, others): (Vec<Record>, Vec<Record>) = records.iter().cloned().partition(is_of_packets);
    let (machine, others): (Vec<Record>, Vec<Record>) = others
        .into_iter()
        .partition(|record| matches!(record, Record::Other(Measure::Machine(_))));
    let (peers, others): (Vec<Record>, Vec<Record>) = others.into_iter().partition(is_of_peers);
    let (traffic, object): (Vec<Record>, Vec<Record>) = others.into_iter().partition(is_of_traffic);
    let fenced = |records: &[Record]| {
        if records.is_empty() {
            return "Not measured yet.\n".to_owned();
        }
        format!("```text\n{}```\n", table::render(records).trim_start_matches('\n'))
    };
    let text = between(text, "machine", &table::render(&machine))?;
    let text = between(&text, "goals", &goals_table(&goals::all(records)))?;
    let text = between(&text, "packets", &fenced(&packets))?;
    let text = between(&text, "peers", &fenced(&peers))?;
    let text = between(&text, "object", &fenced(&object))?;
    between(&text, "traffic", &fenced(&traffic))
}

fn is_of_packets(record: &Record) -> bool {
    matches!(
        record,
        Record::Packet(_) | Record::Other(Measure::Empty { .. } | Measure::Feeder { .. })
    )
}

fn is_of_peers(record: &Record) -> bool {
    matches!(record, Record::Other(Measure::Peer(_)))
}

fn is_of_traffic(record: &Record) -> bool {
    matches!(
        record,
        Record::Other(Measure::Agent { .. } | Measure::RunTime { .. } | Measure::Flood(_))
    )
}

/// Markdown, so that it reads well where it is rendered.
fn goals_table(goals: &[Goal]) -> String {
    let line = |goal: &Goal| {
        format!(
            "| {} | {} | {} | {} |\n",
            goal.what,
            goal.goal,
            goal.figure,
            goal.word()
        )
    };
    let lines: String = goals.iter().map(line).collect();
    format!("| | goal | figure | |\n|---|---|---|---|\n{lines}")
}

/// The text with something else between the markers of this name.
fn between(text: &str, name: &str, inside: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- bench: {name} -->\n"), format!("<!-- end of {name} -->"));
    let missing = || format!("docs/PERFORMANCE.md has no {} ... {end}", begin.trim_end());
    marks::between(text, &begin, inside, &end).with_context(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::table::tests::some;

    #[test]
    fn what_stands_between_the_markers_is_replaced() {
        let text = "a\n<!-- bench: x -->\nold\n<!-- end of x -->\nb\n";
        let new = between(text, "x", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- bench: x -->\nnew\n<!-- end of x -->\nb\n");
        assert_eq!(between(&new, "x", "new\n").unwrap(), new);
        assert!(between(text, "y", "").is_err());
    }

    #[test]
    fn the_page_has_a_place_for_every_table() {
        let page = Page::of(&Workspace::open().unwrap());
        let text = fs::read_to_string(page.text).unwrap();
        let filled = filled(&text, &some()).unwrap();
        assert!(filled.contains("dnsguard_xdp: a million keys") || filled.contains("| two processors, one key"));
        assert!(filled.contains("map KEYS") && filled.contains("flood of random names"));
    }

    #[test]
    fn the_page_shows_the_figures_that_lie_beside_it() {
        let page = Page::of(&Workspace::open().unwrap());
        let text = fs::read_to_string(&page.text).unwrap();
        let records = page.kept().unwrap();
        assert_eq!(
            filled(&text, &records).unwrap(),
            text,
            "next: cargo xtask bench --render"
        );
        assert_eq!(plot::plot(&records).unwrap(), fs::read_to_string(&page.plot).unwrap());
    }
}
