//! What came of it, in lines for people or as JSON, and as an exit code.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    asking::{Finding, Findings, Outcome},
    capture::device,
    response::ExtendedError,
    route::{Hop, Route, Server, Step},
    server::Servers,
};
use crate::{
    exit, name,
    print::{self, Format},
};

/// Goes up with every change that breaks a reader.
const SCHEMA: u32 = 1;

/// What is told.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: u32,
    /// Whether hops could be seen.
    sees_hops: bool,
    exit_code: u8,
    /// Why not everything was asked.
    cut_short: Option<&'static str>,
    went_round: usize,
    answered: usize,
    queries: Vec<Query>,
    skipped: Vec<Skipped>,
}

#[derive(Debug, Serialize)]
struct Query {
    name: String,
    #[serde(rename = "type")]
    qtype: String,
    server: String,
    /// The name that went out, in small letters.
    asked: String,
    verdict: Verdict,
    rcode: Option<String>,
    extended_errors: Vec<ExtendedError>,
    /// Why it could not be sent.
    error: Option<String>,
    milliseconds: f64,
    /// Each way that it took; the one of a loop ends where it came before.
    routes: Vec<Vec<Stop>>,
    hops: Vec<Seen>,
    /// What else has to be known.
    notes: Vec<String>,
}

/// What is to be thought of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    WentRound,
    Answered,
    /// A response that is an error.
    Failed,
    Silent,
    Unreachable,
    /// No answer, and a server got it more than once: a loop, or a sender that tries again.
    Unclear,
    Unfinished,
}

#[derive(Debug, Serialize)]
struct Stop {
    server: String,
    process: Option<String>,
    /// Whether it is certain that the stop before sent it here.
    certain: bool,
}

#[derive(Debug, Serialize)]
struct Seen {
    milliseconds: f64,
    from: String,
    to: String,
    interface: String,
}

#[derive(Debug, Serialize)]
struct Skipped {
    server: String,
    reason: &'static str,
}

impl Report {
    pub(super) fn new(findings: &Findings, servers: &Servers) -> Self {
        let queries: Vec<_> = findings
            .findings
            .iter()
            .map(|finding| Query::new(finding, findings.sees_hops))
            .collect();
        let count = |verdict| queries.iter().filter(|query| query.verdict == verdict).count();
        let went_round = count(Verdict::WentRound);
        let answered = count(Verdict::Answered);
        let exit_code = if went_round > 0 {
            exit::FOUND
        } else if findings.cut_short.is_some() {
            exit::FAILED
        } else if !findings.sees_hops {
            exit::NOT_PERMITTED
        } else if answered == 0 {
            exit::NOBODY
        } else {
            exit::DONE
        };
        let skipped = servers.skipped.iter().map(|skipped| Skipped {
            server: skipped.server.clone(),
            reason: skipped.reason,
        });
        Self {
            schema: SCHEMA,
            sees_hops: findings.sees_hops,
            exit_code,
            cut_short: findings.cut_short,
            went_round,
            answered,
            queries,
            skipped: skipped.collect(),
        }
    }

    /// What to print.
    pub(super) fn text(&self, format: Format) -> String {
        match format {
            Format::Table => self.lines(),
            Format::Json | Format::Jsonl => print::json(self, format),
        }
    }

    pub(super) const fn exit_code(&self) -> u8 {
        self.exit_code
    }

    fn lines(&self) -> String {
        let mut text = String::new();
        for skipped in &self.skipped {
            line(
                &mut text,
                &format!("{}: sent nothing, {}", skipped.server, skipped.reason),
            );
        }
        for query in &self.queries {
            query.lines(&mut text);
        }
        if !self.sees_hops {
            line(
                &mut text,
                "hops could not be seen, so no loop could be proven or ruled out: run it as root, or grant CAP_NET_RAW",
            );
        }
        if let Some(reason) = self.cut_short {
            line(&mut text, &format!("ended before everything was asked: {reason}"));
        }
        let all = self.queries.len();
        let unclear = self
            .queries
            .iter()
            .filter(|query| query.verdict == Verdict::Unclear)
            .count();
        let mut sum = if self.went_round == 0 && self.sees_hops {
            format!("{all} queries: none is proven to have gone round")
        } else if self.sees_hops {
            format!("{all} queries: {} went round", self.went_round)
        } else {
            format!("{all} queries")
        };
        let _ = write!(sum, ", {} answered", self.answered);
        if unclear > 0 {
            let _ = write!(sum, ", {unclear} unclear");
        }
        line(&mut text, &sum);
        if self.went_round > 0 {
            line(
                &mut text,
                "next: mend the forwarding rule of one of these servers; until then dnsguard run --mode enforce cuts the loop",
            );
        } else if self.exit_code == exit::NOBODY {
            line(
                &mut text,
                "no name got an answer: do the servers run, and are they reachable?",
            );
        }
        text
    }
}

