//! What every door does with a packet that speaks DNS: read it, ask the judge, say what to do.
//!
//! Whatever is not understood passes. Only a fresh ruling of the judge, under a policy whose lease has not run out,
//! ends in anything else.

use guard_common::{
    answer::{Plan, Remark, is_answerable},
    case::{Case, Sight},
    counter::{Counter, action_index},
    judge::Note,
    packet::{Family, Transport},
    question::{Message, Unreadable},
    remedy::{Held, Verdict, remark},
};

use crate::{
    bench::{self, Desk},
    door::{Door, Headers},
    event::{self, Sighted},
    maps::{CONTROL, DeviceCounters},
};

/// What [`read`] and [`act`] return for a packet that goes on.
pub(crate) const PASS: u32 = 0x1_0000;
/// What [`act`] returns for a packet that ends here. Anything else is the [`Remark`] of its answer.
pub(crate) const DROP: u32 = 0x1_0001;
/// What [`read`] returns for a query.
pub(crate) const QUERY: u32 = 0x1_0002;
/// What [`read`] returns for a response that settles a question.
pub(crate) const ANSWER: u32 = 0x1_0003;
/// What [`read`] returns for a response that settles nothing.
pub(crate) const ERROR: u32 = 0x1_0005;
/// What [`read`] returns for a TCP segment that opens a connection to a DNS port.
pub(crate) const CONNECTION: u32 = 0x1_0004;

/// Reads a packet to or from a DNS port.
#[inline(always)]
pub(crate) fn read<D: Door>(door: &D, headers: Headers, case: *mut Case) -> u32 {
    // SAFETY: the callers pass references; the verifier wants the check for null.
    let Some(case) = (unsafe { case.as_mut() }) else {
        return PASS;
    };
    let packet = headers.unpack();
    let Some(counters) = DeviceCounters::of(door.device()) else {
        return PASS;
    };
    let Some(control) = CONTROL.get(0) else { return PASS };
    let Some(policy) = bench::policy(headers.slot()) else {
        return PASS;
    };
    case.policy = headers.slot() as u8;
    let sight = Sight {
        ifindex: door.device(),
        egress: headers.is_egress(),
        packets: door.packets(),
        now_ns: bench::now_ns(policy),
    };
    if sight.now_ns >= control.lease_until_ns {
        counters.count(Counter::LeaseOver);
        return PASS;
    }
    if matches!(packet.transport, Transport::Tcp) {
        let frame = door.frame();
        if packet.segment_len(&frame).is_some_and(|len| len > 0) {
            counters.count(Counter::TcpSegments);
        }
        let opens = policy.has_port(packet.destination_port) && packet.opens_connection(&frame);
        return match opens.then(|| case.fill_connection(&frame, &packet, sight)) {
            Some(Some(())) => CONNECTION,
            _ => PASS,
        };
    }
    let frame = door.whole_frame();
    let Some((start, end)) = packet.payload(&frame) else {
        counters.count(Counter::BadHeader);
        return PASS;
    };
    let message = match Message::read_by(&frame, start, end, |at| door.name(at)) {
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
    let server_port = if message.is_response() {
        packet.source_port
    } else {
        packet.destination_port
    };
    if !policy.has_port(server_port) {
        return PASS;
    }
    let filled = case.fill(
        &frame,
        &packet,
        &message,
        sight,
        (&control.secret, policy),
        |question| door.key(question),
        |message, labels| door.zone(message, labels),
    );
    let Some(()) = filled else { return PASS };

    if !message.is_response() {
        counters.count(match packet.family {
            Family::V4 => Counter::QueriesV4,
            Family::V6 => Counter::QueriesV6,
        });
        return QUERY;
    }
    let settled = bench::settle(case.flow);
    case.asked = settled.asked;
    case.settled = settled.number() as u8;
    // A response to what was not asked may be our own.
    if case.asked && !policy.link.is_empty() {
        bench::settle(case.pending);
    }
    if !message.is_answer() {
        counters.count(Counter::Errors);
        bench::failed(case);
        return ERROR;
    }
    counters.count(Counter::Answers);
    ANSWER
}

/// Decides what a ruling that asks for more than to let the query pass comes to, or what a query that is shed comes to,
/// and tells the agent.
#[inline(always)]
pub(crate) fn act<D: Door>(door: &D, headers: Headers, desk: *mut Desk) -> u32 {
    // SAFETY: the callers pass references; the verifier wants the check for null.
    let Some(desk) = (unsafe { desk.as_mut() }) else {
        return PASS;
    };
    let packet = headers.unpack();
    let frame = door.frame();
    let Some(counters) = DeviceCounters::of(desk.case.subject.ifindex) else {
        return PASS;
    };
    if matches!(packet.transport, Transport::Tcp) {
        let held = Held {
            trusted: false,
            source_port: packet.source_port,
            answerable: false,
            held_in_hold: 0,
        };
        let verdict = bench::sentence_of_shed(&held, desk);
        counters.count_at(action_index(verdict, desk.shed.reason));
        return if matches!(verdict, Verdict::Drop) { DROP } else { PASS };
    }
    let Some((start, end)) = packet.payload(&frame) else {
        return PASS;
    };
    let Ok(message) = Message::read_by(&frame, start, end, |at| door.name(at)) else {
        return PASS;
    };
    let Some((source, destination)) = packet.addresses(&frame) else {
        return PASS;
    };
    let ruling = &desk.ruling;
    let mut held = Held {
        trusted: false,
        source_port: packet.source_port,
        answerable: is_answerable(&frame, &packet, &message),
        held_in_hold: ruling.held_in_hold,
    };
    let verdict = if ruling.held || desk.shed.is_shed() {
        held.trusted = bench::trusts(&source, headers.slot());
        let (verdict, reason) = if ruling.held {
            bench::sentence(&held, &desk.case, ruling)
        } else {
            (bench::sentence_of_shed(&held, desk), desk.shed.reason)
        };
        counters.count_at(action_index(verdict, reason));
        verdict
    } else {
        Verdict::Pass
    };
    desk.verdict = verdict as u32;
    if !matches!(ruling.note, Note::None) {
        let sighted = Sighted {
            case: &desk.case,
            source,
            destination,
            verdict,
        };
        event::tell(counters, &frame, &packet, &message, ruling, &sighted);
    }
    match verdict {
        Verdict::Answer => remark(ruling, &desk.shed) as u32,
        Verdict::Drop => DROP,
        Verdict::Pass | Verdict::WouldAnswer | Verdict::WouldDrop => PASS,
    }
}

/// Plans the answer to the query in the packet. `None` if the packet is not what it was.
#[inline(always)]
pub(crate) fn plan<D: Door>(door: &D, headers: Headers, remark: u32) -> Option<Plan> {
    let packet = headers.unpack();
    let frame = door.frame();
    let (start, end) = packet.payload(&frame)?;
    let message = Message::read_by(&frame, start, end, |at| door.name(at)).ok()?;
    let checksum = door.checksum(&frame, &packet, end - packet.transport_at);
    let remark = Remark::from_u32(remark);
    let rcode = bench::policy(headers.slot())?.rcode;
    Plan::new(&frame, &packet, &message, rcode, remark, checksum)
}
