//! A real loop between real resolvers: burning, then cut.

mod act;
mod free;
mod guarded;
mod outcome;
mod pace;
mod pair;
mod sight;
mod table;
mod turns;
mod verdict;

use std::time::Duration;

use anyhow::Result;

pub(crate) use self::pair::Pair;

use self::verdict::Verdict;
use super::Shown;

/// Runs it, and makes something to show of it.
pub(super) fn show(pair: Pair, length: Duration, paint: bool) -> Result<Shown> {
    let outcome = act::run(pair, length)?;
    let verdict = Verdict::of(&outcome);
    Ok(Shown {
        json: outcome.json(&verdict),
        table: table::render(&outcome, &verdict, paint),
        good: verdict.is_cut(),
    })
}
