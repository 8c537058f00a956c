//! nftables, told the flooded name: a match on its bytes at their place.

use anyhow::{Context as _, Result};

use super::{
    asked::{Asked, flooded},
    site::SERVER,
};
use crate::Namespace;

/// The table with the one rule, in every family.
const TABLE: &str = "flood";

/// Has nftables apply `statement` to each query for the flooded name, or a name in the flooded zone, that comes to
/// `hook` of a family.
pub(super) fn apply(server: &Namespace, asked: Asked, family: &str, hook: &str, statement: &str) -> Result<()> {
    let hex = digits()?;
    let rules = format!(
        "table {family} {TABLE} {{\n chain queries {{\n  type filter hook {hook};\n  \
         udp dport {} @th,{},{} 0x{hex} {statement}\n }}\n}}\n",
        SERVER.port(),
        asked.flooded_at() * 8,
        hex.len() * 4,
    );
    let file = server.file("flood.nft", &rules)?;
    server.tool("nft", &format!("-f {}", file.display())).map(drop)
}

/// The flooded name as it is in a query, in hexadecimal digits.
pub(super) fn digits() -> Result<String> {
    Ok(flooded()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Counts the flood's packets where they come to the server's programs.
#[derive(Debug)]
pub struct FloodedCounter<'a> {
    server: &'a Namespace,
}

impl<'a> FloodedCounter<'a> {
    pub(super) fn start(server: &'a Namespace) -> Result<Self> {
        apply(server, Asked::OneName, "inet", "input priority 0", "counter")?;
        Ok(Self { server })
    }

    /// Packets so far.
    pub fn read(&self) -> Result<u64> {
        let rules = self.server.tool("nft", &format!("list table inet {TABLE}"))?;
        let (_, counted) = rules
            .split_once("counter packets ")
            .context("no counter in nft's table")?;
        let count = counted.split_whitespace().next().unwrap_or_default();
        count.parse().with_context(|| format!("nft counts {count}"))
    }
}
