//! The judge at work on the maps.
//!
//! Each step is a function of its own, which the verifier checks once, for all arguments.

use aya_ebpf::helpers::generated::{bpf_spin_lock, bpf_spin_unlock};
use guard_common::{
    abi::{allowance_slot, flow_line, key_bucket},
    address::Address,
    counter::Counter,
    flow::{Place, Sighting},
    judge::{Endpoint, Evidence, Hop, Note, Ruling},
    key::Key,
    policy::Policy,
    remedy::{Held, Reason, Verdict, remedy},
    time::Ticks,
};

use crate::maps::{ALLOWANCES, CONTROL, DeviceCounters, FLOWS, KEYS, POLICIES};

/// A query or a response, as it comes before the judge.
#[repr(C)]
pub(crate) struct Case {
    pub(crate) key: Key,
    pub(crate) flow: u64,
    pub(crate) now_ns: u64,
    pub(crate) client: Endpoint,
    pub(crate) server: Endpoint,
    pub(crate) ifindex: u32,
    pub(crate) id: u16,
    pub(crate) egress: bool,
    pub(crate) same_host: bool,
    /// Of a response: whether its query was let through.
    pub(crate) asked: bool,
}

/// Room for a case.
pub(crate) const NO_CASE: Case = Case {
    key: Key(0),
    flow: 0,
    now_ns: 0,
    client: Endpoint { address: 0, port: 0 },
    server: Endpoint { address: 0, port: 0 },
    ifindex: 0,
    id: 0,
    egress: false,
    same_host: false,
    asked: false,
};

/// Room for a ruling.
pub(crate) const NO_RULING: Ruling = Ruling {
    held: false,
    recirculates: false,
    note: Note::None,
    held_in_hold: 0,
    until: Ticks(0),
    hold_ticks: 0,
    age_ticks: 0,
    hops: 0,
    recirculated: 0,
    evidence: Evidence::None,
};

/// Judges a query. False if it passes, and there is nothing to tell.
#[inline(always)]
pub(crate) fn query(case: &Case, ruling: &mut Ruling) -> bool {
    judge_query(case, ruling) == 1
}

/// Takes note of an answer. False if it closes no breaker.
#[inline(always)]
pub(crate) fn answered(case: &Case, ruling: &mut Ruling) -> bool {
    judge_answer(case, ruling) == 1
}

/// Forgets a flow that got a response. False if it is not known.
#[inline(always)]
pub(crate) fn settle(flow: u64) -> bool {
    judge_settle(flow) == 1
}

/// Takes note of an error.
#[inline(always)]
pub(crate) fn failed(case: &Case) {
    judge_failure(case);
}

/// What becomes of a held query.
#[inline(always)]
pub(crate) fn sentence(held: &Held, case: &Case, ruling: &Ruling) -> (Verdict, Reason) {
    let packed = judge_sentence(held, case, ruling);
    (Verdict::from_u8(packed as u8), Reason::from_u8((packed >> 8) as u8))
}

/// The RCODE that the policy in force answers with.
#[inline(always)]
pub(crate) fn rcode() -> u32 {
    policy().map_or(0, |policy| policy.rcode)
}

/// The policy in force.
#[inline(always)]
fn policy() -> Option<&'static Policy> {
    POLICIES.get(CONTROL.get(0)?.active & 1)
}

