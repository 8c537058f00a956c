//! What every door does with a packet that speaks DNS: read it, ask the judge, say what to do.
//!
//! Whatever is not understood passes. Only a fresh ruling of the judge, under a policy whose lease has not run out,
//! ends in anything else.

use guard_common::{
    answer::{Plan, Remark, is_answerable},
    case::{Case, Sight},
    counter::{Counter, action_index, unreadable_index},
    judge::Note,
    packet::Transport,
    question::{HEADER_LEN, Header, Message, Name, Question},
    remedy::{Held, Verdict, remark},
};

use crate::{
    bench::{self, Desk},
    door::{Door, Headers},
    event::{self, Sighted},
    maps::{DeviceCounters, control},
    step::READABLE,
};

/// What [`segment`], [`read`] and [`act`] return for a packet that goes on.
pub(crate) const PASS: u32 = 0x1_0000;
/// What [`act`] returns for a packet that ends here. Anything else is the [`Remark`] of its answer.
pub(crate) const DROP: u32 = 0x1_0001;
/// What [`read`] returns for a query.
pub(crate) const QUERY: u32 = 0x1_0002;
/// What [`read`] returns for a response that settles a question.
pub(crate) const ANSWER: u32 = 0x1_0003;
/// What [`read`] returns for a response that settles nothing.
pub(crate) const ERROR: u32 = 0x1_0005;
/// What the judge says of a query that says nothing.
pub(crate) const QUIET: u32 = 0x1_0006;
/// What he says of one that says nothing, and is yet to be put down.
pub(crate) const BEGINS: u32 = 0x1_000b;
/// What he says of one that may say something.
pub(crate) const LOUD: u32 = 0x1_0007;
/// What he says of one whose ruling is on the desk.
pub(crate) const RULED: u32 = 0x1_0008;
/// What the short way says of a query that says nothing, and is within its budgets.
pub(crate) const WITHIN: u32 = 0x1_0009;
/// What it says of one for which they have no room.
pub(crate) const OVER: u32 = 0x1_000a;
/// What [`segment`] returns for a TCP segment that opens a connection to a DNS port.
pub(crate) const CONNECTION: u32 = 0x1_0004;

/// Reads a datagram to or from a DNS port.
#[inline(always)]
pub(crate) fn read<D: Door>(door: &D, headers: Headers, case: *mut Case) -> u32 {
    // SAFETY: the callers pass references; the verifier wants the check for null.
    let Some(case) = (unsafe { case.as_mut() }) else {
        return PASS;
    };
    let Some(policy) = bench::policy(headers.slot()) else {
        return PASS;
    };
    let Some(counters) = DeviceCounters::of(door.device()) else {
        return PASS;
    };
    let packet = headers.unpack();
    let frame = door.whole_frame();
    let Some((start, end)) = packet.payload(&frame) else {
        counters.count(Counter::BadHeader);
        return PASS;
    };
    let header = match Header::read(&frame, start, end) {
        Ok(header) => header,
        Err(unreadable) => {
            counters.count_at(unreadable_index(unreadable as u32));
            return PASS;
        }
    };
    let unreadable = door.question(start + HEADER_LEN, end, case);
    if unreadable != READABLE {
        counters.count_at(unreadable_index(unreadable));
        return PASS;
    }
    let server_port = if header.is_response() {
        packet.source_port
    } else {
        packet.destination_port
    };
    if !policy.has_port(server_port) {
        return PASS;
    }
    let sight = sight(door, headers, case);
    if case
        .fill(&door.frame(), &packet, header, sight, &control().secret)
        .is_none()
    {
        return PASS;
    }
    if header.is_response() {
        return if header.is_answer() { ANSWER } else { ERROR };
    }
    QUERY
}

/// Where and when the packet is seen; the moment stands in the case.
#[inline(always)]
fn sight<D: Door>(door: &D, headers: Headers, case: &Case) -> Sight {
    Sight {
        ifindex: door.device(),
        egress: headers.is_egress(),
        packets: door.packets(),
        now_ns: case.now_ns,
    }
}

/// Reads a TCP segment to or from a DNS port.
#[inline(always)]
pub(crate) fn segment<D: Door>(door: &D, headers: Headers, case: *mut Case) -> u32 {
    // SAFETY: as above.
    let Some(case) = (unsafe { case.as_mut() }) else {
        return PASS;
    };
    let packet = headers.unpack();
    let (Some(policy), Some(counters)) = (bench::policy(headers.slot()), DeviceCounters::of(door.device())) else {
        return PASS;
    };
    let frame = door.frame();
    if packet.segment_len(&frame).is_some_and(|len| len > 0) {
        counters.count(Counter::TcpSegments);
    }
    if !policy.has_port(packet.destination_port) || !packet.opens_connection(&frame) {
        return PASS;
    }
    let sight = sight(door, headers, case);
    case.fill_connection(&frame, &packet, sight)
        .map_or(PASS, |()| CONNECTION)
}

/// Fills in what only budgets, hygiene and the agent ask. False if the packet is not what it was.
#[inline(always)]
pub(crate) fn fill_subject<D: Door>(door: &D, headers: Headers, case: *mut Case) -> bool {
    // SAFETY: as above.
    let Some(case) = (unsafe { case.as_mut() }) else {
        return false;
    };
    let Some(policy) = bench::policy(headers.slot()) else {
        return false;
    };
    let packet = headers.unpack();
    let walk = |name_at| door.name(name_at).ok();
    let key = |zone: &Question| door.key(zone).map(|hashed| hashed.key);
    case.fill_subject(&door.frame(), &packet, policy, walk, key).is_some()
}

/// Fills in the zones of a query that took the short way. False if the packet is not what it was.
#[inline(always)]
pub(crate) fn fill_zones<D: Door>(door: &D, case: *mut Case) -> bool {
    // SAFETY: as above.
    let Some(case) = (unsafe { case.as_mut() }) else {
        return false;
    };
    let Some(policy) = bench::policy(case.policy.into()) else {
        return false;
    };
    let walk = |name_at| door.name(name_at).ok();
    let key = |zone: &Question| door.key(zone).map(|hashed| hashed.key);
    case.fill_zones(policy, walk, key).is_some()
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
    let Ok(message) = Message::read_by(&frame, start, end, |at| door.name(at).map(Name::len)) else {
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
        let Some(policy) = bench::policy(headers.slot()) else {
            return PASS;
        };
        held.trusted = bench::trusts(&source, policy);
        let (verdict, reason) = if ruling.held {
            bench::sentence(
                &held,
                desk.case.subject.key,
                desk.case.client.address,
                ruling.until,
                policy,
            )
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

/// Turns the query in the packet into its answer. `None`, with the packet half written, if that fails.
#[inline(always)]
pub(crate) fn answer<D: Door>(door: &D, headers: Headers, remark: u32) -> Option<()> {
    let packet = headers.unpack();
    let frame = door.frame();
    let (start, end) = packet.payload(&frame)?;
    let message = Message::read_by(&frame, start, end, |at| door.name(at).map(Name::len)).ok()?;
    let checksum = door.checksum(&frame, &packet, end - packet.transport_at);
    let remark = Remark::from_u32(remark);
    let rcode = bench::policy(headers.slot())?.rcode;
    door.write(&Plan::new(&frame, &packet, &message, rcode, remark, checksum)?)
}
