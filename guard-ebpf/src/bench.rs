//! The judge at work on the maps.
//!
//! Each step is a function of its own, which the verifier checks once, for all arguments.

use aya_ebpf::helpers::generated::{
    bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_spin_lock, bpf_spin_unlock,
};
use guard_common::{
    abi::{allowance_slot, flow_line, key_bucket, mark_line, meter_line},
    address::Address,
    budget::{self, Row},
    case::Case,
    counter::Counter,
    flow::{Place, Settled, Sighting},
    judge::{Hop, Ruling, Spelled, Taken},
    key::Key,
    local::Local,
    marks::{Found, Look, Room},
    policy::{Action, Control, MAX_ROWS, Mode, Policy, Ranges},
    remedy::{Held, Reason, Shed, Verdict, client_tag, remedy, remedy_of_shed},
    sample::{Kind, Sampler},
    spelling::Change,
    time::Ticks,
};

use crate::{
    dns::{BEGINS, LOUD, QUIET, RULED},
    door::{Link, NO_LINK},
    maps::{ALLOWANCES, DeviceCounters, FLOWS, KEYS, LINKS, LOCALS, MARKS, METERS, POLICIES, ROWS, control},
};

/// log2 of the ticks in the second for which answers to shed queries are counted.
const SECOND_SHIFT: u32 = 10;
/// The bit above a place that says whether the name is all small letters.
const PLAIN_SHIFT: u32 = 31;
/// The place of what is pending, which is no packet's sighting.
const PENDING_PLACE: u32 = 0;

/// What the functions below return of a query: that it passes, that it is shed, or that it would be.
const PASSES: u32 = 0;
const SHEDS: u32 = 1;
const NOTED: u32 = 2;

/// What lies before the judge: the case, what became of it, and what it was shed for.
#[repr(C)]
pub(crate) struct Desk {
    pub(crate) case: Case,
    pub(crate) ruling: Ruling,
    pub(crate) shed: Shed,
    pub(crate) verdict: u32,
    /// How its name is spelled, if somebody wanted to know.
    pub(crate) spelled: Spelled,
    /// The number that the pattern of its mark is drawn with.
    pub(crate) nonce: u32,
    /// Queries that it stands for, if it is shown to the agent; else 0.
    pub(crate) weight: u32,
    /// Whether it is a query that is yet to be put down, with [`begin`], once it goes on. No packet leaves it set.
    pub(crate) begins: bool,
    /// What respelling it has done to the checksum.
    pub(crate) change: Change,
}

/// Takes in a query: [`QUIET`], [`BEGINS`], or [`LOUD`] if it may say something.
#[inline(always)]
pub(crate) fn query(case: &mut Case) -> u32 {
    judge_query(case)
}

/// Puts down a query that begins, and goes on.
#[inline(always)]
pub(crate) fn begin(key: Key, hop: &Hop, now: Ticks, counters: DeviceCounters) {
    let (ends, rest) = hop.pack();
    if judge_begin(key.0, ends, rest, now.0) == 0 {
        counters.count(Counter::TableFull);
    }
}

/// Puts down the query on the desk, if it begins.
#[inline(always)]
pub(crate) fn begin_if_due(desk: &mut Desk) {
    if desk.begins {
        judge_begin_case(&desk.case);
        desk.begins = false;
    }
}

/// Judges a query that may say something: [`RULED`], or [`QUIET`] if there is no room for its key.
#[inline(always)]
pub(crate) fn hop(case: &Case, ruling: &mut Ruling) -> u32 {
    judge_hop(case, ruling)
}

/// Takes note of an answer. False if it closes no breaker.
#[inline(always)]
pub(crate) fn answered(case: &Case, ruling: &mut Ruling) -> bool {
    judge_answer(case, ruling) == 1
}

/// Takes in how a query is spelled. False if nothing comes of it that is to be told.
#[inline(always)]
pub(crate) fn spelled(desk: &mut Desk) -> bool {
    judge_spelled(desk) == 1
}

/// Remembers the mark of a query. False if there is no room: then it goes on without.
#[inline(always)]
pub(crate) fn remember(desk: &Desk) -> bool {
    judge_remember(desk) == 1
}

/// The mark that makes a response's name look as it does; 0, or a [`Found`].
#[inline(always)]
pub(crate) fn find_mark(desk: &Desk) -> u64 {
    judge_mark(desk)
}

/// A number for a pattern.
#[inline(always)]
pub(crate) fn nonce() -> u32 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_get_prandom_u32() }
}

/// Forgets a flow that got a response.
#[inline(always)]
pub(crate) fn settle(flow: u64) -> Settled {
    Settled::from_number(judge_settle(flow))
}

