//! Programs of others before ours, after them, and in their place.

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use guard_common::abi;
use guard_tests::{
    Namespace,
    foreign::Foreign,
    guard::{Guard, pins},
    siege::{Siege, WIRE},
};
use serde_json::Value;

use crate::{LONG_LEASE, MOMENT, SOON, machine, status, wait_for};

/// Priority and handle of the guard's clsact filters.
const PLACE: (u16, u32) = (53, 0xd53);
/// The agent looks every five seconds.
const UNTIL_CHECKED: Duration = Duration::from_secs(6);

fn chain(namespace: &Namespace) -> Result<Vec<u32>> {
    let (_, programs) = namespace.run(|| SchedClassifier::query_tcx(WIRE, TcAttachType::Ingress))?;
    Ok(programs.iter().map(|program| program.id()).collect())
}

fn filters(namespace: &Namespace) -> Result<String> {
    let shown = namespace.tool("tc", &format!("filter show dev {WIRE} ingress"))?;
    Ok(shown
        .lines()
        .filter(|line| line.contains("handle"))
        .collect::<Vec<_>>()
        .join("\n"))
}

/// Events of this kind about one hook of the wire.
fn of_wire(guard: &Guard, kind: &str, hook: &str) -> Result<Vec<Value>> {
    let mut events = guard.events_of(kind)?;
    events.retain(|event| event["device"] == WIRE && event["hook"] == hook);
    Ok(events)
}

/// Waits until the guard is attached there for the `number`th time, and returns how long that took. What is promised is
/// 10 s; the machine may be busy.
fn attached_again(guard: &Guard, hook: &str, number: usize) -> Result<Duration> {
    wait_for("it is attached again", || {
        Ok(of_wire(guard, "attach", hook)?.len() == number)
    })
    .with_context(|| guard.process().output())
}

