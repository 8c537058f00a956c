//! A storm on a node that may send 1,024 packets a second to link-local services: dropped by AWS, then held by the guard.

mod act;
mod outcome;
mod plot;
mod table;
mod verdict;

use std::time::Duration;

use anyhow::Result;

use self::verdict::Verdict;
use super::Shown;

/// Runs it, and makes something to show of it.
pub(super) fn show(length: Duration, paint: bool) -> Result<Shown> {
    let outcome = act::run(length)?;
    let verdict = Verdict::of(&outcome);
    Ok(Shown {
        json: outcome.json(&verdict),
        table: table::render(&outcome, &verdict, paint),
        good: verdict.is_held(),
    })
}
