//! A replay of a capture tells what the kernel told when the packets passed.
//!
//! Real loops run under a guard that watches, while tcpdump records the same packets; then `dnsguard replay` judges the
//! recording by the same configuration.

use std::{
    process::{Command, Output},
    sync::Mutex,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{
    Namespace,
    guard::{self, Guard, GuardOptions, Mode},
    programs,
    question::{Question, RecordType},
    tcpdump::{Recording, Tcpdump},
    topology::{Forwarder, Loop, Topology, Wire},
};
use serde_json::Value;

/// How long a loop runs free once it has been found.
const BURN: Duration = Duration::from_millis(300);
/// A loop of dnsmasq needs the first retry of its client, 2 s after the query, or the second.
const CAP: Duration = Duration::from_secs(6);
/// Found queries: the guard held them, or would have.
const FOUND: i32 = 3;
/// Milliseconds that two clocks in ticks of 2^20 ns may be apart.
const TICKS_MS: u64 = 3;
/// Hops that some ticks of the kernel are worth, four of them at once included.
const TICK_HOPS: u64 = 8;

/// A budget that only counts, and that no loop comes near. But its bucket fills in a millisecond, and so the kernel reads
/// the time to the nanosecond for it. Else it reads that of its last tick, which no capture knows of: a step of that clock
/// between two hops lets scores leak that did not leak on the clock of the capture.
const FINE_CLOCK: &str = "\
[[budget]]
name = 'fine clock'
scope = 'all'
limit = 10000000
burst = 10000
action = 'count'
";

/// One loop at a time: each takes the whole machine.
static MACHINE: Mutex<()> = Mutex::new(());

/// What a trip says of its packet: all that does not hang on a clock.
const EXACT: [&str; 14] = [
    "name",
    "type",
    "class",
    "device",
    "hook",
    "proof",
    "evidence",
    "rapid",
    "recirculated",
    "hops",
    "hold_ms",
    "id",
    "from",
    "to",
];

/// What a guard and a replay of what it saw have told.
struct Told {
    live: Vec<Value>,
    replayed: Vec<Value>,
}

/// Lets a loop burn under a guard with this configuration, records it, and replays it.
fn told(topology: Topology, toml: &str) -> Result<Told> {
    let _machine = MACHINE.lock();
    programs::provide(topology.programs())?;
    programs::provide(&["tcpdump"])?;
    let built = topology.start()?;
    let ports: Vec<_> = built.ports().iter().map(ToString::to_string).collect();
    let toml = format!("ports = [{}]\n{toml}", ports.join(", "));
    let options = GuardOptions {
        mode: Mode::Observe,
        extra_toml: toml.clone(),
        ..GuardOptions::enforce(&[built.device()])
    };
    let guard = Guard::start(built.namespace(), &options)?;
    guard.wait_ready(Duration::from_secs(20))?;
    let before = built.packets()?;
    let tcpdump = Tcpdump::start(built.namespace(), built.device(), &[])?;
    burn(&built, &guard)?;
    let recording = tcpdump.stop()?;
    let passed = built.packets()? - before;
    guard.stop()?;

    let live = guard.events_of("trip")?;
    let mut events = replay(built.namespace(), &recording, &toml)?;
    println!("{topology}: {} packets, {} trips", recording.packets, live.len());
    ensure!(
        events.iter().all(|event| event["schema"] == 1),
        "an event without a schema: {events:?}"
    );
    let summary = events.pop().context("no summary")?;
    ensure!(summary["packets"] == recording.packets, "not all were read: {summary}");
    // Each packet on lo is there once. A few may have passed before the first and after the last.
    ensure!(
        recording.packets <= passed && passed <= recording.packets + 100,
        "{passed} passed, {} are recorded",
        recording.packets
    );
    events.retain(|event| event["event"] == "trip");
    ensure!(!live.is_empty(), "nothing tripped");
    ensure!(
        live.len() == events.len(),
        "{} trips live, {} replayed:\n{live:#?}\n{events:#?}",
        live.len(),
        events.len()
    );
    Ok(Told { live, replayed: events })
}

fn a_replay_tells_the_same_trips(topology: Topology) -> Result<()> {
    let Told { live, replayed } = told(topology, FINE_CLOCK)?;
    for (live, replayed) in live.iter().zip(&replayed) {
        println!("  live     {live}\n  replayed {replayed}");
        for field in EXACT {
            ensure!(live[field] == replayed[field], "{field}:\n{live}\n{replayed}");
        }
        let apart = number(live, "cut_ms")?.abs_diff(number(replayed, "cut_ms")?);
        ensure!(apart <= TICKS_MS, "{apart} ms apart:\n{live}\n{replayed}");
    }
    Ok(())
}

/// On the clock of the last tick, which is behind by up to some ticks where the machine is busy, a trip comes a few hops
/// sooner or later: every 4 ms cost a score of 24 one point, and a round of a pair brings two.
#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn by_the_clock_of_the_last_tick_trips_are_a_few_hops_apart() -> Result<()> {
    let Told { live, mut replayed } = told(circle(Forwarder::Dnsdist, 2, Wire::Loopback), "")?;
    for live in &live {
        let same = replayed.iter().position(|trip| trip["name"] == live["name"]);
        let replayed = replayed.swap_remove(same.context("a name did not trip in the replay")?);
        println!("  live     {live}\n  replayed {replayed}");
        for field in ["type", "device", "hook", "proof", "evidence", "rapid", "hold_ms"] {
            ensure!(live[field] == replayed[field], "{field}:\n{live}\n{replayed}");
        }
        for field in ["hops", "recirculated"] {
            let apart = number(live, field)?.abs_diff(number(&replayed, field)?);
            ensure!(apart <= TICK_HOPS, "{field}:\n{live}\n{replayed}");
        }
    }
    Ok(())
}

