//! What is counted in a replay beside what the judge counts.

use std::collections::{BTreeMap, HashMap};

use guard_common::counter::{Counter, Counters};
use serde::Serialize;

use super::{clock::Moment, devices::Place, judge::Happened};
use crate::events::{Breaker, Event, rfc3339_ns};

/// Loops that are listed; the rest is counted.
const MAX_LOOPS: usize = 1_000;
/// What a message that is cut off can look like to the judge.
pub(super) const LOOKS_CUT: [Counter; 3] = [Counter::BadHeader, Counter::ShortMessage, Counter::BadName];

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Frames of the capture.
    pub(super) packets: u64,
    /// Frames that are no packets of an interface.
    pub(super) no_packets: u64,
    /// Packets of a link type that is not known.
    pub(super) links: BTreeMap<u32, u64>,
    /// Packets on loopback in their leaving copy.
    pub(super) loopback_copies: u64,
    /// Packets of which the capture has too little.
    pub(super) cut_short: u64,
    /// What the judge took those for, in the order of [`LOOKS_CUT`].
    pub(super) cut_looks: [u64; LOOKS_CUT.len()],
    /// Packets at each interface, by its index, and those of them that went out.
    pub(super) places: BTreeMap<u32, [u64; 2]>,
    /// Breakers that opened, of all keys.
    pub(super) trips: u64,
    /// The loops in the order in which they were found.
    pub(super) loops: Vec<Looped>,
    /// Where each of them is.
    keys: HashMap<String, usize>,
    /// Trips of loops that are not listed.
    pub(super) unlisted_trips: u64,
}

/// A key whose breaker opened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Looped {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) qtype: String,
    /// In 16 hexadecimal digits.
    pub(super) key: String,
    pub(super) device: String,
    /// The packet at which it opened first.
    pub(super) frame: u64,
    pub(super) time: String,
    pub(super) proof: &'static str,
    pub(super) evidence: &'static str,
    pub(super) trips: u64,
    pub(super) extensions: u64,
    pub(super) releases: u64,
    /// Queries that were held, or would have been.
    pub(super) held: u64,
    /// What of it the breaker that is open has held so far.
    #[serde(skip)]
    open_held: u64,
}

impl Tally {
    /// Notes an event.
    pub(super) fn note(&mut self, happened: Happened<'_>) {
        match happened.event {
            Event::Trip(breaker) => {
                self.trips += 1;
                match self.opened(breaker, happened.frame, happened.moment) {
                    Some(found) => {
                        found.trips += 1;
                        found.open_held = 0;
                        found.hold(breaker.held);
                    }
                    None => self.unlisted_trips += 1,
                }
            }
            Event::Extend(breaker) => {
                if let Some(found) = self.find(&breaker.key) {
                    found.extensions += 1;
                    found.hold(breaker.held);
                }
            }
            Event::Release(breaker) => {
                if let Some(found) = self.find(&breaker.key) {
                    found.releases += 1;
                    found.close(breaker.held);
                }
            }
            Event::Expire(breaker) => {
                if let Some(found) = self.find(&breaker.key) {
                    found.close(breaker.held);
                }
            }
            _ => {}
        }
    }

    /// Notes what an open breaker has held.
    pub(super) fn note_held(loops: &mut [Looped], key: u64, held: u64) {
        let key = format!("{key:016x}");
        if let Some(found) = loops.iter_mut().find(|found| found.key == key) {
            found.hold(held);
        }
    }

    /// Notes where a packet was seen.
    pub(super) fn note_place(&mut self, place: Place) {
        self.places.entry(place.ifindex).or_default()[usize::from(place.egress)] += 1;
    }

    /// Notes a packet of which the capture has too little, and what that made the judge count.
    pub(super) fn note_cut(&mut self, before: &Counters, after: &Counters) {
        self.cut_short += 1;
        for (sum, counter) in self.cut_looks.iter_mut().zip(LOOKS_CUT) {
            *sum += after.get(counter) - before.get(counter);
        }
    }

    fn find(&mut self, key: &str) -> Option<&mut Looped> {
        let place = *self.keys.get(key)?;
        self.loops.get_mut(place)
    }

    fn opened(&mut self, breaker: &Breaker, frame: u64, moment: Moment) -> Option<&mut Looped> {
        let place = match self.keys.get(&breaker.key) {
            Some(place) => *place,
            None if self.loops.len() < MAX_LOOPS => {
                self.keys.insert(breaker.key.clone(), self.loops.len());
                self.loops.push(Looped::new(breaker, frame, moment));
                self.loops.len() - 1
            }
            None => return None,
        };
        self.loops.get_mut(place)
    }
}

impl Looped {
    fn new(breaker: &Breaker, frame: u64, moment: Moment) -> Self {
        let (proof, evidence) = match &breaker.packet {
            Some(packet) => (packet.proof, packet.evidence),
            None => ("", ""),
        };
        Self {
            name: breaker.name.clone(),
            qtype: breaker.qtype.clone(),
            key: breaker.key.clone(),
            device: breaker.device.clone(),
            frame,
            time: rfc3339_ns(moment.epoch_ns),
            proof,
            evidence,
            trips: 0,
            extensions: 0,
            releases: 0,
            held: 0,
            open_held: 0,
        }
    }

    /// So many queries are held since the breaker opened.
    fn hold(&mut self, held: u64) {
        self.held += held.saturating_sub(self.open_held);
        self.open_held = self.open_held.max(held);
    }

    /// So many were when it closed.
    fn close(&mut self, held: u64) {
        self.hold(held);
        self.open_held = 0;
    }
}
