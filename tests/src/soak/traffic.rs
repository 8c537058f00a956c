//! What clients ask for all the time: good names, names that are over a budget, and what no server can read.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use guard_sim::random::Random;

use super::node::{FRONT, Node, Tally, UNBOUND};
use crate::{Prober, Report};

/// For so long it goes on without a rest.
const BOUT: Duration = Duration::from_secs(2);
/// Malformed queries of each kind in a bout.
const SPOILED: u64 = 20;

/// Whom clients ask, for what, how many times a second, and whether that is good.
struct Stream {
    server: &'static str,
    names: &'static [&'static str],
    qps: u32,
    good: bool,
}

/// All that is asked for at a node.
const STREAMS: [Stream; 5] = [
    Stream {
        server: UNBOUND[0],
        names: &["*.example.", "*.a.long.er.name.example.", "*.six.", "www.example."],
        qps: 120,
        good: true,
    },
    Stream {
        server: UNBOUND[1],
        names: &["*.example.", "*.six."],
        qps: 60,
        good: true,
    },
    Stream {
        server: FRONT,
        names: &["*.example.", "*.elsewhere.example."],
        qps: 60,
        good: true,
    },
    Stream {
        server: UNBOUND[0],
        names: &["*.answered.example.", "*.dropped.example."],
        qps: 160,
        good: false,
    },
    Stream {
        server: FRONT,
        names: &["*.refused.example.", "*.silent.example."],
        qps: 60,
        good: false,
    },
];

/// So many things go on at once at a node.
pub(super) const COUNT: usize = STREAMS.len() + 1;

/// Asks until it is over; `number` is below [`COUNT`].
pub(super) fn run(node: &Node, number: usize, mut random: Random) {
    match STREAMS.get(number) {
        Some(stream) => node.pace.repeat("clients", || ask(node, stream, &mut random)),
        None => node.pace.repeat("spoiled queries", || spoil(node, &mut random)),
    }
}

fn ask(node: &Node, stream: &Stream, random: &mut Random) -> Result<()> {
    let server: SocketAddr = stream.server.parse()?;
    // No cache knows a name: it has the number of its bout in it.
    let bout = random.next();
    let fresh = |name: &&str| name.replace('*', &format!("*-{bout:x}"));
    let names: Vec<String> = stream.names.iter().map(fresh).collect();
    {
        let _working = node.pace.work();
        let report = Prober::run(&node.clients, server, &names, stream.qps, BOUT)?;
        note(node, &report, stream.good);
    }
    node.pace.wait(Duration::from_millis(100));
    Ok(())
}

fn note(node: &Node, report: &Report, good: bool) {
    Tally::add(&node.tally.asked, report.queries);
    if good {
        Tally::add(&node.tally.good, report.sent);
        Tally::add(&node.tally.good_answered, report.answered);
    }
}

/// Sends what a guard does not read: too short, another opcode, no question, two questions, a name that is a pointer.
fn spoil(node: &Node, random: &mut Random) -> Result<()> {
    let server: SocketAddr = UNBOUND[0].parse()?;
    {
        let _working = node.pace.work();
        let socket = node.clients.udp(([0, 0, 0, 0], 0).into())?;
        for _ in 0..SPOILED {
            let [high, low] = (random.next() as u16).to_be_bytes();
            // ID, flags with RD, QDCOUNT, three counts that are nought.
            let header = |opcode: u8, count: u8| [high, low, opcode << 3 | 1, 0, 0, count, 0, 0, 0, 0, 0, 0];
            let question: &[u8] = b"\x01a\x07example\x00\x00\x01\x00\x01";
            let pointer: &[u8] = b"\xc0\x0c\x00\x01\x00\x01";
            for message in [
                header(0, 1)[..6].to_vec(),
                [&header(4, 1)[..], question].concat(),
                [&header(0, 0)[..], question].concat(),
                [&header(0, 2)[..], question, question].concat(),
                [&header(0, 1)[..], pointer].concat(),
            ] {
                socket.send_to(&message, server)?;
                Tally::add(&node.tally.asked, 1);
            }
        }
        // Who has to say something to that says it now.
        node.pace.wait(Duration::from_millis(200));
    }
    node.pace.wait(BOUT);
    Ok(())
}
