//! What stands for AWS: the policer in front of the link-local services, and the counter on the node before it.
//!
//! The limit is one token bucket for all services together, over what an interface sends to them; above it packets are
//! dropped without a word. Source: Amazon VPC user guide, "DNS quotas"; the burst is ours, 1/8 s.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::network::{METADATA, RESOLVER, RESOLVER_LINK_LOCAL, TIME, UPLINK};
use crate::Namespace;

/// Packets per second that AWS lets an interface send to link-local services.
pub const LIMIT_PPS: u32 = 1_024;
/// Packets that may come at once.
const BURST: u32 = 128;

/// What a packet to a link-local address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Port 53 of the resolver, UDP and TCP.
    Dns,
    /// Instance metadata.
    Imds,
    /// Time.
    Ntp,
    /// Anything else to these addresses, such as ICMP.
    Other,
}

impl Service {
    /// All of them, the last one for what no other is.
    pub const ALL: [Self; 4] = [Self::Dns, Self::Imds, Self::Ntp, Self::Other];

    /// A word for it, as the guard's metrics use it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Imds => "imds",
            Self::Ntp => "ntp",
            Self::Other => "other",
        }
    }

    /// An nftables match.
    fn matches(self) -> String {
        match self {
            Self::Dns => {
                format!("ip daddr {{ {RESOLVER}, {RESOLVER_LINK_LOCAL} }} meta l4proto {{ tcp, udp }} th dport 53")
            }
            Self::Imds => format!("ip daddr {METADATA} tcp dport 80"),
            Self::Ntp => format!("ip daddr {TIME} udp dport 123"),
            Self::Other => String::new(),
        }
    }
}

/// What the policer did with the packets of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policed {
    /// Let through.
    pub passed: u64,
    /// Dropped.
    pub dropped: u64,
}

impl Policed {
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            passed: self.passed - before.passed,
            dropped: self.dropped - before.dropped,
        }
    }
}

/// The policer: on what comes into `aws`, which a guard on the node cannot touch.
#[derive(Clone, Debug)]
pub(super) struct Policer {
    aws: Namespace,
}

impl Policer {
    pub(super) fn install(aws: &Namespace) -> Result<Self> {
        let mut rules = String::from("table netdev storm {\n");
        rules += &format!("limit linklocal {{ rate {LIMIT_PPS}/second burst {BURST} packets; }}\n");
        for verdict in ["passed", "dropped"] {
            for service in Service::ALL {
                rules += &format!("counter {verdict}_{} {{ }}\n", service.word());
            }
        }
        for (verdict, action) in [("passed", "accept"), ("dropped", "drop")] {
            rules += &format!("chain {verdict} {{\n");
            for service in Service::ALL {
                let (matches, word) = (service.matches(), service.word());
                rules += &format!("{matches} counter name {verdict}_{word} {action}\n");
            }
            rules += "}\n";
        }
        rules += "chain limited {\nlimit name linklocal goto passed\ngoto dropped\n}\n";
        rules += &format!(
            "chain arriving {{\ntype filter hook ingress device {UPLINK} priority 0; policy accept;\nip daddr {{ {} }} \
             goto limited\n}}\n}}\n",
            set()
        );
        load(aws, &rules)?;
        Ok(Self { aws: aws.clone() })
    }

    /// What it did so far.
    pub(super) fn counts(&self) -> Result<BTreeMap<Service, Policed>> {
        let counters = counters(&self.aws)?;
        let count = |verdict: &str, service: Service| {
            let name = format!("{verdict}_{}", service.word());
            counters
                .get(&name)
                .copied()
                .with_context(|| format!("nft lists no counter {name}"))
        };
        Service::ALL
            .into_iter()
            .map(|service| {
                let policed = Policed {
                    passed: count("passed", service)?,
                    dropped: count("dropped", service)?,
                };
                Ok((service, policed))
            })
            .collect()
    }
}

/// Counts what the node wants to send to link-local services, before a guard sees it: the kernel runs nftables' egress
/// hook before TC's.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    node: Namespace,
}

impl Meter {
    pub(super) fn install(node: &Namespace) -> Result<Self> {
        let rules = format!(
            "table netdev storm {{\ncounter offered {{ }}\nchain leaving {{\ntype filter hook egress device {UPLINK} \
             priority 0; policy accept;\nip daddr {{ {} }} counter name offered\n}}\n}}\n",
            set()
        );
        load(node, &rules)?;
        Ok(Self { node: node.clone() })
    }

    /// Packets so far.
    pub(super) fn offered(&self) -> Result<u64> {
        let counters = counters(&self.node)?;
        counters.get("offered").copied().context("nft lists no counter offered")
    }
}

/// The destinations that the limit is about.
fn set() -> String {
    [RESOLVER, RESOLVER_LINK_LOCAL, METADATA, TIME]
        .map(|address: Ipv4Addr| address.to_string())
        .join(", ")
}

fn load(namespace: &Namespace, rules: &str) -> Result<()> {
    let file = namespace.file("rules.nft", rules)?;
    namespace.tool("nft", &format!("-f {}", file.display())).map(drop)
}

/// Every named counter of the namespace, in packets.
fn counters(namespace: &Namespace) -> Result<BTreeMap<String, u64>> {
    let listed: Value = serde_json::from_str(&namespace.tool("nft", "-j list counters")?)?;
    let counters = listed["nftables"].as_array().context("nft lists nothing")?;
    Ok(counters
        .iter()
        .filter_map(|entry| {
            let counter = entry.get("counter")?;
            Some((counter["name"].as_str()?.to_owned(), counter["packets"].as_u64()?))
        })
        .collect())
}