/// Whether the policy in force trusts this address.
#[inline(always)]
pub(crate) fn trusts(address: &Address) -> bool {
    judge_trusts(address) == 1
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_query(case: *const Case, ruling: *mut Ruling) -> u32 {
    // SAFETY: the callers pass references; the verifier wants the check for null.
    let (Some(case), Some(ruling)) = (unsafe { case.as_ref() }, unsafe { ruling.as_mut() }) else {
        return 0;
    };
    let Some(policy) = policy() else { return 0 };
    let now = Ticks::from_ns(case.now_ns);
    let place = Place::new(case.ifindex, case.egress);
    let sighting = Sighting::from_u8(judge_sight(case.flow, place.number(), now.0, policy.rapid_ticks) as u8);
    let hop = Hop {
        client: case.client,
        server: case.server,
        id: case.id,
        same_host: case.same_host,
        egress: case.egress,
        sighting,
    };
    let Some(bucket) = KEYS.get_ptr_mut(key_bucket(case.key)) else {
        return 0;
    };
    let rules = policy.rules;
    // SAFETY: a live slot of the array, used by one CPU at a time while its lock is held. Nothing between lock and
    // unlock calls anything.
    let verdict = unsafe {
        bpf_spin_lock((&raw mut (*bucket).lock).cast());
        let verdict = (*bucket).query(case.key, &hop, now, &rules);
        bpf_spin_unlock((&raw mut (*bucket).lock).cast());
        verdict
    };
    let Some(counters) = DeviceCounters::of(case.ifindex) else {
        return 0;
    };
    match sighting {
        Sighting::Retransmit => counters.count(Counter::Retransmits),
        Sighting::Elsewhere => counters.count(Counter::SeenElsewhere),
        Sighting::New | Sighting::Rapid => {}
    }
    let Some(verdict) = verdict else {
        counters.count(Counter::TableFull);
        return 0;
    };
    counters.count_ruling(&verdict);
    if verdict.held {
        // Its answer, if it gets one, is ours.
        judge_settle(case.flow);
    }
    *ruling = verdict;
    (verdict.held || !matches!(verdict.note, Note::None)) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_answer(case: *const Case, ruling: *mut Ruling) -> u32 {
    // SAFETY: as above.
    let (Some(case), Some(ruling)) = (unsafe { case.as_ref() }, unsafe { ruling.as_mut() }) else {
        return 0;
    };
    let Some(policy) = policy() else { return 0 };
    let Some(bucket) = KEYS.get_ptr_mut(key_bucket(case.key)) else {
        return 0;
    };
    let rules = policy.rules;
    // SAFETY: as above.
    let verdict = unsafe {
        bpf_spin_lock((&raw mut (*bucket).lock).cast());
        let verdict = (*bucket).answered(case.key, case.asked, Ticks::from_ns(case.now_ns), &rules);
        bpf_spin_unlock((&raw mut (*bucket).lock).cast());
        verdict
    };
    let Some(verdict) = verdict else { return 0 };
    if let Some(counters) = DeviceCounters::of(case.ifindex) {
        counters.count_ruling(&verdict);
    }
    *ruling = verdict;
    1
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_failure(case: *const Case) -> u32 {
    // SAFETY: as above.
    let Some(case) = (unsafe { case.as_ref() }) else {
        return 0;
    };
    let Some(bucket) = KEYS.get_ptr_mut(key_bucket(case.key)) else {
        return 0;
    };
    // SAFETY: as above.
    unsafe {
        bpf_spin_lock((&raw mut (*bucket).lock).cast());
        (*bucket).failed(case.key);
        bpf_spin_unlock((&raw mut (*bucket).lock).cast());
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_sentence(held: *const Held, case: *const Case, ruling: *const Ruling) -> u32 {
    // SAFETY: as above.
    let (Some(held), Some(case), Some(ruling)) = (unsafe { (held.as_ref(), case.as_ref(), ruling.as_ref()) }) else {
        return 0;
    };
    let Some(policy) = policy() else { return 0 };
    let Some(control) = CONTROL.get(0) else { return 0 };
    let (verdict, reason) = remedy(policy, held, || {
        let digest = control
            .secret
            .mix(case.key.0, case.client.address as u64 ^ control.secret.0[2]);
        match ALLOWANCES.get_ptr_mut(allowance_slot(digest)) {
            // SAFETY: a live slot of the array. CPUs that race for it may count one answer too few.
            Some(slot) => unsafe { (*slot).spend(digest as u32, ruling.until, policy.answers_per_client) },
            None => false,
        }
    });
    verdict as u32 | (reason as u32) << 8
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_sight(flow: u64, place: u32, now: u32, rapid_ticks: u32) -> u32 {
    let Some(line) = FLOWS.get_ptr_mut(flow_line(flow)) else {
        return Sighting::New as u32;
    };
    // SAFETY: a live slot of the array. CPUs that race for it write whole words.
    unsafe { (*line).sight(flow as u32, Place::from_number(place), Ticks(now), rapid_ticks) as u32 }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_settle(flow: u64) -> u32 {
    match FLOWS.get_ptr_mut(flow_line(flow)) {
        // SAFETY: as above.
        Some(line) => unsafe { (*line).settle(flow as u32) as u32 },
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_trusts(address: *const Address) -> u32 {
    // SAFETY: as above.
    let Some(address) = (unsafe { address.as_ref() }) else {
        return 0;
    };
    let Some(policy) = policy() else { return 0 };
    policy.trusts(address) as u32
}
