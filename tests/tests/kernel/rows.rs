//! Rows of any kind: the kernel counts and decides as the same code does natively.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
};

use anyhow::{Context as _, Result, ensure};
use guard_common::{
    address::Prefix,
    budget::{Filters, Rate, Row, Scope, Subject, ZONES},
    counter::{Counter, RowCount},
    key::{Key, Secret},
    policy::{Action, Mode, Policy},
    question::{Message, Name, Question},
};
use guard_tests::{frame::Query, question::RecordType};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};

use guard_tests::bench::{Bench, Gate, IFINDEX, OTHER_WIRE, SECRET, WIRE, Way, address, beside_wires, policy_of};

const DEVICES: [u32; 3] = [IFINDEX, WIRE, OTHER_WIRE];
const TYPES: [RecordType; 4] = [RecordType::A, RecordType::AAAA, RecordType::PTR, RecordType::ANY];
const NAMES: [&str; 7] = [
    ".",
    "a",
    "Example.com",
    "www.example.COM",
    "1.2.16.104.in-addr.arpa",
    "a.b.c.d.e.f.g.example.com",
    "x.b.c.d.e.f.g.example.com",
];
const V4_CLIENTS: [&str; 4] = ["10.1.2.3", "10.1.2.4", "10.1.99.3", "192.0.2.7"];
const V6_CLIENTS: [&str; 4] = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "fd00::7"];
const V4_SERVERS: [&str; 2] = ["10.0.0.2", "169.254.169.253"];
const V6_SERVERS: [&str; 2] = ["fd00:ec2::253", "2001:db8:53::1"];

/// What a row is made of.
#[derive(Clone, Debug)]
struct Plan {
    scope: Scope,
    directions: (bool, bool),
    burst: u32,
    action: Action,
    mode: Mode,
    bits: (u8, u8),
    devices: Vec<u32>,
    types: Vec<u16>,
    zone_index: u8,
    /// The name whose zone it is about.
    zone_of: Option<usize>,
    /// Servers, by family and index, and how many bits of them count.
    destinations: Vec<(bool, usize, u8)>,
}

/// A packet, and whether it is seen on another interface right behind.
#[derive(Clone, Debug)]
struct Sent {
    gate: Gate,
    device: usize,
    v6: bool,
    client: usize,
    server: usize,
    name: usize,
    kind: usize,
    segments: u32,
    again: bool,
}

fn plans() -> impl Strategy<Value = Plan> {
    let scope = prop::sample::select(vec![
        Scope::All,
        Scope::Destination,
        Scope::Client,
        Scope::Key,
        Scope::Zone,
        Scope::Interface,
    ]);
    let action = prop::sample::select(vec![Action::Answer, Action::Drop]);
    let mode = prop::sample::select(vec![Mode::Observe, Mode::Enforce]);
    let types: Vec<u16> = TYPES.map(u16::from).to_vec();
    (
        (scope, any::<(bool, bool)>(), 1..6_u32, action, mode),
        (0..=32_u8, 0..=128_u8),
        prop::sample::subsequence(DEVICES.to_vec(), 0..=2),
        prop::sample::subsequence(types, 0..=3),
        0..ZONES as u8,
        prop::option::weighted(0.3, 0..NAMES.len()),
        prop::collection::vec((any::<bool>(), 0..2_usize, 0..=128_u8), 0..3),
    )
        .prop_map(|(plain, bits, devices, types, zone_index, zone_of, destinations)| {
            let (scope, directions, burst, action, mode) = plain;
            Plan {
                scope,
                directions,
                burst,
                action,
                mode,
                bits,
                devices,
                types,
                zone_index,
                zone_of,
                destinations,
            }
        })
}

fn packets() -> impl Strategy<Value = Sent> {
    (
        prop::sample::select(Gate::ALL.to_vec()),
        0..DEVICES.len(),
        any::<bool>(),
        0..4_usize,
        0..2_usize,
        0..NAMES.len(),
        0..TYPES.len(),
        prop_oneof![4 => Just(1_u32), 1 => 2..4_u32],
        prop::bool::weighted(0.2),
    )
        .prop_map(|(gate, device, v6, client, server, name, kind, segments, again)| Sent {
            gate,
            device,
            v6,
            client,
            server,
            name,
            kind,
            segments,
            again,
        })
}

