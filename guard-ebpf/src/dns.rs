//! What every door does with a packet that speaks DNS: read it, ask the judge, say what to do.
//!
//! Whatever is not understood passes. Only a fresh ruling of the judge, under a policy whose lease has not run out,
//! ends in anything else.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use guard_common::{
    answer::{EDE_CACHED_ERROR, EDE_OTHER, Plan, is_answerable},
    counter::{Counter, action_index},
    judge::{Endpoint, Note, Ruling},
    packet::{Family, Transport},
    policy::Control,
    question::{Message, Unreadable},
    remedy::{Held, Verdict},
};

use crate::{
    bench::{self, Case},
    door::{Door, Headers},
    event::{self, Sighted},
    frame::Frame,
    maps::{CONTROL, DeviceCounters, POLICIES},
};

/// The index that the loopback interface has in every network namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
const LOOPBACK_IFINDEX: u32 = 1;

/// What [`read`] and [`act`] return for a packet that goes on.
pub(crate) const PASS: u32 = 0x1_0000;
/// What [`act`] returns for a packet that ends here. Anything else is the EDE code of its answer.
pub(crate) const DROP: u32 = 0x1_0001;
/// What [`read`] returns for a query.
pub(crate) const QUERY: u32 = 0x1_0002;
/// What [`read`] returns for a response that settles a question.
pub(crate) const ANSWER: u32 = 0x1_0003;

/// Reads a packet to or from a DNS port.
#[inline(always)]
pub(crate) fn read<D: Door>(door: &D, headers: Headers, case: *mut Case) -> u32 {
    // SAFETY: the callers pass references; the verifier wants the check for null.
    let Some(case) = (unsafe { case.as_mut() }) else {
        return PASS;
    };
    let packet = headers.unpack();
    let Some(counters) = DeviceCounters::of(door.ifindex()) else {
        return PASS;
    };
    let Some(control) = CONTROL.get(0) else { return PASS };
    // SAFETY: the helper takes nothing and reads the clock of the last tick.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    if now_ns >= control.lease_until_ns {
        counters.count(Counter::LeaseOver);
        return PASS;
    }
    let frame = door.whole_frame();
    if matches!(packet.transport, Transport::Tcp) {
        if packet.segment_len(&frame).is_some_and(|len| len > 0) {
            counters.count(Counter::TcpSegments);
        }
        return PASS;
    }
    let Some((start, end)) = packet.payload(&frame) else {
        counters.count(Counter::BadHeader);
        return PASS;
    };
    let message = match Message::read_by(&frame, start, end, |at| door.name_len(at)) {
        Ok(message) => message,
        Err(unreadable) => {
            counters.count(match unreadable {
                Unreadable::Short => Counter::ShortMessage,
                Unreadable::Opcode => Counter::OtherOpcode,
                Unreadable::QuestionCount => Counter::QuestionCount,
                Unreadable::Name => Counter::BadName,
            });
            return PASS;
        }
    };
    let Some(policy) = POLICIES.get(control.active & 1) else {
        return PASS;
    };
    let server_port = if message.is_response() {
        packet.source_port
    } else {
        packet.destination_port
    };
    if !policy.has_port(server_port) {
        return PASS;
    }
    let Some(()) = fill(case, door, control, headers, &frame, &message, now_ns) else {
        return PASS;
    };

    if !message.is_response() {
        counters.count(match packet.family {
            Family::V4 => Counter::QueriesV4,
            Family::V6 => Counter::QueriesV6,
        });
        return QUERY;
    }
    case.asked = bench::settle(case.flow);
    if !message.is_answer() {
        counters.count(Counter::Errors);
        bench::failed(case);
        return PASS;
    }
    counters.count(Counter::Answers);
    ANSWER
}

/// Fills in what the judge has to know of a message.
#[inline(always)]
fn fill<D: Door>(
    case: &mut Case,
    door: &D,
    control: &Control,
    headers: Headers,
    frame: &Frame,
    message: &Message,
    now_ns: u64,
) -> Option<()> {
    let packet = headers.unpack();
    let secret = &control.secret;
    let key = door.key(&message.question)?;
    let (source, destination) = packet.addresses(frame)?;
    let from = (source.digest(secret), packet.source_port);
    let to = (destination.digest(secret), packet.destination_port);
    let (client, server) = if message.is_response() { (to, from) } else { (from, to) };
    let ifindex = door.ifindex();
    let ports_and_id = (client.1 as u64) << 32 | (server.1 as u64) << 16 | message.id as u64;
    *case = Case {
        key,
        flow: secret.mix(client.0 ^ key.0, server.0.rotate_left(32) ^ ports_and_id),
        now_ns,
        client: Endpoint {
            address: client.0 as u16,
            port: client.1,
        },
        server: Endpoint {
            address: server.0 as u16,
            port: server.1,
        },
        ifindex,
        id: message.id,
        egress: headers.is_egress(),
        same_host: ifindex == LOOPBACK_IFINDEX || source == destination,
        asked: false,
    };
    Some(())
}

/// Decides what a ruling that asks for more than to let the query pass comes to, and tells the agent.
#[inline(always)]
pub(crate) fn act<D: Door>(door: &D, headers: Headers, case: *const Case, ruling: *const Ruling) -> u32 {
    // SAFETY: the callers pass references; the verifier wants the check for null.
    let (Some(case), Some(ruling)) = (unsafe { case.as_ref() }, unsafe { ruling.as_ref() }) else {
        return PASS;
    };
    let packet = headers.unpack();
    let frame = door.frame();
    let Some(counters) = DeviceCounters::of(case.ifindex) else {
        return PASS;
    };
    let Some((start, end)) = packet.payload(&frame) else {
        return PASS;
    };
    let Ok(message) = Message::read_by(&frame, start, end, |at| door.name_len(at)) else {
        return PASS;
    };
    let Some((source, destination)) = packet.addresses(&frame) else {
        return PASS;
    };
    let verdict = if ruling.held {
        let held = Held {
            trusted: bench::trusts(&source),
            source_port: packet.source_port,
            answerable: is_answerable(&frame, &packet, &message),
            held_in_hold: ruling.held_in_hold,
        };
        let (verdict, reason) = bench::sentence(&held, case, ruling);
        counters.count_at(action_index(verdict, reason));
        verdict
    } else {
        Verdict::Pass
    };
    if !matches!(ruling.note, Note::None) {
        let sighted = Sighted {
            case,
            source,
            destination,
            verdict,
        };
        event::tell(counters, &frame, &packet, &message, ruling, &sighted);
    }
    match verdict {
        Verdict::Answer if matches!(ruling.note, Note::Trip) => EDE_OTHER as u32,
        Verdict::Answer => EDE_CACHED_ERROR as u32,
        Verdict::Drop => DROP,
        Verdict::Pass | Verdict::WouldAnswer | Verdict::WouldDrop => PASS,
    }
}

/// Plans the answer to the query in the packet. `None` if the packet is not what it was.
#[inline(always)]
pub(crate) fn plan<D: Door>(door: &D, headers: Headers, info_code: u32) -> Option<Plan> {
    let packet = headers.unpack();
    let frame = door.frame();
    let (start, end) = packet.payload(&frame)?;
    let message = Message::read_by(&frame, start, end, |at| door.name_len(at)).ok()?;
    let checksum = door.checksum(&frame, &packet, end - packet.transport_at);
    Plan::new(&frame, &packet, &message, bench::rcode(), info_code as u16, checksum)
}
