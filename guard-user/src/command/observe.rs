//! `dnsguard observe`: events, and sampled queries, as they come.

use clap::Args as ClapArgs;
use serde_json::Value;

use super::{Remote, query};
use crate::{
    control::client::ClientError,
    exit,
    print::{self, BAD, FAINT, Format, GOOD, WARN, harmless, painted},
};

/// Examples for the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  dnsguard observe                                    the last 20 events
  dnsguard observe -f                                 and those that come
  dnsguard observe -f --queries --name '*.consul'     queries below consul, as they pass
  dnsguard observe -f --queries --client 10.1.2.0/24 --type PTR
  dnsguard observe -f --event trip --event release -o jsonl | jq .reason
  dnsguard observe --last 1000 --device eth0
  dnsguard observe -f --queries --pod 'shop/*'

Queries are samples: of few, each; of many, some, and xN says how many each stands for.";

/// `dnsguard observe`
#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    /// Go on: show what comes, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// How many of the last events are shown first, 1024 at most. [default: 20]
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// Show sampled queries as well.
    #[arg(short, long, requires = "follow")]
    queries: bool,
    /// Only this name; * stands for any letters. Can be given several times, like all filters.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Only this type.
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only this client, an address or a prefix.
    #[arg(long = "client", value_name = "PREFIX")]
    clients: Vec<String>,
    /// Only this interface.
    #[arg(long = "device", value_name = "NAME")]
    devices: Vec<String>,
    /// Only this pod, as namespace/name; * stands for any letters.
    #[arg(long = "pod", value_name = "POD")]
    pods: Vec<String>,
    /// Only this verdict: pass, answer, drop, would_answer, would_drop.
    #[arg(long = "verdict", value_name = "VERDICT", value_parser = ["pass", "answer", "drop", "would_answer", "would_drop"])]
    verdicts: Vec<String>,
    /// Only this event, such as trip or query.
    #[arg(long = "event", value_name = "EVENT")]
    events: Vec<String>,
    #[command(flatten)]
    remote: Remote,
}

/// `dnsguard observe`. It prints as it goes.
pub(crate) fn observe(asked: &Args) -> Result<u8, ClientError> {
    let last = asked.last.unwrap_or(20).to_string();
    let mut pairs = vec![("last", last.as_str())];
    if asked.follow {
        pairs.push(("follow", "1"));
    }
    if asked.queries {
        pairs.push(("queries", "1"));
    }
    let filters = [
        ("name", &asked.names),
        ("type", &asked.types),
        ("client", &asked.clients),
        ("device", &asked.devices),
        ("pod", &asked.pods),
        ("verdict", &asked.verdicts),
        ("event", &asked.events),
    ];
    for (key, values) in filters {
        pairs.extend(values.iter().map(|value| (key, value.as_str())));
    }
    let path = format!("/v1/events?{}", query(&pairs));
    let client = asked.remote.client();
    if asked.remote.output == Format::Json {
        // One document: what is there now.
        let mut events = Vec::new();
        client.lines(&path, |line| {
            events.extend(serde_json::from_str::<Value>(line));
            // A document that never ends would be none.
            true
        })?;
        let document = serde_json::json!({"schema": 1, "events": events});
        let printed = print::print(&print::json(&document, Format::Json));
        return Ok(if printed.is_ok() { exit::DONE } else { exit::FAILED });
    }
    let mut is_read = true;
    client.lines(&path, |line| {
        let text = match asked.remote.output {
            Format::Table => sentence(line),
            Format::Json | Format::Jsonl => format!("{line}\n"),
        };
        // Whoever reads it has seen enough.
        is_read = print::print_all(&text);
        is_read
    })?;
    if asked.follow && is_read {
        return Err(client.ended());
    }
    Ok(exit::DONE)
}

/// A line for people.
fn sentence(line: &str) -> String {
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        return String::new();
    };
    let text = |key: &str| harmless(value[key].as_str().unwrap_or_default()).into_owned();
    let event = text("event");
    // The date is that of the log; here people look at what happens now.
    let time = text("time");
    let time = painted(FAINT, time.get(11..23).unwrap_or(&time));
    if event == "query" {
        let verdict = text("verdict");
        let style = match verdict.as_str() {
            "pass" => GOOD,
            "answer" | "drop" => BAD,
            _ => WARN,
        };
        let why = match value["why"].as_str() {
            Some(why) => format!(" ({})", harmless(why)),
            None => String::new(),
        };
        let weight = match value["weight"].as_u64() {
            Some(1) | None => String::new(),
            Some(weight) => format!("  x{weight}"),
        };
        let who = |address: &str, pod: &str| match value[pod].as_str() {
            Some(pod) => format!("{} ({})", text(address), harmless(pod)),
            None => text(address),
        };
        return format!(
            "{time}  {event:<13}  {} {} {} -> {}  {} {}  {}{why}{weight}\n",
            text("device"),
            text("direction"),
            who("client", "pod"),
            who("server", "server_pod"),
            text("name"),
            text("type"),
            painted(style, &verdict),
        );
    }
    let style = match event.as_str() {
        "trip" | "over_budget" | "attach_error" | "allowance_exceeded" | "lease" => BAD,
        "extend" | "search_walk" | "lost" => WARN,
        "reload" if value["successful"] == false => BAD,
        "release" | "within_budget" | "expire" => GOOD,
        _ => FAINT,
    };
    let device = match value["device"].as_str() {
        Some(device) => format!("{}: ", harmless(device)),
        None => String::new(),
    };
    format!(
        "{time}  {}  {device}{}\n",
        painted(style, &format!("{event:<13}")),
        text("reason")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(line: &str) -> String {
        anstream::adapter::strip_str(&sentence(line)).to_string()
    }

    #[test]
    fn an_event_is_its_time_its_word_its_interface_and_its_sentence() {
        let line =
            r#"{"event":"trip","time":"2026-11-18T11:06:40.007Z","device":"lo","reason":"query x. A went round"}"#;
        assert_eq!(plain(line), "11:06:40.007  trip           lo: query x. A went round\n");
    }

    #[test]
    fn a_query_says_what_became_of_it_and_how_many_it_stands_for() {
        let line = r#"{"event":"query","time":"2026-11-18T11:06:40.007Z","client":"10.0.0.7","server":"10.0.0.2",
            "name":"x.consul.","type":"A","device":"lo","direction":"in","verdict":"would_drop","why":"budget","weight":4}"#;
        let expected =
            "11:06:40.007  query          lo in 10.0.0.7 -> 10.0.0.2  x.consul. A  would_drop (budget)  x4\n";
        assert_eq!(plain(line), expected);
    }

    #[test]
    fn a_query_of_a_pod_names_it_beside_the_address() {
        let line = r#"{"event":"query","time":"2026-11-18T11:06:40.007Z","client":"10.0.0.7","pod":"shop/cart-1",
            "server":"10.0.0.8","server_pod":"kube-system/dns-1","name":"x.","type":"A","device":"veth7",
            "device_pod":"shop/cart-1","direction":"in","verdict":"pass","weight":1}"#;
        let expected = "11:06:40.007  query          veth7 in 10.0.0.7 (shop/cart-1) -> 10.0.0.8 (kube-system/dns-1)  x. A  \
                        pass\n";
        assert_eq!(plain(line), expected);
    }

    #[test]
    fn a_hostile_line_steers_nothing() {
        let line = "{\"event\":\"trip\",\"time\":\"x\",\"reason\":\"\\u001b[2J\"}";
        assert!(!sentence(line).contains("\u{1b}[2J"));
    }
}
