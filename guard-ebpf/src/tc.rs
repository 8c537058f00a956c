//! The TC doors: tcx or clsact, in and out.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_redirect, bpf_skb_change_tail, bpf_skb_pull_data},
};
use guard_common::{
    answer::{Checksum, checksum_state},
    counter::Counter,
    judge::Ruling,
    key::Key,
    packet::{MAX_WALK, Packet},
    question::{Question, Unreadable},
};

use crate::{
    bench::Case,
    dns,
    door::{Door, Headers},
    frame::Frame,
    hook,
    maps::DeviceCounters,
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

/// A packet at a TC hook. The functions below do not need to know which: the headers tell them.
struct TcDoor<const EGRESS: bool>(*mut __sk_buff);

/// Judges the packet of this context and carries the verdict out.
#[inline(always)]
pub(crate) fn run<const EGRESS: bool>(context: *mut __sk_buff) -> i32 {
    let verdict = hook::judge(&TcDoor::<EGRESS>(context)) as i32;
    if EGRESS && verdict == SHOT {
        // SAFETY: only numbers.
        return unsafe { bpf_redirect(NOWHERE, 0) } as i32;
    }
    verdict
}

impl<const EGRESS: bool> Door for TcDoor<EGRESS> {
    const EGRESS: bool = EGRESS;
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
    fn name_len(&self, name_at: usize) -> Result<usize, Unreadable> {
        step::unpack_name_len(tc_name_len(self.0, name_at as u32))
    }

    #[inline(always)]
    fn key(&self, question: &Question) -> Option<Key> {
        step::unpack_key(tc_key(self.0, step::pack_question(question)))
    }

    #[inline(always)]
    fn checksum(&self, frame: &Frame, packet: &Packet, udp_len: usize) -> Checksum {
        checksum_state(frame, packet, udp_len)
    }

    #[inline(always)]
    fn answer(&self, headers: Headers, info_code: u32) -> u32 {
        if tc_answer(self.0, headers.offsets, info_code) == 0 {
            if let Some(counters) = DeviceCounters::of(self.ifindex()) {
                counters.count(Counter::AnswerFailed);
            }
            return Self::DROP;
        }
        // A packet that came in goes out again; one that was going out comes in.
        let flags = if EGRESS { INTO_RECEIVE_PATH } else { 0 };
        // SAFETY: only numbers.
        unsafe { bpf_redirect(self.ifindex(), flags) as u32 }
    }

    #[inline(always)]
    fn read(&self, headers: Headers, case: &mut Case) -> u32 {
        tc_read(self.0, headers.offsets, headers.ports, case)
    }

    #[inline(always)]
    fn act(&self, headers: Headers, case: &Case, ruling: &Ruling) -> u32 {
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!(
            &aya_ebpf::programs::TcContext::new(self.0),
            "key {:x}: note {}, held {}, {} hops",
            case.key.0,
            ruling.note as u8,
            ruling.held as u8,
            ruling.hops
        );
        tc_act(self.0, headers.offsets, headers.ports, case, ruling)
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_read(context: *mut __sk_buff, offsets: u64, ports: u32, case: *mut Case) -> u32 {
    dns::read(&TcDoor::<false>(context), Headers { offsets, ports }, case)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_act(
    context: *mut __sk_buff,
    offsets: u64,
    ports: u32,
    case: *const Case,
    ruling: *const Ruling,
) -> u32 {
    dns::act(&TcDoor::<false>(context), Headers { offsets, ports }, case, ruling)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_name_len(context: *mut __sk_buff, name_at: u32) -> u32 {
    step::name_len(&TcDoor::<false>(context).frame(), name_at)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_key(context: *mut __sk_buff, question: u64) -> u64 {
    step::key(&TcDoor::<false>(context).frame(), question)
}

/// Turns the query into its answer; 0 if that fails, with the packet half written. The ports are not handed over: an
/// argument that a function does not read is left unset by the optimiser, which the verifier does not accept.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_answer(context: *mut __sk_buff, offsets: u64, info_code: u32) -> u32 {
    let door = TcDoor::<false>(context);
    let Some(plan) = dns::plan(&door, Headers { offsets, ports: 0 }, info_code) else {
        return 0;
    };
    // SAFETY: the context of this call. The helper makes the whole packet linear and writable.
    if unsafe { bpf_skb_change_tail(context, plan.frame_len() as u32, 0) } != 0 {
        return 0;
    }
    plan.write(&mut door.frame()).is_some() as u32
}
