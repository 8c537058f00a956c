//! `dnsguard status`: one screen that says whether all is well.

use std::fmt::Write as _;

use super::{Outcome, Remote, duration, loops};
use crate::{
    control::status::{HookRow, Status},
    exit,
    print::{self, BAD, FAINT, Format, GOOD, HEAD, WARN, harmless, painted, table},
};

/// Examples for the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  dnsguard status
  dnsguard status || echo 'somebody should look at it'
  dnsguard status -o json | jq -r '.warnings[]'";

/// Exit codes for the help.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  all is well
  1  failed: the message says what, on what, and what to do next
  2  bad usage
  3  something needs attention: the lines under \"look at\" say what
  4  no agent answers
  5  not permitted";

/// `dnsguard status`
pub(crate) fn status(remote: &Remote) -> Outcome {
    let status: Status = remote.client().get("/v1/status")?;
    let code = if status.warnings.is_empty() {
        exit::DONE
    } else {
        exit::FOUND
    };
    let text = match remote.output {
        Format::Table => screen(&status),
        format => print::json(&status, format),
    };
    Ok((text, code))
}

fn screen(status: &Status) -> String {
    let mut text = String::new();
    let well = if status.warnings.is_empty() {
        painted(GOOD, "OK")
    } else {
        painted(WARN, "WARN")
    };
    let mode = match status.mode.as_str() {
        "enforce" => painted(HEAD, "enforce"),
        mode => painted(FAINT, mode),
    };
    let up = duration((status.uptime_seconds * 1_000.0) as u64);
    let _ = writeln!(text, "{well}  dnsguard {}, {mode} mode, up {up}", status.version);
    for warning in &status.warnings {
        let _ = writeln!(text, "  {} {}", painted(WARN, "look at"), harmless(warning));
    }
    let configuration = &status.configuration;
    let file = configuration.file.as_deref().unwrap_or("none, all defaults");
    let loaded = if configuration.last_reload_successful {
        painted(GOOD, "loaded")
    } else {
        painted(BAD, "not loaded")
    };
    let _ = writeln!(
        text,
        "\npolicy {}, file {} ({loaded}), lease {:.0} s",
        status.policy_generation,
        harmless(file),
        status.lease_seconds
    );
    if !configuration.set_by_hand.is_empty() {
        let keys = configuration.set_by_hand.join(", ");
        let _ = writeln!(
            text,
            "set by hand: {}; dnsguard policy reset takes it back",
            harmless(&keys)
        );
    }
    if status.allowed > 0 {
        let _ = writeln!(
            text,
            "{} names and types are only watched; see dnsguard loops list",
            status.allowed
        );
    }
    if let Some(pods) = &status.pods {
        let _ = writeln!(text, "{} pods of this node can be named", pods.named);
    }
    let _ = writeln!(
        text,
        "{:.0} queries/s, {:.0} held/s, {:.0} shed/s\n",
        status.queries_per_second, status.held_per_second, status.shed_per_second
    );
    let hooks = status.hooks.iter().map(hook);
    text += &table(&["INTERFACE", "HOOK", "BY", "PROGRAM", "WHY"], hooks);
    if !status.links.is_empty() {
        let links = status.links.iter().map(|link| {
            vec![
                harmless(&link.device).into_owned(),
                format!("{:.0}", link.limit_packets_per_second),
                format!("{:.0}", link.packets_per_second),
                format!("{:.0}", link.peak_packets_per_second),
            ]
        });
        let _ = write!(
            text,
            "\n{}",
            table(&["LINK-LOCAL BUDGET OF", "LIMIT/S", "NOW/S", "PEAK/S"], links)
        );
    }
    if !status.budgets.is_empty() {
        let budgets = status.budgets.iter().map(|budget| {
            vec![
                harmless(&budget.budget).into_owned(),
                budget.limit_packets_per_second.to_string(),
                budget.within.to_string(),
                budget.over.to_string(),
                format!("{:.0}", budget.over_per_second),
            ]
        });
        let _ = write!(
            text,
            "\n{}",
            table(&["BUDGET", "LIMIT/S", "WITHIN", "OVER", "OVER/S"], budgets)
        );
    }
    if !status.loops.is_empty() {
        let _ = write!(text, "\n{}", loops::rows(&status.loops));
    }
    if !status.keys.is_empty() {
        let keys = status.keys.iter().map(|key| {
            vec![
                format!("{:.1}", key.rate.queries_per_second),
                format!("{:.1} %", key.rate.share * 100.0),
                format!("{} {}", harmless(&key.name), harmless(&key.qtype)),
            ]
        });
        let _ = write!(text, "\n{}", table(&["QUERIES/S", "SHARE", "NAME AND TYPE"], keys));
    }
    if !status.allowances_exceeded.is_empty() {
        let rows = status.allowances_exceeded.iter();
        let rows = rows.map(|row| vec![row.device.clone(), row.allowance.clone(), row.packets.to_string()]);
        let _ = write!(
            text,
            "\n{}",
            table(&["INTERFACE", "AWS ALLOWANCE", "PACKETS OVER"], rows)
        );
    }
    text
}

fn hook(row: &HookRow) -> Vec<String> {
    vec![
        harmless(&row.device).into_owned(),
        row.hook.clone(),
        row.method.clone().unwrap_or_else(|| "nothing".to_owned()),
        row.program_id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
        harmless(&row.reason).into_owned(),
    ]
}
