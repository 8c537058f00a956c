//! A flood of one name, and the guard's limit for any name: what the limit allows gets through, and nobody else is hurt.

use std::time::Duration;

use anyhow::{Result, ensure};
use guard_tests::{
    flood::{Hook, LIMIT, Pace, Place, Protection, Site, ask_all},
    programs,
};

/// Far above the limit, and so slow that the queue of a veth, 256 packets, outlasts a pause of its CPU.
const FLOOD_PPS: u32 = 5_000;

const LENGTH: Duration = Duration::from_secs(3);

/// By how much the flood's beginning and end may be misread on a busy machine.
const CLOCK: Duration = Duration::from_millis(150);

/// What a limit may be off by.
const EXACTNESS: f64 = 0.02;

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_flood_of_one_name_is_limited_and_other_names_are_answered_everywhere() -> Result<()> {
    programs::provide(Site::PROGRAMS)?;
    programs::provide(&["nft"])?;
    let site = Site::start(Protection::Guard(Hook::Auto))?;
    let passed = site.count_flooded()?;
    let flood = site.flood(Pace::PerSecond(FLOOD_PPS))?;
    let service = ask_all(&site, 50, LENGTH)?;
    let sent = flood.stop()?;
    let passed = passed.read()?;

    // The bucket is full at first, and fills at the pace of the limit.
    let allowed = f64::from(LIMIT) * (1.0 + sent.elapsed.as_secs_f64());
    println!("{sent:?}: {passed} passed, {allowed:.0} allowed");
    ensure!(sent.packets as f64 > 2.0 * allowed, "the flood was none: {sent:?}");
    ensure!(
        (passed as f64 - allowed).abs() <= allowed * EXACTNESS + f64::from(LIMIT) * CLOCK.as_secs_f64(),
        "{passed} of {} passed and not {allowed:.0}",
        sent.packets
    );
    for (place, report) in Place::ALL.into_iter().zip(&service.places) {
        ensure!(report.answered == report.sent, "{place:?}: {report:?}");
    }
    Ok(())
}