/// The guard does all that it has to.
fn is_whole(siege: &Siege) -> Result<()> {
    let load = siege.load()?;
    sleep(MOMENT);
    load.end()?.unharmed()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn programs_before_and_after_ours_run_on_and_so_does_the_guard() -> Result<()> {
    let _machine = machine();
    let siege = Siege::lay(LONG_LEASE)?;
    let node = siege.node();
    let there = Foreign::tcx(node, WIRE, TcAttachType::Ingress, "cil_from_netdev")?;
    let guard = siege.guarded(&siege.options(""))?;
    let attached = of_wire(&guard, "attach", "tc-ingress")?;
    let ours = attached.first().and_then(|event| event["program_id"].as_u64());
    let ours = ours.context("no program")? as u32;
    let reason = attached[0]["reason"].as_str().unwrap_or_default();
    ensure!(
        reason.contains("others run after it") && reason.contains("cil_from_netdev"),
        "{reason}"
    );

    let load = siege.load()?;
    sleep(MOMENT);
    let later = Foreign::tcx(node, WIRE, TcAttachType::Ingress, "later")?;
    assert_eq!(chain(node)?, [ours, there.id(), later.id()]);
    sleep(MOMENT);
    let (gone, id) = (there.id(), later.id());
    drop(there);
    sleep(MOMENT);
    let toll = load.end()?;
    println!("before and after: {toll}");
    toll.unharmed()?;
    ensure!(!chain(node)?.contains(&gone));
    guard.stop()?;
    assert_eq!(chain(node)?, [id], "what is not ours stays");
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_link_whose_pin_others_remove_is_seen_and_hangs_again() -> Result<()> {
    let _machine = machine();
    let siege = Siege::lay(LONG_LEASE)?;
    let node = siege.node();
    let ifindex = node.run(|| fs::read_to_string(format!("/sys/class/net/{WIRE}/ifindex")))?;
    let remove = |place: &str| {
        let pin = pins(abi::VERSION).join(format!("links/{}-{place}", ifindex.trim()));
        node.run(|| fs::remove_file(&pin))
            .with_context(|| format!("remove {}", pin.display()))
    };
    let is_told = |guard: &Guard, hook: &str| -> Result<()> {
        let detached = of_wire(guard, "detach", hook)?;
        let reason = detached.first().map(|event| event["reason"].to_string());
        ensure!(
            reason.is_some_and(|reason| reason.contains("somebody else has taken it out")),
            "{detached:?}"
        );
        Ok(())
    };

    let guard = siege.guarded(&siege.options("tc = \"tcx\""))?;
    let load = siege.load()?;
    remove("tc-ingress-tcx")?;
    let again = attached_again(&guard, "tc-ingress", 2)?;
    is_told(&guard, "tc-ingress")?;
    assert_eq!(chain(node)?.len(), 1);
    let toll = load.end()?;
    println!("tcx, again after {again:.1?}: {toll}");
    toll.nobody_lost()?;
    toll.always_held()?;
    is_whole(&siege)?;
    guard.stop()?;

    // There is one place for XDP, and somebody takes it.
    let guard = siege.guarded(&siege.options("xdp = \"generic\""))?;
    let load = siege.load()?;
    remove("xdp-generic")?;
    let mut stranger = None;
    wait_for("the kernel lets go of ours", || {
        stranger = Foreign::xdp(node, WIRE, "stranger").ok();
        Ok(stranger.is_some())
    })?;
    wait_for("it is told that somebody is there", || {
        Ok(!of_wire(&guard, "attach_error", "xdp")?.is_empty())
    })?;
    is_told(&guard, "xdp")?;
    let reason = of_wire(&guard, "attach_error", "xdp")?[0]["reason"].to_string();
    // Once it has started, the agent may not ask for names any more.
    ensure!(reason.contains("another program has the slot"), "{reason}");
    drop(stranger);
    let again = attached_again(&guard, "xdp", 2)?;
    let toll = load.end()?;
    println!("XDP, again {again:.1?} after the stranger has left: {toll}");
    toll.always_held()?;
    is_whole(&siege)?;
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_filter_that_others_take_the_place_of_hangs_again_when_they_leave() -> Result<()> {
    let _machine = machine();
    let siege = Siege::lay(LONG_LEASE)?;
    let node = siege.node();
    let guard = siege.guarded(&siege.options("tc = \"clsact\""))?;
    let (priority, handle) = PLACE;
    let delete = format!("filter del dev {WIRE} ingress protocol all prio {priority} handle {handle:#x} bpf");
    let load = siege.load()?;
    node.tool("tc", &delete)?;
    let stranger = Foreign::filter(node, WIRE, TcAttachType::Ingress, "stranger", PLACE)?;
    let failed = wait_for("it is told that somebody is there", || {
        Ok(!of_wire(&guard, "attach_error", "tc-ingress")?.is_empty())
    })?;
    let reason = of_wire(&guard, "attach_error", "tc-ingress")?[0]["reason"].to_string();
    ensure!(
        reason.contains("is stranger") && reason.contains("not dnsguard's"),
        "{reason}"
    );
    guard.wait_counter("dnsguard_hooks_failing", &[], 1, SOON)?;
    let lacks = || -> Result<bool> {
        let warnings = status(&guard)?["warnings"].to_string();
        Ok(warnings.contains("tc-ingress on siege0 is not attached"))
    };
    ensure!(lacks()?, "{}", status(&guard)?);
    ensure!(filters(node)?.contains("stranger"), "somebody else's is left alone");
    node.tool("tc", &delete)?;
    drop(stranger);
    let again = attached_again(&guard, "tc-ingress", 2)?;
    ensure!(filters(node)?.contains("dnsguard_"), "{}", filters(node)?);
    wait_for("status is content", || Ok(!lacks()?))?;
    let toll = load.end()?;
    println!("clsact, told after {failed:.1?}, again {again:.1?} after the stranger has left: {toll}");
    toll.nobody_lost()?;
    toll.always_held()?;
    // All filters at once. Adding and removing a qdisc stops the device for a moment (`qdisc_graft` in
    // net/sched/sch_api.c), so somebody may lose something by that: nobody asks meanwhile.
    node.tool("tc", &format!("qdisc del dev {WIRE} clsact"))?;
    let again = attached_again(&guard, "tc-ingress", 3)?;
    println!("the qdisc, again after {again:.1?}");
    is_whole(&siege)?;
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn what_the_operator_removes_stays_out_until_the_agent_is_started_again() -> Result<()> {
    let _machine = machine();
    let siege = Siege::lay(LONG_LEASE)?;
    let options = siege.options("");
    let guard = siege.guarded(&options)?;
    let said = guard.say(&["detach", "--all"])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    // Nobody holds the loop now: it is not looked at.
    wait_for("the agent tells of it", || Ok(guard.events_of("detach")?.len() == 3))?;
    let told = guard.events_of("detach")?;
    ensure!(
        told[0]["reason"].to_string().contains("start the agent again"),
        "{told:?}"
    );
    wait_for("status tells of it", || {
        let said = guard.say(&["status", "-o", "json"])?.json(3)?;
        Ok(said["warnings"].to_string().contains("nothing is attached"))
    })?;
    // Longer than it takes to attach what others take out.
    sleep(UNTIL_CHECKED);
    assert_eq!(chain(siege.node())?.len(), 0);
    guard.stop()?;
    let guard = siege.ready(&options)?;
    assert_eq!(chain(siege.node())?.len(), 1);
    guard.stop()
}
