//! What kernel object and agent agree on: names and sizes of the maps, and their version.

/// Goes up with every change to a layout or to a map: pins of another version are never reused.
pub const VERSION: u32 = 9;

/// Global variable (u32): what an interface's index is given on top in the network namespace that the programs are for, see
/// [`crate::case::NAMESPACE_SHIFT`].
pub const NAMESPACE: &str = "NAMESPACE";

/// Array of one [`crate::policy::Control`]: a variable of the programs, see [`map_in_object`].
pub const CONTROL: &str = "CONTROL";
/// Array of two [`crate::policy::Policy`].
pub const POLICIES: &str = "POLICIES";
/// Array of [`crate::judge::KeyBucket`].
pub const KEYS: &str = "KEYS";
/// Array of [`crate::flow::FlowLine`].
pub const FLOWS: &str = "FLOWS";
/// Array of [`crate::marks::MarkLine`].
pub const MARKS: &str = "MARKS";
/// Array of [`crate::remedy::Allowance`].
pub const ALLOWANCES: &str = "ALLOWANCES";
/// Per-CPU array of [`crate::counter::Counters`]; the index is the interface index modulo [`DEVICE_SLOTS`].
pub const COUNTERS: &str = "COUNTERS";
/// Ring buffer of [`crate::event::Event`].
pub const EVENTS: &str = "EVENTS";

/// Array of [`crate::budget::MeterLine`].
pub const METERS: &str = "METERS";
/// Array of [`crate::budget::LinkBudget`].
pub const LINKS: &str = "LINKS";
/// Per-CPU array of [`crate::counter::RowCount`], in two banks of [`crate::policy::MAX_ROWS`]; the index is that of
/// [`crate::policy::Policy::row_slot`].
pub const ROWS: &str = "ROWS";
/// Per-CPU array of one [`crate::local::Local`].
pub const LOCALS: &str = "LOCALS";
/// Ring buffer of [`crate::sample::Sample`].
pub const SAMPLES: &str = "SAMPLES";
/// Buckets of seven keys: 8 MiB.
pub const KEY_BUCKETS: usize = 16_384;
/// Lines of eight flows: 1 MiB.
pub const FLOW_LINES: usize = 16_384;
/// Lines of six marks: 256 KiB.
pub const MARK_LINES: usize = 2_048;
/// Allowances: 128 KiB.
pub const ALLOWANCE_SLOTS: usize = 16_384;
/// Interfaces that are counted apart: 256 KiB for each CPU.
pub const DEVICE_SLOTS: usize = 256;
/// Bytes of the ring buffer: some 700 events.
pub const EVENT_BYTES: usize = 256 * 1_024;
/// Lines of five meters: 2 MiB.
pub const METER_LINES: usize = 16_384;
/// Bytes of the ring buffer for samples: some 3,000.
pub const SAMPLE_BYTES: usize = 1_024 * 1_024;

/// The XDP program, for packets that come in.
pub const PROGRAM_XDP: &str = "dnsguard_xdp";
/// The TC program for packets that come in.
pub const PROGRAM_INGRESS: &str = "dnsguard_in";
/// The TC program for packets that go out.
pub const PROGRAM_EGRESS: &str = "dnsguard_out";

/// What the map that is pinned by this name is called in the object. One that holds a variable has the name of its section
/// there, and no pin can have that: it has a dot (`bpf_lookup`, kernel/bpf/inode.c).
pub fn map_in_object(name: &'static str) -> &'static str {
    if name == CONTROL { ".bss.control" } else { name }
}

/// The bucket of `KEYS` in which a key lives.
#[inline(always)]
pub const fn key_bucket(key: crate::key::Key) -> u32 {
    (key.0 >> 32) as u32 & (KEY_BUCKETS as u32 - 1)
}

/// The line of `FLOWS` in which a flow with this digest lives.
#[inline(always)]
pub const fn flow_line(digest: u64) -> u32 {
    (digest >> 32) as u32 & (FLOW_LINES as u32 - 1)
}

/// The line of `MARKS` in which a mark with this digest lives.
#[inline(always)]
pub const fn mark_line(digest: u64) -> u32 {
    (digest >> 32) as u32 & (MARK_LINES as u32 - 1)
}

/// The line of `METERS` in which a meter with this tag lives.
#[inline(always)]
pub const fn meter_line(tag: u64) -> u32 {
    (tag >> 32) as u32 & (METER_LINES as u32 - 1)
}

/// The slot of `ALLOWANCES` for a client and a key, from a digest of both.
#[inline(always)]
pub const fn allowance_slot(digest: u64) -> u32 {
    (digest >> 32) as u32 & (ALLOWANCE_SLOTS as u32 - 1)
}

/// The slot of `COUNTERS` of an interface. Each network namespace has a `lo` of index 1: they are told apart.
#[inline(always)]
pub const fn device_slot(ifindex: u32) -> u32 {
    (ifindex + 83 * (ifindex >> crate::case::NAMESPACE_SHIFT)) & (DEVICE_SLOTS as u32 - 1)
}

/// Lets the agent hand the shared layouts to aya's typed maps.
#[cfg(feature = "user")]
mod user {
    use crate::{
        budget::{LinkBudget, MeterLine},
        counter::{Counters, RowCount},
        flow::FlowLine,
        judge::KeyBucket,
        local::Local,
        marks::MarkLine,
        policy::{Control, Policy},
        remedy::Allowance,
    };

    macro_rules! plain_data {
        ($($type:ty)*) => {
            $(
                // SAFETY: `repr(C)` or `repr(transparent)`, made of integers only, without padding, `Copy` and
                // `'static`: every bit pattern of its length is a value.
                unsafe impl aya::Pod for $type {}
            )*
        };
    }

    plain_data!(Allowance Control Counters FlowLine KeyBucket LinkBudget Local MarkLine MeterLine Policy RowCount);
}
