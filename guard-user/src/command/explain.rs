//! `dnsguard explain`: what the guard thinks of a name and type, and why.

use std::fmt::Write as _;

use super::{Outcome, Remote, query};
use crate::{
    control::api::Explanation,
    exit,
    print::{self, BAD, Format, GOOD, WARN, harmless, painted},
};

/// Examples for the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  dnsguard explain x.consul DS
  dnsguard explain www.example.com
  dnsguard explain x.consul DS -o json | jq .state.scores";

/// Exit codes for the help.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  its queries pass
  1  failed: the message says what, on what, and what to do next
  2  bad usage
  3  its breaker is open: queries are held, or would be
  4  no agent answers
  5  not permitted";

/// `dnsguard explain`
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The name.
    #[arg(value_name = "NAME")]
    name: String,
    /// The type, such as A, DS or TYPE65.
    #[arg(value_name = "TYPE", default_value = "A")]
    qtype: String,
    #[command(flatten)]
    remote: Remote,
}

/// `dnsguard explain`
pub(crate) fn explain(asked: &Args) -> Outcome {
    let query = query(&[("name", &asked.name), ("type", &asked.qtype)]);
    let explanation: Explanation = asked.remote.client().get(&format!("/v1/explain?{query}"))?;
    let code = if explanation.verdict == "pass" {
        exit::DONE
    } else {
        exit::FOUND
    };
    let text = match asked.remote.output {
        Format::Table => paragraphs(&explanation),
        format => print::json(&explanation, format),
    };
    Ok((text, code))
}

fn paragraphs(explanation: &Explanation) -> String {
    let style = match explanation.verdict.as_str() {
        "pass" => GOOD,
        "held" => BAD,
        _ => WARN,
    };
    let mut text = format!(
        "{}  {}\n",
        painted(style, &explanation.verdict.replace('_', " ")),
        harmless(&explanation.summary)
    );
    let parts = [
        ("why", &explanation.reasons),
        ("charged to", &explanation.budgets),
        ("what would change it", &explanation.remedies),
    ];
    for (heading, sentences) in parts.into_iter().filter(|(_, sentences)| !sentences.is_empty()) {
        let _ = writeln!(text, "\n{heading}:");
        for sentence in sentences {
            let _ = writeln!(text, "  - {}", harmless(sentence));
        }
    }
    text
}
