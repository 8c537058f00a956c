//! The judge, driven step by step by a small network of our own with a clock of our own.
//!
//! [`world`] has the wire, the guard and the clock; [`nodes`] the forwarders and clients, as they were measured.

mod breaker;
mod bucket;

use proptest::prelude::ProptestConfig;

use super::Rules;
use crate::{key::Key, time::ticks_of_ms};

/// The times of the agent's default configuration.
const RULES: Rules = Rules {
    hold_ticks: ticks_of_ms(1_000),
    hold_max_ticks: ticks_of_ms(300_000),
    test_ticks: ticks_of_ms(2_000),
    marks: 0,
};

const KEY: Key = Key(0x5eed);

/// So many runs, and no file of those that failed: each failure prints what it takes to see it again.
fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        cases: count,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
