//! What the agent says of its tables, while more names are out than they have room for.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_tests::{
    Namespace, Question,
    guard::{Guard, GuardOptions, Mode},
    question::RecordType,
};

/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);
/// A key that nobody answers is remembered for 10 s: a sender that makes 8,000 names a second fills every tenth line.
const PATIENCE: Duration = Duration::from_secs(40);
/// Queries between two looks.
const BATCH: u32 = 10_000;
/// Nobody listens there.
const SERVER: ([u8; 4], u16) = ([127, 0, 0, 1], 53);

#[test]
#[ignore = "needs root: cargo xtask test"]
fn names_that_nobody_answers_crowd_the_maps() -> Result<()> {
    let namespace = Namespace::new()?;
    let options = GuardOptions {
        mode: Mode::Observe,
        ..GuardOptions::enforce(&["lo"])
    };
    let guard = Guard::start(&namespace, &options)?;
    guard.wait_ready(START)?;
    for map in ["KEYS", "FLOWS", "MARKS", "METERS"] {
        ensure!(
            pressure(&guard, map)? == Some(0.0),
            "{map}: {:?}",
            pressure(&guard, map)?
        );
    }

    let client = namespace.udp(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let mut query = Question::new("00000000.example.", RecordType::A)?.query(7)?;
    let name = 13..21;
    assert_eq!(&query[name.clone()], b"00000000");
    let deadline = Instant::now() + PATIENCE;
    let mut number = 0_u32;
    loop {
        for _ in 0..BATCH {
            number += 1;
            query[name.clone()].copy_from_slice(format!("{number:08x}").as_bytes());
            client.send_to(&query, SocketAddr::from(SERVER))?;
        }
        let crowded = |map| Ok::<_, anyhow::Error>(pressure(&guard, map)?.is_some_and(|share| share > 0.1));
        if crowded("KEYS")? && crowded("FLOWS")? {
            break;
        }
        ensure!(Instant::now() < deadline, "after {number} names:\n{}", guard.metrics()?);
        thread::yield_now();
    }
    // There is no budget, and nothing suspect.
    for map in ["MARKS", "METERS"] {
        ensure!(
            pressure(&guard, map)? == Some(0.0),
            "{map}: {:?}",
            pressure(&guard, map)?
        );
    }
    guard.stop()
}

/// What the agent says of a map.
fn pressure(guard: &Guard, map: &str) -> Result<Option<f64>> {
    let series = format!("dnsguard_map_pressure_ratio{{map=\"{map}\"}} ");
    let metrics = guard.metrics()?;
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    Ok(value.map(str::parse).transpose()?)
}
