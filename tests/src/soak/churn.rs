//! Interfaces that come and go. Every few of them carry queries first, which have to be counted there.
//!
//! The kernel counts by number of the interface modulo 256, and numbers are given anew only when nobody has them. So that
//! one that comes does not count where the wires do, each gets its number from here.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use guard_sim::random::Random;

use super::node::{Node, Tally, UNBOUND};
use crate::{Namespace, Prober};

/// Numbers that they get: no wire has one of these, modulo 256.
const NUMBERS: std::ops::Range<u64> = 100..200;
/// The agent hears of one at once, and looks by itself every 10 s.
const SEEN: Duration = Duration::from_secs(20);
/// How often is looked.
const POLL: Duration = Duration::from_millis(100);
/// Of so many, one carries queries.
const CARRIES: u64 = 4;

/// Makes interfaces and takes them away until it is over.
pub(super) fn run(node: &Node, mut random: Random) {
    let pod = match Namespace::new() {
        Ok(pod) => pod,
        Err(error) => return node.pace.fail(error),
    };
    let mut count = 0;
    node.pace.repeat("interfaces that come and go", || {
        count += 1;
        // Two interfaces each time, the other end among them.
        let number = NUMBERS.start + count % (NUMBERS.end - NUMBERS.start);
        {
            let _working = node.pace.work();
            if count % CARRIES == 0 {
                carry(node, &pod, number)?;
            } else {
                flutter(node, number, &mut random)?;
            }
        }
        Tally::add(&node.tally.churned, 1);
        node.pace.wait(Duration::from_millis(500));
        Ok(())
    });
}

/// Comes, flaps, is renamed, and goes, faster than anybody can look.
fn flutter(node: &Node, number: u64, random: &mut Random) -> Result<()> {
    let (name, peer) = (format!("ch{number}"), format!("peer{number}"));
    let ip = |command: String| node.host.ip(&command);
    ip(format!(
        "link add {name} index {number} type veth peer name {peer} index {}",
        number + 1_000
    ))?;
    let mut now = name;
    for _ in 0..random.below(4) {
        ip(format!("link set {now} up"))?;
        ip(format!("link set {peer} up"))?;
        node.pace.wait(Duration::from_millis(random.below(150)));
        ip(format!("link set {now} down"))?;
        if random.below(2) == 0 {
            // To a name that is guarded, or to one that is not.
            let other = format!("{}{}", random.pick(&["ch", "no"]), 1_000 + number + random.below(1_000));
            ip(format!("link set {now} name {other}"))?;
            now = other;
        }
    }
    ip(format!("link del {now}"))
}

/// Comes, carries queries of a pod that are answered, and goes once the guard has shown what it counted.
fn carry(node: &Node, pod: &Namespace, number: u64) -> Result<()> {
    let name = format!("ch{number}");
    let device = format!("device=\"{name}\"");
    let server: SocketAddr = UNBOUND[0].parse()?;
    node.host.ip(&format!(
        "link add {name} index {number} type veth peer name eth0 netns {}",
        pod.net_path().display()
    ))?;
    node.host.ip(&format!("address add 10.7.0.1/24 dev {name}"))?;
    node.host.ip(&format!("link set {name} up"))?;
    for command in [
        "address add 10.7.0.2/24 dev eth0",
        "link set eth0 up",
        "route add default via 10.7.0.1",
    ] {
        pod.ip(command)?;
    }
    let counted = |what: &str| -> Result<u64> { Ok(node.metrics()?.count(what, &[&device])) };
    let attached = || -> Result<bool> { Ok(node.metrics()?.count("dnsguard_attachment_info", &[&device]) == 2) };
    wait(node, &format!("{name} is not guarded"), attached)?;
    let (queries, responses) = ("dnsguard_dns_queries_total", "dnsguard_dns_responses_total");
    // A place in which another one counted before this agent came begins with that.
    let before = (counted(queries)?, counted(responses)?);
    let report = Prober::run(pod, server, &["*.example.".to_owned()], 50, Duration::from_secs(1))?;
    Tally::add(&node.tally.good, report.sent);
    Tally::add(&node.tally.good_answered, report.answered);
    // A response that comes too late for its client counts, too.
    let (came, late) = (report.answered + report.failed, report.lost);
    let shown = || -> Result<bool> {
        let (queries, responses) = (counted(queries)? - before.0, counted(responses)? - before.1);
        Ok(queries == report.queries && (came..=came + late).contains(&responses))
    };
    wait(
        node,
        &format!("at {name} other queries and responses are counted than there were"),
        shown,
    )
    .with_context(|| format!("{report:?} and before it {before:?}"))?;
    Tally::add(&node.tally.over_churned, report.queries);
    node.host.ip(&format!("link del {name}"))
}

fn wait(node: &Node, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + SEEN;
    while !done()? {
        ensure!(Instant::now() < deadline, "{what} within {SEEN:?}");
        if !node.pace.wait(POLL) {
            break;
        }
    }
    Ok(())
}
