//! What was counted at each interface.
//!
//! The kernel counts by interface index modulo [`DEVICE_SLOTS`], and goes on counting in a slot when its interface is gone.
//! Here each interface begins at zero, and what is counted in a slot that several share goes to the first of them.

use std::collections::BTreeMap;

use guard_common::{
    abi::{DEVICE_SLOTS, device_slot},
    counter::Counters,
};

use crate::device::Device;

/// The counts of all interfaces that are guarded, and of those that were.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// What each slot had counted when it was last read.
    read: BTreeMap<u32, Counters>,
    /// The interface that counts in each slot.
    owners: BTreeMap<u32, u32>,
    /// What was counted at each interface since it is guarded.
    devices: BTreeMap<u32, Counters>,
    /// What was counted at interfaces that are no longer.
    gone: Counters,
}

impl Ledger {
    /// Goes on with these interfaces. `slot` reads what has been counted in the slot of an interface, on all CPUs.
    pub(super) fn follow<E>(
        &mut self,
        devices: &[Device],
        mut slot: impl FnMut(u32) -> Result<Counters, E>,
    ) -> Result<(), E> {
        // What was counted until now is theirs who were there.
        let before: Vec<_> = self.owners.values().copied().collect();
        for ifindex in before {
            let total = slot(ifindex)?;
            self.count(ifindex, total);
        }
        // Where link-local services are, counts are limits.
        let mut ranked: Vec<_> = devices.iter().map(|device| (!device.outward, device.ifindex)).collect();
        ranked.sort_unstable();
        let mut owners = BTreeMap::new();
        for (_, ifindex) in ranked {
            owners.entry(device_slot(ifindex)).or_insert(ifindex);
        }
        for (number, ifindex) in &owners {
            if !self.read.contains_key(number) {
                // An agent before this one may have counted there.
                self.read.insert(*number, slot(*ifindex)?);
            }
        }
        debug_assert!(owners.len() <= DEVICE_SLOTS, "a slot has one owner");
        self.owners = owners;
        let gone = self.devices.extract_if(.., |ifindex, _| {
            !devices.iter().any(|device| device.ifindex == *ifindex)
        });
        for (_, counters) in gone {
            self.gone = Counters::sum(&[self.gone, counters]);
        }
        Ok(())
    }

    /// The same at the start of the agent: what an agent before this one counted goes on.
    pub(super) fn begin(devices: &[Device]) -> Self {
        let mut ledger = Self::default();
        for device in devices {
            ledger.read.insert(device_slot(device.ifindex), Counters::default());
        }
        let nothing = |_| Ok::<_, std::convert::Infallible>(Counters::default());
        let Ok(()) = ledger.follow(devices, nothing);
        ledger
    }

    /// The interfaces that count in a slot.
    pub(super) fn owners(&self) -> impl Iterator<Item = u32> {
        self.owners.values().copied()
    }

    /// Takes in what has been counted in the slot of an interface; returns what was counted at the interface.
    pub(super) fn count(&mut self, ifindex: u32, total: Counters) -> Counters {
        let before = self.read.insert(device_slot(ifindex), total).unwrap_or(total);
        let device = self.devices.entry(ifindex).or_default();
        for ((sum, now), before) in device.0.iter_mut().zip(total.0).zip(before.0) {
            *sum = sum.wrapping_add(now.wrapping_sub(before));
        }
        *device
    }

    /// What was counted at interfaces that are no longer guarded.
    pub(super) const fn gone(&self) -> &Counters {
        &self.gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(ifindex: u32, outward: bool) -> Device {
        Device {
            name: format!("d{ifindex}"),
            ifindex,
            physical: false,
            loopback: false,
            outward,
        }
    }

    fn counted(count: u64) -> Counters {
        let mut counters = Counters::default();
        counters.0[0] = count;
        counters
    }

    #[test]
    fn an_interface_begins_at_zero_where_another_has_counted() {
        let mut ledger = Ledger::begin(&[device(1, false)]);
        assert_eq!(
            ledger.count(1, counted(5)).0[0],
            5,
            "an agent before this one has counted"
        );
        let other = 7 + DEVICE_SLOTS as u32;
        ledger
            .follow(&[device(7, false)], |ifindex| {
                Ok::<_, ()>(counted(if ifindex == 7 { 100 } else { 6 }))
            })
            .unwrap();
        assert_eq!((ledger.gone().0[0], ledger.count(7, counted(103)).0[0]), (6, 3));
        ledger
            .follow(&[device(other, false)], |_| Ok::<_, ()>(counted(110)))
            .unwrap();
        assert_eq!(ledger.count(other, counted(111)).0[0], 1);
        assert_eq!(ledger.gone().0[0], 6 + 10);
        assert_eq!(ledger.owners().collect::<Vec<_>>(), [other]);
    }

    #[test]
    fn of_those_that_share_a_slot_the_one_that_leads_outward_counts() {
        let twin = 7 + DEVICE_SLOTS as u32;
        let ledger = Ledger::begin(&[device(7, false), device(twin, true)]);
        assert_eq!(ledger.owners().collect::<Vec<_>>(), [twin]);
    }
}
