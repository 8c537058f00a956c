//! The judge, driven step by step with a clock of our own.
//!
//! [`breaker`] tells how a breaker opens, tests and closes, [`bucket`] which keys keep their slot. [`model`] goes through
//! the states that packets can bring a key to, and through the ways in which two CPUs can get between each other. What
//! loops and load of real resolvers look like to the judge is played in `guard-sim`.

mod breaker;
mod bucket;
mod model;

use proptest::prelude::ProptestConfig;

use super::{Hop, KeyState, Rules, Ruling};
use crate::{
    key::Key,
    time::{Ticks, ticks_of_ms},
};

/// The times of the agent's default configuration.
const RULES: Rules = Rules {
    hold_ticks: ticks_of_ms(1_000),
    hold_max_ticks: ticks_of_ms(300_000),
    test_ticks: ticks_of_ms(2_000),
    marks: 0,
};

const KEY: Key = Key(0x5eed);

impl KeyState {
    fn query(&mut self, hop: &Hop, now: Ticks, rules: &Rules) -> Ruling {
        let mut ruling = Ruling::NOTHING;
        self.query_into(hop, now, rules, &mut ruling);
        ruling
    }
}

/// So many runs, and no file of those that failed: each failure prints what it takes to see it again.
fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        cases: count,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
