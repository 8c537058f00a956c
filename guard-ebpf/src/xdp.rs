//! The XDP door.

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
        xdp_md,
    },
    helpers::generated::bpf_xdp_adjust_tail,
};
use guard_common::{
    answer::{Checksum, Plan, checksum_state},
    case::Case,
    counter::Counter,
    key::Hashed,
    marks::Found,
    question::{Name, Question, Unreadable},
    recent::Recent,
    sample::Kind,
    spelling::Change,
};

use crate::{
    bench::{self, Desk},
    dns,
    door::{Door, Headers, NO_LINK},
    event,
    frame::Frame,
    hook,
    maps::DeviceCounters,
    short::{self, Answered},
    step,
};

struct XdpDoor(*mut xdp_md);

/// Judges the packet of this context and carries the verdict out.
#[inline(always)]
pub(crate) fn run(context: *mut xdp_md) -> u32 {
    hook::look(&XdpDoor(context))
}

impl Door for XdpDoor {
    const EGRESS: bool = false;
    /// What XDP sends, nobody completes.
    const COMPLETES: bool = false;
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
    fn packets(&self) -> u32 {
        1
    }

    /// Packets that leave do not come here.
    #[inline(always)]
    fn link(&self, _slot: u32) -> u32 {
        NO_LINK
    }

    #[inline(always)]
    fn name(&self, name_at: usize) -> Result<Name, Unreadable> {
        step::unpack_name(xdp_name(self.0, name_at as u32))
    }

    #[inline(always)]
    fn key(&self, question: &Question) -> Option<Hashed> {
        Hashed::from_number(xdp_key(self.0, step::pack_question(question)))
    }

    #[inline(always)]
    fn learn(&self, name_at: usize, recent: &mut Recent) -> Option<u32> {
        step::unpack_type(xdp_learn(self.0, name_at as u32, recent))
    }

    #[inline(always)]
    fn has_length(&self, length: usize) -> bool {
        self.frame().len() == length
    }

    #[inline(always)]
    fn write(&self, plan: &Plan) -> Option<()> {
        let longer = plan.frame_len() as i32 - self.frame().len() as i32;
        // SAFETY: the context of this call.
        if longer != 0 && unsafe { bpf_xdp_adjust_tail(self.0, longer) } != 0 {
            return None;
        }
        plan.write(&mut self.frame())
    }

    #[inline(always)]
    fn answer(&self, headers: Headers, remark: u32) -> u32 {
        self.sent(xdp_answer(self.0, headers.offsets, remark))
    }

    #[inline(always)]
    fn charge_short(&self, passed: u32) -> u32 {
        xdp_charge_short(self.0, passed)
    }

    #[inline(always)]
    fn answer_short(&self, answered: u32) -> u32 {
        self.sent(xdp_answer_short(self.0, answered))
    }

    #[inline(always)]
    fn pass_short(&self, family: u32) -> u32 {
        xdp_pass_short(self.0, family)
    }

    #[inline(always)]
    fn walk(&self, passed: u32) -> u32 {
        xdp_walk(self.0, passed)
    }

    #[inline(always)]
    fn judge(&self, headers: Headers, _link: u32, passed: u32) -> u32 {
        xdp_judge(self.0, headers.offsets, headers.ports, passed)
    }

    #[inline(always)]
    fn read(&self, headers: Headers, case: &mut Case) -> u32 {
        xdp_read(self.0, headers.offsets, headers.ports, case)
    }

    #[inline(always)]
    fn look_closer(&self, headers: Headers, _link: u32, judged: u32) -> u32 {
        xdp_look_closer(self.0, headers.offsets, headers.ports, judged)
    }

    #[inline(always)]
    fn question(&self, name_at: usize, end: usize, case: &mut Case) -> u32 {
        xdp_question(self.0, name_at as u32, end as u32, case)
    }

    #[inline(always)]
    fn segment(&self, headers: Headers, case: &mut Case) -> u32 {
        xdp_segment(self.0, headers.offsets, headers.ports, case)
    }

    #[inline(always)]
    fn fill_subject(&self, headers: Headers, case: &mut Case) -> bool {
        xdp_fill_subject(self.0, headers.offsets, case) == 1
    }

    #[inline(always)]
    fn fill_zones(&self, case: &mut Case) -> bool {
        xdp_fill_zones(self.0, case) == 1
    }

    #[inline(always)]
    fn act(&self, headers: Headers, desk: &mut Desk) -> u32 {
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!(
            &aya_ebpf::programs::XdpContext::new(self.0),
            "key {:x}: note {}, held {}, {} hops, shed for {}",
            desk.case.subject.key.0,
            desk.ruling.note as u8,
            desk.ruling.held as u8,
            desk.ruling.hops,
            desk.shed.reason as u8
        );
        xdp_act(self.0, headers.offsets, headers.ports, desk)
    }

    #[inline(always)]
    fn spell(&self, desk: &mut Desk) -> bool {
        let desk: *mut Desk = desk;
        xdp_begin_spelling(self.0, desk, bench::nonce()) == 1 && step::for_words(|word| xdp_spell(self.0, desk, word))
    }

