//! `cargo xtask soak`: everything at once, for as long as one likes, and what it came to.
//!
//! [`guard_tests::soak`] does it; here it is shown to a person, to a program, or kept in `docs/RELIABILITY.md`.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use guard_tests::soak::{self, Limits, Outcome, Sample, Soak};
use serde_json::json;

use crate::{agent::Profile, interrupt, marks, number::grouped, preparation, step, workspace::Workspace};

/// Where the table stands in `docs/RELIABILITY.md`.
const BEGIN: &str = "<!-- soak -->\n";
const END: &str = "<!-- /soak -->";

/// Back to the start of the line, and nothing left on it.
const CLEAR: &str = "\r\x1b[K";

/// The spell of a soak that is long enough: an agent is killed this often.
const SPELL: Duration = Duration::from_secs(30);
/// A short one has so many at least.
const SPELLS: u32 = 8;

/// Run everything at once for as long as you like, and see whether anything grows or gets lost.
///
/// Two nodes with unbound, dnsmasq, consul and a guard each, and clients that ask all the time: good names, names over a
/// budget, what nobody can read. Loops are lit and put out. On the first node the agent lives, while its policy changes
/// ten times a second, its file every three seconds, and interfaces come, flap, are renamed, and go. On the second one the
/// agent is killed, or stopped, and started again every half minute. After each spell everybody rests, and what nftables
/// counted on both sides of the hooks is compared with what the guard counted: packets in = pass + drop + answer.
///
/// The exit code is 0 only if that holds each time, and memory, open files, threads, the fill of maps, and what the kernel
/// has of the guard stay flat from the second third on. Ctrl-C ends it early, with the table so far.
///
/// Takes about one core. Needs root, by sudo if need be. Missing programs are fetched into target/programs; nothing is
/// installed, and nothing is left running.
#[derive(Args)]
#[command(after_help = "Examples:\n  cargo xtask soak --minutes 3\n  \
    cargo xtask soak --minutes 60 --save          and keep the table in docs/RELIABILITY.md\n  \
    cargo xtask soak --json | jq -c 'select(.settled) | [.at_s, .node, .footprint.rss_kib]'")]
pub(crate) struct SoakArgs {
    /// How long it goes on.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_080))]
    minutes: u32,
    /// What is drawn by chance is drawn from this.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Print one JSON object a line, a sample each, and the findings at the end.
    #[arg(long)]
    json: bool,
    /// Keep the table in docs/RELIABILITY.md.
    #[arg(long)]
    save: bool,
    /// Everything is built, and this is root. Set by the first half.
    #[arg(long, hide = true)]
    prepared: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &SoakArgs) -> Result<ExitCode> {
    if !args.prepared {
        // As the tests run it: with its checks for overflow.
        return preparation::run(workspace, "soak", Some(Profile::Dev), || {
            guard_tests::programs::provide(&soak::PROGRAMS)
        });
    }
    let interrupted = interrupt::asked("soak")?;
    let duration = Duration::from_secs(60) * args.minutes;
    let soak = Soak {
        duration,
        seed: args.seed,
        spell: SPELL.min(duration / SPELLS),
        limits: Limits::default(),
    };
    let tell = |sample: &Sample| {
        if args.json {
            println!("{}", json!(sample));
        } else {
            show(sample, duration);
        }
    };
    let outcome = soak::run(&soak, &interrupted, &tell)?;
    if args.json {
        println!("{}", json!(outcome));
    } else {
        if io::stderr().is_terminal() {
            eprint!("{CLEAR}");
        }
        print!("{}", table(&outcome, args.seed));
    }
    if let Some(failure) = &outcome.failure {
        eprintln!("{} {failure}", step::red("it failed:"));
    }
    if args.save {
        ensure!(!outcome.interrupted, "a soak that ended early is not kept");
        save(workspace, &outcome, args.seed)?;
        step::note("docs/RELIABILITY.md has the new table");
    }
    Ok(if outcome.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One line that changes at a terminal; elsewhere a line for each comparison.
fn show(sample: &Sample, duration: Duration) {
    let (at, of) = (sample.at_s as u64, duration.as_secs());
    let settled = sample.settled.as_ref().map_or_else(String::new, |settled| {
        let verdict = if settled.wrong.is_empty() {
            "adds up".to_owned()
        } else {
            format!("does not add up: {}", settled.wrong.join("; "))
        };
        format!(", {} queries: {verdict}", grouped(settled.queries))
    });
    let line = format!(
        "{at} of {of} s, {}: {} MiB, {} files, {} agents, {} trips{settled}",
        sample.node,
        sample.footprint.rss_kib / 1_024,
        sample.footprint.fds,
        sample.agents,
        sample.done.trips,
    );
    if io::stderr().is_terminal() {
        eprint!("{CLEAR} {line}");
        // A line that does not show is no reason to stop.
        let _ = io::stderr().flush();
    } else if sample.settled.is_some() {
        eprintln!("{line}");
    }
}

/// The findings as a table in Markdown.
fn table(outcome: &Outcome, seed: u64) -> String {
    let mut text = String::from("| what | rule | measured | |\n|---|---|---|---|\n");
    for finding in &outcome.findings {
        let word = if finding.holds { "holds" } else { "**does not hold**" };
        text += &format!(
            "| {} | {} | {} | {word} |\n",
            finding.what, finding.rule, finding.figure
        );
    }
    let early = if outcome.interrupted { ", ended early" } else { "" };
    text + &format!(
        "\n{:.1} minutes{early}, seed {seed}, dnsguard {}.\n",
        outcome.seconds / 60.0,
        env!("CARGO_PKG_VERSION")
    )
}

fn save(workspace: &Workspace, outcome: &Outcome, seed: u64) -> Result<()> {
    let path = workspace.root.join("docs/RELIABILITY.md");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = marks::between(&text, BEGIN, &table(outcome, seed), END)
        .with_context(|| format!("{} has no {} ... {END}", path.display(), BEGIN.trim_end()))?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use guard_tests::soak::Finding;

    use super::*;

    #[test]
    fn the_page_has_a_place_for_the_table() {
        let outcome = Outcome {
            seconds: 90.0,
            interrupted: false,
            failure: None,
            findings: vec![Finding {
                what: "threads".to_owned(),
                rule: "the same".to_owned(),
                figure: "6".to_owned(),
                holds: true,
            }],
        };
        let table = table(&outcome, 7);
        assert!(table.contains("| threads | the same | 6 | holds |"), "{table}");
        assert!(table.contains("1.5 minutes, seed 7,"), "{table}");
        let workspace = Workspace::open().unwrap();
        let text = fs::read_to_string(workspace.root.join("docs/RELIABILITY.md")).unwrap();
        assert!(marks::between(&text, BEGIN, &table, END).is_some());
    }
}
