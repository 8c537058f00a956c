//! The thread that asks network drivers what they dropped.
//!
//! A driver may take seconds to answer, and the agent has a lease to renew: so this is a thread of its own, and the
//! agent looks at what it has found out.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::warn;

use crate::{
    allowance::{Allowances, LinkLocal},
    device::Device,
    ethtool::Statistics,
    events::Event,
    snapshot::Snapshot,
    storms::LinkCount,
};

/// Between two questions to a driver: each is a command to the device.
const PERIOD: Duration = Duration::from_secs(5);

/// The thread, as long as this is there.
#[derive(Debug)]
pub(crate) struct Drivers {
    devices: Arc<Mutex<Vec<String>>>,
    news: Receiver<Event>,
}

impl Drivers {
    /// Asks the drivers of the interfaces that lead outward, in this network namespace. Figures go into the snapshot.
    ///
    /// # Errors
    ///
    /// There is no socket to ask by, or no room for a thread.
    pub(crate) fn start(devices: &[Device], snapshot: Arc<Mutex<Snapshot>>) -> io::Result<Self> {
        let mut drivers = Self::none();
        drivers.watch(devices);
        let (news, receiver) = mpsc::channel();
        let devices = Arc::downgrade(&drivers.devices);
        let mut statistics = Statistics::open()?;
        let mut allowances = Allowances::default();
        let mut seen = Seen::default();
        thread::Builder::new().name("drivers".to_owned()).spawn(move || {
            while let Some(devices) = devices.upgrade() {
                let names = devices.lock().unwrap_or_else(PoisonError::into_inner).clone();
                drop(devices);
                allowances.keep(&names);
                seen.0.retain(|known, _| names.contains(known));
                for device in &names {
                    let link = seen.since(device, &snapshot.lock().unwrap_or_else(PoisonError::into_inner));
                    match allowances.poll(device, Instant::now(), link, |device| statistics.read(device)) {
                        Ok(Some(event)) => {
                            if news.send(event).is_err() {
                                return;
                            }
                        }
                        Ok(None) => {}
                        Err(error) => warn!("cannot read the driver statistics of {device}: {error}"),
                    }
                }
                show(
                    &allowances,
                    &mut snapshot.lock().unwrap_or_else(PoisonError::into_inner),
                );
                thread::sleep(PERIOD);
            }
        })?;
        drivers.news = receiver;
        Ok(drivers)
    }

    /// Nobody who asks.
    pub(crate) fn none() -> Self {
        Self {
            devices: Arc::default(),
            news: mpsc::channel().1,
        }
    }

    /// The guarded interfaces are these from now on.
    pub(crate) fn watch(&self, devices: &[Device]) {
        let outward = devices.iter().filter(|device| device.outward);
        let names = outward.map(|device| device.name.clone()).collect();
        *self.devices.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// What there is to tell.
    pub(crate) fn news(&self) -> impl Iterator<Item = Event> {
        self.news.try_iter()
    }
}

/// Packets to link-local services when they were last looked at, by interface.
#[derive(Debug, Default)]
struct Seen(HashMap<String, u64>);

impl Seen {
    /// What the link-local budget of an interface let through since the last call; `None` if it has none.
    fn since(&mut self, device: &str, snapshot: &Snapshot) -> Option<LinkLocal> {
        let link = snapshot.links.get(device)?;
        let packets = LinkCount::of(snapshot.devices.get(device)?).passed();
        let before = self.0.insert(device.to_owned(), packets).unwrap_or(packets);
        Some(LinkLocal {
            packets: packets.saturating_sub(before),
            peak_per_second: link.peak.ceil() as u64,
            limit_per_second: link.limit as u64,
        })
    }
}

fn show(allowances: &Allowances, snapshot: &mut Snapshot) {
    snapshot.ena_exceeded.clear();
    snapshot.ena_conntrack_available.clear();
    for found in allowances.devices() {
        for (kind, total) in &found.exceeded {
            snapshot.ena_exceeded.push((found.device.clone(), kind, *total));
        }
        if let Some(available) = found.conntrack_available {
            snapshot.ena_conntrack_available.push((found.device, available));
        }
    }
}

#[cfg(test)]
mod tests {
    use guard_common::counter::{Counter, Counters};

    use super::*;
    use crate::snapshot::Link;

    #[test]
    fn what_was_let_through_is_counted_from_one_look_to_the_next() {
        let mut snapshot = Snapshot::default();
        let mut seen = Seen::default();
        assert_eq!(seen.since("ens5", &snapshot), None);
        let link = Link {
            limit: 900.0,
            peak: 850.5,
        };
        snapshot.links.insert("ens5".to_owned(), link);
        let mut counters = Counters::default();
        counters.0[Counter::LinkDns as usize] = 100;
        counters.0[Counter::LinkNtp as usize] = 5;
        snapshot.add_counters("ens5", &counters);
        let expected = |packets| LinkLocal {
            packets,
            peak_per_second: 851,
            limit_per_second: 900,
        };
        assert_eq!(seen.since("ens5", &snapshot), Some(expected(0)));
        snapshot.add_counters("ens5", &counters);
        assert_eq!(seen.since("ens5", &snapshot), Some(expected(105)));
    }
}
