//! A minute of everything at once. `cargo xtask soak` goes on for longer.

use std::{sync::atomic::AtomicBool, time::Duration};

use anyhow::{Result, ensure};
use guard_tests::{
    programs,
    soak::{self, Limits, Sample, Soak},
};

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn every_packet_is_accounted_for_while_everything_comes_and_goes() -> Result<()> {
    programs::provide(&soak::PROGRAMS)?;
    let soak = Soak {
        duration: Duration::from_secs(60),
        seed: 1,
        spell: Duration::from_secs(6),
        // How long a scrape takes, and whether a client is patient enough, a busy machine decides.
        limits: Limits {
            scrape_ms: None,
            good: None,
            ..Limits::default()
        },
    };
    let tell = |sample: &Sample| println!("{}", serde_json::json!(sample));
    let outcome = soak::run(&soak, &AtomicBool::new(false), &tell)?;
    for finding in &outcome.findings {
        println!("{}: {}: {}", finding.what, finding.rule, finding.figure);
    }
    ensure!(outcome.holds(), "{outcome:#?}");
    Ok(())
}
