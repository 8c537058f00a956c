//! A packet at a hook: its ports, then the steps of the judgement, one after the other.
//!
//! ```text
//! look              every packet: has it a port on which DNS may be spoken?
//!  |-> short::pass  those: a query that says nothing passes here
//!  '-> walk         the others: where are the ports? Behind VLAN tags and extension headers as well
//!       '-> judge   read it, ask the judge. What says nothing, and has no rule to obey, passes here
//!            '-> look_closer   budgets, verdict, events, marks, answers
//! ```
//!
//! Only the look is in line. All that follows goes through functions of their own: the verifier checks such a function
//! once, for all headers that may have led to it, where it would check straight code again for each of them.

use guard_common::{
    counter::Counter,
    judge::Note,
    marks::Found,
    packet::{Family, Glance, Packet, Stop, Transport, glance},
    policy::Control,
    remedy::{Reason, Shed, Verdict},
    sample::Kind,
};

use crate::{
    bench::{self, Desk},
    dns,
    door::{Door, Headers, Link, NO_LINK},
    maps::{DESKS, DeviceCounters, control},
    short,
};

/// Looks at one packet; tells what the program is to return.
#[inline(always)]
pub(crate) fn look<D: Door>(door: &D) -> u32 {
    let control = control();
    if D::EGRESS && control.has_links != 0 {
        return door.walk(short::LEFT);
    }
    let (datagram, ports) = match glance(&door.frame()) {
        Glance::Other => return D::PASS,
        Glance::Unclear => return door.walk(short::LEFT),
        Glance::Segment(ports) => (None, ports),
        Glance::Datagram(family, ports) => (Some(family), ports),
    };
    if !control.may_be_dns(ports) {
        return D::PASS;
    }
    let Some(family) = datagram else {
        return door.walk(short::LEFT);
    };
    let mut passed = door.pass_short(family as u32);
    if passed == short::PASSED {
        return D::PASS;
    }
    if passed & short::CHARGED != 0 {
        passed = door.charge_short(passed);
    }
    match passed {
        short::PASSED => D::PASS,
        short::DROPPED => D::DROP,
        answered if answered & short::ANSWERED != 0 => door.answer_short(answered),
        left => door.walk(left),
    }
}

/// Walks to the ports of any packet, and judges it if it may be DNS.
#[inline(always)]
pub(crate) fn walk<D: Door>(door: &D, passed: u32) -> u32 {
    let packet = match Packet::walk(&door.frame()) {
        Ok(packet) => packet,
        Err(stop) => return pass_unread(door, stop),
    };
    let control = control();
    // Read once: whatever the agent switches to meanwhile is for the next packet.
    let slot = control.active & 1;
    let link = link_of(door, control, slot);
    if control.may_be_dns(packet.ports()) {
        return door.judge(Headers::pack(&packet, D::EGRESS, slot), link, passed);
    }
    pass(door, link, slot)
}

/// Lets a packet go on whose ports were not found.
#[inline(always)]
fn pass_unread<D: Door>(door: &D, stop: Stop) -> u32 {
    match stop {
        Stop::Other => {}
        Stop::Fragment => DeviceCounters::count_on(door.device(), Counter::Fragments),
        Stop::Malformed => DeviceCounters::count_on(door.device(), Counter::BadHeader),
    }
    if D::EGRESS {
        let control = control();
        let slot = control.active & 1;
        return pass(door, link_of(door, control, slot), slot);
    }
    D::PASS
}

/// The link-local budget that a packet is charged to: one to a link-local service counts, whatever it is.
#[inline(always)]
fn link_of<D: Door>(door: &D, control: &Control, slot: u32) -> u32 {
    if D::EGRESS && control.has_links != 0 {
        door.link(slot)
    } else {
        NO_LINK
    }
}

