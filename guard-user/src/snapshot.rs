//! Everything that the metrics say, at one moment.
//!
//! Plain values: whoever fills it reads maps and clocks, whoever shows it does neither.

use std::collections::BTreeMap;

use guard_common::{counter::Counters, policy::Mode};

use crate::attachment::{Attachment, Hook};

/// What the agent knows at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
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
    /// Attempts to attach that failed, by name of the interface and hook.
    pub(crate) attach_errors: BTreeMap<(String, &'static str), u64>,
    /// Lines of events that their reader was too slow for.
    pub(crate) lines_lost: u64,
    /// The breakers that are open, the ones that hold most first.
    pub(crate) loops: Vec<OpenLoop>,
    /// The queries that were held, by name.
    pub(crate) held: Held,
    /// Bytes of each map, by its name in the kernel object.
    pub(crate) map_bytes: BTreeMap<&'static str, u64>,
}

/// A breaker that is open. Moments are nanoseconds of the monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenLoop {
    /// The key.
    pub(crate) key: u64,
    /// The name, in presentation form.
    pub(crate) name: String,
    /// The QTYPE.
    pub(crate) qtype: String,
    /// Name of the interface on which it tripped.
    pub(crate) device: String,
    /// When it opened.
    pub(crate) since_ns: u64,
    /// When its hold ends.
    pub(crate) until_ns: u64,
    /// How often a test has failed; the hold has doubled as often.
    pub(crate) level: u32,
    /// Queries held since it opened, as far as is known.
    pub(crate) held: u64,
}

/// Held queries: the sum over all of it only ever grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Name, type and queries of those that have a series of their own.
    pub(crate) named: Vec<(String, String, u64)>,
    /// Queries of all others.
    pub(crate) other: u64,
}

impl Snapshot {
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
