//! The XDP door.

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
        xdp_md,
    },
    helpers::generated::bpf_xdp_adjust_tail,
};
use guard_common::{
    answer::Checksum,
    counter::Counter,
    judge::Ruling,
    key::Key,
    packet::Packet,
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

struct XdpDoor(*mut xdp_md);

/// Judges the packet of this context and carries the verdict out.
#[inline(always)]
pub(crate) fn run(context: *mut xdp_md) -> u32 {
    hook::judge(&XdpDoor(context))
}

impl Door for XdpDoor {
    const EGRESS: bool = false;
    const PASS: u32 = XDP_PASS;
    const DROP: u32 = XDP_DROP;

    #[inline(always)]
    fn frame(&self) -> Frame {
        // SAFETY: the context of this call.
        unsafe { Frame::new((*self.0).data as usize, (*self.0).data_end as usize) }
    }

    #[inline(always)]
    fn whole_frame(&self) -> Frame {
        self.frame()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context of this call.
        unsafe { (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn name_len(&self, name_at: usize) -> Result<usize, Unreadable> {
        step::unpack_name_len(xdp_name_len(self.0, name_at as u32))
    }

    #[inline(always)]
    fn key(&self, question: &Question) -> Option<Key> {
        step::unpack_key(xdp_key(self.0, step::pack_question(question)))
    }

    /// What XDP sends, nobody completes.
    #[inline(always)]
    fn checksum(&self, _: &Frame, _: &Packet, _: usize) -> Checksum {
        Checksum::Whole
    }

    #[inline(always)]
    fn answer(&self, headers: Headers, info_code: u32) -> u32 {
        if xdp_answer(self.0, headers.offsets, info_code) == 0 {
            if let Some(counters) = DeviceCounters::of(self.ifindex()) {
                counters.count(Counter::AnswerFailed);
            }
            return Self::DROP;
        }
        XDP_TX
    }

    #[inline(always)]
    fn read(&self, headers: Headers, case: &mut Case) -> u32 {
        xdp_read(self.0, headers.offsets, headers.ports, case)
    }

    #[inline(always)]
    fn act(&self, headers: Headers, case: &Case, ruling: &Ruling) -> u32 {
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!(
            &aya_ebpf::programs::XdpContext::new(self.0),
            "key {:x}: note {}, held {}, {} hops",
            case.key.0,
            ruling.note as u8,
            ruling.held as u8,
            ruling.hops
        );
        xdp_act(self.0, headers.offsets, headers.ports, case, ruling)
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_read(context: *mut xdp_md, offsets: u64, ports: u32, case: *mut Case) -> u32 {
    dns::read(&XdpDoor(context), Headers { offsets, ports }, case)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_act(context: *mut xdp_md, offsets: u64, ports: u32, case: *const Case, ruling: *const Ruling) -> u32 {
    dns::act(&XdpDoor(context), Headers { offsets, ports }, case, ruling)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_name_len(context: *mut xdp_md, name_at: u32) -> u32 {
    step::name_len(&XdpDoor(context).frame(), name_at)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_key(context: *mut xdp_md, question: u64) -> u64 {
    step::key(&XdpDoor(context).frame(), question)
}

/// Turns the query into its answer; 0 if that fails, with the packet half written. The ports are not handed over: an
/// argument that a function does not read is left unset by the optimiser, which the verifier does not accept.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_answer(context: *mut xdp_md, offsets: u64, info_code: u32) -> u32 {
    let door = XdpDoor(context);
    let Some(plan) = dns::plan(&door, Headers { offsets, ports: 0 }, info_code) else {
        return 0;
    };
    let longer = plan.frame_len() as i32 - door.frame().len() as i32;
    // SAFETY: the context of this call.
    if unsafe { bpf_xdp_adjust_tail(context, longer) } != 0 {
        return 0;
    }
    plan.write(&mut door.frame()).is_some() as u32
}