/// Judges a packet that may be DNS.
#[inline(always)]
pub(crate) fn judge<D: Door>(door: &D, headers: Headers, link: u32, passed: u32) -> u32 {
    let packet = headers.unpack();
    let slot = headers.slot();
    let Some(policy) = bench::policy(slot) else {
        return D::PASS;
    };
    if !policy.has_port(packet.destination_port) && !policy.has_port(packet.source_port) {
        return pass(door, link, slot);
    }
    let Some(desk) = DESKS.get_ptr_mut(0) else {
        return D::PASS;
    };
    // SAFETY: the slot of this CPU, on which no other of our programs runs now.
    let desk = unsafe { &mut *desk };
    let now_ns = bench::now_ns(policy);
    if now_ns >= control().lease_until_ns {
        DeviceCounters::count_on(door.device(), Counter::LeaseOver);
        return pass(door, link, slot);
    }
    desk.case.now_ns = now_ns;
    desk.case.policy = slot as u8;
    let read = if matches!(packet.transport, Transport::Tcp) {
        door.segment(headers, &mut desk.case)
    } else {
        door.read(headers, &mut desk.case)
    };
    if read == dns::PASS {
        return pass(door, link, slot);
    }
    desk.weight = 0;
    if read != dns::QUERY {
        desk.begins = false;
        return door.look_closer(headers, link, read);
    }
    if passed != short::LEFT {
        // It has been judged, drawn and charged.
        desk.weight = passed & !short::SHED;
        let judged = if passed & short::SHED == 0 {
            dns::WITHIN
        } else {
            dns::OVER
        };
        return door.look_closer(headers, link, judged);
    }
    count_query(door, &packet);
    let mut judged = bench::query(&mut desk.case);
    desk.begins = judged == dns::BEGINS;
    if desk.begins {
        judged = dns::QUIET;
    }
    if judged == dns::LOUD {
        judged = bench::hop(&desk.case, &mut desk.ruling);
    }
    if !desk.case.subject.elsewhere {
        desk.weight = bench::draw(Kind::Query, &desk.case);
    }
    if judged == dns::QUIET && desk.weight == 0 && link == NO_LINK && policy.is_without_rules() {
        bench::begin_if_due(desk);
        return D::PASS;
    }
    door.look_closer(headers, link, judged)
}

#[inline(always)]
fn count_query<D: Door>(door: &D, packet: &Packet) {
    let counter = match packet.family {
        Family::V4 => Counter::QueriesV4,
        Family::V6 => Counter::QueriesV6,
    };
    DeviceCounters::count_on(door.device(), counter);
}

/// Looks closer at a packet that was read, and carries out what comes of it.
#[inline(always)]
pub(crate) fn look_closer<D: Door>(door: &D, headers: Headers, link: u32, read: u32) -> u32 {
    let slot = headers.slot();
    let (Some(policy), Some(desk)) = (bench::policy(slot), DESKS.get_ptr_mut(0)) else {
        return D::PASS;
    };
    // SAFETY: as above.
    let desk = unsafe { &mut *desk };
    if read != dns::OVER {
        desk.shed = Shed::NOTHING;
    }
    desk.verdict = Verdict::Pass as u32;
    if read != dns::RULED {
        desk.ruling.held = false;
        desk.ruling.tests = false;
        desk.ruling.suspects = false;
        desk.ruling.marks = false;
        desk.ruling.note = Note::None;
    }
    let acts = match read {
        dns::QUIET | dns::RULED => {
            if (desk.weight != 0 || link != NO_LINK || !policy.is_without_rules())
                && !door.fill_subject(headers, &mut desk.case)
            {
                return pass_unasked::<D>(desk);
            }
            let mut worth_acting = desk.ruling.held || !matches!(desk.ruling.note, Note::None);
            if desk.ruling.suspects {
                desk.spelled.returns = desk.ruling.returns;
                desk.spelled.found = desk.ruling.found;
                worth_acting |= door.spell(desk) && bench::spelled(desk);
            }
            bench::sheds(policy, desk, link) || worth_acting
        }
        dns::WITHIN | dns::OVER => {
            if !door.fill_subject(headers, &mut desk.case) {
                return pass_unasked::<D>(desk);
            }
            read == dns::OVER
        }
        dns::ANSWER | dns::ERROR => {
            count_response(desk, read);
            // A response to what was not asked may be our own.
            if desk.case.asked && !policy.link.is_empty() && door.fill_subject(headers, &mut desk.case) {
                bench::settle_pending(&desk.case);
            }
            if read == dns::ERROR {
                bench::failed(&desk.case);
            } else if bench::answered(&desk.case, &mut desk.ruling) {
                door.act(headers, desk);
            }
            restore(door, headers, desk);
            return pass(door, link, slot);
        }
        _ => bench::sheds_connection(desk, link),
    };
    let does = if acts { door.act(headers, desk) } else { dns::PASS };
    let is_query = desk.case.name_len != 0;
    if is_query {
        show(door, desk);
    }
    match does {
        dns::PASS => {
            bench::begin_if_due(desk);
            if link != NO_LINK
                && let Some(counters) = DeviceCounters::of(door.device())
            {
                counters.count_link(Link::unpack(link).service, desk.case.packets);
            }
            if desk.ruling.marks {
                mark(door, headers, desk);
            }
            D::PASS
        }
        dns::DROP => {
            forget(desk, is_query);
            D::DROP
        }
        remark => {
            forget(desk, is_query);
            door.answer(headers, remark)
        }
    }
}

