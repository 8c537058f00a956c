//! The TC doors: tcx or clsact, in and out.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0},
    helpers::generated::{bpf_l4_csum_replace, bpf_redirect, bpf_skb_change_tail, bpf_skb_pull_data},
};
use guard_common::{
    answer::Plan,
    case::Case,
    counter::Counter,
    key::Hashed,
    marks::Found,
    packet::{MAX_WALK, destination},
    question::{Name, Question, Unreadable},
    recent::Recent,
    sample::Kind,
    spelling::Change,
};

use crate::{
    bench::{self, Desk},
    dns,
    door::{Door, Headers, Link, NO_LINK},
    event,
    frame::Frame,
    hook,
    maps::DeviceCounters,
    short::{self, Answered},
    step,
};

/// Others in the chain run (`TC_ACT_UNSPEC`, and `TCX_NEXT`: include/uapi/linux/bpf.h).
const NEXT: i32 = -1;
/// Dropped (`TC_ACT_SHOT`, `TCX_DROP`). Of a packet that goes out, the sender would hear: ENOBUFS.
const SHOT: i32 = 2;
/// No interface has this index: a packet that is redirected there is freed, and its sender hears of a success
/// (`skb_do_redirect`, net/core/filter.c). tcx knows no other silent end: it takes `TC_ACT_STOLEN` for `TCX_NEXT`.
const NOWHERE: u32 = 0;
/// `bpf_redirect` puts the packet into the interface's receive path.
const INTO_RECEIVE_PATH: u64 = 1;

/// Where the checksum lies in a UDP header.
const UDP_CHECKSUM_AT: u32 = 6;

/// A packet at a TC hook. The functions below do not need to know which: the headers tell them.
struct TcDoor<const EGRESS: bool>(*mut __sk_buff);

/// Judges the packet of this context and carries the verdict out.
#[inline(always)]
pub(crate) fn run<const EGRESS: bool>(context: *mut __sk_buff) -> i32 {
    let verdict = hook::look(&TcDoor::<EGRESS>(context)) as i32;
    if EGRESS && verdict == SHOT {
        // SAFETY: only numbers.
        return unsafe { bpf_redirect(NOWHERE, 0) } as i32;
    }
    verdict
}

impl<const EGRESS: bool> Door for TcDoor<EGRESS> {
    const EGRESS: bool = EGRESS;
    const COMPLETES: bool = true;
    const PASS: u32 = NEXT as u32;
    const DROP: u32 = SHOT as u32;

    #[inline(always)]
    fn frame(&self) -> Frame {
        // SAFETY: the context of this call.
        unsafe { Frame::new((*self.0).data as usize, (*self.0).data_end as usize) }
    }

    /// Headers lie in the linear part of a packet; a message need not.
    #[inline(always)]
    fn whole_frame(&self) -> Frame {
        // SAFETY: the context of this call.
        let wanted = (unsafe { (*self.0).len } as usize).min(MAX_WALK);
        if self.frame().len() < wanted {
            // SAFETY: the context of this call. If it fails, the frame stays short, and what lies beyond is not read.
            unsafe { bpf_skb_pull_data(self.0, wanted as u32) };
        }
        self.frame()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context of this call.
        unsafe { (*self.0).ifindex }
    }

    #[inline(always)]
    fn packets(&self) -> u32 {
        // SAFETY: the context of this call.
        let (segments, size, len) = unsafe { ((*self.0).gso_segs, (*self.0).gso_size, (*self.0).len) };
        if segments > 1 {
            segments
        } else if segments == 0 && size != 0 {
            // From a guest, which says how long its segments are and not how many.
            len / size + 1
        } else {
            1
        }
    }

    #[inline(always)]
    fn link(&self, slot: u32) -> u32 {
        match bench::policy(slot) {
            Some(policy) if !policy.link.is_empty() => tc_link(self.0, slot),
            _ => NO_LINK,
        }
    }

    #[inline(always)]
    fn name(&self, name_at: usize) -> Result<Name, Unreadable> {
        step::unpack_name(tc_name(self.0, name_at as u32))
    }

    #[inline(always)]
    fn key(&self, question: &Question) -> Option<Hashed> {
        Hashed::from_number(tc_key(self.0, step::pack_question(question)))
    }

    #[inline(always)]
    fn learn(&self, name_at: usize, recent: &mut Recent) -> Option<u32> {
        step::unpack_type(tc_learn(self.0, name_at as u32, recent))
    }

    /// One that has its length and is linear is writable from the beginning (`bpf_unclone_prologue`, net/core/filter.c).
    #[inline(always)]
    fn has_length(&self, length: usize) -> bool {
        // SAFETY: the context of this call.
        self.frame().len() == length && unsafe { (*self.0).len } as usize == length
    }

    #[inline(always)]
    fn write(&self, plan: &Plan) -> Option<()> {
        let length = plan.frame_len();
        // SAFETY: the context of this call. The helper makes the whole packet linear and writable.
        if !self.has_length(length) && unsafe { bpf_skb_change_tail(self.0, length as u32, 0) } != 0 {
            return None;
        }
        plan.write(&mut self.frame())
    }

