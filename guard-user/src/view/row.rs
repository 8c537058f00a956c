//! One line of each list.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use super::tidy;
use crate::{
    pods::Directory,
    snapshot::{OpenLoop, Snapshot, Standing},
};

/// A zone that stands out.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct ZoneRow {
    /// The zone, in presentation form.
    pub(crate) zone: String,
    /// How much is asked for in it.
    #[serde(flatten)]
    pub(crate) rate: Rate,
}

/// A client that stands out.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct ClientRow {
    /// Its address.
    pub(crate) client: String,
    /// The pod that has it, if one has: namespace and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<String>,
    /// How much it asks.
    #[serde(flatten)]
    pub(crate) rate: Rate,
}

/// A name and type that stand out.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct KeyRow {
    /// The name, in presentation form.
    pub(crate) name: String,
    /// The QTYPE.
    #[serde(rename = "type")]
    pub(crate) qtype: String,
    /// How often it is asked for.
    #[serde(flatten)]
    pub(crate) rate: Rate,
}

/// Queries of the last ten seconds or so, from samples.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Rate {
    /// Queries.
    pub(crate) queries_per_second: f64,
    /// By how much that can be off.
    pub(crate) error_per_second: f64,
    /// The share of all queries, 0 to 1.
    pub(crate) share: f64,
    /// By how much that can be off.
    pub(crate) share_error: f64,
}

/// A budget.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct BudgetRow {
    /// Its name.
    pub(crate) budget: String,
    /// What it allows to each that it tells apart.
    pub(crate) limit_packets_per_second: f64,
    /// Queries that it had room for.
    pub(crate) within: u64,
    /// Queries that it had no room for, whatever happened to them.
    pub(crate) over: u64,
    /// Those with room, in the last second.
    pub(crate) within_per_second: f64,
    /// Those without, in the last second.
    pub(crate) over_per_second: f64,
}

/// The link-local budget of an interface. All packets that leave to the services are counted.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct LinkRow {
    /// Name of the interface.
    pub(crate) device: String,
    /// What the budget allows.
    pub(crate) limit_packets_per_second: f64,
    /// The busiest second of the last minute or two.
    pub(crate) peak_packets_per_second: f64,
    /// The last second.
    pub(crate) packets_per_second: f64,
    /// Of these, to the resolver.
    pub(crate) dns_per_second: f64,
    /// To the instance metadata service.
    pub(crate) imds_per_second: f64,
    /// To the time service.
    pub(crate) ntp_per_second: f64,
    /// To any other.
    pub(crate) other_per_second: f64,
}

/// An open breaker.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct LoopRow {
    /// The name, in presentation form.
    pub(crate) name: String,
    /// The QTYPE.
    #[serde(rename = "type")]
    pub(crate) qtype: String,
    /// The QCLASS.
    pub(crate) class: String,
    /// The key, in 16 hexadecimal digits.
    pub(crate) key: String,
    /// Name of the interface on which it tripped.
    pub(crate) device: String,
    /// `proven` or `suspected`.
    pub(crate) proof: String,
    /// What speaks for it.
    pub(crate) evidence: String,
    /// Milliseconds since it opened.
    pub(crate) age_ms: u64,
    /// Milliseconds until its hold ends; 0 where the next query is let through.
    pub(crate) hold_left_ms: u64,
    /// How often a test has failed.
    pub(crate) level: u32,
    /// Queries held since it opened.
    pub(crate) held: u64,
    /// Whether the operator has allowed it.
    pub(crate) allowed: bool,
    /// The servers that form it, as far as they were seen.
    #[serde(rename = "loop")]
    pub(crate) servers: Vec<SocketAddr>,
    /// The pods among their addresses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) pods: BTreeMap<IpAddr, String>,
    /// The pod that the interface leads to, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_pod: Option<String>,
}

impl Rate {
    pub(super) fn of(found: &Standing) -> Self {
        Self {
            queries_per_second: tidy(found.per_second),
            error_per_second: tidy(found.error_per_second),
            share: tidy(found.share),
            share_error: tidy(found.share_error),
        }
    }
}

impl Snapshot {
    /// The open breakers, the ones that hold most first.
    pub(crate) fn loop_rows(&self) -> impl Iterator<Item = LoopRow> {
        self.loops.iter().map(|found| LoopRow {
            allowed: self.allowed.iter().any(|allowed| allowed.key == found.key),
            ..LoopRow::of(found, &self.pods.directory, self.at_ns)
        })
    }
}

impl LoopRow {
    /// What is known of a breaker, as of a moment of the monotonic clock.
    fn of(found: &OpenLoop, directory: &Directory, at_ns: u64) -> Self {
        let named = directory.among(found.servers.iter().map(SocketAddr::ip));
        let named = named.into_iter().map(|(address, pod)| (address, pod.to_string()));
        Self {
            name: found.name.clone(),
            qtype: found.qtype.clone(),
            class: found.qclass.clone(),
            key: format!("{:016x}", found.key),
            device: found.device.clone(),
            proof: found.proof.to_owned(),
            evidence: found.evidence.to_owned(),
            age_ms: at_ns.saturating_sub(found.since_ns) / 1_000_000,
            hold_left_ms: found.until_ns.saturating_sub(at_ns) / 1_000_000,
            level: found.level,
            held: found.held,
            allowed: false,
            servers: found.servers.clone(),
            pods: named.collect(),
            device_pod: directory.behind(&found.device).map(ToString::to_string),
        }
    }
}