/// Puts down the flow of the query on the desk, which does not end here.
#[inline(always)]
pub(crate) fn sight(case: &Case, rapid_ticks: u32) -> u32 {
    let plain = (case.plain as u32) << PLAIN_SHIFT;
    judge_sight(
        case.flow,
        case.place().number() | plain,
        Ticks::from_ns(case.now_ns).0,
        rapid_ticks,
    )
}

/// Forgets the flow of a query that ends here, if that was there before.
#[inline(always)]
pub(crate) fn settle_if_known(flow: u64, sighting: u32) {
    if sighting != Sighting::New as u32 {
        judge_settle(flow);
    }
}

/// Forgets that the client of a response waits for it, whatever port and ID it has asked with.
#[inline(always)]
pub(crate) fn settle_pending(case: &Case) {
    judge_settle(case.pending(&control().secret));
}

/// Takes note of an error.
#[inline(always)]
pub(crate) fn failed(case: &Case) {
    judge_failure(case);
}

/// What becomes of a held query of `key`, whose hold ends at `until`. `client` is the digest of who asks.
#[inline(always)]
pub(crate) fn sentence(held: &Held, key: Key, client: u16, until: Ticks, policy: &Policy) -> (Verdict, Reason) {
    let packed = judge_sentence(held, key.0, client.into(), until.0, policy);
    (Verdict::from_u8(packed as u8), Reason::from_u8((packed >> 8) as u8))
}

/// What becomes of a query that is shed.
#[inline(always)]
pub(crate) fn sentence_of_shed(held: &Held, desk: &Desk) -> Verdict {
    Verdict::from_u8(judge_shed(held, desk) as u8)
}

/// Asks the rules of hygiene, the budgets and the link-local budget, one after the other, until one sheds the query.
/// What only watches is noted, the first of it, and the others are asked all the same. False if there is nothing.
///
/// A held query does not leave, so it is charged to nobody. One that tests whether a loop is still there passes whatever
/// the budgets say: were it shed, the loop would never be found to be over.
#[inline(always)]
pub(crate) fn sheds(policy: &Policy, desk: &mut Desk, link: u32) -> bool {
    if desk.ruling.held {
        return false;
    }
    let tests = desk.ruling.tests;
    if !policy.hygiene.is_empty() && judge_hygiene(&desk.case, &mut desk.shed) == SHEDS {
        return true;
    }
    if !tests && policy.row_count() != 0 && judge_rows(&desk.case, &mut desk.shed) == SHEDS {
        return true;
    }
    if link != NO_LINK {
        judge_link(&desk.case, tests as u32, link, &mut desk.shed);
    }
    desk.shed.is_shed()
}

/// Asks the budgets alone. Whether one of them sheds the query, or would.
#[inline(always)]
pub(crate) fn exceeds_rows(desk: &mut Desk) -> bool {
    judge_rows(&desk.case, &mut desk.shed);
    desk.shed.is_shed()
}

/// Asks the only budget, which limits every question. Whether it sheds the one on the desk, or would.
#[inline(always)]
pub(crate) fn exceeds_row_of_key(desk: &mut Desk) -> bool {
    let case = &desk.case;
    let Some(policy) = policy(case.policy.into()) else {
        return false;
    };
    let Some(row) = policy.row(0) else { return false };
    let Some(tag) = row.tag_of_key(case.subject.key, case.subject.egress, &control().secret) else {
        return false;
    };
    let within = judge_meter(tag, 0, case.now_ns, case.packets, case.policy.into()) == 1;
    count_row(policy, 0, within);
    if !within {
        desk.shed = by_row(0, row);
    }
    !within
}

/// What the only budget is charged with, beside the key: a query of which the judge has nothing to say.
pub(crate) struct Charged {
    /// Packets on the wire, at most 65,535.
    pub(crate) packets: u32,
    /// The interface.
    pub(crate) ifindex: u32,
    /// The number of a [`Sighting`].
    pub(crate) sighting: u32,
    /// Whether it leaves.
    pub(crate) egress: bool,
    /// The slot of the policy.
    pub(crate) slot: u32,
}

impl Charged {
    /// `[ifindex 32 | packets 16 | sighting 8 | 0 6 | egress 1 | slot 1]`, from the highest bit down.
    #[inline(always)]
    const fn pack(&self) -> u64 {
        let rest = self.packets << 16 | self.sighting << 8 | (self.egress as u32) << 1 | self.slot & 1;
        (self.ifindex as u64) << 32 | rest as u64
    }

    #[inline(always)]
    const fn unpack(number: u64) -> Self {
        let rest = number as u32;
        Self {
            packets: rest >> 16,
            ifindex: (number >> 32) as u32,
            sighting: rest >> 8 & 0xff,
            egress: rest & 2 != 0,
            slot: rest & 1,
        }
    }
}

