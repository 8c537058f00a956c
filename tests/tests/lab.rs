//! The lab itself: without a guard each loop runs on this machine, and nothing of it stays.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::UdpSocket,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{
    Namespace, Prober,
    load::{Load, Middle},
    programs,
    topology::{Forwarder, Loop, Topology, Wire},
    traces, veth,
};

/// How long a loop that caught fire burns. A pair of dnsmasq takes both cores meanwhile.
const BURN: Duration = Duration::from_millis(700);

/// A loop with retries needs the first of them, 2 s after the query, or the second.
const CAP: Duration = Duration::from_secs(5);

/// One query and its two retries, over three hops and back, with every response: far above what is sent.
const EXPLAINED: u64 = 40;

fn circle(forwarder: Forwarder, hops: usize, wire: Wire) -> Topology {
    Topology::Circle { forwarder, hops, wire }
}

/// Builds the topology, checks that everything answers, lets it loop, and checks that it did.
fn it_loops(topology: Topology, at_least_pps: u64) -> Result<()> {
    programs::provide(topology.programs())?;
    let built = topology.start()?;
    everything_else_answers(&built)?;

    let burn = built.burn(BURN, CAP)?;
    println!(
        "{topology}: {} packets/s at its peak, {} packets in {:.1} s, caught fire after {:.1} s",
        burn.peak_pps,
        burn.packets,
        burn.lasted_s,
        burn.caught_fire_s.unwrap_or(f64::NAN),
    );
    ensure!(burn.packets > 4 * EXPLAINED, "{topology} did not loop: {burn:?}");
    ensure!(burn.peak_pps >= at_least_pps, "{topology} hardly loops: {burn:?}");
    leaves_nothing(built)
}

fn everything_else_answers(built: &Loop) -> Result<()> {
    let second = Duration::from_secs(1);
    let report = Prober::run(built.namespace(), built.server(), built.bystanders(), 100, second)?;
    ensure!(report.answered == report.sent, "quiet, and yet: {report:?}");
    ensure!(built.packets()? > report.sent, "packets are not counted");
    Ok(())
}

fn leaves_nothing(built: Loop) -> Result<()> {
    let inodes: Vec<u64> = built.namespaces().iter().map(Namespace::inode).collect::<Result<_>>()?;
    drop(built);
    nobody_holds(&inodes)?;
    ensure!(
        traces::children().is_empty(),
        "children are left: {:?}",
        traces::children()
    );
    Ok(())
}

