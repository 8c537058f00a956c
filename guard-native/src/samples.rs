//! Some of the queries, shown to whoever wants to know who asks: `guard_ebpf::hook::show`.

use guard_common::{
    case::Case,
    event::NAME_ROOM,
    remedy::{Shed, Verdict},
    sample::{Kind, Sample, Sampler},
    time::Ticks,
};

use crate::door::Door;

/// What is shown, and what has not been taken yet.
#[derive(Default)]
pub(crate) struct Samples {
    /// Samples of either kind in a 60th of a second before there are fewer; 0 shows none.
    quota: u32,
    samplers: [Sampler; 2],
    /// The state of the generator that they are drawn with.
    random: u64,
    shown: Vec<Sample>,
}

impl Door {
    /// Shows some of the queries from now on: `quota` of either kind in a 60th of a second, then fewer.
    pub fn show_samples(&mut self, quota: u32) {
        self.samples.quota = quota;
    }

    /// What was shown since this was called last, in order.
    pub fn samples(&mut self) -> impl Iterator<Item = Sample> {
        self.samples.shown.drain(..)
    }

    /// Shows a query, if it is its turn.
    pub(crate) fn show(&mut self, frame: &[u8], case: &Case, shed: &Shed, verdict: Verdict) {
        if self.samples.quota == 0 {
            return;
        }
        if !case.subject.elsewhere {
            self.samples.draw(Kind::Query, frame, case, shed, verdict);
        }
        if shed.is_shed() {
            self.samples.draw(Kind::Shed, frame, case, shed, verdict);
        }
    }
}

impl Samples {
    fn draw(&mut self, kind: Kind, frame: &[u8], case: &Case, shed: &Shed, verdict: Verdict) {
        let random = &mut self.random;
        let sampler = &mut self.samplers[kind as usize];
        let weight = sampler.draw(Ticks::from_ns(case.now_ns), self.quota, || next(random));
        if let Some(weight) = weight {
            self.shown.push(sample(kind, weight, frame, case, shed, verdict));
        }
    }
}

fn sample(kind: Kind, weight: u32, frame: &[u8], case: &Case, shed: &Shed, verdict: Verdict) -> Sample {
    let place = case.name();
    let mut name = [0; NAME_ROOM];
    if let Some(bytes) = frame.get(place.at..place.at + place.length) {
        name[..place.length].copy_from_slice(bytes);
    }
    Sample {
        at_ns: case.now_ns,
        weight,
        ifindex: case.subject.ifindex,
        row: shed.row,
        verdict: verdict as u8,
        reason: shed.reason as u8,
        egress: u8::from(case.subject.egress),
        kind: kind as u8,
        qtype: case.subject.qtype,
        name_len: case.name_len,
        spare: 0,
        client: case.subject.client.0,
        server: case.subject.server.0,
        name,
    }
}

/// A number that any run repeats: an LCG (Knuth, MMIX), of which the upper half is used.
const fn next(state: &mut u64) -> u32 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 32) as u32
}
