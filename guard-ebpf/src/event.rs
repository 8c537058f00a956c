//! Telling the agent.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use guard_common::{
    address::Address,
    bytes::Bytes,
    case::Case,
    counter::Counter,
    event::{Event, NAME_ROOM},
    judge::Ruling,
    packet::Packet,
    question::Message,
    remedy::Verdict,
    sample::Sample,
};

use crate::{
    bench::Desk,
    frame::Frame,
    maps::{DeviceCounters, EVENTS, SAMPLES},
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
        (*event).key = sighted.case.subject.key.0;
        (*event).ifindex = sighted.case.subject.ifindex;
        (*event).age_ticks = ruling.age_ticks;
        (*event).hold_ticks = ruling.hold_ticks;
        (*event).held = ruling.held_in_hold;
        (*event).note = ruling.note as u8;
        (*event).evidence = ruling.evidence as u8;
        (*event).verdict = sighted.verdict as u8;
        (*event).egress = sighted.case.subject.egress as u8;
        (*event).hops = ruling.hops;
        (*event).recirculated = ruling.recirculated;
        (*event).source_port = packet.source_port;
        (*event).destination_port = packet.destination_port;
        (*event).id = message.header.id;
        (*event).qtype = message.question.qtype;
        (*event).qclass = message.question.qclass;
        (*event).name_len = message.question.name_len as u16;
        (*event).bits = ruling.bits as u16;
        (*event).rapid = ruling.rapid as u16;
        (*event).source = sighted.source.0;
        (*event).destination = sighted.destination.0;
        copy_name(
            frame,
            message.question.name_at,
            message.question.name_len,
            &raw mut (*event).name,
        );
    }
    entry.submit(0);
}

/// Shows the agent a query, which stands for `weight` of its kind; if the ring buffer is full, that is counted.
///
/// The agent is not woken: it looks several times a second.
#[inline(always)]
pub(crate) fn show(frame: &Frame, desk: *const Desk, kind: u32, weight: u32) {
    // SAFETY: the callers pass references; the verifier wants the check for null.
    let Some(desk) = (unsafe { desk.as_ref() }) else { return };
    let case = &desk.case;
    let Some(mut entry) = SAMPLES.reserve(0) else {
        DeviceCounters::count_on(case.subject.ifindex, Counter::SamplesLost);
        return;
    };
    let sample: *mut Sample = entry.as_mut_ptr();
    // SAFETY: the entry has room for a sample; every field but the unused end of the name is written.
    unsafe {
        (*sample).at_ns = case.now_ns;
        (*sample).weight = weight;
        (*sample).ifindex = case.subject.ifindex;
        (*sample).row = desk.shed.row;
        (*sample).verdict = desk.verdict as u8;
        (*sample).reason = desk.shed.reason as u8;
        (*sample).egress = case.subject.egress as u8;
        (*sample).kind = kind as u8;
        (*sample).qtype = case.subject.qtype;
        (*sample).name_len = case.name_len;
        (*sample).spare = 0;
        (*sample).client = case.subject.client.0;
        (*sample).server = case.subject.server.0;
        copy_name(
            frame,
            case.name_at as usize,
            case.name_len as usize,
            &raw mut (*sample).name,
        );
    }
    entry.submit(BPF_RB_NO_WAKEUP.into());
}

/// Copies the name in words. The last of them may reach into type and class; the reader goes by the length.
#[inline(always)]
unsafe fn copy_name(frame: &Frame, name_at: usize, name_len: usize, room: *mut [u8; NAME_ROOM]) {
    let words = room.cast::<u32>();
    for word in 0..NAME_ROOM / 4 {
        if word * 4 >= name_len {
            break;
        }
        let Some(four) = frame.ne32(name_at + word * 4) else {
            break;
        };
        // SAFETY: `word` is below the words of the room, which is aligned to eight bytes.
        unsafe { words.add(word).write(four) };
    }
}
