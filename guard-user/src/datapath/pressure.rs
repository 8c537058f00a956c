//! How full the tables are that forget something when they are.
//!
//! They are arrays, made once: no update of theirs fails. But a line whose places are all in use makes a newcomer forget
//! somebody. Hashes spread evenly over the lines, so that some of them tell of all.

use aya::{
    Ebpf, Pod,
    maps::{Array, MapData},
};
use guard_common::{abi, budget::MeterLine, flow::FlowLine, judge::KeyBucket, marks::MarkLine, time::Ticks};

use super::tables::{LOCKED, MapFault, take};

/// Lines of each table that one look reads. Where a tenth is full, a look says 7 to 13 % as a rule.
const LINES_PER_LOOK: u32 = 128;

/// The tables that have lines, but for that of the keys.
pub(super) struct Lines {
    flows: Array<MapData, FlowLine>,
    marks: Array<MapData, MarkLine>,
    meters: Array<MapData, MeterLine>,
    /// Where the next look begins.
    next: u32,
}

impl Lines {
    /// Takes them out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapFault> {
        Ok(Self {
            flows: take(ebpf, abi::FLOWS)?,
            marks: take(ebpf, abi::MARKS)?,
            meters: take(ebpf, abi::METERS)?,
            next: 0,
        })
    }

    /// The share of full lines of each table, 0 to 1, as far as some of them tell; the next look reads the lines that
    /// follow.
    pub(super) fn pressure(
        &mut self,
        keys: &Array<MapData, KeyBucket>,
        now: Ticks,
    ) -> Result<[(&'static str, f64); 4], MapFault> {
        let first = self.next;
        self.next = first.wrapping_add(LINES_PER_LOOK);
        Ok([
            (
                abi::KEYS,
                share(abi::KEYS, keys, first, LOCKED, |line| line.is_full(now))?,
            ),
            (
                abi::FLOWS,
                share(abi::FLOWS, &self.flows, first, 0, |line| line.is_full(now))?,
            ),
            (
                abi::MARKS,
                share(abi::MARKS, &self.marks, first, LOCKED, |line| line.is_full(now))?,
            ),
            (
                abi::METERS,
                share(abi::METERS, &self.meters, first, LOCKED, |line| line.is_full(now))?,
            ),
        ])
    }
}

/// The share of full ones among the lines from `first` on, which goes round.
fn share<L: Pod>(
    name: &'static str,
    table: &Array<MapData, L>,
    first: u32,
    flags: u64,
    is_full: impl Fn(&L) -> bool,
) -> Result<f64, MapFault> {
    let mut full = 0;
    for line in 0..LINES_PER_LOOK {
        // Tables have a power of two of lines, so that the count may wrap.
        let index = first.wrapping_add(line) % table.len();
        let line = table.get(&index, flags);
        full += u32::from(is_full(&line.map_err(|source| MapFault::Access { name, source })?));
    }
    Ok(f64::from(full) / f64::from(LINES_PER_LOOK))
}
