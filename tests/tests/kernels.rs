//! What holds on any kernel, also on a slow and an old one: the hooks take a program or the agent says what it does
//! instead, and a loop is cut.
//!
//! `cargo xtask test vm` runs these in guests with other kernels, and makes a table of what they print behind
//! `measured:`.

use std::{
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use guard_tests::{
    Namespace, Prober,
    guard::{Guard, GuardOptions, binary},
    programs,
    topology::Topology,
    veth,
};
use nix::sys::utsname::uname;
use serde_json::{Value, json};

/// An emulated machine verifies three programs within this.
const START: Duration = Duration::from_secs(60);
/// What takes no time is there long before.
const PATIENCE: Duration = Duration::from_secs(20);
/// The wire, on both sides.
const WIRE: &str = "veth0";
/// The oldest kernel that dnsguard promises to run on.
const OLDEST: (u32, u32) = (5, 15);
/// The first one with tcx.
const TCX: (u32, u32) = (6, 6);
/// The most recirculated queries that may pass before the loop is cut.
const RECIRCULATED: u64 = 32;
/// Packets that a loop of two dnsmasq makes, when nobody cuts it, before it counts as one.
const ABLAZE: u64 = 1_000;

/// One test at a time: they count packets.
static MACHINE: Mutex<()> = Mutex::new(());

/// Major and minor of the kernel that this runs on.
fn version() -> Result<(u32, u32)> {
    let name = uname()?;
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse().ok());
    match (next(), next()) {
        (Some(major), Some(minor)) => Ok((major, minor)),
        _ => bail!("{release} is no version of Linux"),
    }
}

/// A line for the table of kernels.
fn measured(what: &str, value: &Value) {
    println!("measured: {}", json!({ what: value }));
}

/// An agent on one interface of a wire, and what it says about how it is attached; or why it did not start.
fn attached(namespace: &Namespace, device: &str, xdp: &str, tc: &str) -> Result<Vec<Value>> {
    let options = GuardOptions {
        extra_toml: format!("[attach]\nxdp = \"{xdp}\"\ntc = \"{tc}\"\n"),
        ..GuardOptions::enforce(&[device])
    };
    let guard = Guard::start(namespace, &options)?;
    guard.wait_ready(START)?;
    let attached = guard.events_of("attach")?;
    guard.stop()?;
    Ok(attached)
}

