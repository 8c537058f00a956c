//! A query before the judge: does it say nothing, or is it held?

use core::arch::asm;

use guard_common::{
    abi::{flow_line, key_bucket},
    case::{LOOPBACK_IFINDEX, NAMESPACE_SHIFT},
    counter::Counter,
    flow::{Place, Sighting},
    judge::{Hop, Look},
    policy::Control,
    sample::Kind,
    time::Ticks,
};

use super::{DROPPED, charge, held, read::Asked};
use crate::{
    bench::{self, Charged, Draft},
    door::Door,
    frame::Frame,
    maps::{DeviceCounters, FLOWS, KEYS},
};

/// Judges a query, if it says nothing or is held. `None`, with nothing changed, if it is for others to judge.
#[inline(always)]
pub(super) fn judge<D: Door>(door: &D, frame: &Frame, control: &Control, asked: &Asked) -> Option<u32> {
    let device = door.device();
    if device & ((1 << NAMESPACE_SHIFT) - 1) == LOOPBACK_IFINDEX {
        return None;
    }
    let key = match door.namespace() {
        0 => asked.hashed.key,
        namespace => asked.hashed.key.within(namespace),
    };
    let flow = asked.ends.flow(key, asked.id, &control.secret);
    let (bucket, line) = (KEYS.get_ptr_mut(key_bucket(key))?, FLOWS.get_ptr_mut(flow_line(flow))?);
    // Both are far away in memory: the one is on its way here while the other is looked at.
    // SAFETY: a live slot of the array.
    unsafe { line.cast::<u64>().read_volatile() };
    let now_ns = bench::coarse_now_ns();
    if now_ns >= control.lease_until_ns {
        return None;
    }
    let now = Ticks::from_ns(now_ns);
    let hop = Hop {
        client: asked.ends.client(),
        server: asked.ends.server(),
        id: asked.id,
        same_host: false,
        plain: asked.hashed.plain,
        egress: D::EGRESS,
        sighting: Sighting::New,
    };
    // SAFETY: a live slot of the array. What another CPU changes meanwhile came later.
    let Look(look) = unsafe { (*bucket).look(key, &hop, now, control.longest_ticks) };
    let look = control.blur(look);
    if look >= Look::UNCLEAR.0 {
        return None;
    }
    let held = look & Look::HELD != 0;
    let place = Place::new(device, D::EGRESS);
    let has_rows = control.has_rows != 0;
    let sighting = if held || has_rows {
        // SAFETY: a live slot of the array.
        unsafe { (*line).glimpse(flow as u32, place, now, control.rapid_ticks) as u32 }
    } else {
        // SAFETY: as above. CPUs that race for it write whole words.
        unsafe { (*line).sight(flow as u32, place, hop.plain, now, control.rapid_ticks) as u32 }
    };
    let sighting = control.blur(sighting as usize) as u32;
    if sighting == Sighting::Elsewhere as u32 {
        // The long way finds the same.
        return None;
    }
    // SAFETY: the slot of this CPU, on which no other of our programs runs now.
    let draft = Draft::new(Kind::Query, unsafe { &mut *asked.local }, now, flow);
    if held && !draft.skips {
        // It is held, and may be shown: that is for the long way. Nothing has changed yet.
        return None;
    }
    let random = draft.random;
    let weight = draft.done();
    let counters = DeviceCounters::of(device)?;
    counters.count_at(control.blur(asked.counter));
    if sighting == Sighting::Retransmit as u32 {
        counters.count(Counter::Retransmits);
    }
    if held {
        bench::settle_if_known(flow, sighting);
        // SAFETY: as for the look.
        let in_hold = unsafe { (*bucket).note_held(slot_of(look), now, random)? };
        return held::end(frame, control, asked, key, in_hold, counters);
    }
    let begins = look == Look::BEGINS.0;
    if !begins {
        // SAFETY: as for the look.
        unsafe { (*bucket).note_repeat(slot_of(look), &hop, now) };
    }
    if !has_rows {
        if begins {
            bench::begin(key, &hop, now, counters);
        }
        return Some(weight);
    }
    let charged = Charged {
        packets: door.packets(),
        ifindex: device,
        sighting,
        egress: D::EGRESS,
        slot: control.active & 1,
    };
    if weight == 0 && bench::ends_over(key, flow, now_ns, &charged) {
        return Some(DROPPED);
    }
    charge::prepare(door, control, asked, &hop, (key, flow, sighting), begins, now_ns)?;
    Some(charge::charged(asked, weight))
}

/// The slot that a look has found. It is bounded where it is used, and where the optimiser cannot take the bound for
/// something else or carry it over from elsewhere, which verifiers before Linux 6.12 do not follow.
#[inline(always)]
fn slot_of(look: usize) -> usize {
    let mut slot = look;
    // SAFETY: a mask.
    unsafe { asm!("{0} &= 7", inout(reg) slot, options(nomem, nostack)) };
    slot
}
