//! `GET /v1/status`: one screen that says whether all is well.

use serde::{Deserialize, Serialize};

use super::api::SCHEMA;
use crate::{
    snapshot::Snapshot,
    view::{BudgetRow, KeyRow, LinkRow, LoopRow, View},
};

/// Open breakers that are shown; all are counted.
const MOST_LOOPS: usize = 10;
/// Names that are shown.
const MOST_KEYS: usize = 5;
/// The part of a budget from which on it is told.
const NEARLY_FULL: f64 = 0.8;

/// How the agent is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Status {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
    /// `ok` or `warn`.
    pub(crate) level: String,
    /// What should be looked at, a sentence each.
    pub(crate) warnings: Vec<String>,
    /// Of the agent.
    pub(crate) version: String,
    /// `observe` or `enforce`.
    pub(crate) mode: String,
    /// Seconds since the agent started.
    pub(crate) uptime_seconds: f64,
    /// Counts the policies.
    pub(crate) policy_generation: u32,
    /// Seconds until everything passes, unless the lease is renewed.
    pub(crate) lease_seconds: f64,
    /// Where the configuration comes from, and whether it is the one that was asked for last.
    pub(crate) configuration: Configuration,
    /// What is attached, and why so.
    pub(crate) hooks: Vec<HookRow>,
    /// Queries counted in the last second.
    pub(crate) queries_per_second: f64,
    /// Queries held in the last second, or that would have been.
    pub(crate) held_per_second: f64,
    /// Queries shed in the last second, or that would have been.
    pub(crate) shed_per_second: f64,
    /// The budgets.
    pub(crate) budgets: Vec<BudgetRow>,
    /// The link-local budget of each interface that has one.
    pub(crate) links: Vec<LinkRow>,
    /// Open breakers.
    pub(crate) open_breakers: usize,
    /// The ones that hold most.
    pub(crate) loops: Vec<LoopRow>,
    /// The names that are asked for most.
    pub(crate) keys: Vec<KeyRow>,
    /// Keys that the operator has allowed.
    pub(crate) allowed: usize,
    /// Events that found the kernel's ring buffer full, since the agent is there.
    pub(crate) events_lost: u64,
    /// Packets that AWS says it dropped or held up, since the driver counts.
    pub(crate) allowances_exceeded: Vec<AllowanceRow>,
    /// How naming pods goes; absent where it is switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pods: Option<PodsRow>,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Configuration {
    /// The file, if there is one.
    pub(crate) file: Option<String>,
    /// Whether the last attempt to load it came to an end.
    pub(crate) last_reload_successful: bool,
    /// Seconds since 1970 of the last one that did.
    pub(crate) last_reload_success_seconds: f64,
    /// Why it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Keys that are set by hand.
    pub(crate) set_by_hand: Vec<String>,
}

/// A program at a hook.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct HookRow {
    /// Name of the interface.
    pub(crate) device: String,
    /// Where.
    pub(crate) hook: String,
    /// How; absent where it could not be attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<String>,
    /// The kernel's ID of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) program_id: Option<u32>,
    /// Why so; empty where there is nothing better.
    pub(crate) reason: String,
}

/// How naming pods goes.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct PodsRow {
    /// Pods of this node that can be named.
    pub(crate) named: usize,
    /// Why the container runtime was not heard of when it was asked last; absent where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// What AWS counts.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct AllowanceRow {
    /// Name of the interface.
    pub(crate) device: String,
    /// Which allowance.
    pub(crate) allowance: String,
    /// Packets.
    pub(crate) packets: u64,
}

