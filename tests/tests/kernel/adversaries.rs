//! Who wants the guard to do harm: floods of names and sources, forged addresses, and what is sent to make it answer.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use guard_common::{
    address::Prefix,
    budget::{Rate, Row, Scope},
    counter::Counter,
    policy::{Action, Mode, Policy},
    remedy::{Reason, Verdict},
    time::ticks_of_ms,
};
use guard_tests::{
    bench::{Bench, Gate, Outcome, WIRE, Way, beside_wires, policy_of},
    frame::{Edns0, Query},
    names::{LETTERS, MOST_NAMES, Names, Order},
    speed::{Feed, Rig},
};

/// Behind the Ethernet header and twelve bytes of the IPv4 header.
const SOURCE_AT: usize = 26;
/// Behind the headers of Ethernet, IPv4, UDP and DNS, and a length byte.
const LETTERS_AT: usize = 14 + 20 + 8 + 12 + 1;
/// Behind the headers of Ethernet, IPv4 and UDP, and the ID.
const FLAGS_AT: usize = 14 + 20 + 8 + 2;
/// An OPT record that takes the place of one without options, with an Extended DNS Error of twenty letters.
const EDE_LEN: usize = 4 + 2 + 20;
const WAY: Way = Way::on(WIRE);
/// No hold ends in a test.
const LONG_MS: u32 = 30 * 60 * 1_000;

fn held_name() -> Result<Query> {
    query("loop.example", "192.0.2.1:40000")
}

fn query(name: &str, from: &str) -> Result<Query> {
    Query::new(name, from, "192.0.2.2:53")
}

/// Answers as often as it is asked, and holds for longer than a test lasts.
fn patient() -> Policy {
    let mut policy = policy_of(Mode::Enforce, Action::Answer);
    policy.rules.hold_ticks = ticks_of_ms(LONG_MS);
    policy.rules.hold_max_ticks = policy.rules.hold_ticks;
    policy.limit_answers(u32::MAX, u32::MAX);
    policy
}

/// A guard that holds [`held_name`].
fn guard() -> Result<Bench> {
    let mut bench = Bench::new(|policy| *policy = patient())?;
    bench.trip(Gate::TcIn, &held_name()?)?;
    Ok(bench)
}

/// What became of a packet. What TC returns for one that was leaving is the same if it is dropped and if it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    Drops,
    Answers,
}

fn fate(gate: Gate, before: &[u8], outcome: &Outcome) -> Result<Fate> {
    let changed = outcome.frame != before;
    if outcome.returned == gate.pass() && !changed {
        Ok(Fate::Passes)
    } else if outcome.returned == gate.answer() && changed {
        Ok(Fate::Answers)
    } else {
        ensure!(outcome.returned == gate.drop() && !changed, "{gate:?}: {outcome:?}");
        Ok(Fate::Drops)
    }
}

fn ask(bench: &Bench, gate: Gate, frame: &[u8]) -> Result<Fate> {
    fate(gate, frame, &bench.run_by(WAY, gate, frame)?)
}

/// Ten million names, each from a source of its own: a loop stays held, and a heavy client gets its budget and not one
/// query more.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn ten_million_names_and_sources_flush_nothing_that_matters() -> Result<()> {
    const PORTION: u32 = MOST_NAMES / 16;
    const HEAVY: u64 = 20;
    let mut bench = guard()?;
    let mut policy = patient();
    let rate = Rate::new(1, 3_600, HEAVY as u32).context("a rate that there is")?;
    let row = Row::new(1, Scope::Client, (true, true), rate, Action::Drop, Mode::Enforce).by_prefix(32, 128);
    ensure!(policy.add_row(row), "no room for a row");
    bench.set_policy(policy)?;
    let held = held_name()?.frame()?;
    let mut heavy = query("heavy.example", "198.51.100.7:40000")?;
    let (mut asked, mut heavy_passed) = (0, 0);
    beside_wires(|| {
        for round in 0..10 {
            let gate = Gate::ALL[round % 3];
            let frame = query(
                &format!("{}.flood{round}.example", "a".repeat(LETTERS)),
                "192.0.2.1:40000",
            )?
            .frame()?;
            let feed = Feed {
                names: Some(Names {
                    at: LETTERS_AT,
                    count: MOST_NAMES,
                    order: Order::InTurn,
                }),
                source_at: Some(SOURCE_AT),
                ..Feed::default()
            };
            let rig = Rig::new(gate, WAY, &frame, feed, bench.program(gate)?.descriptor()?)?;
            for _ in 0..MOST_NAMES / PORTION {
                rig.run(PORTION)?;
                asked += u64::from(PORTION);
                let fate = ask(&bench, gate, &held)?;
                ensure!(fate == Fate::Answers, "{gate:?}: the loop {fate:?} after {asked} names");
                for id in 0..10 {
                    heavy.id = id;
                    heavy_passed += u64::from(bench.push(WAY, gate, &heavy.frame()?)? == gate.pass());
                }
            }
        }
        Ok(())
    })?;
    ensure!(asked >= 10_000_000, "only {asked} names");
    assert_eq!(heavy_passed, HEAVY, "of one client");
    let counters = bench.counters_of(WIRE)?;
    assert_eq!(counters.get(Counter::Trips), 0, "a name of the flood");
    assert_eq!(counters.get(Counter::TableFull), 0);
    println!("measured: {asked} names and sources, the heavy client got {heavy_passed}");
    Ok(())
}