fn number(event: &Value, field: &str) -> Result<u64> {
    event[field].as_u64().with_context(|| format!("no {field}: {event}"))
}

/// Asks for several names that go round, lets them, and ends the loop.
fn burn(built: &Loop, guard: &Guard) -> Result<()> {
    let question = built.question();
    let mut questions = vec![question.clone()];
    if let Topology::Circle { .. } = built.topology() {
        let zone = question.name.base_name();
        for label in ["one", "two"] {
            questions.push(Question::new(&format!("{label}.{zone}"), RecordType::A)?);
        }
    }
    let timeout = Duration::from_secs(2);
    let ask = |question| guard_tests::client::ask(built.namespace(), built.server(), question, 2, timeout);
    thread::scope(|scope| {
        let clients: Vec<_> = questions
            .iter()
            .map(|question| scope.spawn(move || ask(question)))
            .collect();
        let found = guard.wait_event("trip", CAP);
        thread::sleep(BURN);
        built.kill();
        for client in clients {
            client.join().expect("the client does not panic")?;
        }
        found.map(drop)
    })
}

/// The events that a replay tells, and its summary as the last of them.
fn replay(namespace: &Namespace, recording: &Recording, toml: &str) -> Result<Vec<Value>> {
    let config = namespace.file("replay.toml", toml)?;
    let mut command = Command::new(guard::binary()?);
    command.arg("replay").arg("--config").arg(config);
    command.args(["-o", "jsonl"]).arg(recording.path());
    let Output { status, stdout, stderr } = namespace.run(|| command.output())?;
    let stderr = String::from_utf8_lossy(&stderr);
    ensure!(status.code() == Some(FOUND), "{status}: {stderr}");
    ensure!(stderr.is_empty(), "{stderr}");
    let lines = String::from_utf8(stdout)?;
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

const fn circle(forwarder: Forwarder, hops: usize, wire: Wire) -> Topology {
    Topology::Circle { forwarder, hops, wire }
}

macro_rules! replays {
    ($($name:ident: $topology:expr;)*) => {
        $(
            #[test]
            #[ignore = "needs root and real resolvers: cargo xtask test"]
            fn $name() -> Result<()> {
                a_replay_tells_the_same_trips($topology)
            }
        )*
    };
}

replays! {
    two_dnsmasq: circle(Forwarder::Dnsmasq, 2, Wire::Loopback);
    three_dnsmasq: circle(Forwarder::Dnsmasq, 3, Wire::Loopback);
    two_dnsdist: circle(Forwarder::Dnsdist, 2, Wire::Loopback);
    three_dnsdist: circle(Forwarder::Dnsdist, 3, Wire::Loopback);
    two_consul: Topology::ConsulPair;
}
