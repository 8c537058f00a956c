//! What is printed: each event as it happens, and the summary.

use std::io::{self, Write};

use serde::Serialize;

use super::{judge::Happened, summary::Summary};
use crate::{
    events::{Event, rfc3339_ns},
    print::{self, Format},
};

/// Goes up with every change that breaks a reader of the JSON.
const SCHEMA: u32 = 1;
const HEADING: &str = "   FRAME  TIME                              SECONDS  EVENT";

/// Where events and the summary are written to.
pub(super) struct Report<W> {
    out: W,
    format: Format,
    events: u64,
}

/// An event in JSON.
#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    event: &'static str,
    time: String,
    frame: u64,
    seconds: f64,
    #[serde(flatten)]
    fields: &'a Event,
}

/// The summary as the last line of JSON lines.
#[derive(Serialize)]
struct LastLine<'a> {
    schema: u32,
    event: &'static str,
    #[serde(flatten)]
    summary: &'a Summary,
}

impl<W: Write> Report<W> {
    pub(super) const fn new(out: W, format: Format) -> Self {
        Self { out, format, events: 0 }
    }

    /// Writes what comes before all events.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        match self.format {
            Format::Json => write!(self.out, "{{\n\"schema\": {SCHEMA},\n\"events\": ["),
            Format::Table | Format::Jsonl => Ok(()),
        }
    }

    /// Writes an event. It is out when this returns: the capture may be one that is still being written.
    pub(super) fn tell(&mut self, happened: Happened<'_>) -> io::Result<()> {
        match self.format {
            Format::Table => {
                if self.events == 0 {
                    writeln!(self.out, "{}", print::painted(print::HEAD, HEADING))?;
                }
                writeln!(self.out, "{}", row(happened))?;
            }
            Format::Json => {
                let between = if self.events == 0 { "" } else { "," };
                write!(self.out, "{between}\n{}", line(happened).trim_end())?;
            }
            Format::Jsonl => self.out.write_all(line(happened).as_bytes())?,
        }
        self.events += 1;
        self.out.flush()
    }

    /// Writes the summary.
    pub(super) fn end(&mut self, summary: &Summary) -> io::Result<()> {
        match self.format {
            Format::Table => {
                if self.events == 0 {
                    writeln!(self.out, "no loop, no storm, no walk of a search list")?;
                }
                self.out.write_all(summary.table().as_bytes())?;
            }
            Format::Json => {
                let before = if self.events == 0 { "" } else { "\n" };
                let summary = print::json(summary, Format::Json);
                write!(self.out, "{before}],\n\"summary\": {}\n}}\n", summary.trim_end())?;
            }
            Format::Jsonl => {
                let line = LastLine {
                    schema: SCHEMA,
                    event: "summary",
                    summary,
                };
                self.out.write_all(print::json(&line, Format::Jsonl).as_bytes())?;
            }
        }
        self.out.flush()
    }
}

fn line(happened: Happened<'_>) -> String {
    let line = Line {
        schema: SCHEMA,
        event: happened.event.word(),
        time: rfc3339_ns(happened.moment.epoch_ns),
        frame: happened.frame,
        seconds: happened.moment.since_ns as f64 / 1e9,
        fields: happened.event,
    };
    print::json(&line, Format::Jsonl)
}

fn row(happened: Happened<'_>) -> String {
    let style = match happened.event {
        Event::Trip(_) | Event::Extend(_) | Event::OverBudget(_) | Event::SearchWalk(_) => print::WARN,
        Event::Release(_) | Event::Expire(_) | Event::WithinBudget(_) => print::GOOD,
        _ => print::HEAD,
    };
    let time = print::painted(print::FAINT, &rfc3339_ns(happened.moment.epoch_ns));
    let seconds = happened.moment.since_ns as f64 / 1e9;
    let text = happened.event.to_string();
    let text = print::painted(style, &print::harmless(&text));
    format!("{:>8}  {time}  {seconds:>11.6}  {text}", happened.frame)
}