/// Sources from everywhere ask for a held name. Half of all addresses are trusted.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn no_answer_leaves_for_whom_nobody_trusts_and_none_is_much_longer_than_its_query() -> Result<()> {
    const FORGED: usize = 8_000;
    const MOST_ANSWERS: u32 = 3_000;
    for edns in [Edns0::Without, Edns0::With { dnssec_ok: true }] {
        let mut bench = guard()?;
        let mut policy = Policy::new(Mode::Enforce, Action::Answer, patient().rules);
        policy.add_port(53);
        policy.trust(Prefix::new(
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 128, 0, 0, 0],
            96 + 1,
        ));
        policy.limit_answers(3, MOST_ANSWERS);
        bench.set_policy(policy)?;
        let query = Query { edns, ..held_name()? };
        let frame = query.frame()?;
        let feed = Feed {
            source_at: Some(SOURCE_AT),
            restores: true,
            ..Feed::default()
        };
        let (mut answers, mut bytes_out) = (0, 0);
        beside_wires(|| {
            for gate in Gate::ALL {
                let rig = Rig::new(gate, WAY, &frame, feed, bench.program(gate)?.descriptor()?)?;
                for _ in 0..FORGED {
                    let Outcome { returned, frame: after } = rig.look(1)?;
                    ensure!(returned != gate.pass(), "{gate:?}: a held query passes");
                    if after[FLAGS_AT] & 0x80 == 0 {
                        ensure!(returned == gate.drop(), "{gate:?}: a query is sent back");
                        continue;
                    }
                    ensure!(returned == gate.answer(), "{gate:?}: an answer is not sent");
                    let to = Ipv4Addr::from(<[u8; 4]>::try_from(&after[SOURCE_AT + 4..SOURCE_AT + 8])?);
                    ensure!(to.octets()[0] >= 128, "{gate:?}: an answer to {to}, whom nobody trusts");
                    ensure!(after.len() <= frame.len() + EDE_LEN, "{gate:?}: {} bytes", after.len());
                    answers += 1;
                    bytes_out += after.len();
                }
            }
            Ok(())
        })?;
        ensure!(answers > 0, "nobody was answered");
        ensure!(answers <= MOST_ANSWERS, "{answers} answers in one hold");
        let bytes_in = 3 * FORGED * frame.len();
        println!("measured: {edns:?}: {answers} answers, {bytes_out} bytes for {bytes_in}");
        ensure!(bytes_out < bytes_in, "{bytes_out} bytes for {bytes_in}");
        let counters = bench.counters_of(WIRE)?;
        assert_eq!(counters.action(Verdict::Answer, Reason::Loop), u64::from(answers));
        ensure!(
            counters.action(Verdict::Drop, Reason::Untrusted) > 0,
            "all were trusted"
        );
        ensure!(
            counters.action(Verdict::Drop, Reason::Silenced) > 0,
            "nobody was silenced"
        );
    }
    Ok(())
}

