//! The kernel's tables and ring buffers are full.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{
    client::ask,
    flood::Asked,
    guard::Guard,
    knob,
    question::{Question, RecordType, ResponseCode},
    siege::Siege,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{GROWTH_KIB, LONG_LEASE, MOMENT, SOON, machine, wait_for};

/// A loop for each of so many names: some events each, and more than the ring buffer has room for.
const LOOPED_NAMES: usize = 250;

/// Seconds for which they stay full, unless `DNSGUARD_FULL` says otherwise.
const STAYS: u64 = 1;

/// From here on a table is full: somebody leaves for nearly everyone who comes.
const FULL: f64 = 0.8;
/// Up to here hardly anybody does.
const SPARED: f64 = 0.1;

/// How full a table is, 0 to 1.
fn pressure(guard: &Guard, map: &str) -> Result<f64> {
    let metrics = guard.metrics()?;
    let wanted = format!("dnsguard_map_pressure_ratio{{map=\"{map}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&wanted));
    Ok(line.with_context(|| format!("no pressure of {map}"))?.parse()?)
}

/// Waits until these tables are full, and as long as they are to stay so; how full they are.
fn full<const COUNT: usize>(guard: &Guard, maps: [&str; COUNT]) -> Result<[f64; COUNT]> {
    let mut full = [0.0; COUNT];
    let waited = wait_for(&format!("{maps:?} are full"), || {
        for (share, map) in full.iter_mut().zip(maps) {
            *share = pressure(guard, map)?;
        }
        Ok(full.iter().all(|share| *share > FULL))
    });
    waited.with_context(|| format!("{maps:?}: {full:?}"))?;
    stay_full()?;
    Ok(full)
}

/// For as long as tables and ring buffers stay full.
fn stay_full() -> Result<()> {
    sleep(Duration::from_secs(knob("DNSGUARD_FULL", STAYS)?));
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn full_tables_forget_and_harm_nobody() -> Result<()> {
    let _machine = machine();
    let siege = Siege::lay(LONG_LEASE)?;
    // One bucket for each name, so that the meters fill as well.
    let mut options = siege.options("");
    options.extra_toml.push_str(
        "[[budget]]\nname = \"each\"\nscope = \"key\"\ndirection = \"in\"\nlimit = 50000\nburst = 50000\naction = \"drop\"\n",
    );
    let guard = siege.guarded(&options)?;
    // What is made once has its size after the first flood.
    let load = siege.load_of(Asked::RandomNames)?;
    sleep(MOMENT * 2);
    load.end()?.unharmed()?;
    let before = guard.process().rss_kib()?;

    let load = siege.load_of(Asked::RandomNames)?;
    let [meters] = full(&guard, ["METERS"])?;
    let keys = pressure(&guard, "KEYS")?;
    let toll = load.end()?;
    println!("METERS full ({meters:.2}), KEYS not ({keys:.2}): {toll}");
    toll.unharmed()?;
    ensure!(keys < SPARED, "what is shed takes {keys} of the keys");

    // What is shed takes no key's place, and is not waited for; what passes does, and is.
    let (few, all) = ("limit = 1000\nburst = 1000\n", "limit = 1000000\nburst = 1000000\n");
    ensure!(options.extra_toml.contains(few), "{}", options.extra_toml);
    guard.rewrite(&options.extra_toml.replace(few, all))?;
    ensure!(guard.say(&["reload"])?.code == Some(0), "{}", guard.process().log());
    let load = siege.load_of(Asked::RandomNames)?;
    let shares = full(&guard, ["KEYS", "FLOWS"])?;
    let toll = load.end()?;
    let after = guard.process().rss_kib()?;
    println!("KEYS and FLOWS full ({shares:.2?}), {before} KiB, then {after} KiB: {toll}");
    toll.nobody_lost()?;
    toll.always_held()?;
    ensure!(after < before + GROWTH_KIB, "{before} KiB, then {after} KiB");
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn full_ring_buffers_cost_events_and_nothing_else() -> Result<()> {
    let _machine = machine();
    let siege = Siege::lay(LONG_LEASE)?;
    let guard = siege.guarded(&siege.options(""))?;
    let pid = Pid::from_raw(i32::try_from(guard.process().pid())?);
    let (node, server) = (siege.node(), siege.looped().server());
    let load = siege.load()?;
    // From now on nobody reads.
    kill(pid, Signal::SIGSTOP)?;
    let name = |number: usize| Question::new(&format!("another-loop-{number}.consul."), RecordType::A);
    let held = |number: usize| -> Result<()> {
        let reply = ask(node, server, &name(number)?, 1, SOON)?;
        ensure!(
            reply.rcode() == Some(ResponseCode::ServFail),
            "loop {number}: {reply:?}"
        );
        Ok(())
    };
    for number in 0..LOOPED_NAMES {
        ask(node, server, &name(number)?, 2, Duration::from_millis(10))?;
    }
    // Those of whom nobody could be told are held as well.
    for number in (0..LOOPED_NAMES).step_by(20) {
        held(number)?;
    }
    stay_full()?;
    let toll = load.end()?;
    kill(pid, Signal::SIGCONT)?;
    let lost = guard.wait_event("lost", SOON)?;
    let count = guard.wait_counter("dnsguard_events_lost_total", &[], 1, SOON)?;
    println!("{lost}; {count} by the metric: {toll}");
    toll.unharmed()?;
    // Whoever trips from now on is told.
    let before = guard.events_of("trip")?.len();
    ask(node, server, &name(LOOPED_NAMES)?, 3, Duration::from_millis(100))?;
    wait_for("a trip is told", || Ok(guard.events_of("trip")?.len() > before))?;
    guard.stop()
}