/// The method by which a hook was attached, and the agent's reason.
fn method(attached: &[Value], hook: &str) -> Result<(String, String)> {
    let event = attached.iter().find(|event| event["hook"] == hook);
    let event = event.with_context(|| format!("nothing at {hook}: {attached:?}"))?;
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    Ok((text("method"), text("reason")))
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_hook_takes_a_program_or_the_agent_says_what_it_does_instead() -> Result<()> {
    let _machine = MACHINE.lock();
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    veth::veth(&here, &there, WIRE, &[("10.53.0.1/24", "10.53.0.2/24")])?;
    let has_tcx = version()? >= TCX;
    let best = if has_tcx { "tcx" } else { "clsact" };

    let mut hooks = serde_json::Map::new();
    let mut note = |what: &str, method: String| hooks.insert(what.to_owned(), method.into());
    for (xdp, tc, what, expected) in [
        ("driver", "auto", "XDP in the driver", ["driver", best]),
        ("generic", "clsact", "XDP generic", ["generic", "clsact"]),
    ] {
        let attached = attached(&here, WIRE, xdp, tc).with_context(|| format!("xdp = {xdp}, tc = {tc}"))?;
        let (incoming, _) = method(&attached, "xdp")?;
        let (outgoing, reason) = method(&attached, "tc-egress")?;
        ensure!([&*incoming, &*outgoing] == expected, "{attached:?}");
        if tc == "auto" && !has_tcx {
            ensure!(reason.contains("tcx"), "why no tcx? {reason}");
        }
        note(what, incoming);
        if tc == "auto" {
            note("TC", outgoing);
        }
    }
    let attached = attached(&here, "lo", "auto", "auto")?;
    ensure!(attached.len() == 1, "lo is looked at once: {attached:?}");
    let (on_lo, _) = method(&attached, "tc-ingress")?;
    ensure!(on_lo == best, "{attached:?}");
    note("lo", on_lo);
    measured("hooks", &Value::Object(hooks));
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn tcx_and_nothing_else_starts_or_says_that_the_kernel_has_none() -> Result<()> {
    let _machine = MACHINE.lock();
    let here = Namespace::new()?;
    let outcome = attached(&here, "lo", "off", "tcx");
    if version()? >= TCX {
        let (method, _) = method(&outcome?, "tc-ingress")?;
        ensure!(method == "tcx", "{method}");
        return Ok(());
    }
    let said = format!("{:#}", outcome.err().context("this kernel has no tcx, and it started")?);
    ensure!(
        said.contains("came with 6.6"),
        "it does not say which kernel has tcx: {said}"
    );
    Ok(())
}

/// The kernel's own word for what is wrong is no use to an operator, and a verifier's log even less.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_agent_starts_or_says_in_one_line_why_this_kernel_will_not_do() -> Result<()> {
    let _machine = MACHINE.lock();
    let here = Namespace::new()?;
    let options = GuardOptions::enforce(&["lo"]);
    let guard = Guard::start(&here, &options)?;
    if version()? >= OLDEST {
        guard.wait_ready(START)?;
        measured("starts", &json!("yes"));
        return guard.stop();
    }
    let status = guard.process().wait(START)?;
    ensure!(status.code() == Some(1), "{status}");
    let said = guard.process().log();
    println!("{said}");
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines.len() == 1, "one line was to be expected:\n{said}");
    let release = uname()?.release().to_string_lossy().into_owned();
    ensure!(
        said.contains(&release) && said.contains("5.15 or newer"),
        "it names neither this kernel nor the one it needs: {said}"
    );
    ensure!(guard.events_of("ready")?.is_empty(), "{:?}", guard.events()?);
    measured("starts", &json!(said.trim()));

    // The doctor says the same.
    let mut doctor = Command::new(binary()?);
    doctor.args(["doctor", "--output", "json", "--seconds", "0"]);
    let told = guard.say_by(doctor)?;
    ensure!(told.out.contains("is too old"), "{}{}", told.out, told.err);
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_real_loop_is_cut_and_other_names_are_answered() -> Result<()> {
    let _machine = MACHINE.lock();
    let topology = Topology::DEMO;
    programs::provide(topology.programs())?;

    // Free, it burns: else the rest would show nothing.
    let free = topology.start()?.burn(Duration::from_millis(500), PATIENCE)?;
    ensure!(
        free.caught_fire_s.is_some(),
        "it does not loop without a guard: {free:?}"
    );

    let built = topology.start()?;
    let guard = Guard::start(built.namespace(), &GuardOptions::enforce(&[built.device()]))?;
    guard.wait_ready(START)?;
    let (before, start) = (built.packets()?, Instant::now());
    built.ignite()?;
    let trip = guard.wait_event("trip", PATIENCE).context("the loop was not found")?;
    let looped = built.packets()? - before;
    ensure!(looped < ABLAZE, "{looped} packets went round in {:?}", start.elapsed());
    let recirculated = trip["recirculated"].as_u64().context("how many went round")?;
    ensure!(recirculated <= RECIRCULATED, "{trip}");

    let others = Prober::run(built.namespace(), built.server(), built.bystanders(), 20, PATIENCE / 10)?;
    ensure!(
        others.answered == others.sent && others.sent > 0,
        "others were not answered: {others:?}"
    );

    // What was counted is what happened: each query of the others twice, and the loop was held.
    let lo = ["device=\"lo\""];
    guard.wait_counter(
        "dnsguard_dns_queries_total",
        &lo,
        others.queries + recirculated,
        PATIENCE,
    )?;
    guard.wait_counter("dnsguard_trips_total", &lo, 1, PATIENCE)?;
    guard.wait_counter("dnsguard_actions_total", &lo, 1, PATIENCE)?;
    measured(
        "loop",
        &json!({ "proof": trip["proof"], "recirculated": recirculated, "free": free.peak_pps, "packets": looped }),
    );
    guard.stop()
}
