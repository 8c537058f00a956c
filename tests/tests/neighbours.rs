//! Programs of others at the hooks of the guard: told by name, run as before, and left where they are.

use std::{net::SocketAddr, sync::Mutex, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::{
    programs::{SchedClassifier, TcAttachType},
    sys::{Stats, enable_stats},
};
use guard_tests::{
    Namespace,
    foreign::Foreign,
    guard::{Guard, GuardOptions, wait_freed},
    question::{Question, RecordType},
    veth,
};
use serde_json::{Value, json};

const WIRE: &str = "veth0";
/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);
/// What takes no time is there long before.
const PATIENCE: Duration = Duration::from_secs(10);
/// Queries, each of another name.
const QUERIES: u64 = 20;
/// Priority and handle of the guard's clsact filters.
const PLACE: (u16, u32) = (53, 0xd53);

/// One test at a time: each takes the whole machine.
static MACHINE: Mutex<()> = Mutex::new(());

fn site() -> Result<[Namespace; 2]> {
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    veth::veth(&here, &there, WIRE, &[("10.53.0.1/24", "10.53.0.2/24")])?;
    Ok([here, there])
}

fn ready(namespace: &Namespace, attach: &str) -> Result<Guard> {
    let options = GuardOptions {
        extra_toml: format!("[attach]\n{attach}\n"),
        ..GuardOptions::enforce(&[WIRE])
    };
    let guard = Guard::start(namespace, &options)?;
    guard.wait_ready(START)?;
    Ok(guard)
}

/// The attachment at a hook.
fn attached(guard: &Guard, hook: &str) -> Result<Value> {
    let events = guard.events_of("attach")?;
    let found = events.iter().find(|event| event["hook"] == hook);
    found.cloned().with_context(|| format!("nothing at {hook}: {events:?}"))
}

/// The programs in the chain of tcx, in their order.
fn chain(namespace: &Namespace) -> Result<Vec<u32>> {
    let (_, programs) = namespace.run(|| SchedClassifier::query_tcx(WIRE, TcAttachType::Ingress))?;
    Ok(programs.iter().map(|program| program.id()).collect())
}

