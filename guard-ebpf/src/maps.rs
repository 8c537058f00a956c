//! The maps. Layouts and sizes are declared in `guard_common::abi`; the agent pins them by these names.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray, RingBuf},
    macros::btf_map,
};
use guard_common::{
    abi::{ALLOWANCE_SLOTS, DEVICE_SLOTS, EVENT_BYTES, FLOW_LINES, KEY_BUCKETS, MARK_LINES, METER_LINES, SAMPLE_BYTES},
    budget::{LinkBudget, MAX_LINKS, MeterLine, Service},
    counter::{COUNTERS as COUNTER_ROOM, Counter, Counters, RowCount, action_index, link_index},
    event::Event,
    flow::FlowLine,
    judge::{Evidence, KeyBucket, Note, Ruling},
    local::Local,
    marks::MarkLine,
    policy::{Control, MAX_ROWS, Policy},
    remedy::{Allowance, Reason, Verdict},
    sample::Sample,
};

use crate::bench::Desk;

/// The policy in force and the one before or after it.
#[btf_map]
pub(crate) static POLICIES: Array<Policy, 2> = Array::new();

/// What the judge remembers of keys.
#[btf_map]
pub(crate) static KEYS: Array<KeyBucket, KEY_BUCKETS> = Array::new();

/// Queries seen lately.
#[btf_map]
pub(crate) static FLOWS: Array<FlowLine, FLOW_LINES> = Array::new();

/// Marks that are out.
#[btf_map]
pub(crate) static MARKS: Array<MarkLine, MARK_LINES> = Array::new();

/// Answers given lately.
#[btf_map]
pub(crate) static ALLOWANCES: Array<Allowance, ALLOWANCE_SLOTS> = Array::new();

/// Counters for each interface.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counters, DEVICE_SLOTS> = PerCpuArray::new();

/// News for the agent.
#[btf_map]
pub(crate) static EVENTS: RingBuf<Event, EVENT_BYTES> = RingBuf::new();

/// Buckets and shares.
#[btf_map]
pub(crate) static METERS: Array<MeterLine, METER_LINES> = Array::new();

/// The link-local budget of each interface that has one.
#[btf_map]
pub(crate) static LINKS: Array<LinkBudget, MAX_LINKS> = Array::new();

/// What each row of the policy counted, in one of two banks.
#[btf_map]
pub(crate) static ROWS: PerCpuArray<RowCount, { 2 * MAX_ROWS }> = PerCpuArray::new();

/// Which queries are shown, and the name that was read last.
#[btf_map]
pub(crate) static LOCALS: PerCpuArray<Local, 1> = PerCpuArray::new();

/// Queries shown to the agent.
#[btf_map]
pub(crate) static SAMPLES: RingBuf<Sample, SAMPLE_BYTES> = RingBuf::new();

/// Where a packet is judged: a program has 512 bytes of stack, which is not enough for it. At every hook the kernel has
/// switched bottom halves off, so that no other of our programs runs on this CPU meanwhile; what a program sends comes by
/// another hook only after it has ended. (A test run on an old kernel may be interrupted.)
#[btf_map]
pub(crate) static DESKS: PerCpuArray<Desk, 1> = PerCpuArray::new();

/// What is read first, of which only [`control`] gives the address.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.control")]
static mut CONTROL: MaybeUninit<Control> = MaybeUninit::zeroed();

/// What is read first. The kernel writes its address into the programs: no map has to be looked up.
#[inline(always)]
pub(crate) fn control() -> &'static Control {
    let control: *const Control;
    // The optimiser is not to know whose address it is: nothing here writes there, and it would read zeroes.
    // SAFETY: the address of a variable that lives as long as the programs; the agent writes whole words.
    unsafe {
        asm!("{0} = {1} ll", out(reg) control, sym CONTROL, options(pure, nomem, nostack, preserves_flags));
        &*control
    }
}

/// The counters of one interface on this CPU.
#[derive(Clone, Copy)]
pub(crate) struct DeviceCounters(*mut Counters);

impl DeviceCounters {
    #[inline(always)]
    pub(crate) fn of(ifindex: u32) -> Option<Self> {
        COUNTERS.get_ptr_mut(guard_common::abi::device_slot(ifindex)).map(Self)
    }

    /// Adds one to a counter of an interface.
    #[inline(always)]
    pub(crate) fn count_on(ifindex: u32, counter: Counter) {
        if let Some(counters) = Self::of(ifindex) {
            counters.count(counter);
        }
    }

    /// Adds one to the counter of a verdict other than `Pass` on an interface.
    #[inline(always)]
    pub(crate) fn count_action_on(ifindex: u32, verdict: Verdict, reason: Reason) {
        if let Some(counters) = Self::of(ifindex) {
            counters.count_at(action_index(verdict, reason));
        }
    }

    /// Adds one to a counter.
    #[inline(always)]
    pub(crate) fn count(self, counter: Counter) {
        self.count_at(counter as usize);
    }

    /// Counts what a ruling tells.
    #[inline(always)]
    pub(crate) fn count_ruling(self, ruling: &Ruling) {
        if ruling.recirculates {
            self.count(Counter::Recirculations);
        }
        match ruling.note {
            Note::Trip => {
                self.count(Counter::Trips);
                if matches!(ruling.evidence, Evidence::Mark) {
                    self.count(Counter::Proofs);
                }
            }
            Note::Extend => self.count(Counter::Extensions),
            Note::Release => self.count(Counter::Releases),
            Note::None | Note::Suspect => {}
        }
    }

    /// Counts packets to a link-local service.
    #[inline(always)]
    pub(crate) fn count_link(self, service: Service, packets: u32) {
        self.add(link_index(service), packets as u64);
    }

    /// Adds one to the counter at an index.
    #[inline(always)]
    pub(crate) fn count_at(self, index: usize) {
        self.add(index, 1);
    }

    #[inline(always)]
    fn add(self, index: usize, count: u64) {
        let mut index = index;
        // SAFETY: the pointer is that of a live per-CPU slot, the index is masked to its room (where the optimiser, who
        // knows that it is small, cannot leave the mask out: the verifier does not know), and no other of our programs
        // runs on this CPU between the read and the write (see `DESKS`).
        unsafe {
            asm!("{0} &= {1}", inout(reg) index, const COUNTER_ROOM - 1, options(pure, nomem, nostack));
            let counter = (&raw mut (*self.0).0).cast::<u64>().add(index);
            *counter = (*counter).wrapping_add(count);
        }
    }
}