    #[inline(always)]
    fn answer(&self, headers: Headers, remark: u32) -> u32 {
        self.sent(tc_answer(self.0, headers.offsets, remark))
    }

    #[inline(always)]
    fn charge_short(&self, passed: u32) -> u32 {
        tc_charge_short(self.0, passed)
    }

    #[inline(always)]
    fn answer_short(&self, answered: u32) -> u32 {
        self.sent(tc_answer_short(self.0, answered))
    }

    #[inline(always)]
    fn pass_short(&self, family: u32) -> u32 {
        if EGRESS {
            tc_pass_short_out(self.0, family)
        } else {
            tc_pass_short_in(self.0, family)
        }
    }

    #[inline(always)]
    fn walk(&self, passed: u32) -> u32 {
        if EGRESS {
            tc_walk_out(self.0, passed)
        } else {
            tc_walk_in(self.0, passed)
        }
    }

    #[inline(always)]
    fn judge(&self, headers: Headers, link: u32, passed: u32) -> u32 {
        if EGRESS {
            tc_judge_out(self.0, headers.offsets, headers.ports, link, passed)
        } else {
            tc_judge_in(self.0, headers.offsets, headers.ports, passed)
        }
    }

    #[inline(always)]
    fn read(&self, headers: Headers, case: &mut Case) -> u32 {
        tc_read(self.0, headers.offsets, headers.ports, case)
    }

    #[inline(always)]
    fn look_closer(&self, headers: Headers, link: u32, judged: u32) -> u32 {
        if EGRESS {
            tc_look_closer_out(self.0, headers.offsets, headers.ports, link, judged)
        } else {
            tc_look_closer_in(self.0, headers.offsets, headers.ports, judged)
        }
    }

    #[inline(always)]
    fn question(&self, name_at: usize, end: usize, case: &mut Case) -> u32 {
        tc_question(self.0, name_at as u32, end as u32, case)
    }

    #[inline(always)]
    fn segment(&self, headers: Headers, case: &mut Case) -> u32 {
        tc_segment(self.0, headers.offsets, headers.ports, case)
    }

    #[inline(always)]
    fn fill_subject(&self, headers: Headers, case: &mut Case) -> bool {
        tc_fill_subject(self.0, headers.offsets, case) == 1
    }

    #[inline(always)]
    fn fill_zones(&self, case: &mut Case) -> bool {
        tc_fill_zones(self.0, case) == 1
    }

    #[inline(always)]
    fn act(&self, headers: Headers, desk: &mut Desk) -> u32 {
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!(
            &aya_ebpf::programs::TcContext::new(self.0),
            "key {:x}: note {}, held {}, {} hops, shed for {}",
            desk.case.subject.key.0,
            desk.ruling.note as u8,
            desk.ruling.held as u8,
            desk.ruling.hops,
            desk.shed.reason as u8
        );
        tc_act(self.0, headers.offsets, headers.ports, desk)
    }

    #[inline(always)]
    fn spell(&self, desk: &mut Desk) -> bool {
        let desk: *mut Desk = desk;
        tc_begin_spelling(self.0, desk, bench::nonce()) == 1 && step::for_words(|word| tc_spell(self.0, desk, word))
    }

    #[inline(always)]
    fn respell(&self, headers: Headers, desk: &mut Desk, found: Found) -> bool {
        desk.change = Change::default();
        let raw: *mut Desk = desk;
        if !step::for_words(|word| tc_respell(self.0, raw, found.number(), word)) {
            return false;
        }
        // The kernel knows of the packet's checksum what the packet does not show, and mends what there is to mend. Where
        // it knows the sum over the whole packet, that stays: what the name loses, the checksum gains.
        let checksum_at = headers.unpack().transport_at as u32 + UDP_CHECKSUM_AT;
        let difference = desk.change.difference().into();
        // SAFETY: the context of this call, and numbers.
        unsafe { bpf_l4_csum_replace(self.0, checksum_at, 0, difference, BPF_F_MARK_MANGLED_0.into()) };
        true
    }

    #[inline(always)]
    fn show(&self, desk: &Desk, kind: Kind, weight: u32) {
        tc_show(self.0, desk, kind as u32, weight);
    }
}