/// Lets a query go on that cannot be read again to ask the budgets.
#[inline(always)]
fn pass_unasked<D: Door>(desk: &mut Desk) -> u32 {
    bench::begin_if_due(desk);
    D::PASS
}

/// Notes that the query of a response is over, and counts the response.
#[inline(always)]
fn count_response(desk: &mut Desk, read: u32) {
    let settled = bench::settle(desk.case.flow);
    desk.case.settled = settled.number() as u8;
    desk.case.asked = settled.asked;
    let counter = if read == dns::ANSWER {
        Counter::Answers
    } else {
        Counter::Errors
    };
    DeviceCounters::count_on(desk.case.subject.ifindex, counter);
}

/// Marks a query that goes on, if there is room to remember how to undo it.
#[inline(always)]
fn mark<D: Door>(door: &D, headers: Headers, desk: &mut Desk) {
    let nonce = desk.nonce;
    let marked = bench::remember(desk) && door.respell(headers, desk, Found { nonce, own: true });
    let counter = if marked { Counter::Marked } else { Counter::NotMarked };
    DeviceCounters::count_on(desk.case.subject.ifindex, counter);
}

/// Gives the question of a response the spelling back that its client sent, if a mark has changed it: its own mark, or
/// that of another query which a forwarder has joined with a plain one.
#[inline(always)]
fn restore<D: Door>(door: &D, headers: Headers, desk: &mut Desk) {
    if !desk.case.may_be_respelled() || !door.spell(desk) {
        return;
    }
    if let Some(found) = Found::from_number(bench::find_mark(desk))
        && desk.case.is_to_be_respelled(found)
        && door.respell(headers, desk, found)
    {
        DeviceCounters::count_on(desk.case.subject.ifindex, Counter::Restored);
    }
}

/// A query that does not go on was not asked: the next one like it is no repeat. What is shed for being a repeat may be
/// that of one that was.
#[inline(always)]
fn forget(desk: &mut Desk, is_query: bool) {
    desk.begins = false;
    if is_query && !matches!(desk.shed.reason, Reason::Repeat) {
        bench::settle(desk.case.flow);
    }
}

/// Lets a packet go on that nobody sheds.
#[inline(always)]
fn pass<D: Door>(door: &D, link: u32, slot: u32) -> u32 {
    if D::EGRESS {
        bench::charge(link, door.device(), door.packets(), slot);
    }
    D::PASS
}

/// Shows the agent some of the queries, and some of those that are shed.
#[inline(always)]
fn show<D: Door>(door: &D, desk: &Desk) {
    if desk.weight != 0 {
        door.show(desk, Kind::Query, desk.weight);
    }
    if desk.shed.is_shed() {
        let weight = bench::draw(Kind::Shed, &desk.case);
        if weight != 0 {
            door.show(desk, Kind::Shed, weight);
        }
    }
}