impl Query {
    fn new(finding: &Finding, sees_hops: bool) -> Self {
        let verdict = Verdict::of(finding);
        let (mut rcode, mut extended_errors, mut error) = (None, Vec::new(), None);
        let mut notes = Vec::new();
        match &finding.outcome {
            Outcome::Responded(response) => {
                rcode = Some(response.rcode_word());
                extended_errors.clone_from(&response.errors);
                if response.is_a_guards() {
                    notes.push("a running dnsguard holds this name".to_owned());
                }
            }
            Outcome::Unreachable(reason) => error = Some(reason.clone()),
            Outcome::Silent | Outcome::Unfinished => {}
        }
        let route = finding.route.as_ref();
        if verdict == Verdict::Unclear {
            notes.push(
                "a server got it more than once: from a sender that tries again, or in a loop; not proven".to_owned(),
            );
        }
        if !finding.went_round && verdict != Verdict::Answered {
            notes.extend(
                finding
                    .unprovable
                    .map(|reason| format!("a loop cannot be proven here: {reason}")),
            );
        }
        let was_sent = !matches!(verdict, Verdict::Unreachable | Verdict::Unfinished);
        if sees_hops && was_sent && route.is_some_and(|route| !route.has_own()) {
            notes.push("it was not seen on any interface of this network: no loop could be proven".to_owned());
        }
        if route.is_some_and(|route| route.incomplete) && !finding.went_round {
            notes.push("more packets came than could be read".to_owned());
        }
        Self {
            name: finding.task.question.target.to_string(),
            qtype: name::qtype(finding.task.question.qtype).into_owned(),
            server: finding.task.server.to_string(),
            asked: finding.name.clone(),
            verdict,
            rcode,
            extended_errors,
            error,
            milliseconds: milliseconds(finding.waited),
            routes: route.map_or_else(Vec::new, |route| {
                let paths = route.paths().into_iter();
                paths
                    .map(|path| path.iter().map(|step| Stop::new(route, *step)).collect())
                    .collect()
            }),
            hops: route.map_or_else(Vec::new, |route| route.hops().iter().map(Seen::new).collect()),
            notes,
        }
    }

    fn lines(&self, text: &mut String) {
        let ms = self.milliseconds;
        let rcode = self.rcode.as_deref().unwrap_or_default();
        let what = match self.verdict {
            Verdict::WentRound => "it went round".to_owned(),
            Verdict::Answered => format!("{rcode} in {ms:.0} ms"),
            Verdict::Failed => format!("{rcode} in {ms:.0} ms, no loop seen"),
            Verdict::Silent => format!("no response in {ms:.0} ms, no loop seen"),
            Verdict::Unreachable => format!("not reached: {}", self.error.as_deref().unwrap_or("unknown error")),
            Verdict::Unclear if rcode.is_empty() => format!("unclear: no response in {ms:.0} ms"),
            Verdict::Unclear => format!("unclear: {rcode} in {ms:.0} ms"),
            Verdict::Unfinished => "not finished".to_owned(),
        };
        line(
            text,
            &format!("{} {} at {}: {what}", self.qtype, self.name, self.server),
        );
        for route in &self.routes {
            let mut way = String::new();
            for stop in route {
                if !way.is_empty() {
                    way.push_str(if stop.certain { " -> " } else { " ~> " });
                }
                way.push_str(&stop.server);
                if let Some(process) = &stop.process {
                    let _ = write!(way, " ({process})");
                }
            }
            line(text, &format!("    {way}"));
        }
        for error in &self.extended_errors {
            line(text, &format!("    extended error {}: {}", error.code, error.text));
        }
        for note in &self.notes {
            line(text, &format!("    {note}"));
        }
    }
}

impl Verdict {
    fn of(finding: &Finding) -> Self {
        if finding.went_round {
            return Self::WentRound;
        }
        let came_again = finding.route.as_ref().is_some_and(Route::came_again);
        match &finding.outcome {
            Outcome::Responded(response) if response.is_answer() => Self::Answered,
            Outcome::Unfinished => Self::Unfinished,
            Outcome::Responded(_) | Outcome::Silent if came_again => Self::Unclear,
            Outcome::Responded(_) => Self::Failed,
            Outcome::Silent => Self::Silent,
            Outcome::Unreachable(_) => Self::Unreachable,
        }
    }
}

impl Stop {
    fn new(route: &Route, step: Step) -> Self {
        let Server { address, processes, .. } = route.server_at(step.server);
        let mut names: Vec<&str> = processes.iter().map(|process| process.name.as_str()).collect();
        names.dedup();
        Self {
            server: address.to_string(),
            process: Some(names.join(", ")).filter(|names| !names.is_empty()),
            certain: step.sure,
        }
    }
}

impl Seen {
    fn new(hop: &Hop) -> Self {
        Self {
            milliseconds: milliseconds(hop.seen.at),
            from: hop.seen.from.to_string(),
            to: hop.seen.to.to_string(),
            interface: device(hop.seen.ifindex),
        }
    }
}

/// To a thousandth.
fn milliseconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