/// Whether the only budget, which limits every question, is known to have no room for this one, which is then dropped
/// without the agent being shown it: all of that is done. Nothing has changed if not.
#[inline(always)]
pub(crate) fn ends_over(key: Key, flow: u64, now_ns: u64, charged: &Charged) -> bool {
    judge_over(key.0, flow, now_ns, charged.pack()) == 1
}

/// Whether what is shed is dropped without the agent being shown it; then the draw is done.
#[inline(always)]
pub(crate) fn drops_unseen(policy: &Policy, shed: &Shed, now_ns: u64, flow: u64) -> bool {
    if shed.observes || !matches!((policy.mode(), shed.action), (Mode::Enforce, Action::Drop)) {
        return false;
    }
    let Some(local) = LOCALS.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the slot of this CPU, on which no other of our programs runs now.
    let draft = Draft::new(Kind::Shed, unsafe { &mut *local }, Ticks::from_ns(now_ns), flow);
    draft.skips && draft.done() == 0
}

/// Whether what lies on the desk, which a budget sheds, ends so.
#[inline(always)]
pub(crate) fn drops_desk_unseen(desk: &Desk) -> bool {
    let case = &desk.case;
    policy(case.policy.into()).is_some_and(|policy| drops_unseen(policy, &desk.shed, case.now_ns, case.flow))
}

/// Asks the link-local budget alone, for a packet that opens a TCP connection to a DNS port.
#[inline(always)]
pub(crate) fn sheds_connection(desk: &mut Desk, link: u32) -> bool {
    link != NO_LINK && judge_link(&desk.case, 0, link, &mut desk.shed) != PASSES
}

/// Takes from a link-local budget what a packet needs that is never shed.
#[inline(always)]
pub(crate) fn charge(link: u32, ifindex: u32, packets: u32, slot: u32) {
    if link != NO_LINK {
        judge_charge(link, ifindex, packets, slot);
    }
}

/// Whether a query is shown to the agent: 0, or how many it stands for.
#[inline(always)]
pub(crate) fn draw(kind: Kind, case: &Case) -> u32 {
    judge_draw(kind as u32, Ticks::from_ns(case.now_ns).0, case.flow)
}

/// A draw that is not done yet.
pub(crate) struct Draft<'a> {
    /// Whether the query is not shown, and changes nothing else for those that come after it.
    pub(crate) skips: bool,
    /// What it was drawn with.
    pub(crate) random: u32,
    kind: Kind,
    now: Ticks,
    flow: u64,
    state: u32,
    sampler: &'a mut Sampler,
}

impl<'a> Draft<'a> {
    /// Draws in line, with nothing changed yet. `local` is what this CPU has in `LOCALS`.
    #[inline(always)]
    pub(crate) const fn new(kind: Kind, local: &'a mut Local, now: Ticks, flow: u64) -> Self {
        let sampler = local.sampler(kind);
        let (random, state) = sampler.foresee(flow);
        Self {
            skips: sampler.skips(now, random),
            random,
            kind,
            now,
            flow,
            state,
            sampler,
        }
    }

    /// Has it count: 0, or how many queries the drawn one stands for.
    #[inline(always)]
    pub(crate) fn done(self) -> u32 {
        if self.skips {
            self.sampler.skip_to(self.state);
            return 0;
        }
        judge_draw(self.kind as u32, self.now.0, self.flow)
    }
}

/// The moment on the coarse clock.
#[inline(always)]
pub(crate) fn coarse_now_ns() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The moment, on the clock that the policy asks for.
#[inline(always)]
pub(crate) fn now_ns(policy: &Policy) -> u64 {
    // SAFETY: the helpers take nothing; both read CLOCK_MONOTONIC, the coarse one as of the last tick.
    unsafe {
        if policy.fine_clock == 0 {
            bpf_ktime_get_coarse_ns()
        } else {
            bpf_ktime_get_ns()
        }
    }
}

/// The policy in a slot. A packet is judged by the same one from its beginning to its end.
#[inline(always)]
pub(crate) fn policy(slot: u32) -> Option<&'static Policy> {
    POLICIES.get(slot & 1)
}

