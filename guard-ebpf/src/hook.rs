//! A packet at a hook: its ports, then the steps of the judgement, one after the other.
//!
//! The walk to the ports is done for every packet, in line. What speaks DNS goes through functions of their own: the
//! verifier checks such a function once, for all headers that may have led to it, where it would check straight code
//! again for each of them.

use guard_common::{
    counter::Counter,
    judge::Note,
    marks::Found,
    packet::{Packet, Stop},
    remedy::{Reason, Shed, Verdict},
    sample::Kind,
};

use crate::{
    bench::{self, Desk},
    dns,
    door::{Door, Headers, Link, NO_LINK},
    maps::{CONTROL, DESKS, DeviceCounters},
};

/// Judges one packet; tells what the program is to return.
#[inline(always)]
pub(crate) fn judge<D: Door>(door: &D) -> u32 {
    let Some(control) = CONTROL.get(0) else { return D::PASS };
    // Read once: whatever the agent switches to meanwhile is for the next packet.
    let slot = control.active & 1;
    // A packet to a link-local service counts, whatever it is.
    let link = if D::EGRESS { door.link(slot) } else { NO_LINK };
    let packet = match Packet::walk(&door.frame()) {
        Ok(packet) => packet,
        Err(stop) => {
            if !matches!(stop, Stop::Other)
                && let Some(counters) = DeviceCounters::of(door.device())
            {
                counters.count(if matches!(stop, Stop::Fragment) {
                    Counter::Fragments
                } else {
                    Counter::BadHeader
                });
            }
            return pass(door, link, slot);
        }
    };
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
    desk.shed = Shed::NOTHING;
    desk.verdict = Verdict::Pass as u32;
    desk.ruling.held = false;
    desk.ruling.tests = false;
    desk.ruling.marks = false;
    desk.ruling.note = Note::None;
    // One after the other and not one in the other: together, their variables do not fit the stack of a program.
    let headers = Headers::pack(&packet, D::EGRESS, slot);
    let acts = match door.read(headers, &mut desk.case) {
        dns::QUERY => {
            let mut worth_acting = bench::query(&mut desk.case, &mut desk.ruling);
            if desk.ruling.suspects {
                desk.spelled.returns = desk.ruling.returns;
                desk.spelled.found = desk.ruling.found;
                worth_acting |= door.spell(desk) && bench::spelled(desk);
            }
            bench::sheds(policy, desk, link) || worth_acting
        }
        dns::ANSWER => {
            if bench::answered(&desk.case, &mut desk.ruling) {
                door.act(headers, desk);
            }
            restore(door, headers, desk);
            return pass(door, link, slot);
        }
        dns::ERROR => {
            restore(door, headers, desk);
            return pass(door, link, slot);
        }
        dns::CONNECTION => bench::sheds_connection(desk, link),
        _ => return pass(door, link, slot),
    };
    let does = if acts { door.act(headers, desk) } else { dns::PASS };
    let is_query = desk.case.name_len != 0;
    if is_query {
        show(door, desk);
    }
    match does {
        dns::PASS => {
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

/// Marks a query that goes on, if there is room to remember how to undo it.
#[inline(always)]
fn mark<D: Door>(door: &D, headers: Headers, desk: &mut Desk) {
    let nonce = desk.nonce;
    let marked = bench::remember(desk) && door.respell(headers, desk, Found { nonce, own: true });
    if let Some(counters) = DeviceCounters::of(desk.case.subject.ifindex) {
        counters.count(if marked { Counter::Marked } else { Counter::NotMarked });
    }
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
        && let Some(counters) = DeviceCounters::of(desk.case.subject.ifindex)
    {
        counters.count(Counter::Restored);
    }
}

/// A query that does not go on was not asked: the next one like it is no repeat. What is shed for being a repeat may be
/// that of one that was.
#[inline(always)]
fn forget(desk: &Desk, is_query: bool) {
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
    if !desk.case.subject.elsewhere {
        let weight = bench::draw(Kind::Query, desk.case.now_ns);
        if weight != 0 {
            door.show(desk, Kind::Query, weight);
        }
    }
    if desk.shed.is_shed() {
        let weight = bench::draw(Kind::Shed, desk.case.now_ns);
        if weight != 0 {
            door.show(desk, Kind::Shed, weight);
        }
    }
}
