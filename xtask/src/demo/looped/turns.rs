//! With and without a loop in turns, for a p99 that is fair.
//!
//! A p99 depends on what else the machine does, and that changes from one second to the next. So two labs live at the same
//! time, one of them left in peace, and are looked at in turns; each turn gives a ratio of two values that were taken
//! within a moment of each other, and the median of those ratios does not mind a few bad moments.

use std::time::Duration;

use anyhow::Result;
use guard_tests::topology::Loop;

use super::{
    guarded::Guarded,
    sight::{Sight, ratio},
};

/// An odd number, so that a median is a value that was measured. With 9, two equal labs on a busy machine are almost
/// never taken for different ones.
const TURNS: usize = 9;

/// One look at each lab.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    /// Nothing loops, no guard.
    pub(crate) quiet: Sight,
    /// The query that loops is asked, the guard is there.
    pub(crate) guarded: Sight,
}

/// As many turns as a fair p99 takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns(pub(crate) Vec<Turn>);

impl Turns {
    /// Looks at each lab for `length` in every turn. Now one is first, now the other.
    pub(crate) fn take(quiet: &Loop, guarded: &Guarded, length: Duration) -> Result<Self> {
        let turn = |number: usize| {
            let early = number.is_multiple_of(2).then(|| Sight::take(quiet, length));
            let guarded = guarded.ask_again(length)?;
            let quiet = early.unwrap_or_else(|| Sight::take(quiet, length))?;
            Ok(Turn { quiet, guarded })
        };
        (0..TURNS).map(turn).collect::<Result<_>>().map(Self)
    }

    /// How much longer the slowest good clients waited, 1.0 for not at all; None if too few were answered to tell.
    pub(crate) fn p99_ratio(&self) -> Option<f64> {
        let ratio_of = |turn: &Turn| {
            let (quiet, guarded) = (turn.quiet.report.p99_us, turn.guarded.report.p99_us);
            (quiet > 0 && guarded > 0).then(|| ratio(guarded as f64, quiet as f64))
        };
        let mut ratios: Vec<f64> = self.0.iter().map(ratio_of).collect::<Option<_>>()?;
        ratios.sort_unstable_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied()
    }

    pub(crate) fn p99_quiet_us(&self) -> u64 {
        median(self.0.iter().map(|turn| turn.quiet.report.p99_us))
    }

    pub(crate) fn p99_guarded_us(&self) -> u64 {
        median(self.0.iter().map(|turn| turn.guarded.report.p99_us))
    }
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(times: &[(u64, u64)]) -> Turns {
        let sight = |p99_us| {
            let mut sight = Sight::default();
            sight.report.p99_us = p99_us;
            sight
        };
        let turn = |&(quiet, guarded)| Turn {
            quiet: sight(quiet),
            guarded: sight(guarded),
        };
        Turns(times.iter().map(turn).collect())
    }

    #[test]
    fn bad_moments_do_not_move_the_ratio() {
        // The machine was busy from the second turn to the fourth.
        let turns = turns(&[(400, 440), (400, 4_000), (4_000, 4_400), (4_000, 400), (400, 440)]);
        assert_eq!(turns.p99_ratio(), Some(1.1));
        assert_eq!((turns.p99_quiet_us(), turns.p99_guarded_us()), (400, 440));
    }

    #[test]
    fn without_answers_there_is_no_ratio() {
        assert_eq!(turns(&[(400, 440), (400, 0), (400, 440)]).p99_ratio(), None);
        assert_eq!(Turns::default().p99_ratio(), None);
    }
}