impl Sent {
    fn query(&self, number: u16) -> Result<Query> {
        let (client, server) = if self.v6 {
            (V6_CLIENTS[self.client], V6_SERVERS[self.server])
        } else {
            (V4_CLIENTS[self.client], V4_SERVERS[self.server])
        };
        let bracketed = |address: &str, port: u16| {
            if self.v6 {
                format!("[{address}]:{port}")
            } else {
                format!("{address}:{port}")
            }
        };
        let mut query = Query::new(
            NAMES[self.name],
            &bracketed(client, 20_000 + number),
            &bracketed(server, 53),
        )?;
        query.question.kind = TYPES[self.kind];
        query.id = number.wrapping_mul(40_503);
        Ok(query)
    }
}

/// The digest of the last `labels` labels of the name in a frame; 0 if it has fewer, or if none are asked for.
fn zone(frame: &[u8], message: &Message, labels: u8, secret: &Secret) -> u64 {
    let question = &message.question;
    let name = Name::walk(frame, question.name_at).ok();
    let digest = name.and_then(|name| name.zone_at(labels)).and_then(|at| {
        let zone = Question {
            name_at: question.name_at + at,
            name_len: question.name_len - at,
            qtype: 0,
            qclass: 0,
        };
        Key::of(frame, &zone, secret)
    });
    digest.map_or(0, |key| key.0)
}

fn read(frame: &[u8], query: &Query) -> Result<Message> {
    let start = frame.len() - query.message()?.len();
    Message::read(frame, start, frame.len()).ok().context("unreadable")
}

/// The policy of these plans.
fn policy(plans: &[Plan], mode: Mode, labels: [u8; ZONES], secret: &Secret) -> Result<Policy> {
    // Nobody is trusted: what is shed is dropped.
    let mut policy = Policy::new(mode, Action::Answer, policy_of(mode, Action::Answer).rules);
    policy.add_port(53);
    policy.zone_labels = labels;
    for (index, plan) in plans.iter().enumerate() {
        let mut filters = Filters {
            zone_index: plan.zone_index,
            ..Filters::default()
        };
        filters.devices[..plan.devices.len()].copy_from_slice(&plan.devices);
        filters.types[..plan.types.len()].copy_from_slice(&plan.types);
        if let Some(name) = plan.zone_of {
            let query = Query::new(NAMES[name], "192.0.2.1:40000", "192.0.2.2:53")?;
            let frame = query.frame()?;
            filters.zone = zone(
                &frame,
                &read(&frame, &query)?,
                labels[usize::from(plan.zone_index)],
                secret,
            );
        }
        let mut prefixes = Vec::new();
        for (v6, server, bits) in &plan.destinations {
            let server = if *v6 { V6_SERVERS[*server] } else { V4_SERVERS[*server] };
            prefixes.push(Prefix::new(address(server.parse()?).octets(), *bits));
        }
        if !prefixes.is_empty() {
            filters.destinations = policy.add_ranges(&prefixes).context("no room for ranges")?;
        }
        let rate = Rate::new(1, 3_600, plan.burst).context("no such rate")?;
        let row = Row::new(
            index as u64 + 1,
            plan.scope,
            plan.directions,
            rate,
            plan.action,
            plan.mode,
        )
        .by_prefix(plan.bits.0, plan.bits.1)
        .with(&filters);
        ensure!(policy.add_row(row), "no room for a row");
    }
    Ok(policy)
}

/// What the rows are to count, and the bursts that are used up.
struct Model<'a> {
    plans: &'a [Plan],
    policy: &'a Policy,
    secret: Secret,
    taken: HashMap<u64, u32>,
    counts: Vec<RowCount>,
}

impl Model<'_> {
    /// The row that sheds the query, if there is one; else the first that would, if it did more than watch.
    fn judge(&mut self, subject: &Subject, packets: u32) -> Option<usize> {
        let mut noted = None;
        for (index, plan) in self.plans.iter().enumerate() {
            let row = self.policy.row(index as u32)?;
            let Some(tag) = row.tag(subject, &self.secret) else {
                continue;
            };
            let destinations = row.destinations();
            if !destinations.is_empty() && !self.policy.holds(destinations, &subject.server) {
                continue;
            }
            let taken = self.taken.entry(tag).or_default();
            if *taken + packets > plan.burst {
                self.counts[index].over += 1;
                if plan.mode == Mode::Enforce {
                    return Some(index);
                }
                noted = noted.or(Some(index));
                continue;
            }
            *taken += packets;
            self.counts[index].within += 1;
        }
        noted
    }
}

