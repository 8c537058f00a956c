//! How far memory is: what no program is faster than that looks one of many keys up.

use std::{hint::black_box, io};

use guard_common::{
    abi::{FLOW_LINES, KEY_BUCKETS},
    flow::FlowLine,
    judge::KeyBucket,
};
use guard_sim::random::Random;

use super::{Spread, rig::processor_time};

/// Bytes of the tables in which a query of any key is looked up.
pub const TABLES: usize = KEY_BUCKETS * size_of::<KeyBucket>() + FLOW_LINES * size_of::<FlowLine>();

/// Steps of one round.
const STEPS: u32 = 1 << 19;

/// A cache line that tells which one is read next.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line {
    next: u32,
}

/// What it takes to read a cache line of so many bytes of memory, in ns. Which one comes next stands in the one before,
/// and all are drawn at random: none can be fetched ahead. The first round does not count.
///
/// # Errors
///
/// The kernel does not tell the processor time of a thread.
pub fn line_of_memory(bytes: usize, rounds: usize) -> io::Result<Spread> {
    let lines = circle(bytes / size_of::<Line>());
    let mut taken = Vec::with_capacity(rounds);
    let mut at = 0;
    for round in 0..=rounds {
        let before = processor_time()?;
        for _ in 0..STEPS {
            at = lines[at as usize].next;
        }
        black_box(at);
        let ns = processor_time()?.saturating_sub(before).as_nanos() as f64 / f64::from(STEPS);
        if round > 0 {
            taken.push(ns);
        }
    }
    Ok(Spread::of(taken))
}

/// So many lines, each of which leads to another one drawn at random, until all have been read.
fn circle(count: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = (0..count as u32).map(|next| Line { next }).collect();
    let mut random = Random(1);
    // Sattolo's shuffle leaves one circle.
    for last in (1..count).rev() {
        let other = random.below(last as u64) as usize;
        lines.swap(last, other);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_before_one_is_read_again() {
        let lines = circle(1_000);
        let mut seen = vec![false; lines.len()];
        let mut at = 0;
        for _ in 0..lines.len() {
            at = lines[at].next as usize;
            assert!(!std::mem::replace(&mut seen[at], true));
        }
        assert_eq!((at, size_of::<Line>()), (0, 64));
    }
}
