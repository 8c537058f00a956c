//! The guard, run over a capture: its judge and all that the agent makes of what the judge says, on the capture's clock.

use guard_common::{
    counter::{Counter, Counters},
    event::Event as KernelEvent,
    key::Secret,
    packet::{Packet, Stop, Transport},
};
use guard_native::{Door, Way};

use super::{
    capture::Record,
    clock::{Clock, Moment},
    devices::{Devices, Place},
    link,
    tally::Tally,
};
use crate::{
    attachment::Hook,
    config::{Compiled, Config},
    events::Event,
    facts::Facts,
    loops::Loops,
    search::Suffixes,
    snapshot::Snapshot,
    watch::Watch,
};

/// Samples in a 60th of a second before there are fewer: what the agent asks for on all CPUs together.
const SAMPLES_PER_WINDOW: u32 = 64;
/// Any number will do, as long as it is the same each time.
const SECRET: Secret = Secret([
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
]);
/// What the judge counts of a message that it has read, or has read enough of.
const READ: [Counter; 6] = [
    Counter::QueriesV4,
    Counter::QueriesV6,
    Counter::Answers,
    Counter::Errors,
    Counter::OtherOpcode,
    Counter::QuestionCount,
];

/// An event, and where in the capture it happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Happened<'a> {
    /// The packet that made it happen, or the last one before it.
    pub(super) frame: u64,
    pub(super) moment: Moment,
    pub(super) event: &'a Event,
}

/// A guard that lives in a capture.
pub(super) struct Judge {
    door: Door,
    devices: Devices,
    loops: Loops,
    watch: Watch,
    clock: Clock,
    ports: Vec<u16>,
    tally: Tally,
    /// The packet as the judge gets it.
    frame: Vec<u8>,
    /// The last record.
    number: u64,
}

impl Judge {
    /// A guard that has seen nothing. `config` was compiled with [`secret`], for `facts`.
    pub(super) fn new(config: &Config, compiled: &Compiled, facts: &Facts, devices: Devices) -> Self {
        let mut door = Door::new(compiled.policy, SECRET);
        door.show_samples(SAMPLES_PER_WINDOW);
        let suffixes = Suffixes::new(&config.search_suffixes, &[]);
        let mut loops = Loops::new(config.metrics.top);
        loops.allow(config.allow.iter().map(|question| question.key(&SECRET)).collect());
        Self {
            door,
            devices,
            loops,
            watch: Watch::new(config, compiled, facts, suffixes),
            clock: Clock::default(),
            ports: config.ports.clone(),
            tally: Tally::default(),
            frame: Vec::new(),
            number: 0,
        }
    }

