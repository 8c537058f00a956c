//! What passes the devices of a network, as nftables counts it: on the far side of the hooks from where it comes.
//!
//! ```text
//! sent by a program --> postrouting (counted) --> tc egress --> wire --> tc ingress --> prerouting (counted) --> ...
//! ```
//!
//! So a packet that the guard takes is counted where it is sent and not where it arrives, and an answer that the guard
//! makes is counted where it arrives and not where it is sent.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::node::PORTS;
use crate::Namespace;

/// The table, in IPv4 and IPv6.
const TABLE: &str = "soak";

/// DNS messages over UDP that passed a device; all of it only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Queries that this network sent there.
    pub(super) queries_out: u64,
    /// Queries that came in and were not taken.
    pub(super) queries_in: u64,
    /// Responses that this network sent there.
    pub(super) responses_out: u64,
    /// Responses that came in.
    pub(super) responses_in: u64,
    /// Packets that the kernel had no room for before anybody counted them.
    pub(super) no_room: u64,
}

/// Begins to count at these devices of a network.
pub(super) fn begin(namespace: &Namespace, devices: &[&str]) -> Result<()> {
    let file = namespace.file("soak.nft", &rules(devices))?;
    namespace.tool("nft", &format!("-f {}", file.display())).map(drop)
}

/// A query has a guarded port as its destination and QR=0, a response one as its source and QR=1: what the guard goes
/// by. QR is the first bit after two bytes of the message, which begins 8 bytes into UDP.
fn rules(devices: &[&str]) -> String {
    let ports = PORTS.map(|port| port.to_string()).join(", ");
    let mut text = format!("table inet {TABLE} {{\n");
    for (chain, hook, priority, name) in [
        ("sent", "postrouting", 400, "oifname"),
        ("came", "prerouting", -400, "iifname"),
    ] {
        let mut rules = String::new();
        for device in devices {
            for (what, port, response) in [("queries", "dport", 0), ("responses", "sport", 1)] {
                let counter = format!("{device}_{chain}_{what}");
                let _ = writeln!(text, " counter {counter} {{ }}");
                let _ = writeln!(
                    rules,
                    "  {name} \"{device}\" udp {port} {{ {ports} }} @th,80,1 {response} counter name \"{counter}\""
                );
            }
        }
        let _ = writeln!(
            text,
            " chain {chain} {{\n  type filter hook {hook} priority {priority};\n{rules} }}"
        );
    }
    text + "}\n"
}

/// What was counted so far, by device.
pub(super) fn read(namespace: &Namespace, devices: &[&'static str]) -> Result<BTreeMap<&'static str, Count>> {
    let listed = namespace.tool("nft", &format!("-j list counters table inet {TABLE}"))?;
    let listed: Value = serde_json::from_str(&listed).context("nft lists its counters as JSON")?;
    let listed = listed["nftables"].as_array().context("nft lists its counters")?;
    let packets = |device: &str, chain: &str, what: &str| {
        let name = format!("{device}_{chain}_{what}");
        let counter = listed.iter().find(|entry| entry["counter"]["name"] == name);
        let packets = counter.and_then(|entry| entry["counter"]["packets"].as_u64());
        packets.with_context(|| format!("nft has no counter {name}"))
    };
    let of = |device: &'static str| -> Result<_> {
        let count = Count {
            queries_out: packets(device, "sent", "queries")?,
            queries_in: packets(device, "came", "queries")?,
            responses_out: packets(device, "sent", "responses")?,
            responses_in: packets(device, "came", "responses")?,
            no_room: no_room(namespace, device)?,
        };
        Ok((device, count))
    };
    devices.iter().map(|device| of(device)).collect()
}

/// Packets that a device, or the queue behind it, had no room for.
fn no_room(namespace: &Namespace, device: &str) -> Result<u64> {
    let mut lost = 0;
    for name in ["rx_dropped", "tx_dropped"] {
        let path = format!("/sys/class/net/{device}/statistics/{name}");
        let text = namespace.run(|| std::fs::read_to_string(&path));
        let text = text.with_context(|| format!("read {path}"))?;
        lost += text
            .trim()
            .parse::<u64>()
            .with_context(|| format!("{path} is {text}"))?;
    }
    Ok(lost)
}