    #[inline(always)]
    fn respell(&self, headers: Headers, desk: &mut Desk, found: Found) -> bool {
        desk.change = Change::default();
        let raw: *mut Desk = desk;
        if !step::for_words(|word| xdp_respell(self.0, raw, found.number(), word)) {
            return false;
        }
        xdp_mend(self.0, headers.offsets, desk) == 1
    }

    #[inline(always)]
    fn show(&self, desk: &Desk, kind: Kind, weight: u32) {
        xdp_show(self.0, desk, kind as u32, weight);
    }
}

impl XdpDoor {
    /// What the program is to return for a packet that is its answer now, if `written` is not 0.
    #[inline(always)]
    fn sent(&self, written: u32) -> u32 {
        if written == 0 {
            DeviceCounters::count_on(self.device(), Counter::AnswerFailed);
            return Self::DROP;
        }
        XDP_TX
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_pass_short(context: *mut xdp_md, family: u32) -> u32 {
    short::pass(&XdpDoor(context), family)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_walk(context: *mut xdp_md, passed: u32) -> u32 {
    hook::walk(&XdpDoor(context), passed)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_judge(context: *mut xdp_md, offsets: u64, ports: u32, passed: u32) -> u32 {
    hook::judge(&XdpDoor(context), Headers { offsets, ports }, NO_LINK, passed)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_read(context: *mut xdp_md, offsets: u64, ports: u32, case: *mut Case) -> u32 {
    dns::read(&XdpDoor(context), Headers { offsets, ports }, case)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_look_closer(context: *mut xdp_md, offsets: u64, ports: u32, judged: u32) -> u32 {
    hook::look_closer(&XdpDoor(context), Headers { offsets, ports }, NO_LINK, judged)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_question(context: *mut xdp_md, name_at: u32, end: u32, case: *mut Case) -> u32 {
    let door = XdpDoor(context);
    step::question(&door.frame(), name_at, end, case, door.device())
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_segment(context: *mut xdp_md, offsets: u64, ports: u32, case: *mut Case) -> u32 {
    dns::segment(&XdpDoor(context), Headers { offsets, ports }, case)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_fill_subject(context: *mut xdp_md, offsets: u64, case: *mut Case) -> u32 {
    dns::fill_subject(&XdpDoor(context), Headers { offsets, ports: 0 }, case) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_fill_zones(context: *mut xdp_md, case: *mut Case) -> u32 {
    dns::fill_zones(&XdpDoor(context), case) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_act(context: *mut xdp_md, offsets: u64, ports: u32, desk: *mut Desk) -> u32 {
    dns::act(&XdpDoor(context), Headers { offsets, ports }, desk)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_begin_spelling(context: *mut xdp_md, desk: *mut Desk, nonce: u32) -> u32 {
    step::begin_spelling(&XdpDoor(context).frame(), desk, nonce)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_spell(context: *mut xdp_md, desk: *mut Desk, word: u32) -> u32 {
    step::spell(&XdpDoor(context).frame(), desk, word)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_respell(context: *mut xdp_md, desk: *mut Desk, found: u64, word: u32) -> u32 {
    step::respell(&mut XdpDoor(context).frame(), desk, found, word)
}

/// Brings the checksum up to date with a name that was respelled; 0 if the packet is not what it was.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_mend(context: *mut xdp_md, offsets: u64, desk: *const Desk) -> u32 {
    // SAFETY: the callers pass references; the verifier wants the check for null.
    let Some(desk) = (unsafe { desk.as_ref() }) else {
        return 0;
    };
    let packet = Headers { offsets, ports: 0 }.unpack();
    let mut frame = XdpDoor(context).frame();
    let Some((start, end)) = packet.payload(&frame) else {
        return 0;
    };
    // A packet of this host or of a guest may have a checksum that is yet to be completed. What the name says is no part
    // of that.
    match checksum_state(&frame, &packet, end - packet.transport_at) {
        Checksum::Whole => desk.change.apply(&mut frame, start - 2).is_some() as u32,
        Checksum::Partial => 1,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_show(context: *mut xdp_md, desk: *const Desk, kind: u32, weight: u32) -> u32 {
    event::show(&XdpDoor(context).frame(), desk, kind, weight);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_name(context: *mut xdp_md, name_at: u32) -> u64 {
    step::name(&XdpDoor(context).frame(), name_at)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_key(context: *mut xdp_md, question: u64) -> u64 {
    step::key(&XdpDoor(context).frame(), question)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_learn(context: *mut xdp_md, name_at: u32, recent: *mut Recent) -> u32 {
    step::learn(&XdpDoor(context).frame(), name_at, recent)
}

/// Turns the query into its answer; 0 if that fails, with the packet half written. The ports are not handed over: an
/// argument that a function does not read is left unset by the optimiser, which the verifier does not accept.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_answer(context: *mut xdp_md, offsets: u64, remark: u32) -> u32 {
    step::done(dns::answer(&XdpDoor(context), Headers { offsets, ports: 0 }, remark))
}

/// The same for one that took the short way.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_answer_short(context: *mut xdp_md, answered: u32) -> u32 {
    step::done(Answered::unpack(answered).answer(&XdpDoor(context)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_charge_short(context: *mut xdp_md, passed: u32) -> u32 {
    short::charge(&XdpDoor(context), passed)
}
