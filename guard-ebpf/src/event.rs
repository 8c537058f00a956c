//! Telling the agent.

use guard_common::{
    address::Address,
    bytes::Bytes,
    counter::Counter,
    event::{Event, NAME_ROOM},
    judge::Ruling,
    packet::Packet,
    question::Message,
    remedy::Verdict,
};

use crate::{
    bench::Case,
    frame::Frame,
    maps::{DeviceCounters, EVENTS},
};

/// What the agent is told beside the ruling.
pub(crate) struct Sighted<'a> {
    pub(crate) case: &'a Case,
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) verdict: Verdict,
}

/// Puts an event into the ring buffer; if that is full, the event is counted as lost and nothing else changes.
#[inline(always)]
pub(crate) fn tell(
    counters: DeviceCounters,
    frame: &Frame,
    packet: &Packet,
    message: &Message,
    ruling: &Ruling,
    sighted: &Sighted<'_>,
) {
    let Some(mut entry) = EVENTS.reserve(0) else {
        counters.count(Counter::EventsLost);
        return;
    };
    let event: *mut Event = entry.as_mut_ptr();
    // SAFETY: the entry has room for an event; every field but the unused end of the name is written.
    unsafe {
        (*event).at_ns = sighted.case.now_ns;
        (*event).key = sighted.case.key.0;
        (*event).ifindex = sighted.case.ifindex;
        (*event).age_ticks = ruling.age_ticks;
        (*event).hold_ticks = ruling.hold_ticks;
        (*event).held = ruling.held_in_hold;
        (*event).note = ruling.note as u8;
        (*event).evidence = ruling.evidence as u8;
        (*event).verdict = sighted.verdict as u8;
        (*event).egress = sighted.case.egress as u8;
        (*event).hops = ruling.hops;
        (*event).recirculated = ruling.recirculated;
        (*event).source_port = packet.source_port;
        (*event).destination_port = packet.destination_port;
        (*event).id = message.id;
        (*event).qtype = message.question.qtype;
        (*event).qclass = message.question.qclass;
        (*event).name_len = message.question.name_len as u16;
        (*event).spare = 0;
        (*event).source = sighted.source.0;
        (*event).destination = sighted.destination.0;
        copy_name(frame, message, &raw mut (*event).name);
    }
    entry.submit(0);
}

/// Copies the name in words. The last of them may reach into type and class; the reader goes by the length.
#[inline(always)]
unsafe fn copy_name(frame: &Frame, message: &Message, room: *mut [u8; NAME_ROOM]) {
    let words = room.cast::<u32>();
    for word in 0..NAME_ROOM / 4 {
        if word * 4 >= message.question.name_len {
            break;
        }
        if let Some(four) = frame.ne32(message.question.name_at + word * 4) {
            // SAFETY: `word` is below the words of the room, which is aligned to eight bytes.
            unsafe { words.add(word).write(four) };
        }
    }
}
