//! Resolvers that loop on the `lo` of another network namespace, as in containers.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use guard_tests::{
    Namespace, Prober,
    client::ask,
    guard::{Guard, GuardOptions, wait_freed},
    programs,
    topology::Topology,
    upstream::{Manner, Upstream},
};

/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(30);
/// Other namespaces are looked at every ten seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// A port that no resolver of this machine listens on.
const PORT: u16 = 5_399;

fn ready(namespace: &Namespace, ports: &[u16], namespaces: &str) -> Result<Guard> {
    let options = GuardOptions {
        extra_toml: format!("ports = {ports:?}\n[attach]\nnamespaces = [{namespaces}]\n[breaker]\nhold_ms = 300000\n"),
        ..GuardOptions::enforce(&["lo"])
    };
    let guard = Guard::start(namespace, &options)?;
    guard.wait_ready(START)?;
    Ok(guard)
}

/// Programs at the `lo` of a namespace.
fn programs_at(namespace: &Namespace) -> Result<usize> {
    Ok(namespace
        .run(|| SchedClassifier::query_tcx("lo", TcAttachType::Ingress))?
        .1
        .len())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_loop_in_a_container_is_cut_there_and_nowhere_else() -> Result<()> {
    programs::provide(Topology::DEMO.programs())?;
    let built = Topology::DEMO.start()?;
    let host = Namespace::new()?;
    let container = built.namespace();
    let guard = ready(&host, &[53], &format!("'{}'", container.net_path().display()))?;
    ensure!(programs_at(container)? == 1, "nothing hangs at the container's lo");
    built.ignite()?;
    let trip = guard.wait_event("trip", PATIENCE)?;
    ensure!(
        trip["device"].as_str().is_some_and(|device| device.starts_with("lo@")),
        "{trip}"
    );
    ensure!(trip["proof"] == "proven", "{trip}");

    // The others of the container are answered, and so is that very name where it does not go round.
    let others = Prober::run(
        container,
        built.server(),
        built.bystanders(),
        50,
        Duration::from_secs(1),
    )?;
    ensure!(others.answered == others.sent, "{others:?}");
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
    let _upstream = Upstream::start(&host, server, Manner::Answers(Duration::ZERO))?;
    for _ in 0..20 {
        let reply = ask(&host, server, built.question(), 1, Duration::from_secs(1))?;
        ensure!(reply.answered(), "{reply:?}");
    }
    let held = ask(container, built.server(), built.question(), 1, Duration::from_secs(2))?;
    ensure!(!held.answered(), "{held:?}");
    ensure!(
        guard.wait_counter("dnsguard_dns_queries_total", &["device=\"lo\""], 20, PATIENCE)? == 20,
        "each has its own counts"
    );
    ensure!(
        guard.counter("dnsguard_trips_total", &["device=\"lo@"])? == 1,
        "{}",
        guard.metrics()?
    );

    guard.stop()?;
    wait_freed(
        "something is left in the container",
        || Ok(programs_at(container)? == 0),
    )?;
    Ok(())
}

/// Two would spoil each other's marks, and each would miss what the other one answers.
#[test]
#[ignore = "needs root"]
fn a_container_with_a_guard_of_its_own_is_left_to_it() -> Result<()> {
    programs::provide(&["ip"])?;
    let (host, container) = (Namespace::new()?, Namespace::new()?);
    let path = format!("'{}'", container.net_path().display());
    let inner = ready(&container, &[PORT], "")?;
    let outer = ready(&host, &[PORT], &path)?;
    let refused = outer.wait_event("attach_error", PATIENCE)?;
    ensure!(
        refused["reason"]
            .as_str()
            .is_some_and(|reason| reason.starts_with("another dnsguard guards it")),
        "{refused}"
    );
    ensure!(programs_at(&container)? == 1, "two guard the container's lo");
    let attached = |count: usize| -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let metrics = || outer.counter("dnsguard_attachment_info", &["device=\"lo@"]);
        while metrics()? != count as u64 {
            ensure!(Instant::now() < deadline, "not {count}:\n{}", outer.metrics()?);
            sleep(Duration::from_millis(100));
        }
        Ok(())
    };

    // Once nobody guards it from within, it is guarded from outside, and the other way round.
    inner.stop()?;
    attached(1)?;
    let inner = ready(&container, &[PORT], "")?;
    attached(0)?;
    ensure!(programs_at(&container)? == 1, "two guard the container's lo");
    let told = outer.events_of("detach")?;
    ensure!(
        told.iter()
            .any(|event| event["reason"] == "another dnsguard guards it now"),
        "{told:?}"
    );
    inner.stop()?;
    outer.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_resolver_in_a_container_is_found_and_let_go() -> Result<()> {
    programs::provide(&["dnsmasq"])?;
    let (host, container) = (Namespace::new()?, Namespace::new()?);
    let guard = ready(&host, &[PORT], "'auto'")?;
    ensure!(
        guard.events_of("attach")?.len() == 1,
        "{:?}",
        guard.events_of("attach")?
    );
    let resolver = start(&container)?;
    let wait = |kind: &str| -> Result<serde_json::Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let events = guard.events_of(kind)?.into_iter();
            let mut there =
                events.filter(|event| event["device"].as_str().is_some_and(|device| device.starts_with("lo@")));
            if let Some(event) = there.next() {
                return Ok(event);
            }
            ensure!(Instant::now() < deadline, "no {kind}:\n{}", guard.process().output());
            sleep(Duration::from_millis(50));
        }
    };
    let attached = wait("attach")?;
    ensure!(
        attached["device"] == format!("lo@dnsmasq:{}", resolver.pid()),
        "{attached}"
    );
    ensure!(programs_at(&container)? == 1, "nothing hangs there");
    resolver.kill();
    drop(container);
    drop(resolver);
    let detached = wait("detach")?;
    ensure!(
        detached["reason"] == "nobody is in its network namespace any more",
        "{detached}"
    );
    let links = host.run(|| -> Result<usize> {
        let mut count = 0;
        for version in fs::read_dir("/sys/fs/bpf/dnsguard")? {
            count += fs::read_dir(version?.path().join("links")).context("links")?.count();
        }
        Ok(count)
    })?;
    ensure!(links == 1, "{links} links are pinned");
    guard.stop()
}

/// A dnsmasq that listens on a port of its own.
fn start(container: &Namespace) -> Result<guard_tests::Process> {
    let mut command = programs::locate("dnsmasq")?.command();
    command.args([
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--conf-file=/dev/null",
        "--pid-file=",
    ]);
    command.arg(format!("--port={PORT}"));
    container.spawn(command)
}
