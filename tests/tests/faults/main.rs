//! What breaks, and what then happens: each fault under a flood of 100,000 packets/s, with real resolvers behind the
//! guard. Nobody who does nothing wrong may lose a query; what was held stays held; and the operator is told.
//!
//! `docs/RELIABILITY.md` has the table.

mod agent;
mod hooks;
mod host;
mod interfaces;
mod tables;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use guard_tests::{guard::Guard, wait};

/// The shortest lease that can be set.
const LEASE: Duration = Duration::from_secs(5);
/// One that outlasts every test.
const LONG_LEASE: Duration = Duration::from_secs(300);
/// What the agent does by itself, it has done by then.
const SOON: Duration = Duration::from_secs(20);
/// What a fault may cost the agent in memory.
const GROWTH_KIB: u64 = 5 * 1_024;
/// For what happens at once, to be seen in more than one look.
const MOMENT: Duration = Duration::from_millis(500);

/// One test at a time: each takes the whole machine.
static MACHINE: Mutex<()> = Mutex::new(());

fn machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until it is so.
fn wait_for(what: &str, is_so: impl FnMut() -> Result<bool>) -> Result<Duration> {
    wait(what, SOON, is_so)
}

/// Waits until the agent says something in its log.
fn wait_for_log(guard: &Guard, words: &str) -> Result<Duration> {
    let waited = wait_for(words, || Ok(guard.process().log().contains(words)));
    waited.map_err(|error| error.context(guard.process().log()))
}

/// What `dnsguard status` answers, as JSON. It has something to say: a loop is held.
fn status(guard: &Guard) -> Result<serde_json::Value> {
    guard.say(&["status", "-o", "json"])?.json(3)
}