impl<const EGRESS: bool> TcDoor<EGRESS> {
    /// What the program is to return for a packet that is its answer now, if `written` is not 0.
    #[inline(always)]
    fn sent(&self, written: u32) -> u32 {
        if written == 0 {
            DeviceCounters::count_on(self.device(), Counter::AnswerFailed);
            return Self::DROP;
        }
        // A packet that came in goes out again; one that was going out comes in.
        let flags = if EGRESS { INTO_RECEIVE_PATH } else { 0 };
        // SAFETY: only numbers.
        unsafe { bpf_redirect(self.ifindex(), flags) as u32 }
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_pass_short_in(context: *mut __sk_buff, family: u32) -> u32 {
    short::pass(&TcDoor::<false>(context), family)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_walk_in(context: *mut __sk_buff, passed: u32) -> u32 {
    hook::walk(&TcDoor::<false>(context), passed)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_pass_short_out(context: *mut __sk_buff, family: u32) -> u32 {
    short::pass(&TcDoor::<true>(context), family)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_walk_out(context: *mut __sk_buff, passed: u32) -> u32 {
    hook::walk(&TcDoor::<true>(context), passed)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_judge_in(context: *mut __sk_buff, offsets: u64, ports: u32, passed: u32) -> u32 {
    hook::judge(&TcDoor::<false>(context), Headers { offsets, ports }, NO_LINK, passed)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_judge_out(context: *mut __sk_buff, offsets: u64, ports: u32, link: u32, passed: u32) -> u32 {
    hook::judge(&TcDoor::<true>(context), Headers { offsets, ports }, link, passed)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_read(context: *mut __sk_buff, offsets: u64, ports: u32, case: *mut Case) -> u32 {
    dns::read(&TcDoor::<false>(context), Headers { offsets, ports }, case)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_look_closer_in(context: *mut __sk_buff, offsets: u64, ports: u32, judged: u32) -> u32 {
    hook::look_closer(&TcDoor::<false>(context), Headers { offsets, ports }, NO_LINK, judged)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_look_closer_out(context: *mut __sk_buff, offsets: u64, ports: u32, link: u32, judged: u32) -> u32 {
    hook::look_closer(&TcDoor::<true>(context), Headers { offsets, ports }, link, judged)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_question(context: *mut __sk_buff, name_at: u32, end: u32, case: *mut Case) -> u32 {
    let door = TcDoor::<false>(context);
    step::question(&door.frame(), name_at, end, case, door.device())
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_segment(context: *mut __sk_buff, offsets: u64, ports: u32, case: *mut Case) -> u32 {
    dns::segment(&TcDoor::<false>(context), Headers { offsets, ports }, case)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_fill_subject(context: *mut __sk_buff, offsets: u64, case: *mut Case) -> u32 {
    dns::fill_subject(&TcDoor::<false>(context), Headers { offsets, ports: 0 }, case) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_fill_zones(context: *mut __sk_buff, case: *mut Case) -> u32 {
    dns::fill_zones(&TcDoor::<false>(context), case) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_act(context: *mut __sk_buff, offsets: u64, ports: u32, desk: *mut Desk) -> u32 {
    dns::act(&TcDoor::<false>(context), Headers { offsets, ports }, desk)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_begin_spelling(context: *mut __sk_buff, desk: *mut Desk, nonce: u32) -> u32 {
    step::begin_spelling(&TcDoor::<false>(context).frame(), desk, nonce)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_spell(context: *mut __sk_buff, desk: *mut Desk, word: u32) -> u32 {
    step::spell(&TcDoor::<false>(context).frame(), desk, word)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_respell(context: *mut __sk_buff, desk: *mut Desk, found: u64, word: u32) -> u32 {
    step::respell(&mut TcDoor::<false>(context).frame(), desk, found, word)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_show(context: *mut __sk_buff, desk: *const Desk, kind: u32, weight: u32) -> u32 {
    event::show(&TcDoor::<false>(context).frame(), desk, kind, weight);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_name(context: *mut __sk_buff, name_at: u32) -> u64 {
    step::name(&TcDoor::<false>(context).frame(), name_at)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_key(context: *mut __sk_buff, question: u64) -> u64 {
    step::key(&TcDoor::<false>(context).frame(), question)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_learn(context: *mut __sk_buff, name_at: u32, recent: *mut Recent) -> u32 {
    step::learn(&TcDoor::<false>(context).frame(), name_at, recent)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_link(context: *mut __sk_buff, slot: u32) -> u32 {
    let door = TcDoor::<true>(context);
    let Some(policy) = bench::policy(slot) else {
        return NO_LINK;
    };
    let Some(index) = policy.link.link_of(door.device()) else {
        return NO_LINK;
    };
    match destination(&door.frame()).and_then(|address| policy.link.service_at(&address)) {
        Some(service) => Link { index, service }.pack(),
        None => NO_LINK,
    }
}

/// Turns the query into its answer; 0 if that fails, with the packet half written. The ports are not handed over: an
/// argument that a function does not read is left unset by the optimiser, which the verifier does not accept.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_answer(context: *mut __sk_buff, offsets: u64, remark: u32) -> u32 {
    let door = TcDoor::<false>(context);
    step::done(dns::answer(&door, Headers { offsets, ports: 0 }, remark))
}

/// The same for one that took the short way.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_answer_short(context: *mut __sk_buff, answered: u32) -> u32 {
    step::done(Answered::unpack(answered).answer(&TcDoor::<false>(context)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_charge_short(context: *mut __sk_buff, passed: u32) -> u32 {
    short::charge(&TcDoor::<false>(context), passed)
}