/// Whether a policy trusts this address.
#[inline(always)]
pub(crate) fn trusts(address: &Address, policy: &Policy) -> bool {
    judge_trusts(address, policy) == 1
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_query(case: *mut Case) -> u32 {
    // SAFETY: the callers pass references; the verifier wants the check for null.
    let Some(case) = (unsafe { case.as_mut() }) else {
        return QUIET;
    };
    let Some(policy) = policy(case.policy.into()) else {
        return QUIET;
    };
    let now = Ticks::from_ns(case.now_ns);
    let key = case.subject.key;
    let Some(bucket) = KEYS.get_ptr_mut(key_bucket(key)) else {
        return QUIET;
    };
    case.sighting = sight(case, policy.rapid_ticks) as u8;
    let sighting = Sighting::from_u8(case.sighting);
    let hop = case.hop();
    // SAFETY: a live slot of the array, used by one CPU at a time while its lock is held. Nothing between lock and
    // unlock calls anything.
    let taken = unsafe {
        bpf_spin_lock((&raw mut (*bucket).lock).cast());
        let taken = (*bucket).takes(key, &hop, now);
        bpf_spin_unlock((&raw mut (*bucket).lock).cast());
        taken
    };
    match sighting {
        Sighting::New | Sighting::Rapid => {}
        Sighting::Retransmit => DeviceCounters::count_on(case.subject.ifindex, Counter::Retransmits),
        Sighting::Elsewhere => {
            case.subject.elsewhere = true;
            case.subject.onward = judge_turn(case.flow, case.place().number()) == 0;
            DeviceCounters::count_on(case.subject.ifindex, Counter::SeenElsewhere);
        }
    }
    match taken {
        Taken::Passes => QUIET,
        Taken::Begins => BEGINS,
        Taken::Unclear => LOUD,
    }
}

/// Puts down a query that begins, and was not seen elsewhere; 0 if there is no room for its key.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_begin(key: u64, ends: u64, rest: u32, now: u32) -> u32 {
    let key = Key(key);
    let Some(bucket) = KEYS.get_ptr_mut(key_bucket(key)) else {
        return 0;
    };
    let hop = Hop::unpack(ends, rest, Sighting::New);
    // SAFETY: as above.
    unsafe {
        bpf_spin_lock((&raw mut (*bucket).lock).cast());
        let has_room = (*bucket).begin(key, &hop, Ticks(now));
        bpf_spin_unlock((&raw mut (*bucket).lock).cast());
        has_room as u32
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_begin_case(case: *const Case) -> u32 {
    // SAFETY: as above.
    let Some(case) = (unsafe { case.as_ref() }) else {
        return 0;
    };
    if let Some(counters) = DeviceCounters::of(case.subject.ifindex) {
        begin(case.subject.key, &case.hop(), Ticks::from_ns(case.now_ns), counters);
    }
    0
}

/// What a query comes to that may say something.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_hop(case: *const Case, ruling: *mut Ruling) -> u32 {
    // SAFETY: as above.
    let (Some(case), Some(ruling)) = (unsafe { case.as_ref() }, unsafe { ruling.as_mut() }) else {
        return QUIET;
    };
    let Some(policy) = policy(case.policy.into()) else {
        return QUIET;
    };
    let Some(bucket) = KEYS.get_ptr_mut(key_bucket(case.subject.key)) else {
        return QUIET;
    };
    let hop = case.hop();
    let now = Ticks::from_ns(case.now_ns);
    let rules = policy.rules;
    // SAFETY: as above.
    let has_room = unsafe {
        bpf_spin_lock((&raw mut (*bucket).lock).cast());
        let has_room = (*bucket).query_into(case.subject.key, &hop, now, &rules, ruling);
        bpf_spin_unlock((&raw mut (*bucket).lock).cast());
        has_room
    };
    let Some(counters) = DeviceCounters::of(case.subject.ifindex) else {
        return QUIET;
    };
    if !has_room {
        counters.count(Counter::TableFull);
        return QUIET;
    }
    counters.count_ruling(ruling);
    if ruling.held {
        // Its answer, if it gets one, is ours.
        judge_settle(case.flow);
    }
    RULED
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_spelled(desk: *mut Desk) -> u32 {
    // SAFETY: as above.
    let Some(desk) = (unsafe { desk.as_mut() }) else {
        return 0;
    };
    let Some(policy) = policy(desk.case.policy.into()) else {
        return 0;
    };
    let digest = desk.spelled.spelling.digest;
    desk.spelled.ours = !desk.case.plain && judge_knows(digest, desk.case.subject.key.0) == 1;
    let case = &desk.case;
    let Some(bucket) = KEYS.get_ptr_mut(key_bucket(case.subject.key)) else {
        return 0;
    };
    let hop = case.hop();
    let (rules, spelled) = (policy.rules, desk.spelled);
    // SAFETY: as above.
    let verdict = unsafe {
        bpf_spin_lock((&raw mut (*bucket).lock).cast());
        let verdict = (*bucket).spelled(case.subject.key, &hop, &spelled, Ticks::from_ns(case.now_ns), &rules);
        bpf_spin_unlock((&raw mut (*bucket).lock).cast());
        verdict
    };
    let Some(verdict) = verdict else { return 0 };
    if let Some(counters) = DeviceCounters::of(case.subject.ifindex) {
        counters.count_ruling(&verdict);
    }
    if verdict.held {
        judge_settle(case.flow);
    }
    desk.ruling = verdict;
    1
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_knows(digest: u64, key: u64) -> u32 {
    match MARKS.get_ptr_mut(mark_line(digest)) {
        // SAFETY: a live slot of the array; a mark that another CPU is writing is not known yet.
        Some(line) => unsafe { (*line).knows(Look::new(digest, Key(key))) as u32 },
        None => 0,
    }
}

/// Remembers a mark, so that it can be undone in the answer.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_remember(desk: *const Desk) -> u32 {
    // SAFETY: as above.
    let Some(desk) = (unsafe { desk.as_ref() }) else {
        return 0;
    };
    let (key, digest, flow) = (desk.case.subject.key, desk.spelled.spelling.flipped, desk.case.flow);
    let Some(policy) = policy(desk.case.policy.into()) else {
        return 0;
    };
    // A key that the operator has allowed is only watched.
    if policy.allows(key) {
        judge_unmark(key.0, desk.spelled.spelling.digest, digest, 0);
        return 0;
    }
    let Some(line) = MARKS.get_ptr_mut(mark_line(digest)) else {
        return 0;
    };
    let now = Ticks::from_ns(desk.case.now_ns);
    // SAFETY: as for the keys.
    let room = unsafe {
        bpf_spin_lock((&raw mut (*line).lock).cast());
        let room = (*line).remember(Look::new(digest, key), flow as u32, desk.nonce, now);
        bpf_spin_unlock((&raw mut (*line).lock).cast());
        room
    };
    if !matches!(room, Room::Found) {
        let others = matches!(room, Room::TakenByOthers) as u32;
        judge_unmark(key.0, desk.spelled.spelling.digest, digest, others);
        return 0;
    }
    if let Some(line) = FLOWS.get_ptr_mut(flow_line(flow)) {
        // SAFETY: a live slot of the array. CPUs that race for it write whole words.
        unsafe { (*line).mark(flow as u32) };
    }
    1
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_unmark(key: u64, digest: u64, flipped: u64, others: u32) -> u32 {
    let key = Key(key);
    let Some(bucket) = KEYS.get_ptr_mut(key_bucket(key)) else {
        return 0;
    };
    // SAFETY: as above.
    unsafe {
        bpf_spin_lock((&raw mut (*bucket).lock).cast());
        (*bucket).unmark(key, digest, flipped, others != 0);
        bpf_spin_unlock((&raw mut (*bucket).lock).cast());
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_mark(desk: *const Desk) -> u64 {
    // SAFETY: as above.
    let Some(desk) = (unsafe { desk.as_ref() }) else {
        return 0;
    };
    let (digest, flow) = (desk.spelled.spelling.digest, desk.case.flow);
    let Some(line) = MARKS.get_ptr_mut(mark_line(digest)) else {
        return 0;
    };
    let now = Ticks::from_ns(desk.case.now_ns);
    // SAFETY: as for the keys.
    let found = unsafe {
        bpf_spin_lock((&raw mut (*line).lock).cast());
        let found = (*line).find(Look::new(digest, desk.case.subject.key), flow as u32, now);
        bpf_spin_unlock((&raw mut (*line).lock).cast());
        found
    };
    found.map_or(0, Found::number)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_answer(case: *const Case, ruling: *mut Ruling) -> u32 {
    // SAFETY: as above.
    let (Some(case), Some(ruling)) = (unsafe { case.as_ref() }, unsafe { ruling.as_mut() }) else {
        return 0;
    };
    let Some(policy) = policy(case.policy.into()) else {
        return 0;
    };
    let Some(bucket) = KEYS.get_ptr_mut(key_bucket(case.subject.key)) else {
        return 0;
    };
    let rules = policy.rules;
    // SAFETY: as above.
    let verdict = unsafe {
        bpf_spin_lock((&raw mut (*bucket).lock).cast());
        let verdict = (*bucket).answered(case.subject.key, case.asked, Ticks::from_ns(case.now_ns), &rules);
        bpf_spin_unlock((&raw mut (*bucket).lock).cast());
        verdict
    };
    let Some(verdict) = verdict else { return 0 };
    if let Some(counters) = DeviceCounters::of(case.subject.ifindex) {
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
    let Some(bucket) = KEYS.get_ptr_mut(key_bucket(case.subject.key)) else {
        return 0;
    };
    // SAFETY: as above.
    unsafe {
        bpf_spin_lock((&raw mut (*bucket).lock).cast());
        (*bucket).failed(case.subject.key, case.asked);
        bpf_spin_unlock((&raw mut (*bucket).lock).cast());
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_sentence(held: *const Held, key: u64, client: u32, until: u32, policy: *const Policy) -> u32 {
    // SAFETY: as above.
    let (Some(held), Some(policy)) = (unsafe { held.as_ref() }, unsafe { policy.as_ref() }) else {
        return 0;
    };
    let (verdict, reason) = remedy(policy, Key(key), held, || {
        let tag = client_tag(Key(key), client as u16, &control().secret);
        spend(tag, until, policy.answers_per_client)
    });
    verdict as u32 | (reason as u32) << 8
}

/// A shed query is answered as long as its client has answers left in this second, and its row has some in a bucket of
/// the table of meters, where others cannot take its place.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_shed(held: *const Held, desk: *const Desk) -> u32 {
    // SAFETY: as above.
    let (Some(held), Some(desk)) = (unsafe { held.as_ref() }, unsafe { desk.as_ref() }) else {
        return 0;
    };
    let Some(policy) = policy(desk.case.policy.into()) else {
        return 0;
    };
    let secret = &control().secret;
    let second = Ticks::from_ns(desk.case.now_ns).0 >> SECOND_SHIFT;
    let verdict = remedy_of_shed(policy, &desk.shed, held, || {
        let tag = desk.shed.client_tag(desk.case.client.address, secret);
        spend(tag, second, policy.answers_per_client)
            && judge_answers(desk.shed.tag(secret), desk.case.now_ns, desk.case.policy.into()) == 1
    });
    verdict as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_answers(tag: u64, now_ns: u64, slot: u32) -> u32 {
    let Some(policy) = policy(slot) else { return 0 };
    let Some(line) = METERS.get_ptr_mut(meter_line(tag)) else {
        return 0;
    };
    // Read before the lock is taken.
    let rate = policy.answer_rate;
    // SAFETY: as for the keys.
    unsafe {
        bpf_spin_lock((&raw mut (*line).lock).cast());
        let has_one = (*line).charge(tag, &rate, now_ns, 1);
        bpf_spin_unlock((&raw mut (*line).lock).cast());
        has_one as u32
    }
}

/// Whether whoever has this digest has one more answer left, of so many up to a moment: it is spent then.
#[inline(always)]
fn spend(digest: u64, until: u32, limit: u32) -> bool {
    match ALLOWANCES.get_ptr_mut(allowance_slot(digest)) {
        // SAFETY: a live slot of the array. CPUs that race for it may count one answer too few.
        Some(slot) => unsafe { (*slot).spend(digest as u32, Ticks(until), limit) },
        None => false,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_hygiene(case: *const Case, shed: *mut Shed) -> u32 {
    // SAFETY: as above.
    let (Some(case), Some(shed)) = (unsafe { case.as_ref() }, unsafe { shed.as_mut() }) else {
        return 0;
    };
    let Some(policy) = policy(case.policy.into()) else {
        return 0;
    };
    let breach = policy.hygiene.breach(
        &case.subject,
        case.wants_recursion(),
        case.same_host,
        |ranges, address| judge_holds(ranges.number(), address, case.policy.into()) == 1,
    );
    match breach {
        Some(breach) => decided(shed, breach),
        None => PASSES,
    }
}

/// Puts down what one has decided.
#[inline(always)]
const fn decided(shed: &mut Shed, by: Shed) -> u32 {
    if shed.decide(by) { SHEDS } else { NOTED }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_holds(ranges: u32, address: *const Address, slot: u32) -> u32 {
    // SAFETY: as above.
    let Some(address) = (unsafe { address.as_ref() }) else {
        return 0;
    };
    let Some(policy) = policy(slot) else { return 0 };
    policy.holds(Ranges::from_number(ranges), address) as u32
}

/// The rows, from the first on, until one sheds the query.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_rows(case: *const Case, shed: *mut Shed) -> u32 {
    // SAFETY: as above.
    let (Some(case), Some(shed)) = (unsafe { case.as_ref() }, unsafe { shed.as_mut() }) else {
        return 0;
    };
    let Some(policy) = policy(case.policy.into()) else {
        return 0;
    };
    let count = policy.row_count() as u64;
    for index in 0..MAX_ROWS as u32 {
        let mut here = index as u64;
        // The optimiser would make one end of both, and ask whether index and count are equal. Verifiers before Linux 6.18 do
        // not see that such a loop ends.
        // SAFETY: nothing is added.
        unsafe { core::arch::asm!("{0} += 0", inout(reg) here, options(pure, nomem, nostack, preserves_flags)) };
        if here >= count {
            break;
        }
        if judge_row(case, index, shed) == SHEDS {
            return SHEDS;
        }
    }
    PASSES
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_row(case: *const Case, index: u32, shed: *mut Shed) -> u32 {
    // SAFETY: as above.
    let (Some(case), Some(shed)) = (unsafe { case.as_ref() }, unsafe { shed.as_mut() }) else {
        return 0;
    };
    let Some(policy) = policy(case.policy.into()) else {
        return 0;
    };
    let Some(row) = policy.row(index) else { return 0 };
    let tag = judge_tag(case, index);
    if tag == 0 {
        return 0;
    }
    let destinations = row.destinations();
    if !destinations.is_empty() && judge_holds(destinations.number(), &case.subject.server, case.policy.into()) == 0 {
        return 0;
    }
    let within = judge_meter(tag, index, case.now_ns, case.packets, case.policy.into()) == 1;
    count_row(policy, index, within);
    if within {
        return PASSES;
    }
    decided(shed, by_row(index, row))
}

/// Counts what a row has said of a query.
#[inline(always)]
fn count_row(policy: &Policy, index: u32, within: bool) {
    if let Some(count) = ROWS.get_ptr_mut(policy.row_slot(index)) {
        // SAFETY: a live slot of this CPU.
        unsafe {
            if within {
                (*count).within = (*count).within.wrapping_add(1);
            } else {
                (*count).over = (*count).over.wrapping_add(1);
            }
        }
    }
}

/// What is shed by a row.
#[inline(always)]
const fn by_row(index: u32, row: &Row) -> Shed {
    Shed {
        row: index,
        reason: Reason::Budget,
        action: row.action(),
        observes: row.observes(),
    }
}

/// The tag of the bucket that a row charges a query to; 0 if it is not about it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_tag(case: *const Case, index: u32) -> u64 {
    // SAFETY: as above.
    let Some(case) = (unsafe { case.as_ref() }) else {
        return 0;
    };
    let Some(policy) = policy(case.policy.into()) else {
        return 0;
    };
    let Some(row) = policy.row(index) else { return 0 };
    row.tag(&case.subject, &control().secret).unwrap_or(0)
}

/// Whether a query ends because the only budget is known to be empty, as [`ends_over`] says.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_over(key: u64, flow: u64, now_ns: u64, charged: u64) -> u32 {
    let charged = Charged::unpack(charged);
    let control = control();
    let Some(policy) = policy(charged.slot) else { return 0 };
    let Some(row) = policy
        .row(0)
        .filter(|_| control.has_rows == Control::ONE_ROW_FOR_ANY_KEY)
    else {
        return 0;
    };
    let Some(tag) = row.tag_of_key(Key(key), charged.egress, &control.secret) else {
        return 0;
    };
    let Some(line) = METERS.get_ptr_mut(meter_line(tag)) else {
        return 0;
    };
    // SAFETY: a live slot of the array, each word of which is read whole.
    let is_empty = unsafe { (*line).is_known_empty(tag, &row.rate, now_ns, charged.packets) };
    if !is_empty || !drops_unseen(policy, &by_row(0, row), now_ns, flow) {
        return 0;
    }
    count_row(policy, 0, false);
    settle_if_known(flow, charged.sighting);
    DeviceCounters::count_action_on(charged.ifindex, Verdict::Drop, Reason::Budget);
    1
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_meter(tag: u64, index: u32, now_ns: u64, packets: u32, slot: u32) -> u32 {
    let Some(policy) = policy(slot) else { return 1 };
    let Some(row) = policy.row(index) else {
        return 1;
    };
    let Some(line) = METERS.get_ptr_mut(meter_line(tag)) else {
        return 1;
    };
    // Read before the lock is taken.
    let rate = row.rate;
    // SAFETY: as for the keys. Whether it is known to be empty can be told without the lock: each of its words is read whole.
    unsafe {
        if (*line).is_known_empty(tag, &rate, now_ns, packets) {
            return 0;
        }
        bpf_spin_lock((&raw mut (*line).lock).cast());
        let within = (*line).charge(tag, &rate, now_ns, packets);
        bpf_spin_unlock((&raw mut (*line).lock).cast());
        within as u32
    }
}

/// What the link-local budget does with a DNS query, or with a packet that opens a connection to a DNS port. What is
/// `exempt` is charged and passes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_link(case: *const Case, exempt: u32, link: u32, shed: *mut Shed) -> u32 {
    // SAFETY: as above.
    let (Some(case), Some(shed)) = (unsafe { case.as_ref() }, unsafe { shed.as_mut() }) else {
        return 0;
    };
    let Some(policy) = policy(case.policy.into()) else {
        return 0;
    };
    let control = control();
    let Some(budget) = LINKS.get_ptr_mut(Link::unpack(link).index) else {
        return PASSES;
    };
    if exempt != 0 {
        // SAFETY: as for the keys.
        unsafe {
            bpf_spin_lock((&raw mut (*budget).lock).cast());
            (*budget).charge(&policy.link, case.now_ns, case.packets);
            bpf_spin_unlock((&raw mut (*budget).lock).cast());
        }
        return PASSES;
    }
    let now = Ticks::from_ns(case.now_ns);
    // SAFETY: a live slot of the array; a level that another CPU is changing is a level of just now.
    let level = unsafe { (*budget).level(&policy.link, case.now_ns) };
    let is_query = case.name_len != 0;
    let pending = case.pending(&control.secret);
    let repeats = is_query && judge_pending(pending, now.0) == 1;
    let (source, zone) = budget::share_tags(&case.subject, link, &control.secret);
    let why = budget::sheds(&policy.link, level, repeats, |limit| {
        budget::exceeds_share(
            limit,
            |limit| judge_share(source, limit, now.0, case.packets),
            |limit| judge_share(zone, limit, now.0, case.packets),
        )
    });
    let why = match why {
        Some(reason) => reason,
        None => {
            // SAFETY: as for the keys.
            let taken = unsafe {
                bpf_spin_lock((&raw mut (*budget).lock).cast());
                let taken = (*budget).take(&policy.link, case.now_ns, case.packets);
                bpf_spin_unlock((&raw mut (*budget).lock).cast());
                taken
            };
            if taken {
                if is_query {
                    judge_sight(pending, PENDING_PLACE, now.0, 0);
                }
                return PASSES;
            }
            Reason::Exhausted
        }
    };
    let by = Shed {
        row: Shed::NO_ROW,
        reason: why,
        action: policy.link.action(),
        observes: policy.link.observes(),
    };
    decided(shed, by)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_charge(link: u32, ifindex: u32, packets: u32, slot: u32) -> u32 {
    let Some(policy) = policy(slot) else { return 0 };
    let link = Link::unpack(link);
    let Some(budget) = LINKS.get_ptr_mut(link.index) else {
        return 0;
    };
    let now_ns = now_ns(policy);
    // SAFETY: as for the keys.
    unsafe {
        bpf_spin_lock((&raw mut (*budget).lock).cast());
        (*budget).charge(&policy.link, now_ns, packets);
        bpf_spin_unlock((&raw mut (*budget).lock).cast());
    }
    if let Some(counters) = DeviceCounters::of(ifindex) {
        counters.count_link(link.service, packets);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_share(tag: u64, limit: u32, now: u32, packets: u32) -> u32 {
    let Some(line) = METERS.get_ptr_mut(meter_line(tag)) else {
        return 0;
    };
    // SAFETY: as for the keys.
    unsafe {
        bpf_spin_lock((&raw mut (*line).lock).cast());
        let had = (*line).share(tag, limit, Ticks(now), packets);
        bpf_spin_unlock((&raw mut (*line).lock).cast());
        had
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_pending(flow: u64, now: u32) -> u32 {
    match FLOWS.get_ptr_mut(flow_line(flow)) {
        // SAFETY: as above.
        Some(line) => unsafe { (*line).is_pending(flow as u32, Ticks(now)) as u32 },
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_draw(kind: u32, now: u32, flow: u64) -> u32 {
    let Some(local) = LOCALS.get_ptr_mut(0) else { return 0 };
    // SAFETY: the slot of this CPU, on which no other of our programs runs now.
    let here = unsafe { (*local).sampler(Kind::from_u8(kind as u8)) };
    let mut sampler = *here;
    let random = sampler.random(flow);
    let weight = sampler.draw(Ticks(now), control().sample_quota, || random);
    *here = sampler;
    weight.unwrap_or(0)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_sight(flow: u64, place: u32, now: u32, rapid_ticks: u32) -> u32 {
    let Some(line) = FLOWS.get_ptr_mut(flow_line(flow)) else {
        return Sighting::New as u32;
    };
    // SAFETY: a live slot of the array. CPUs that race for it write whole words.
    unsafe {
        let plain = place >> PLAIN_SHIFT != 0;
        (*line).sight(flow as u32, Place::from_number(place), plain, Ticks(now), rapid_ticks) as u32
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_turn(flow: u64, place: u32) -> u32 {
    match FLOWS.get_ptr_mut(flow_line(flow)) {
        // SAFETY: as above.
        Some(line) => unsafe { (*line).turns(flow as u32, Place::from_number(place)) as u32 },
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_settle(flow: u64) -> u32 {
    match FLOWS.get_ptr_mut(flow_line(flow)) {
        // SAFETY: as above.
        Some(line) => unsafe { (*line).settle(flow as u32).number() },
        None => 0,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_trusts(address: *const Address, policy: *const Policy) -> u32 {
    // SAFETY: as above.
    let (Some(address), Some(policy)) = (unsafe { address.as_ref() }, unsafe { policy.as_ref() }) else {
        return 0;
    };
    policy.trusts(address) as u32
}