/// Threads end a moment after the handle that kept them.
fn nobody_holds(inodes: &[u64]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let left: Vec<_> = inodes.iter().flat_map(|&inode| traces::holders(inode)).collect();
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the namespace is still held by {left:?}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn two_dnsmasq_on_lo_loop_after_one_retry() -> Result<()> {
    it_loops(circle(Forwarder::Dnsmasq, 2, Wire::Loopback), 5_000)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn two_dnsdist_on_lo_loop_at_once() -> Result<()> {
    it_loops(circle(Forwarder::Dnsdist, 2, Wire::Loopback), 5_000)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn two_consul_on_lo_loop_at_once() -> Result<()> {
    it_loops(Topology::ConsulPair, 2_000)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn dnsmasq_and_consul_on_lo_loop_at_every_retry() -> Result<()> {
    it_loops(Topology::INCIDENT, 1_000)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn two_dnsmasq_over_a_veth_loop_on_ipv4() -> Result<()> {
    it_loops(circle(Forwarder::Dnsmasq, 2, Wire::VethV4), 5_000)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn two_dnsmasq_over_a_veth_loop_on_ipv6() -> Result<()> {
    it_loops(circle(Forwarder::Dnsmasq, 2, Wire::VethV6), 5_000)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn two_dnsdist_over_a_veth_loop_on_ipv4() -> Result<()> {
    it_loops(circle(Forwarder::Dnsdist, 2, Wire::VethV4), 5_000)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn two_dnsdist_over_a_veth_loop_on_ipv6() -> Result<()> {
    it_loops(circle(Forwarder::Dnsdist, 2, Wire::VethV6), 5_000)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn dnsmasq_and_consul_over_a_veth_loop_on_ipv4() -> Result<()> {
    it_loops(Topology::Incident { wire: Wire::VethV4 }, 1_000)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn dnsmasq_and_consul_over_a_veth_loop_on_ipv6() -> Result<()> {
    it_loops(Topology::Incident { wire: Wire::VethV6 }, 1_000)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn three_dnsmasq_in_a_ring_loop() -> Result<()> {
    it_loops(circle(Forwarder::Dnsmasq, 3, Wire::Loopback), 5_000)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn three_dnsdist_in_a_ring_loop() -> Result<()> {
    it_loops(circle(Forwarder::Dnsdist, 3, Wire::Loopback), 5_000)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_mended_loop_resolves() -> Result<()> {
    for topology in Topology::all() {
        programs::provide(topology.programs())?;
        let mut built = topology.start()?;
        built.mend()?;
        let reply = built.ignite()?;
        ensure!(reply.answered() && reply.tries == 1, "{topology}, mended: {reply:?}");
        everything_else_answers(&built)?;
        leaves_nothing(built)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_veth_carries_both_families_and_is_gone_with_its_ends() -> Result<()> {
    programs::provide(&["ip"])?;
    let (left, right) = (Namespace::new()?, Namespace::new()?);
    let addresses = [("10.53.0.1/24", "10.53.0.2/24"), ("fd53::1/64", "fd53::2/64")];
    veth::veth(&left, &right, "veth0", &addresses)?;
    for (near, far) in [("10.53.0.1:0", "10.53.0.2:5300"), ("[fd53::1]:0", "[fd53::2]:5300")] {
        let server = right.udp(far.parse()?)?;
        server.set_read_timeout(Some(Duration::from_secs(2)))?;
        let client: UdpSocket = left.udp(near.parse()?)?;
        client.send_to(b"hello", far)?;
        let mut buffer = [0; 8];
        let (length, from) = server.recv_from(&mut buffer).context("nothing came over the veth")?;
        assert_eq!((&buffer[..length], from), (&b"hello"[..], client.local_addr()?));
    }
    ensure!(right.packets("veth0")? >= 2, "the veth counts its packets");
    ensure!(
        left.run(|| Path::new("/sys/class/net/veth0").exists()),
        "/sys shows this network"
    );
    ensure!(
        !Path::new("/sys/class/net/veth0").exists(),
        "the host sees nothing of it"
    );
    let inodes = [left.inode()?, right.inode()?];
    drop((left, right));
    nobody_holds(&inodes)
}

/// Set for the process that [`a_killed_lab_leaves_nothing`] starts, and then kills.
const HOLD: &str = "DNSGUARD_LAB_HOLD";

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_killed_lab_leaves_nothing() -> Result<()> {
    programs::provide(Topology::DEMO.programs())?;
    let mut lab = Command::new(env::current_exe()?)
        .args(["--exact", "holds_a_lab_until_it_is_killed", "--ignored", "--nocapture"])
        .env(HOLD, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let said = BufReader::new(lab.stdout.take().context("its output")?);
    let mut line = None;
    for said in said.lines() {
        let said = said?;
        if let Some(rest) = said.strip_prefix("holding ") {
            line = Some(rest.to_owned());
            break;
        }
    }
    let numbers: Vec<u64> = line
        .context("the lab did not start")?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let (inode, pids) = numbers.split_first().context("an inode")?;
    ensure!(
        pids.len() == 2 && !traces::holders(*inode).is_empty(),
        "there is something to lose"
    );

    lab.kill()?;
    lab.wait()?;
    nobody_holds(&[*inode])?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Some(pid) = pids.iter().find(|&&pid| is_alive(pid)) {
        ensure!(Instant::now() < deadline, "process {pid} outlived the lab");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// One that has ended stays as a zombie until whoever inherited it looks.
fn is_alive(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, fields)| !fields.trim_start().starts_with('Z'))
}

#[test]
#[ignore = "a part of a_killed_lab_leaves_nothing"]
fn holds_a_lab_until_it_is_killed() -> Result<()> {
    if env::var_os(HOLD).is_none() {
        return Ok(());
    }
    let built = Topology::DEMO.start()?;
    let pids: Vec<String> = built
        .resolvers()
        .map(|resolver| resolver.process().pid().to_string())
        .collect();
    println!("\nholding {} {}", built.namespace().inode()?, pids.join(" "));
    // Only a parent that forgot to kill it gets this far.
    sleep(Duration::from_secs(30));
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn every_load_is_one_that_a_network_without_a_guard_carries() -> Result<()> {
    for load in Load::ALL {
        programs::provide(load.programs())?;
        let site = load.start()?;
        let before = site.namespace().packets("lo")?;
        let report = site.run()?;
        println!(
            "{load}: {} packets, {report:?}",
            site.namespace().packets("lo")? - before
        );
        match load {
            Load::DeadUpstream { .. } => ensure!(report.answered == 0 && report.queries == 5, "{load}"),
            // dnsmasq refuses who comes when its table is full, and its clients ask again or give up.
            Load::Herd {
                middle: Middle::Dnsmasq,
            } => ensure!(report.answered > 100, "{load}"),
            _ => ensure!(report.answered_ratio() > 0.99, "{load}"),
        }
        let inode = site.namespace().inode()?;
        drop(site);
        nobody_holds(&[inode])?;
    }
    Ok(())
}
