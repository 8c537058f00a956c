//! Interfaces that go, come, change their name, and change their network.

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use guard_tests::{
    Namespace,
    guard::Guard,
    siege::{Siege, WIRE},
    veth::veth,
};

use crate::{LONG_LEASE, MOMENT, machine, wait_for};

/// Another wire of the node.
const SPARE: &str = "spare0";

/// Events of this kind about an interface so far.
fn told(guard: &Guard, kind: &str, device: &str) -> Result<usize> {
    let events = guard.events_of(kind)?;
    Ok(events.iter().filter(|event| event["device"] == device).count())
}

fn wait_told(guard: &Guard, kind: &str, device: &str, count: usize) -> Result<Duration> {
    wait_for(&format!("{count} of {kind} for {device}"), || {
        Ok(told(guard, kind, device)? == count)
    })
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn interfaces_that_come_go_and_move_cost_nobody_else_anything() -> Result<()> {
    let _machine = machine();
    let siege = Siege::lay(LONG_LEASE)?;
    let (node, beyond) = (siege.node(), Namespace::new()?);
    let guard = siege.guarded(&siege.options_for(&["lo", WIRE, "/^spare[0-9]$/"], ""))?;
    let lay = || veth(node, &beyond, SPARE, &[("10.54.0.1/24", "10.54.0.2/24")]);
    let load = siege.load()?;

    lay()?;
    wait_told(&guard, "attach", SPARE, 2)?;
    node.ip(&format!("link del {SPARE}"))?;
    wait_told(&guard, "detach", SPARE, 2)?;
    lay()?;
    wait_told(&guard, "attach", SPARE, 4)?;
    for state in ["down", "up", "down", "up"] {
        node.ip(&format!("link set {SPARE} {state}"))?;
    }
    assert_eq!(told(&guard, "detach", SPARE)?, 2, "what is down stays guarded");

    let elsewhere = Namespace::new()?;
    node.ip(&format!("link set {SPARE} netns {}", elsewhere.net_path().display()))?;
    wait_told(&guard, "detach", SPARE, 4)?;
    wait_for("nothing of ours hangs there", || {
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            // Where no hook was ever used, the kernel has nothing to show.
            let chain = elsewhere.run(|| SchedClassifier::query_tcx(SPARE, direction));
            if chain.is_ok_and(|(_, programs)| !programs.is_empty()) {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    elsewhere.ip(&format!("link set {SPARE} netns {}", node.net_path().display()))?;
    wait_told(&guard, "attach", SPARE, 6)?;
    sleep(MOMENT);
    let toll = load.end()?;
    println!("deleted, flapped, moved: {toll}");
    toll.unharmed()?;
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn the_interface_under_load_changes_its_name_and_goes_down_and_is_guarded_on() -> Result<()> {
    const OTHER: &str = "siege9";
    let _machine = machine();
    let siege = Siege::lay(LONG_LEASE)?;
    let node = siege.node();
    let guard = siege.guarded(&siege.options_for(&["lo", "/^siege[0-9]$/"], ""))?;
    let load = siege.load()?;
    sleep(MOMENT);
    let rename = |from: &str, to: &str| node.ip(&format!("link set {from} name {to}"));
    if rename(WIRE, OTHER).is_err() {
        // Before 6.2 only what is down has another name.
        node.ip(&format!("link set {WIRE} down"))?;
        rename(WIRE, OTHER)?;
        node.ip(&format!("link set {OTHER} up"))?;
    }
    let label = format!("device=\"{OTHER}\"");
    let renamed = wait_for("it is counted under its name", || {
        Ok(guard.counter("dnsguard_dns_queries_total", &[&label])? > 0)
    })?;
    assert_eq!(told(&guard, "detach", WIRE)? + told(&guard, "detach", OTHER)?, 0);
    let toll = load.end()?;
    println!("renamed, shown after {renamed:.1?}: {toll}");
    toll.unharmed()?;

    // Nothing gets over a wire that is down; nobody on `lo` hears of it.
    let load = siege.load()?;
    for state in ["down", "up", "down", "up"] {
        node.ip(&format!("link set {OTHER} {state}"))?;
        sleep(MOMENT / 5);
    }
    let toll = load.end()?;
    println!("flapped: {toll}");
    ensure!(
        toll.patrons[1].answered == toll.patrons[1].sent,
        "{:?}",
        toll.patrons[1]
    );
    toll.always_held()?;
    assert_eq!(told(&guard, "detach", OTHER)?, 0, "it stays guarded");
    let load = siege.load()?;
    sleep(MOMENT);
    load.end()?.unharmed()?;
    guard.stop()
}
