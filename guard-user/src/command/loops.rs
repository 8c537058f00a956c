//! `dnsguard loops`: what goes round, and what is done about it.

use std::net::SocketAddr;

use clap::{Args, Subcommand};

use super::{Outcome, Remote, duration, have_done};
use crate::{
    control::api::{LoopList, Which},
    exit,
    print::{self, Format, harmless, table},
    view::LoopRow,
};

/// Examples for the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  dnsguard loops list                                what goes round?
  dnsguard loops show x.consul                       through which servers, and since when?
  dnsguard loops release x.consul DS                 close the breaker now: it is mended
  dnsguard loops release --all                       close all
  dnsguard loops allow x.consul DS --for 3600        only watch it, for an hour
  dnsguard loops disallow x.consul";

/// What can be done with loops.
#[derive(Debug, Subcommand)]
pub(crate) enum Loops {
    /// The open breakers, and what is only watched.
    List(Remote),
    /// All that is known of the breakers of a name.
    Show(Show),
    /// Close breakers. One whose query still goes round opens again.
    Release(Release),
    /// Only watch a name and type: its loops are told, and no packet of it is touched.
    Allow(Allow),
    /// No longer only watch it.
    Disallow(Release),
}

/// `dnsguard loops show`
#[derive(Args, Debug)]
pub(crate) struct Show {
    /// The name.
    #[arg(value_name = "NAME")]
    name: String,
    /// The type. None: all types.
    #[arg(value_name = "TYPE")]
    qtype: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// `dnsguard loops release`, `dnsguard loops disallow`
#[derive(Args, Debug)]
pub(crate) struct Release {
    /// The name.
    #[arg(value_name = "NAME", required_unless_present = "all")]
    name: Option<String>,
    /// The type. None: all types there are.
    #[arg(value_name = "TYPE", requires = "name")]
    qtype: Option<String>,
    /// All names and types.
    #[arg(long, conflicts_with = "name")]
    all: bool,
    #[command(flatten)]
    remote: Remote,
}

/// `dnsguard loops allow`
#[derive(Args, Debug)]
pub(crate) struct Allow {
    /// The name.
    #[arg(value_name = "NAME")]
    name: String,
    /// The type. None: all types that go round now.
    #[arg(value_name = "TYPE")]
    qtype: Option<String>,
    /// Seconds after which it ends, 1 to 2592000 (30 days). Without, it lasts until the agent ends.
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=2_592_000))]
    seconds: Option<u64>,
    #[command(flatten)]
    remote: Remote,
}

/// `dnsguard loops`
pub(crate) fn loops(asked: Loops) -> Outcome {
    match asked {
        Loops::List(remote) => list(&remote),
        Loops::Show(asked) => show(&asked),
        Loops::Release(asked) => have_done(&asked.remote, "/v1/loops/release", &asked.which()),
        Loops::Disallow(asked) => have_done(&asked.remote, "/v1/loops/disallow", &asked.which()),
        Loops::Allow(asked) => {
            let which = Which {
                name: Some(asked.name),
                qtype: asked.qtype,
                all: false,
                seconds: asked.seconds,
            };
            have_done(&asked.remote, "/v1/loops/allow", &which)
        }
    }
}

impl Release {
    fn which(&self) -> Which {
        Which {
            name: self.name.clone(),
            qtype: self.qtype.clone(),
            all: self.all,
            seconds: None,
        }
    }
}

fn list(remote: &Remote) -> Outcome {
    let list: LoopList = remote.client().get("/v1/loops")?;
    let text = match remote.output {
        Format::Json => print::json(&list, Format::Json),
        Format::Jsonl => lines(&list.loops),
        Format::Table => {
            let mut text = if list.loops.is_empty() {
                format!("nothing goes round ({} mode)\n", list.mode)
            } else {
                rows(&list.loops)
            };
            if !list.allowed.is_empty() {
                let allowed = list.allowed.iter().map(|row| {
                    vec![
                        harmless(&row.name).into_owned(),
                        row.qtype.clone(),
                        row.from.clone(),
                        row.seconds_left
                            .map_or_else(|| "-".to_owned(), |seconds| duration(seconds * 1_000)),
                    ]
                });
                text += "\nonly watched:\n";
                text += &table(&["NAME", "TYPE", "BY", "ENDS IN"], allowed);
            }
            text
        }
    };
    Ok((text, exit::DONE))
}

