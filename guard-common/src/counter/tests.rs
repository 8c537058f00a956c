use std::collections::BTreeSet;

use super::*;

const VERDICTS: [Verdict; 4] = [Verdict::Answer, Verdict::Drop, Verdict::WouldAnswer, Verdict::WouldDrop];

#[test]
fn every_verdict_has_a_counter_of_its_own_for_every_reason() {
    let mut indices: BTreeSet<usize> = (0..=Counter::SamplesLost as usize).collect();
    let counters = indices.len();
    for verdict in VERDICTS {
        for reason in Reason::ALL {
            indices.insert(action_index(verdict, reason));
        }
    }
    assert_eq!(indices.len(), counters + VERDICTS.len() * Reason::ALL.len());
    assert!(indices.iter().all(|index| *index < COUNTERS));
}

#[test]
fn what_is_counted_is_what_is_read() {
    let mut counters = Counters::default();
    counters.0[Counter::Trips as usize] = 3;
    counters.0[action_index(Verdict::WouldDrop, Reason::Silenced)] = 5;
    assert_eq!(counters.get(Counter::Trips), 3);
    assert_eq!(counters.action(Verdict::WouldDrop, Reason::Silenced), 5);
    assert_eq!(counters.0.iter().sum::<u64>(), 8);
}
