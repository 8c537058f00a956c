//! Everything that the metrics say, at one moment.
//!
//! Plain values: whoever fills it reads maps and clocks, whoever shows it does neither.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use guard_common::{counter::Counters, policy::Mode};

use crate::{
    attachment::{Attachment, Hook},
    pods::{Pod, Sight},
    question::Question,
    view::{History, Totals},
};

/// What the agent knows at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// The moment, in nanoseconds of the monotonic clock.
    pub(crate) at_ns: u64,
    /// The same, in milliseconds since 1970.
    pub(crate) at_unix_ms: u64,
    /// When the agent first looked, in nanoseconds of the monotonic clock.
    pub(crate) started_ns: u64,
    /// What the moments before were like.
    pub(crate) history: History,
    /// The mode of the policy in force.
    pub(crate) mode: Mode,
    /// Counts the policies that have been put in force.
    pub(crate) policy_generation: u32,
    /// Seconds until everything passes, unless the lease is renewed.
    pub(crate) lease_seconds: f64,
    /// What the kernel counted, summed over the CPUs, by name of the interface.
    pub(crate) devices: BTreeMap<String, Counters>,
    /// What is attached.
    pub(crate) attachments: Vec<Attachment>,
    /// What was counted at interfaces that are no longer guarded.
    pub(crate) gone: Counters,
    /// Programs attached so far, by hook.
    pub(crate) attaches: BTreeMap<&'static str, u64>,
    /// Programs that are no longer attached, by hook.
    pub(crate) detaches: BTreeMap<&'static str, u64>,
    /// Hooks at which a program is to be attached and could not be.
    pub(crate) hooks_failing: usize,
    /// Attempts to attach that failed, by name of the interface and hook.
    pub(crate) attach_errors: BTreeMap<(String, &'static str), u64>,
    /// Lines of events that their reader was too slow for.
    pub(crate) lines_lost: u64,
    /// The breakers that are open, the ones that hold most first.
    pub(crate) loops: Vec<OpenLoop>,
    /// The breakers that are open, by name.
    pub(crate) open: Open,
    /// The queries that were held, by name.
    pub(crate) held: Held,
    /// What each budget counted.
    pub(crate) budgets: Vec<BudgetCount>,
    /// The link-local budgets, by name of the interface.
    pub(crate) links: BTreeMap<String, Link>,
    /// Who asks most, and what for.
    pub(crate) top: Standings,
    /// The pods of this node.
    pub(crate) pods: Sight,
    /// Queries of search-list walks that were followed by another step.
    pub(crate) search_wasted: u64,
    /// Packets that the hypervisor says it dropped or held up: interface, allowance, packets.
    pub(crate) ena_exceeded: Vec<(String, &'static str, u64)>,
    /// Connections that the hypervisor can still track, by interface.
    pub(crate) ena_conntrack_available: Vec<(String, u64)>,
    /// Bytes of each map, by its name in the kernel object.
    pub(crate) map_bytes: BTreeMap<&'static str, u64>,
    /// Of some maps the share of their lines, 0 to 1, that have no free place.
    pub(crate) map_pressure: BTreeMap<&'static str, f64>,
    /// Events that found the kernel's ring buffer full, since the agent is there.
    pub(crate) events_lost: u64,
    /// The configuration in force.
    pub(crate) settings: SettingsShown,
    /// How the last attempt to load it ended.
    pub(crate) reload: Reload,
    /// Keys that are only watched.
    pub(crate) allowed: Vec<Allowed>,
}

/// The configuration in force, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SettingsShown {
    /// The file, if there is one.
    pub(crate) file: Option<String>,
    /// All keys but those of budgets and hygiene.
    pub(crate) rows: Vec<Setting>,
    /// Budgets and rules of hygiene, a sentence each.
    pub(crate) limits: Vec<String>,
    /// What is set by hand beside those keys.
    pub(crate) by_hand: Vec<Setting>,
}

/// A key of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Setting {
    /// As it stands in the file.
    pub(crate) key: String,
    /// As TOML writes it.
    pub(crate) value: String,
    /// The word of a [`crate::settings::Origin`].
    pub(crate) from: &'static str,
}

/// How the last attempt to load the configuration ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reload {
    /// Whether it is in force.
    pub(crate) successful: bool,
    /// Seconds since 1970 of the last one that is.
    pub(crate) success_seconds: f64,
    /// Why it is not.
    pub(crate) error: Option<String>,
}

/// A key that is only watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// The key.
    pub(crate) key: u64,
    /// Its name and type.
    pub(crate) question: Question,
    /// Whether by a command; else by the configuration.
    pub(crate) by_hand: bool,
    /// When that ends, in nanoseconds of the monotonic clock, if it does.
    pub(crate) until_ns: Option<u64>,
}

/// A breaker that is open. Moments are nanoseconds of the monotonic clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OpenLoop {
    /// The key.
    pub(crate) key: u64,
    /// The name, in presentation form.
    pub(crate) name: String,
    /// The QTYPE.
    pub(crate) qtype: String,
    /// The QCLASS.
    pub(crate) qclass: String,
    /// Name of the interface on which it tripped.
    pub(crate) device: String,
    /// Whether a mark came back, or it only looks like a loop.
    pub(crate) proof: &'static str,
    /// What speaks for it.
    pub(crate) evidence: &'static str,
    /// The servers that form it, as far as they were seen.
    pub(crate) servers: Vec<std::net::SocketAddr>,
    /// When it opened.
    pub(crate) since_ns: u64,
    /// When its hold ends.
    pub(crate) until_ns: u64,
    /// How often a test has failed; the hold has doubled as often.
    pub(crate) level: u32,
    /// Queries held since it opened, as far as is known.
    pub(crate) held: u64,
}

