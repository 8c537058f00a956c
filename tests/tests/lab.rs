//! The lab itself: what it builds works without a guard, and nothing of it stays.

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
use guard_tests::{Namespace, load::Load, programs, topology::Topology, traces, veth};

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
    traces::nobody_holds(&inodes)
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
    traces::nobody_holds(&[*inode])?;
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
            // dnsmasq refuses who comes when its table is full, unbound lets go of some: their clients ask again or give
            // up. How many is a matter of the machine's pace.
            Load::Herd { .. } => ensure!(report.answered > 100, "{load}"),
            _ => ensure!(report.answered_ratio() > 0.9, "{load}"),
        }
        let inode = site.namespace().inode()?;
        drop(site);
        traces::nobody_holds(&[inode])?;
    }
    Ok(())
}
