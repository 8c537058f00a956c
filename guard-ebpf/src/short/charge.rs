//! Budgets, for a query of which the judge has nothing to say.

use guard_common::{
    budget::ZONES,
    judge::Hop,
    key::Key,
    packet::addresses_at,
    policy::Control,
    remedy::{Reason, Shed, Verdict},
};

use super::{CHARGED, DROPPED, IP_AT, OVER_V6, SHED, family, over, read::Asked};
use crate::{
    bench::{self, Desk},
    door::Door,
    maps::{DESKS, DeviceCounters, control},
};

/// Puts a query on the desk for [`charge`]. It is in a function of its own, for their stacks together are too large.
#[inline(always)]
pub(super) fn prepare<D: Door>(
    door: &D,
    control: &Control,
    asked: &Asked,
    hop: &Hop,
    (key, flow, sighting): (Key, u64, u32),
    begins: bool,
    now_ns: u64,
) -> Option<()> {
    // SAFETY: the slot of this CPU, on which no other of our programs runs now.
    let desk = unsafe { &mut *DESKS.get_ptr_mut(0)? };
    desk.begins = begins;
    let case = &mut desk.case;
    (case.client, case.server) = (asked.ends.client(), asked.ends.server());
    (case.id, case.same_host, case.sighting) = (asked.id, false, sighting as u8);
    case.plain = hop.plain;
    case.policy = (control.active & 1) as u8;
    case.now_ns = now_ns;
    case.name_at = asked.name_at() as u16;
    case.flow = flow;
    case.packets = door.packets();
    case.subject.key = key;
    case.subject.ifindex = door.device();
    case.subject.qtype = asked.qtype;
    case.subject.egress = D::EGRESS;
    Some(())
}

/// What `pass` returns for it.
#[inline(always)]
pub(super) const fn charged(asked: &Asked, weight: u32) -> u32 {
    CHARGED | over(asked.udp_at) | weight
}

/// Charges the budgets with the query on the desk, which passes if they let it: what `pass` returns.
#[inline(always)]
pub(crate) fn charge<D: Door>(door: &D, passed: u32) -> u32 {
    let weight = passed & !(CHARGED | OVER_V6);
    let control = control();
    let Some(desk) = DESKS.get_ptr_mut(0) else {
        return weight;
    };
    // SAFETY: as above.
    let desk = unsafe { &mut *desk };
    let exceeds = exceeds(door, control, passed, desk);
    if exceeds && weight == 0 && bench::drops_desk_unseen(desk) {
        desk.begins = false;
        bench::settle_if_known(desk.case.flow, desk.case.sighting.into());
        DeviceCounters::count_action_on(desk.case.subject.ifindex, Verdict::Drop, Reason::Budget);
        return DROPPED;
    }
    bench::sight(&desk.case, control.rapid_ticks);
    if exceeds {
        return SHED | weight;
    }
    bench::begin_if_due(desk);
    weight
}

/// Whether a budget sheds the query on the desk, or would. One that is no longer what it was exceeds none.
#[inline(always)]
fn exceeds<D: Door>(door: &D, control: &Control, passed: u32, desk: &mut Desk) -> bool {
    if control.has_rows == Control::ONE_ROW_FOR_ANY_KEY {
        return bench::exceeds_row_of_key(desk);
    }
    let Some((client, server)) = addresses_at(&door.frame(), IP_AT, family(passed)) else {
        return false;
    };
    let subject = &mut desk.case.subject;
    (subject.client, subject.server) = (client, server);
    subject.zones = [0; ZONES];
    subject.elsewhere = false;
    subject.onward = false;
    if control.has_rows == Control::ROWS_OF_ZONES && !door.fill_zones(&mut desk.case) {
        return false;
    }
    desk.shed = Shed::NOTHING;
    bench::exceeds_rows(desk)
}