fn show(asked: &Show) -> Outcome {
    let mut list: LoopList = asked.remote.client().get("/v1/loops")?;
    let plain = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    let is_meant = |name: &str, qtype: &str| {
        plain(name) == plain(&asked.name)
            && asked
                .qtype
                .as_ref()
                .is_none_or(|wanted| qtype.eq_ignore_ascii_case(wanted))
    };
    list.loops.retain(|row| is_meant(&row.name, &row.qtype));
    list.allowed.retain(|row| is_meant(&row.name, &row.qtype));
    let code = if list.loops.is_empty() { exit::DONE } else { exit::FOUND };
    let text = match asked.remote.output {
        Format::Table if list.loops.is_empty() => {
            let name = harmless(&asked.name);
            format!("no breaker of {name} is open; dnsguard explain {name} says what is known of it\n")
        }
        Format::Table => list.loops.iter().map(paragraph).collect::<Vec<_>>().join("\n"),
        Format::Json => print::json(&list, Format::Json),
        Format::Jsonl => lines(&list.loops),
    };
    Ok((text, code))
}

/// One object a line, each with the schema.
fn lines(rows: &[LoopRow]) -> String {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        schema: u32,
        #[serde(flatten)]
        row: &'a LoopRow,
    }
    let schema = crate::control::api::SCHEMA;
    rows.iter()
        .map(|row| print::json(&Line { schema, row }, Format::Jsonl))
        .collect()
}

/// Open breakers as a table.
pub(super) fn rows(loops: &[LoopRow]) -> String {
    let rows = loops.iter().map(|row| {
        vec![
            format!("{} {}", harmless(&row.name), harmless(&row.qtype)),
            device(row),
            format!("{} ({})", row.proof, row.evidence),
            hold(row),
            row.held.to_string(),
            servers(row),
        ]
    });
    table(&["LOOP", "INTERFACE", "PROOF", "HOLD", "HELD", "SERVERS"], rows)
}

fn hold(row: &LoopRow) -> String {
    match row.hold_left_ms {
        _ if row.allowed => "allowed".to_owned(),
        0 => "over".to_owned(),
        left => duration(left),
    }
}

/// The interface, and the pod that it leads to.
fn device(row: &LoopRow) -> String {
    let device = harmless(&row.device);
    match &row.device_pod {
        Some(pod) => format!("{device} ({})", harmless(pod)),
        None => device.into_owned(),
    }
}

/// The servers, each with the pod that it is.
fn servers(row: &LoopRow) -> String {
    let server = |server: &SocketAddr| match row.pods.get(&server.ip()) {
        Some(pod) => format!("{server} ({})", harmless(pod)),
        None => server.to_string(),
    };
    row.servers.iter().map(server).collect::<Vec<_>>().join(" ")
}

fn paragraph(row: &LoopRow) -> String {
    format!(
        "{name} {qtype} {class}\n  \
           key        {key}\n  \
           interface  {device}\n  \
           proof      {proof}, by {evidence}\n  \
           open for   {age}\n  \
           hold       {hold}, {level} tests have failed\n  \
           held       {held} queries\n  \
           servers    {servers}\n",
        name = harmless(&row.name),
        qtype = harmless(&row.qtype),
        class = harmless(&row.class),
        key = row.key,
        device = device(row),
        proof = row.proof,
        evidence = row.evidence,
        age = duration(row.age_ms),
        hold = hold(row),
        level = row.level,
        held = row.held,
        servers = servers(row),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_among_pods_is_shown_with_their_names() {
        let row = LoopRow {
            device: "veth8".to_owned(),
            device_pod: Some("kube-system/dns-1".to_owned()),
            servers: vec![([10, 0, 0, 8], 53).into(), ([192, 0, 2, 1], 53).into()],
            pods: [([10, 0, 0, 8].into(), "kube-system/dns-1".to_owned())].into(),
            ..LoopRow::default()
        };
        let shown = anstream::adapter::strip_str(&rows(std::slice::from_ref(&row))).to_string();
        for part in [
            "veth8 (kube-system/dns-1)",
            "10.0.0.8:53 (kube-system/dns-1) 192.0.2.1:53",
        ] {
            assert!(
                shown.contains(part) && paragraph(&row).contains(part),
                "{part} is not in {shown}"
            );
        }
    }
}
