//! Budgets against exact references, with a clock that the test owns.

mod link;
mod meter;
mod rate;
mod row;

use crate::key::Secret;

const SECOND: u64 = 1_000_000_000;

const SECRET: Secret = Secret::OF_TESTS;

/// Numbers that any run repeats.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