/// The BPF filters at one side, one a line, as tc tells them.
fn filters(namespace: &Namespace, side: &str) -> Result<String> {
    let shown = namespace.tool("tc", &format!("filter show dev {WIRE} {side}"))?;
    let lines = shown.lines().filter(|line| line.contains("handle"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Sends queries in, and waits until they are there: everybody on the way has let them pass.
fn queries(here: &Namespace, there: &Namespace) -> Result<()> {
    let server = here.udp(SocketAddr::from(([10, 53, 0, 1], 53)))?;
    server.set_read_timeout(Some(PATIENCE))?;
    let client = there.udp(SocketAddr::from(([10, 53, 0, 2], 0)))?;
    for number in 0..QUERIES {
        let question = Question::new(&format!("name{number}.example."), RecordType::A)?;
        client.send_to(&question.query(number as u16 + 1)?, server.local_addr()?)?;
        server.recv_from(&mut [0; 512]).context("a query is lost")?;
    }
    Ok(())
}

/// Everybody sees each query: those of others by the kernel's count, the guard by its own.
fn all_run(guard: &Guard, sides: [&Namespace; 2], others: &[&Foreign]) -> Result<()> {
    let _counting = enable_stats(Stats::RunTime)?;
    let before: Vec<_> = others.iter().map(|one| one.runs()).collect::<Result<_>>()?;
    let seen = guard.counter("dnsguard_dns_queries_total", &[])?;
    queries(sides[0], sides[1])?;
    for (one, before) in others.iter().zip(before) {
        let runs = one.runs()? - before;
        ensure!(runs >= QUERIES, "program {} has run {runs} times", one.id());
    }
    guard.wait_counter("dnsguard_dns_queries_total", &[], seen + QUERIES, PATIENCE)?;
    Ok(())
}

fn stands_in_the_chain(order: &str) -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, there] = site()?;
    let cilium = Foreign::tcx(&here, WIRE, TcAttachType::Ingress, "cil_from_netdev")?;
    let guard = ready(&here, &format!("tc = 'tcx'\ntcx_order = '{order}'"))?;
    let event = attached(&guard, "tc-ingress")?;
    let ours = event["program_id"].as_u64().context("no program")? as u32;
    let (expected, side) = if order == "first" {
        ([ours, cilium.id()], "after")
    } else {
        ([cilium.id(), ours], "before")
    };
    assert_eq!(chain(&here)?, expected, "{order}");
    let told = format!(
        "tcx ingress: cil_from_netdev (id {}), most likely Cilium's",
        cilium.id()
    );
    assert_eq!(event["neighbours"], json!([told]), "{event}");
    let reason = event["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains(&format!("others run {side} it ({told})")), "{reason}");
    let outgoing = attached(&guard, "tc-egress")?;
    ensure!(outgoing.get("neighbours").is_none(), "nobody is there: {outgoing}");

    let later = Foreign::tcx(&here, WIRE, TcAttachType::Ingress, "mine")?;
    all_run(&guard, [&here, &there], &[&cilium, &later])?;
    guard.stop()?;
    wait_freed("others than the others", || {
        Ok(chain(&here)? == [cilium.id(), later.id()])
    })?;
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_second_guard_with_pins_of_its_own_says_that_there_is_another_one() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    let first = ready(&here, "tc = 'tcx'\nxdp = 'off'")?;
    let own =
        "[metrics]\nlisten = ''\n[control]\nsocket = '/run/second.sock'\n[attach]\npin_dir = '/sys/fs/bpf/second'\n";
    let options = GuardOptions {
        extra_toml: format!("{own}tc = 'tcx'\nxdp = 'off'\n"),
        ..GuardOptions::enforce(&[WIRE])
    };
    let second = Guard::start(&here, &options)?;
    let event = second.wait_event("attach", START)?;
    let program = attached(&first, "tc-ingress")?["program_id"].clone();
    let told = format!("tcx ingress: dnsguard_in (id {program}), another dnsguard's");
    assert_eq!(event["neighbours"], json!([told]), "{event}");
    let warned = format!("{WIRE}: another dnsguard guards it (program {program})");
    ensure!(second.process().log().contains(&warned), "{}", second.process().log());
    ensure!(
        !first.process().log().contains("another dnsguard"),
        "{}",
        first.process().log()
    );
    second.stop()?;
    first.stop()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_guard_is_first_in_a_chain_and_names_who_comes_after() -> Result<()> {
    stands_in_the_chain("first")
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_guard_is_last_in_a_chain_if_told_and_names_who_comes_before() -> Result<()> {
    stands_in_the_chain("last")
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn who_has_the_place_for_xdp_is_named_and_left() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, there] = site()?;
    let dispatcher = Foreign::xdp(&here, WIRE, "xdp_dispatcher")?;
    let name = format!(
        "xdp_dispatcher (id {}), most likely libxdp (xdp-tools)'s",
        dispatcher.id()
    );

    let guard = ready(&here, "xdp = 'driver'")?;
    let failed = guard.events_of("attach_error")?;
    let reason = failed.first().context("nothing failed")?["reason"].to_string();
    ensure!(reason.contains(&format!("(taken by {name})")), "{reason}");
    guard.stop()?;

    let guard = ready(&here, "xdp = 'auto'")?;
    let event = attached(&guard, "tc-ingress")?;
    let told = format!("XDP (driver): {name}");
    assert_eq!(event["neighbours"], json!([told]), "{event}");
    let reason = event["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains(&format!("others run before it ({told})")), "{reason}");
    all_run(&guard, [&here, &there], &[&dispatcher])?;
    guard.stop()?;
    let link = here.tool("ip", &format!("-details link show dev {WIRE}"))?;
    ensure!(link.contains(&format!("id {} ", dispatcher.id())), "{link}");
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn filters_of_others_stay_through_start_stop_and_detach() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, there] = site()?;
    let first = Foreign::clsact(&here, WIRE, TcAttachType::Ingress, "cil_from_netdev")?;
    let beside = Foreign::filter(&here, WIRE, TcAttachType::Ingress, "mine", (PLACE.0, 1))?;
    let before = filters(&here, "ingress")?;
    ensure!(before.contains("pref 1 ") && before.contains("pref 53 "), "{before}");

    let guard = ready(&here, "tc = 'clsact'")?;
    for side in ["ingress", "egress"] {
        let shown = filters(&here, side)?;
        let ours: Vec<_> = shown.lines().filter(|line| line.contains("dnsguard_")).collect();
        ensure!(
            ours.len() == 1 && ours[0].contains("pref 53 ") && ours[0].contains("handle 0xd53 "),
            "{shown}"
        );
    }
    let event = attached(&guard, "tc-ingress")?;
    let told = format!(
        "clsact ingress: cil_from_netdev (id {}), most likely Cilium's",
        first.id()
    );
    let mine = format!("clsact ingress: mine (id {}), somebody else's", beside.id());
    let neighbours = event["neighbours"].as_array().context("no neighbours")?;
    ensure!(
        neighbours.len() == 2 && neighbours[0] == told.as_str() && neighbours.contains(&json!(mine)),
        "{event}"
    );
    let reason = event["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains(&format!("others run before it ({told}")), "{reason}");
    all_run(&guard, [&here, &there], &[&first])?;
    guard.stop()?;
    assert_eq!(filters(&here, "ingress")?, before, "after a stop");

    let guard = ready(&here, "tc = 'clsact'")?;
    guard.kill9();
    ensure!(
        filters(&here, "ingress")?.contains("dnsguard_"),
        "ours outlives its agent"
    );
    let said = guard.say(&["detach", "--all"])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(filters(&here, "ingress")?, before, "after detach --all");
    assert_eq!(filters(&here, "egress")?, "", "ours is gone");
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_filter_of_somebody_else_in_the_place_of_ours_stays() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    let guard = ready(&here, "tc = 'clsact'")?;
    guard.kill9();
    let (priority, handle) = PLACE;
    here.tool(
        "tc",
        &format!("filter del dev {WIRE} ingress protocol all prio {priority} handle {handle:#x} bpf"),
    )?;
    let _stranger = Foreign::filter(&here, WIRE, TcAttachType::Ingress, "stranger", PLACE)?;
    let before = filters(&here, "ingress")?;
    ensure!(before.contains("handle 0xd53 stranger"), "{before}");

    // The pin of the one before says that ours is there.
    let said = guard.say(&["detach", "--all"])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(filters(&here, "ingress")?, before, "after detach --all");
    assert_eq!(filters(&here, "egress")?, "", "ours is gone");
    drop(guard);

    let guard = ready(&here, "tc = 'clsact'")?;
    let failed = guard.events_of("attach_error")?;
    let reason = failed.first().context("nothing failed")?["reason"].to_string();
    ensure!(
        failed.len() == 1 && reason.contains("handle 0xd53 is stranger") && reason.contains("not dnsguard's"),
        "{failed:?}"
    );
    attached(&guard, "tc-egress")?;
    guard.stop()?;
    assert_eq!(filters(&here, "ingress")?, before, "after a stop");

    // tcx needs no such place.
    let guard = ready(&here, "tc = 'auto'")?;
    assert_eq!(attached(&guard, "tc-ingress")?["method"], "tcx");
    guard.stop()?;
    assert_eq!(filters(&here, "ingress")?, before, "after tcx");
    Ok(())
}