/// Open breakers, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Open {
    /// Name, type and breakers of those that have a series of their own.
    pub(crate) named: Vec<(String, String, u64)>,
    /// Breakers of all others.
    pub(crate) other: u64,
}

/// Held queries: the sum over all of it only ever grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Name, type and queries of those that have a series of their own.
    pub(crate) named: Vec<(String, String, u64)>,
    /// Queries of all others.
    pub(crate) other: u64,
}

/// What a budget counted since it is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BudgetCount {
    /// Its name.
    pub(crate) budget: String,
    /// Packets per second, of each bucket.
    pub(crate) limit: f64,
    /// What shares a bucket: the word of a [`guard_common::budget::Scope`].
    pub(crate) scope: &'static str,
    /// Queries that it had room for.
    pub(crate) within: u64,
    /// Queries that it had no room for, whatever happened to them.
    pub(crate) over: u64,
}

/// The link-local budget of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Link {
    /// Packets per second.
    pub(crate) limit: f64,
    /// The most packets that went out in a second of the last minute or two.
    pub(crate) peak: f64,
}

/// Who stands where, the heaviest first. Rates are those of the last ten seconds or so.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Standings {
    /// Of everything.
    pub(crate) queries_per_second: f64,
    /// The zones.
    pub(crate) zones: Vec<Standing>,
    /// The clients.
    pub(crate) clients: Vec<Standing>,
    /// The keys.
    pub(crate) keys: Vec<Standing>,
}

/// One zone, one client, or one key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Standing {
    /// The zone or the name in presentation form, or the address.
    pub(crate) name: String,
    /// Of a key, its QTYPE; otherwise empty.
    pub(crate) qtype: String,
    /// Queries.
    pub(crate) per_second: f64,
    /// By how much that can be off: what was seen before its time, and 95 % of the sampling.
    pub(crate) error_per_second: f64,
    /// Its share of everything, 0 to 1.
    pub(crate) share: f64,
    /// By how much that can be off.
    pub(crate) share_error: f64,
}

impl Snapshot {
    /// Says of which moment it is, once it has been filled in, and adds what it counts to the history.
    pub(crate) fn date(&mut self, now_ns: u64, now: SystemTime) {
        if self.at_ns == 0 {
            self.started_ns = now_ns;
        }
        self.at_ns = now_ns;
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.at_unix_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let totals = Totals::of(self);
        self.history.add(totals);
    }

    /// Counts what was attached and detached.
    pub(crate) fn note_hooks<'a>(&mut self, attached: &[Attachment], detached: impl Iterator<Item = &'a Attachment>) {
        for one in attached {
            *self.attaches.entry(one.hook.word()).or_default() += 1;
            self.attach_errors
                .entry((one.device.clone(), one.hook.word()))
                .or_default();
        }
        for one in detached {
            *self.detaches.entry(one.hook.word()).or_default() += 1;
        }
    }

    /// Forgets the failures of interfaces that are gone.
    pub(crate) fn forget_attach_errors(&mut self, is_there: impl Fn(&str) -> bool) {
        self.attach_errors.retain(|(device, _), _| is_there(device));
    }

    /// The addresses that are shown.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let clients = self.top.clients.iter().filter_map(Standing::address);
        let servers = self.loops.iter().flat_map(|found| &found.servers);
        clients.chain(servers.map(|server| server.ip()))
    }

    /// The pod that a client is, if it is known.
    pub(crate) fn pod_of(&self, client: &Standing) -> Option<&Pod> {
        self.pods.directory.at(client.address()?)
    }

    /// Notes that an attempt to attach failed.
    pub(crate) fn add_attach_error(&mut self, device: &str, hook: Hook) {
        *self.attach_errors.entry((device.to_owned(), hook.word())).or_default() += 1;
    }

    /// Adds what one CPU counted on an interface.
    pub(crate) fn add_counters(&mut self, device: &str, counters: &Counters) {
        let sum = self.devices.entry(device.to_owned()).or_default();
        for (sum, count) in sum.0.iter_mut().zip(counters.0) {
            *sum = sum.wrapping_add(count);
        }
    }
}

impl Standing {
    /// Of a client, its address.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.name.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cpus_counted_is_added_up() {
        let mut snapshot = Snapshot::default();
        let mut one = Counters::default();
        (one.0[0], one.0[63]) = (1, 10);
        snapshot.add_counters("lo", &one);
        snapshot.add_counters("lo", &one);
        snapshot.add_counters("eth0", &one);
        assert_eq!((snapshot.devices["lo"].0[0], snapshot.devices["lo"].0[63]), (2, 20));
        assert_eq!(snapshot.devices["eth0"].0[0], 1);
    }

    #[test]
    fn failures_are_counted_for_each_hook() {
        let mut snapshot = Snapshot::default();
        snapshot.add_attach_error("lo", Hook::Xdp);
        snapshot.add_attach_error("lo", Hook::Xdp);
        assert_eq!(snapshot.attach_errors[&("lo".to_owned(), "xdp")], 2);
    }
}
