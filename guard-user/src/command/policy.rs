//! `dnsguard policy`: the configuration in force, and changes by hand.

use clap::{Args, Subcommand};

use super::{Outcome, Remote, have_done};
use crate::{
    config::MODES,
    control::api::{Change, PolicyView, SettingRow},
    exit,
    print::{self, Format, harmless, table},
};

/// Examples for the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  dnsguard policy get                                       all keys, and where their values come from
  dnsguard policy get breaker.hold_ms
  dnsguard policy mode observe                              hands off, now
  dnsguard policy set breaker.hold_ms 2000
  dnsguard policy set 'budget.\"per client\".limit' 500
  dnsguard policy set --dry-run ports '[53, 8600]'          would it be right?
  dnsguard policy reset                                     back to file and flags

What is set by hand stays in force through reloads, until it is reset or the agent ends; dnsguard status shows it.";

/// What can be done with the policy.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Show the configuration in force.
    Get(Get),
    /// Set a key, checked like the file, all or nothing.
    Set(Set),
    /// Take back what was set by hand.
    Reset(Reset),
    /// Set the mode: observe or enforce.
    Mode(Mode),
}

/// `dnsguard policy get`
#[derive(Args, Debug)]
pub(crate) struct Get {
    /// Show this key alone, such as breaker.hold_ms.
    #[arg(value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// `dnsguard policy set`
#[derive(Args, Debug)]
pub(crate) struct Set {
    /// The key as TOML writes it, such as breaker.hold_ms or budget.\"per client\".limit.
    #[arg(value_name = "KEY")]
    key: String,
    /// The value as TOML writes it; what is no TOML is a text.
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    value: String,
    /// Only say whether it would be right, and what it would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    remote: Remote,
}

/// `dnsguard policy reset`
#[derive(Args, Debug)]
pub(crate) struct Reset {
    /// The key. None: all that is set by hand.
    #[arg(value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// `dnsguard policy mode`
#[derive(Args, Debug)]
pub(crate) struct Mode {
    /// observe: detect and count, touch no packet; enforce: answer or drop what is held.
    #[arg(value_name = "MODE", value_parser = MODES.map(|(word, _)| word))]
    mode: String,
    #[command(flatten)]
    remote: Remote,
}

/// `dnsguard policy`
pub(crate) fn policy(asked: Policy) -> Outcome {
    match asked {
        Policy::Get(asked) => get(&asked),
        Policy::Set(asked) => {
            let change = Change {
                key: Some(asked.key),
                value: Some(asked.value),
                dry_run: asked.dry_run,
            };
            set(&asked.remote, &change)
        }
        Policy::Reset(asked) => {
            let change = Change {
                key: asked.key,
                ..Change::default()
            };
            have_done(&asked.remote, "/v1/policy/reset", &change).map(or_nothing)
        }
        Policy::Mode(asked) => {
            let change = Change {
                key: Some("mode".to_owned()),
                value: Some(asked.mode),
                dry_run: false,
            };
            set(&asked.remote, &change)
        }
    }
}

fn set(remote: &Remote, change: &Change) -> Outcome {
    have_done(remote, "/v1/policy/set", change).map(or_nothing)
}

/// A change that changes nothing says so.
fn or_nothing((text, code): (String, u8)) -> (String, u8) {
    if text.is_empty() {
        ("nothing is different\n".to_owned(), code)
    } else {
        (text, code)
    }
}

fn get(asked: &Get) -> Outcome {
    let mut view: PolicyView = asked.remote.client().get("/v1/policy")?;
    if let Some(key) = &asked.key {
        let rows = view.settings.iter().chain(&view.by_hand);
        let Some(row) = rows.into_iter().find(|row| row.key == *key).cloned() else {
            let known: Vec<_> = view.settings.iter().map(|row| row.key.as_str()).collect();
            return Err(crate::control::client::ClientError::Bad(format!(
                "there is no key '{}'; there are {}",
                harmless(key),
                known.join(", ")
            )));
        };
        let text = match asked.remote.output {
            Format::Table => format!("{}\n", harmless(&row.value)),
            format => {
                view.settings = vec![row];
                view.limits.clear();
                view.by_hand.clear();
                print::json(&view, format)
            }
        };
        return Ok((text, exit::DONE));
    }
    let text = match asked.remote.output {
        Format::Table => {
            let cells = |row: &SettingRow| {
                vec![
                    harmless(&row.key).into_owned(),
                    harmless(&row.value).into_owned(),
                    row.from.clone(),
                ]
            };
            let rows = view.settings.iter().chain(&view.by_hand).map(cells);
            let mut text = format!("policy {}, {}\n\n", view.policy_generation, file(view.file.as_deref()));
            text += &table(&["KEY", "VALUE", "FROM"], rows);
            if !view.limits.is_empty() {
                text += "\n";
            }
            for limit in &view.limits {
                text = text + &harmless(limit) + "\n";
            }
            text
        }
        format => print::json(&view, format),
    };
    Ok((text, exit::DONE))
}

fn file(file: Option<&str>) -> String {
    match file {
        Some(file) => format!("from {}", harmless(file)),
        None => "without a file".to_owned(),
    }
}