    /// Judges a packet, and tells what happened until then and by it.
    ///
    /// # Errors
    ///
    /// Those of `tell`.
    pub(super) fn packet<E>(
        &mut self,
        record: &Record<'_>,
        tell: &mut impl FnMut(Happened<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let moment = self.clock.packet(record.at_ns);
        while let Some((tick, whole)) = self.clock.tick(moment) {
            self.tick(tick, whole, tell)?;
        }
        self.number = record.number;
        self.tally.packets += 1;
        let Some((number, interface)) = record.interface else {
            self.tally.no_packets += 1;
            return Ok(());
        };
        let Some(told) = link::ethernet(interface.link, record.data, &mut self.frame) else {
            *self.tally.links.entry(interface.link).or_default() += 1;
            return Ok(());
        };
        let origin = (number, interface.name.as_deref());
        let Some(place) = self.devices.place(origin, record.outgoing, told, &self.frame) else {
            self.tally.loopback_copies += 1;
            return Ok(());
        };
        self.tally.note_place(place);
        let way = Way {
            ifindex: place.ifindex,
            egress: place.egress,
            packets: 1,
        };
        let event = if record.data.len() < record.wire_len {
            self.cut(way, moment)
        } else {
            self.door.pass(&mut self.frame, way, moment.now_ns).event
        };
        match event {
            Some(event) => self.on_event(&event, place, moment, tell),
            None => Ok(()),
        }
    }

    /// Tells what is left to tell at the end of the capture.
    ///
    /// # Errors
    ///
    /// Those of `tell`.
    pub(super) fn end<E>(&mut self, tell: &mut impl FnMut(Happened<'_>) -> Result<(), E>) -> Result<(), E> {
        self.tick(self.clock.latest(), true, tell)
    }

    /// What was counted.
    pub(super) const fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) const fn devices(&self) -> &Devices {
        &self.devices
    }

    /// What the judge counted at all interfaces together.
    pub(super) fn counters(&self) -> Counters {
        let all: Vec<_> = self.devices.indexes().map(|index| *self.door.counters(index)).collect();
        Counters::sum(&all)
    }

    /// What the agent would say of budgets and search lists in its metrics.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot {
            loops: self.loops.rows(),
            ..Snapshot::default()
        };
        self.watch.show(&mut snapshot, self.clock.latest().now_ns);
        snapshot
    }

    fn on_event<E>(
        &mut self,
        event: &KernelEvent,
        place: Place,
        moment: Moment,
        tell: &mut impl FnMut(Happened<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let hook = if place.egress { Hook::TcEgress } else { Hook::TcIngress };
        let device = self.devices.name(place.ifindex).unwrap_or_default();
        match self.loops.on_event(event, device, hook) {
            Some(event) => self.tell(&event, moment, tell),
            None => Ok(()),
        }
    }

    /// What the agent does four times a second; and of what it does once a second, what has to do with packets.
    fn tick<E>(
        &mut self,
        moment: Moment,
        whole: bool,
        tell: &mut impl FnMut(Happened<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for sample in self.door.samples() {
            self.watch.on_sample(&sample, moment.now_ns);
        }
        let indexes = self.devices.indexes().filter(|index| self.watch.wants(*index));
        let counts: Vec<_> = indexes.map(|index| (index, *self.door.counters(index))).collect();
        let rows = &self.door.rows()[..self.watch.row_count() as usize];
        let name = |ifindex| self.devices.name(ifindex).map(str::to_owned);
        let mut events = self.watch.on_counts(rows, &counts, name, moment.now_ns);
        if whole {
            let keys: Vec<_> = self.loops.keys().collect();
            for key in keys {
                if let Some(state) = self.door.state(key).filter(|state| state.is_open()) {
                    self.loops.on_held(key, state.held(), moment.now_ns);
                }
            }
            events.extend(self.loops.tick(moment.now_ns));
            events.extend(self.watch.tick(moment.now_ns));
        }
        events.iter().try_for_each(|event| self.tell(event, moment, tell))
    }

    fn tell<E>(
        &mut self,
        event: &Event,
        moment: Moment,
        tell: &mut impl FnMut(Happened<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let happened = Happened {
            frame: self.number,
            moment,
            event,
        };
        self.tally.note(happened);
        tell(happened)
    }

    /// Judges a packet of which the capture has only the beginning, and counts it if that is too little.
    fn cut(&mut self, way: Way, moment: Moment) -> Option<KernelEvent> {
        let is_dns = match Packet::walk(self.frame.as_slice()) {
            Ok(packet) => {
                let ports = [packet.source_port, packet.destination_port];
                packet.transport == Transport::Udp && ports.iter().any(|port| self.ports.contains(port))
            }
            // Nobody knows; the ports may be what is missing.
            Err(Stop::Malformed) => true,
            Err(Stop::Other | Stop::Fragment) => false,
        };
        let before = *self.door.counters(way.ifindex);
        let event = self.door.pass(&mut self.frame, way, moment.now_ns).event;
        let after = self.door.counters(way.ifindex);
        let is_read = READ.iter().any(|counter| after.get(*counter) != before.get(*counter));
        if is_dns && !is_read {
            self.tally.note_cut(&before, after);
        }
        event
    }
}

/// The secret that a policy for [`Judge`] is compiled with.
pub(super) const fn secret() -> &'static Secret {
    &SECRET
}
