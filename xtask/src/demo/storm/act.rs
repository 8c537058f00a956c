//! Three acts, measured: calm, the storm without the guard, and the storm with it.

use std::time::Duration;

use anyhow::Result;
use guard_tests::{
    guard::Mode,
    storm::{self, GOOD_CLIENTS, Storm, StormReport},
};

use super::outcome::Outcome;
use crate::{demo::told::Told, host, number, progress::Progress};

/// Enough for every client to have asked some times.
const CALM: Duration = Duration::from_secs(2);

pub(crate) fn run(length: Duration) -> Result<Outcome> {
    let (programs, kernel) = (storm::versions()?, host::kernel()?);

    let progress = Progress::start(format!(
        "calm: {GOOD_CLIENTS} good clients, metadata and time; no sweep, no guard"
    ));
    let calm = Storm::calm(CALM).run()?;
    progress.done(&service(&calm));

    let progress = Progress::start("without dnsguard: one client sweeps 104.16.0.0/12 for names");
    let free = Storm::free(length).run()?;
    progress.done(&format!("{}; {}", dropped(&free), service(&free)));

    let progress = Progress::start("with dnsguard: the same storm, a fresh node");
    let held = Storm::guarded(storm::link_local(Mode::Enforce), length).run()?;
    progress.done(&format!("{}; {}", dropped(&held), service(&held)));

    Ok(Outcome {
        told: Told::from_events(&held.events, "")?,
        programs,
        kernel,
        length,
        calm,
        free,
        held,
    })
}

fn service(report: &StormReport) -> String {
    let (good, node) = (report.good(), report.imds_ntp());
    format!(
        "good DNS {} answered, metadata and time {}",
        number::share(good.answered_ratio()),
        number::share(node.answered_ratio())
    )
}

fn dropped(report: &StormReport) -> String {
    format!("the policer dropped {}", number::packets(report.dropped()))
}
