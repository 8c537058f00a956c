//! `dnsguard top`: who asks most and what for, which budgets are short and which loops are held.
//!
//! ```text
//! client (the agent's view) --> state (what keys make of it) --> screen    live, as long as somebody looks
//!                           '-> text, JSON                                 once
//! ```

mod live;
mod screen;
mod state;
mod tab;
mod text;

use std::env;

use crate::{
    command::Remote,
    print::{self, Format},
    view::View,
};

/// What the help says beside the flags.
pub(crate) const EXAMPLES: &str = "\
Examples:
  dnsguard top                                    live; ? shows the keys
  dnsguard top --once                             once, for a file or a mail
  dnsguard top -o json | jq '.zones[0].zone'
  dnsguard top -o json | jq '.loops[] | {name, held, hold_left_ms}'

It asks the running agent. Who asks what is of the last 10 s or so, from samples; a \
query counts in one zone only. What standard output is no terminal for is printed once.";

/// What its exit codes mean.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the message says why
  2  bad usage
  4  no agent answers
  5  not permitted";

/// `dnsguard top`
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Print once and end, also on a terminal.
    #[arg(long)]
    pub(crate) once: bool,
}

/// Shows what the agent sees, until somebody leaves or once.
///
/// # Errors
///
/// A [`crate::control::client::ClientError`] if nobody answers at first; else the terminal or standard output failed.
pub(crate) fn top(args: &Args) -> anyhow::Result<()> {
    let client = args.remote.client();
    let ask = move || client.get::<View>("/v1/top");
    let view = ask()?;
    if args.remote.output == Format::Table && !args.once && is_screen() {
        return live::run(view, ask);
    }
    print::print(&once(&view, args.remote.output))
}

/// What is printed of one view.
fn once(view: &View, format: Format) -> String {
    match format {
        Format::Table => text::text(view),
        Format::Json | Format::Jsonl => print::json(view, format),
    }
}

/// Whether standard output is a terminal on which a cursor can be moved.
fn is_screen() -> bool {
    print::width().is_some() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::view;

    #[test]
    fn json_is_the_view_as_the_agent_has_it() {
        for format in [Format::Json, Format::Jsonl] {
            let shown = once(&view(), format);
            assert_eq!(serde_json::from_str::<View>(&shown).unwrap(), view());
            assert_eq!(shown.lines().count() == 1, format == Format::Jsonl);
        }
    }

    #[test]
    fn whoever_answers_cannot_steer_the_terminal() {
        let mut view = view();
        view.mode = "\u{1b}[31m".to_owned();
        view.interfaces = vec!["\u{1b}]0;x\u{7}".to_owned()];
        view.zones[0].zone = "\u{1b}[2J\u{202e}\u{e9}\n".to_owned();
        for format in [Format::Json, Format::Jsonl] {
            assert!(!once(&view, format).contains('\u{1b}'));
        }
        let table = anstream::adapter::strip_str(&once(&view, Format::Table)).to_string();
        assert!(table.contains("\\u{1b}[2J\\u{202e}\\u{e9}\\u{a}\n"), "{table}");
        assert!(
            table.contains("\\u{1b}[31m") && table.contains("\\u{1b}]0;x\\u{7}"),
            "{table}"
        );
    }
}
