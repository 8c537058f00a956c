//! The maps of the kernel object, as plain memory.

use guard_common::{
    abi::{
        ALLOWANCE_SLOTS, DEVICE_SLOTS, FLOW_LINES, KEY_BUCKETS, MARK_LINES, METER_LINES, allowance_slot, device_slot,
        flow_line, key_bucket, mark_line, meter_line,
    },
    budget::{LinkBudget, MAX_LINKS, MeterLine},
    counter::{Counter, Counters, RowCount},
    flow::FlowLine,
    judge::KeyBucket,
    key::Key,
    marks::MarkLine,
    policy::MAX_ROWS,
    remedy::Allowance,
};

/// All tables, empty at first. Each look-up masks its index, as the kernel's do: nothing is out of bounds.
pub(crate) struct Tables {
    keys: Vec<KeyBucket>,
    flows: Vec<FlowLine>,
    marks: Vec<MarkLine>,
    allowances: Vec<Allowance>,
    meters: Vec<MeterLine>,
    links: Vec<LinkBudget>,
    rows: Vec<RowCount>,
    counters: Vec<Counters>,
}

impl Tables {
    pub(crate) fn new() -> Self {
        Self {
            keys: vec![KeyBucket::default(); KEY_BUCKETS],
            flows: vec![FlowLine::default(); FLOW_LINES],
            marks: vec![MarkLine::default(); MARK_LINES],
            allowances: vec![Allowance::default(); ALLOWANCE_SLOTS],
            meters: vec![MeterLine::default(); METER_LINES],
            links: vec![LinkBudget::default(); MAX_LINKS],
            rows: vec![RowCount::default(); MAX_ROWS],
            counters: vec![Counters::default(); DEVICE_SLOTS],
        }
    }

    pub(crate) fn bucket(&mut self, key: Key) -> &mut KeyBucket {
        &mut self.keys[key_bucket(key) as usize]
    }

    pub(crate) fn key(&self, key: Key) -> &KeyBucket {
        &self.keys[key_bucket(key) as usize]
    }

    pub(crate) fn flow(&mut self, flow: u64) -> &mut FlowLine {
        &mut self.flows[flow_line(flow) as usize]
    }

    pub(crate) fn marks(&mut self, digest: u64) -> &mut MarkLine {
        &mut self.marks[mark_line(digest) as usize]
    }

    pub(crate) fn allowance(&mut self, tag: u64) -> &mut Allowance {
        &mut self.allowances[allowance_slot(tag) as usize]
    }

    pub(crate) fn meters(&mut self, tag: u64) -> &mut MeterLine {
        &mut self.meters[meter_line(tag) as usize]
    }

    pub(crate) fn link(&mut self, index: u32) -> &mut LinkBudget {
        &mut self.links[index as usize & (MAX_LINKS - 1)]
    }

    pub(crate) fn row(&mut self, index: u32) -> &mut RowCount {
        &mut self.rows[index as usize & (MAX_ROWS - 1)]
    }

    pub(crate) fn rows(&self) -> &[RowCount] {
        &self.rows
    }

    pub(crate) fn counters(&self, ifindex: u32) -> &Counters {
        &self.counters[device_slot(ifindex) as usize]
    }

    pub(crate) fn count(&mut self, ifindex: u32, counter: Counter) {
        self.count_at(ifindex, counter as usize, 1);
    }

    pub(crate) fn count_at(&mut self, ifindex: u32, index: usize, count: u64) {
        self.counters[device_slot(ifindex) as usize].0[index] += count;
    }
}