impl Status {
    /// What a snapshot says.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let view = View::of(snapshot);
        let hooks = snapshot.attachments.iter().map(|attachment| HookRow {
            device: attachment.device.clone(),
            hook: attachment.hook.word().to_owned(),
            method: Some(attachment.method.word().to_owned()),
            program_id: Some(attachment.program_id),
            reason: attachment.reason.clone(),
        });
        // What failed once may have worked since.
        let hangs = |device: &str, hook: &str| {
            let mut attached = snapshot.attachments.iter();
            attached.any(|one| one.device == device && one.hook.word() == hook)
        };
        let failed = snapshot
            .attach_errors
            .iter()
            .filter(|((device, hook), count)| **count > 0 && !hangs(device, hook));
        let failed = failed.map(|((device, hook), _)| HookRow {
            device: device.clone(),
            hook: (*hook).to_owned(),
            reason: "could not be attached; the log says why, and dnsguard doctor what to do".to_owned(),
            ..HookRow::default()
        });
        let exceeded = snapshot.ena_exceeded.iter().filter(|(.., packets)| *packets > 0);
        let mut status = Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: view.mode,
            uptime_seconds: view.uptime_seconds,
            policy_generation: snapshot.policy_generation,
            lease_seconds: (snapshot.lease_seconds * 10.0).round() / 10.0,
            configuration: Configuration {
                file: snapshot.settings.file.clone(),
                last_reload_successful: snapshot.reload.successful,
                last_reload_success_seconds: snapshot.reload.success_seconds,
                error: snapshot.reload.error.clone(),
                set_by_hand: snapshot.settings.set_by_hand(),
            },
            hooks: hooks.chain(failed).collect(),
            queries_per_second: view.last_second.queries,
            held_per_second: view.last_second.held,
            shed_per_second: view.last_second.shed,
            budgets: view.budgets,
            links: view.links,
            open_breakers: snapshot.loops.len(),
            loops: snapshot.loop_rows().take(MOST_LOOPS).collect(),
            keys: view.keys.into_iter().take(MOST_KEYS).collect(),
            allowed: snapshot.allowed.len(),
            events_lost: snapshot.events_lost,
            allowances_exceeded: exceeded
                .map(|(device, allowance, packets)| AllowanceRow {
                    device: device.clone(),
                    allowance: (*allowance).to_owned(),
                    packets: *packets,
                })
                .collect(),
            pods: snapshot.pods.source.as_ref().map(|source| PodsRow {
                named: snapshot.pods.directory.len(),
                error: source.error.clone(),
            }),
            ..Self::default()
        };
        status.warnings = status.find_warnings();
        let is_well = status.warnings.is_empty();
        status.level = if is_well { "ok" } else { "warn" }.to_owned();
        status
    }

    fn find_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.open_breakers > 0 {
            let (number, are) = plural(self.open_breakers, "name goes", "names go");
            warnings.push(format!("{number} {are} round; see dnsguard loops list"));
        }
        for budget in self.budgets.iter().filter(|budget| budget.over_per_second > 0.0) {
            let (name, over) = (&budget.budget, budget.over_per_second);
            warnings.push(format!(
                "budget {name} has no room for {over:.0} packets/s; see dnsguard top"
            ));
        }
        for link in &self.links {
            let part = link.packets_per_second / link.limit_packets_per_second;
            if part >= NEARLY_FULL {
                let (device, percent) = (&link.device, part * 100.0);
                warnings.push(format!("{device} is at {percent:.0} % of its link-local budget"));
            }
        }
        if self.hooks.is_empty() {
            warnings.push("nothing is attached; see dnsguard observe --event detach, and the log".to_owned());
        }
        for hook in self.hooks.iter().filter(|hook| hook.method.is_none()) {
            warnings.push(format!("{} on {} is not attached", hook.hook, hook.device));
        }
        if let Some(error) = &self.configuration.error {
            warnings.push(format!(
                "the last reload failed, the policy of before is in force: {error}"
            ));
        }
        // What the runtime said last holds for a while.
        let nameless = self.pods.as_ref().filter(|pods| pods.named == 0);
        if let Some(error) = nameless.and_then(|pods| pods.error.as_ref()) {
            warnings.push(format!("pods are not named, addresses are shown: {error}"));
        }
        if self.events_lost > 0 {
            let lost = self.events_lost;
            warnings.push(format!(
                "{lost} events found the kernel's ring buffer full; counters are complete"
            ));
        }
        warnings
    }
}

fn plural(number: usize, one: &'static str, many: &'static str) -> (usize, &'static str) {
    (number, if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attachment::{Attachment, Hook, Method},
        pods::SourceState,
        view::tests::snapshot,
    };

    #[test]
    fn a_quiet_agent_is_well() {
        let mut quiet = Snapshot::default();
        quiet.reload.successful = true;
        let status = Status::of(&quiet);
        assert!(status.warnings[0].contains("nothing is attached"), "{status:?}");
        quiet.attachments.push(Attachment {
            device: "eth0".to_owned(),
            ifindex: 2,
            hook: Hook::TcIngress,
            method: Method::Tcx,
            program_id: 7,
            reason: String::new(),
            neighbours: Vec::new(),
        });
        // An attempt that failed before is none that fails.
        quiet.add_attach_error("eth0", Hook::TcIngress);
        let status = Status::of(&quiet);
        assert_eq!((status.level.as_str(), status.warnings.len()), ("ok", 0));
    }

    #[test]
    fn what_needs_attention_is_said_with_the_next_step() {
        let mut busy = snapshot();
        busy.events_lost = 3;
        busy.reload.error = Some("dnsguard.toml:1:8: mode is 'x'".to_owned());
        busy.pods.source = Some(SourceState {
            failures: 1,
            error: Some("no container runtime answers".to_owned()),
        });
        busy.add_attach_error("eth1", Hook::Xdp);
        let status = Status::of(&busy);
        assert_eq!(status.level, "warn");
        let told = status.warnings.join("\n");
        for part in [
            "1 name goes round; see dnsguard loops list",
            "xdp on eth1 is not attached",
            "the last reload failed, the policy of before is in force: dnsguard.toml:1:8: mode is 'x'",
            "3 events found",
            "pods are not named, addresses are shown: no container runtime answers",
        ] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
    }

    #[test]
    fn what_is_said_is_what_is_read() {
        let status = Status::of(&snapshot());
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    }
}