/// Puts the packets through the kernel and through the model.
fn compare(bench: &mut Bench, plans: &[Plan], sent: &[Sent], mode: Mode, labels: [u8; ZONES], case: u64) -> Result<()> {
    // Under another secret, whatever the tables hold belongs to nobody. It would still take the room of others.
    bench.forget_meters()?;
    let secret = Secret([SECRET.0[0] ^ case << 8, SECRET.0[1], SECRET.0[2], SECRET.0[3] + case]);
    let policy = policy(plans, mode, labels, &secret)?;
    bench.set_control(|control| control.secret = secret)?;
    bench.set_policy(policy)?;
    let rows = |bench: &Bench| {
        (0..plans.len() as u32)
            .map(|row| bench.row(row))
            .collect::<Result<Vec<_>>>()
    };
    let before = rows(bench)?;
    let mut model = Model {
        plans,
        policy: &policy,
        secret,
        taken: HashMap::new(),
        counts: vec![RowCount::default(); plans.len()],
    };
    for (number, sent) in sent.iter().enumerate() {
        let query = sent.query(number as u16)?;
        let frame = query.frame()?;
        let message = read(&frame, &query)?;
        for device in [sent.device, (sent.device + 1) % DEVICES.len()] {
            let segments = if sent.gate == Gate::Xdp { 1 } else { sent.segments };
            let ifindex = DEVICES[device];
            let seen = bench.counters_of(ifindex)?.get(Counter::SeenElsewhere);
            let outcome = bench.run_by(Way::on(ifindex).in_segments(segments), sent.gate, &frame)?;
            let elsewhere = bench.counters_of(ifindex)?.get(Counter::SeenElsewhere) > seen;
            let subject = Subject {
                client: address(query.envelope.source.ip()),
                server: address(query.envelope.destination.ip()),
                key: Key::of(frame.as_slice(), &message.question, &secret).context("no key")?,
                zones: labels.map(|labels| zone(&frame, &message, labels, &secret)),
                ifindex,
                qtype: TYPES[sent.kind].into(),
                egress: sent.gate == Gate::TcOut,
                elsewhere,
                // It goes through the same gate twice.
                onward: elsewhere,
            };
            let decides = model.judge(&subject, segments);
            let drops = decides.is_some_and(|row| mode == Mode::Enforce && plans[row].mode == Mode::Enforce);
            let due = if drops { sent.gate.drop() } else { sent.gate.pass() };
            ensure!(
                outcome.returned == due && outcome.frame == frame,
                "packet {number} on {ifindex} came to {}, not {due}: row {decides:?} decides natively",
                outcome.returned
            );
            if !sent.again {
                break;
            }
        }
    }
    for (row, (before, after)) in before.iter().zip(rows(bench)?).enumerate() {
        let counted = RowCount {
            within: after.within - before.within,
            over: after.over - before.over,
        };
        ensure!(
            counted == model.counts[row],
            "row {row} counted {counted:?}, natively {:?}",
            model.counts[row]
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn any_rows_count_and_decide_in_the_kernel_as_they_do_natively() -> Result<()> {
    beside_wires(|| {
        let bench = RefCell::new(Bench::new(|_| ())?);
        let case = Cell::new(0);
        let over = Cell::new(0);
        let config = Config {
            cases: 150,
            failure_persistence: None,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let inputs = (
            prop::collection::vec(plans(), 1..=64),
            prop::collection::vec(packets(), 1..60),
            prop::sample::select(vec![Mode::Enforce, Mode::Enforce, Mode::Observe]),
            any::<[prop::sample::Index; ZONES]>(),
        );
        let result = runner.run(&inputs, |(plans, sent, mode, labels)| {
            case.set(case.get() + 1);
            let labels = labels.map(|labels| labels.index(8) as u8);
            let mut bench = bench.borrow_mut();
            let before = bench.row(0).map_or(0, |row| row.over);
            compare(&mut bench, &plans, &sent, mode, labels, case.get())
                .map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            over.set(over.get() + bench.row(0).map_or(0, |row| row.over) - before);
            Ok(())
        });
        match result {
            Ok(()) => {}
            Err(TestError::Fail(reason, input)) => anyhow::bail!("{reason}: {input:?}"),
            Err(TestError::Abort(reason)) => anyhow::bail!("given up: {reason}"),
        }
        let bench = bench.borrow();
        println!(
            "{} cases, {} queries over the budget of a first row",
            case.get(),
            over.get()
        );
        assert_eq!(bench.count(Counter::Trips)? + bench.count(Counter::TableFull)?, 0);
        ensure!(over.get() > 0, "no row was ever over budget");
        Ok(())
    })
}
