//! What the guard sees at one moment and saw in the last five minutes: the data of `dnsguard top` and of the page.
//!
//! Values only: made from a [`Snapshot`] in the agent, turned into JSON, and read again by whoever shows it.

mod history;
mod row;

use guard_common::budget::Service;
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    history::{History, PerSecond, Series, Totals},
    row::{BudgetRow, ClientRow, KeyRow, LinkRow, LoopRow, Rate, ZoneRow},
};
use crate::{config::mode_word, snapshot::Snapshot};

/// Goes up with every change that breaks a reader.
pub(crate) const SCHEMA: u32 = 1;

/// All that is shown.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct View {
    /// [`SCHEMA`], of the agent that made it.
    pub(crate) schema: u32,
    /// When it was made, in milliseconds since 1970.
    pub(crate) at_unix_ms: u64,
    /// Seconds since the agent started.
    pub(crate) uptime_seconds: f64,
    /// `observe` or `enforce`.
    pub(crate) mode: String,
    /// Names of the guarded interfaces.
    pub(crate) interfaces: Vec<String>,
    /// Queries of the last ten seconds or so, from samples: what the zones, clients and keys are shares of.
    pub(crate) queries_per_second: f64,
    /// What was counted in the last second.
    pub(crate) last_second: PerSecond,
    /// Zones, the heaviest first.
    pub(crate) zones: Vec<ZoneRow>,
    /// Clients, the heaviest first.
    pub(crate) clients: Vec<ClientRow>,
    /// Names and types, the heaviest first.
    pub(crate) keys: Vec<KeyRow>,
    /// The budgets, in the order of the configuration.
    pub(crate) budgets: Vec<BudgetRow>,
    /// The link-local budget of each interface that has one.
    pub(crate) links: Vec<LinkRow>,
    /// Open breakers, the ones that hold most first.
    pub(crate) loops: Vec<LoopRow>,
    /// The last five minutes.
    pub(crate) history: Series,
}

impl View {
    /// What a snapshot and the history in it say.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let (top, history) = (&snapshot.top, &snapshot.history);
        let mut interfaces: Vec<String> = Vec::new();
        for attachment in &snapshot.attachments {
            if !interfaces.contains(&attachment.device) {
                interfaces.push(attachment.device.clone());
            }
        }
        let zones = top.zones.iter().map(|found| ZoneRow {
            zone: found.name.clone(),
            rate: Rate::of(found),
        });
        let clients = top.clients.iter().map(|found| ClientRow {
            client: found.name.clone(),
            pod: snapshot.pod_of(found).map(ToString::to_string),
            rate: Rate::of(found),
        });
        let keys = top.keys.iter().map(|found| KeyRow {
            name: found.name.clone(),
            qtype: found.qtype.clone(),
            rate: Rate::of(found),
        });
        let budgets = snapshot.budgets.iter().enumerate().map(|(place, count)| {
            let (within, over) = history.budget(place);
            BudgetRow {
                budget: count.budget.clone(),
                limit_packets_per_second: count.limit,
                within: count.within,
                over: count.over,
                within_per_second: tidy(within),
                over_per_second: tidy(over),
            }
        });
        let links = snapshot.links.iter().map(|(device, link)| {
            let services = history.link(device);
            let of = |service: Service| tidy(services[service as usize]);
            LinkRow {
                device: device.clone(),
                limit_packets_per_second: link.limit,
                peak_packets_per_second: tidy(link.peak),
                packets_per_second: tidy(services.iter().sum()),
                dns_per_second: of(Service::Dns),
                imds_per_second: of(Service::Imds),
                ntp_per_second: of(Service::Ntp),
                other_per_second: of(Service::Other),
            }
        });
        let loops = snapshot.loop_rows();
        Self {
            schema: SCHEMA,
            at_unix_ms: snapshot.at_unix_ms,
            uptime_seconds: tidy(snapshot.at_ns.saturating_sub(snapshot.started_ns) as f64 / 1e9),
            mode: mode_word(snapshot.mode).to_owned(),
            interfaces,
            queries_per_second: tidy(top.queries_per_second),
            last_second: history.last(),
            zones: zones.collect(),
            clients: clients.collect(),
            keys: keys.collect(),
            budgets: budgets.collect(),
            links: links.collect(),
            loops: loops.collect(),
            history: history.series(),
        }
    }

    /// The JSON object, in one line.
    pub(crate) fn json(&self) -> String {
        // Numbers and strings: nothing in it can fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// To a thousandth.
fn tidy(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
pub(crate) mod tests;
