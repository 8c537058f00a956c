//! Loops that come and go: two dnsmasq that forward to each other, and dnsmasq and consul.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::node::{FRONT, INCIDENT, Node, Tally};
use crate::{
    client::ask,
    question::{Question, RecordType},
};

/// Names that are lit, one after the other.
const NAMES: u32 = 3;
/// Queries for each, like those of an impatient client.
const TRIES: u32 = 3;
/// For each of them.
const TRY: Duration = Duration::from_millis(500);
/// A hold of some seconds, and a test.
const MENDED: Duration = Duration::from_secs(30);

/// Lights the loop of two dnsmasq and puts it out again, until it is over.
pub(super) fn pair(node: &Node) {
    let mut round = 0_u64;
    node.pace.repeat("the loop of two dnsmasq", || {
        round += 1;
        let name = |number| Question::new(&format!("looped-{round}-{number}.consul."), RecordType::A);
        for number in 0..NAMES {
            light(node, &node.clients, FRONT, &name(number)?)?;
            node.pace.wait(Duration::from_millis(300));
        }
        node.cut(&name(0)?)?;
        node.pace.wait(Duration::from_secs(2));
        {
            let _working = node.pace.work();
            node.restart_back(false)?;
        }
        let deadline = Instant::now() + MENDED;
        for number in 0..NAMES {
            while !put_out(node, &name(number)?)? {
                ensure!(
                    Instant::now() < deadline || node.pace.is_over(),
                    "{} does not resolve {MENDED:?} after its loop is mended",
                    name(number)?
                );
                if !node.pace.wait(Duration::from_millis(500)) {
                    return Ok(());
                }
            }
            Tally::add(&node.tally.put_out, 1);
        }
        let _working = node.pace.work();
        node.restart_back(true)
    });
}

/// Lights the loop of dnsmasq and consul with a name of its own each time, until it is over.
pub(super) fn incident(node: &Node) {
    let mut round = 0_u64;
    node.pace.repeat("the loop of dnsmasq and consul", || {
        round += 1;
        let question = Question::new(&format!("incident-{round}.consul."), RecordType::DS)?;
        light(node, &node.host, INCIDENT, &question)?;
        node.cut(&question)?;
        node.pace.wait(Duration::from_secs(5));
        Ok(())
    });
}

fn light(node: &Node, from: &crate::Namespace, server: &str, question: &Question) -> Result<()> {
    let _working = node.pace.work();
    let server: SocketAddr = server.parse()?;
    let reply = ask(from, server, question, TRIES, TRY)?;
    if !server.ip().is_loopback() {
        Tally::add(&node.tally.asked, reply.tries.into());
    }
    Tally::add(&node.tally.lit, 1);
    Ok(())
}

/// Whether the name has an answer now.
fn put_out(node: &Node, question: &Question) -> Result<bool> {
    let _working = node.pace.work();
    let reply = ask(&node.clients, FRONT.parse()?, question, 1, TRY)?;
    Tally::add(&node.tally.asked, reply.tries.into());
    Ok(reply.answered())
}
