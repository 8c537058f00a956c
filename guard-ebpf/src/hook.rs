//! A packet at a hook: its ports, then the steps of the judgement, one after the other.
//!
//! The walk to the ports is done for every packet, in line. What speaks DNS goes through functions of their own: the
//! verifier checks such a function once, for all headers that may have led to it, where it would check straight code
//! again for each of them.

use guard_common::{
    counter::Counter,
    packet::{Packet, Stop},
};

use crate::{
    bench::{self, NO_CASE, NO_RULING},
    dns,
    door::{Door, Headers},
    maps::{CONTROL, DeviceCounters, POLICIES},
};

/// Judges one packet; tells what the program is to return.
#[inline(always)]
pub(crate) fn judge<D: Door>(door: &D) -> u32 {
    let packet = match Packet::walk(&door.frame()) {
        Ok(packet) => packet,
        Err(Stop::Other) => return D::PASS,
        Err(stop) => {
            if let Some(counters) = DeviceCounters::of(door.ifindex()) {
                counters.count(if matches!(stop, Stop::Fragment) {
                    Counter::Fragments
                } else {
                    Counter::BadHeader
                });
            }
            return D::PASS;
        }
    };
    let Some(control) = CONTROL.get(0) else { return D::PASS };
    let Some(policy) = POLICIES.get(control.active & 1) else {
        return D::PASS;
    };
    if !policy.has_port(packet.destination_port) && !policy.has_port(packet.source_port) {
        return D::PASS;
    }
    // One after the other and not one in the other: together, their variables do not fit the stack of a program.
    let headers = Headers::pack(&packet, D::EGRESS);
    let (mut case, mut ruling) = (NO_CASE, NO_RULING);
    let worth_acting = match door.read(headers, &mut case) {
        dns::QUERY => bench::query(&case, &mut ruling),
        dns::ANSWER => bench::answered(&case, &mut ruling),
        _ => false,
    };
    if !worth_acting {
        return D::PASS;
    }
    match door.act(headers, &case, &ruling) {
        dns::PASS => D::PASS,
        dns::DROP => D::DROP,
        info_code => door.answer(headers, info_code),
    }
}