/// Two servers that answer each other's errors never stop (CVE-2024-2169). A held name, and every word of flags: what is
/// no plain query gets no answer, and no response is touched.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn no_word_of_flags_makes_it_answer_a_response() -> Result<()> {
    const QR: u16 = 0x8000;
    const OPCODE: u16 = 0x7800;
    let bench = guard()?;
    let frame = held_name()?.frame()?;
    beside_wires(|| {
        for gate in Gate::ALL {
            let mut answers = 0;
            for flags in 0..=u16::MAX {
                let mut frame = frame.clone();
                frame[FLAGS_AT..FLAGS_AT + 2].copy_from_slice(&flags.to_be_bytes());
                let fate = ask(&bench, gate, &frame)?;
                let is_query = flags & (QR | OPCODE) == 0;
                let due = if is_query { Fate::Answers } else { Fate::Passes };
                ensure!(fate == due, "{gate:?}: {flags:04x} {fate:?}");
                answers += u32::from(is_query);
            }
            assert_eq!(answers, 1 << 11, "{gate:?}");
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn no_port_of_a_server_gets_an_answer() -> Result<()> {
    let bench = guard()?;
    beside_wires(|| {
        for gate in Gate::ALL {
            for port in (0..=1_100).chain([5_353, 8_600, 65_535]) {
                let query = query("loop.example", &format!("192.0.2.1:{port}"))?;
                let due = if port < 1_024 { Fate::Drops } else { Fate::Answers };
                let fate = ask(&bench, gate, &query.frame()?)?;
                ensure!(fate == due, "{gate:?}: a query from port {port} {fate:?}");
            }
        }
        Ok(())
    })
}

/// Ten thousand queries, each in the name of the other guard: what one answers, the other one lets pass.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn two_guards_do_not_answer_each_other() -> Result<()> {
    const VARIANTS: u32 = 10_000;
    let (one, other) = (guard()?, guard()?);
    let mut answers = 0;
    beside_wires(|| {
        for variant in 0..VARIANTS {
            let gate = Gate::ALL[variant as usize % 3];
            // Every port comes up, those of servers and clients, from the least to the highest.
            let port = (variant * 6_553) as u16;
            let mut query = query("loop.example", &format!("192.0.2.1:{port}"))?;
            query.id = !port;
            query.recursion_desired = variant & 8 != 0;
            query.checking_disabled = variant & 16 != 0;
            if variant & 32 == 0 {
                query.edns = Edns0::Without;
            }
            let frame = query.frame()?;
            let outcome = one.run_by(WAY, gate, &frame)?;
            if fate(gate, &frame, &outcome)? == Fate::Answers {
                answers += 1;
                let fate = ask(&other, gate, &outcome.frame)?;
                ensure!(fate == Fate::Passes, "{gate:?}: an answer to port {port} {fate:?}");
            }
        }
        Ok(())
    })?;
    ensure!(answers > VARIANTS / 2, "only {answers} answers");
    Ok(())
}

/// What two servers send each other in turns, with the name that `name` gives to each round.
fn round_of(name: &str, round: u32) -> Result<Query> {
    let mut query = Query::new(name, "192.0.2.1:40000", "192.0.2.2:53")?;
    if round % 2 == 1 {
        query.envelope.source = "192.0.2.2:40001".parse()?;
        query.envelope.destination = "192.0.2.1:53".parse()?;
    }
    query.id = 7 + (round % 2) as u16;
    Ok(query)
}

/// A loop that takes a few names in turns is as many loops, unless each of them always goes the same way.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_loop_with_a_name_that_changes_is_held_by_each_of_its_names() -> Result<()> {
    for gate in [Gate::TcIn, Gate::Xdp] {
        for (names, trips) in [(21, 21), (20, 0)] {
            let bench = Bench::new(|policy| policy.rules.hold_ticks = ticks_of_ms(LONG_MS))?;
            for round in 0..names * 48 {
                let query = round_of(&format!("turn{}.example", round % names), round)?;
                bench.run(gate, &query.frame()?)?;
            }
            assert_eq!(bench.count(Counter::Trips)?, trips, "{gate:?}: {names} names");
        }
    }
    Ok(())
}

/// One that never asks for the same name twice is no loop to the judge. A limit for the zone is what holds it, and what that
/// sheds takes no slot in the table of keys.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_loop_that_never_repeats_a_name_is_held_by_a_budget_for_its_zone() -> Result<()> {
    const LIMIT: u32 = 50;
    const ROUNDS: u32 = 3_000;
    for gate in Gate::ALL {
        let rate = Rate::new(1, 1_000, LIMIT).context("a rate that there is")?;
        let row = Row::new(1, Scope::Zone, (true, true), rate, Action::Drop, Mode::Enforce);
        let bench = Bench::new(|policy| {
            policy.zone_labels = [2, 0, 0, 0];
            assert!(policy.add_row(row), "no room for a row");
        })?;
        let turning = |round| round_of(&format!("round{round}.turning.example"), round);
        let mut passed = 0;
        beside_wires(|| {
            for round in 0..ROUNDS {
                let query = turning(round)?;
                passed += u32::from(ask(&bench, gate, &query.frame()?)? == Fate::Passes);
            }
            Ok(())
        })?;
        let trips = bench.counters_of(WIRE)?.get(Counter::Trips);
        assert_eq!((passed, trips), (LIMIT, 0), "{gate:?}");
        for round in 0..ROUNDS {
            let query = turning(round)?;
            assert_eq!(bench.knows(&query)?, round < LIMIT, "{gate:?}: round {round}");
        }
    }
    Ok(())
}
