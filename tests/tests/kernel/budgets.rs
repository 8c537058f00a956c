//! Budgets: who is counted where, what a row lets through, and what becomes of the rest.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use guard_common::{
    budget::{Rate, Row, Scope},
    counter::{Counter, RowCount},
    policy::{Action, Mode, Policy},
    remedy::{Reason, Verdict},
    time::Ticks,
};
use guard_tests::{
    frame::{Edns0, Query, RATE_LIMIT},
    question::ResponseCode,
};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

use guard_tests::bench::{Bench, Gate, IFINDEX, Outcome, WIRE, Way, beside_wires, policy_of};

const SERVER: &str = "192.0.2.2:53";
/// Packets that a test run pushes at once.
const MANY: u32 = 20_000;
const BOTH: (bool, bool) = (true, true);
const VERDICTS: [Verdict; 4] = [Verdict::Answer, Verdict::Drop, Verdict::WouldAnswer, Verdict::WouldDrop];

/// So many packets at once, and then one an hour: what comes after them within a test is over budget.
fn hourly(burst: u32) -> Result<Rate> {
    Rate::new(1, 3_600, burst).context("no such rate")
}

fn row(scope: Scope, burst: u32, action: Action) -> Result<Row> {
    Ok(Row::new(7, scope, BOTH, hourly(burst)?, action, Mode::Enforce))
}

/// A bench that enforces these rows, and to which no repeat is a hop of a loop.
fn bench(rows: &[Row], change: impl FnOnce(&mut Policy)) -> Result<Bench> {
    Bench::new(|policy| {
        policy.rapid_ticks = 0;
        for row in rows {
            assert!(policy.add_row(*row), "no room for a row");
        }
        change(policy);
    })
}

fn query(name: &str, source: &str) -> Result<Query> {
    Query::new(name, source, SERVER)
}

fn untouched(gate: Gate, query: &Query) -> Result<Outcome> {
    Ok(Outcome {
        returned: gate.pass(),
        frame: query.frame()?,
    })
}

/// Nothing was done to any packet but these, which is so many for budgets.
fn only_budgets_did(bench: &Bench, done: &[(Verdict, u64)]) -> Result<()> {
    let counters = bench.counters()?;
    for verdict in VERDICTS {
        for reason in Reason::ALL {
            let due = done.iter().find(|(did, _)| *did == verdict && reason == Reason::Budget);
            assert_eq!(
                counters.action(verdict, reason),
                due.map_or(0, |(_, count)| *count),
                "{verdict:?} {reason:?}"
            );
        }
    }
    Ok(())
}

fn monotonic() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

/// The second in which the kernel counts answers.
fn second() -> Result<u32> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?);
    Ok(Ticks::from_ns(now.as_nanos() as u64).0 >> 10)
}

/// The first two CPUs that this process may run on.
fn two_cpus() -> Result<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    Ok([cpus.next().context("no CPU")?, cpus.next().context("needs two CPUs")?])
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Pushes a query until the row is found empty within a stretch of time that is short: that stretch.
fn until_empty(bench: &Bench, gate: Gate, frame: &[u8]) -> Result<[Duration; 2]> {
    for _ in 0..1_000 {
        // One by one, for the kernel takes its time to set up a run of several (`bpf_prog_change_xdp`).
        let over = bench.row(0)?.over;
        let from = monotonic()?;
        for _ in 0..1_000 {
            bench.push(Way::on(IFINDEX), gate, frame)?;
        }
        let to = monotonic()?;
        if bench.row(0)?.over > over && to - from < Duration::from_millis(20) {
            return Ok([from, to]);
        }
        bench.push(Way::on(IFINDEX).times(MANY), gate, frame)?;
    }
    anyhow::bail!("the bucket was never seen empty")
}

/// A split of the rate between CPUs would give each of them half of it, or both of them twice as much.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn two_cpus_share_one_rate_to_the_hundredth() -> Result<()> {
    const LIMIT: u64 = 20_000;
    // What comes in within 4 s: as long may the machine stall.
    const BURST: u32 = 80_000;
    let cpus = two_cpus()?;
    let rate = Rate::new(LIMIT, 1, BURST).context("no such rate")?;
    let row = Row::new(1, Scope::Key, BOTH, rate, Action::Drop, Mode::Enforce);
    for gate in Gate::ALL {
        let bench = bench(&[row], |_| ())?;
        let frame = query("www.example.com", "192.0.2.1:40000")?.frame()?;
        // Empty to begin with: a full bucket gains nothing while a busy machine lets the first packets wait.
        let begun = until_empty(&bench, gate, &frame)?;
        let before = bench.row(0)?;
        let by_cpu = bench.row_by_cpu(0)?;

        // The programs are shared by reference: the maps are one, the CPUs two.
        let program = bench.program(gate)?;
        let mut offered = 0;
        thread::scope(|scope| {
            let pushers = cpus.map(|cpu| {
                let frame = &frame;
                scope.spawn(move || {
                    pin(cpu)?;
                    let mut offered = 0;
                    while monotonic()? < begun[1] + Duration::from_secs(2) {
                        program.push(Way::on(IFINDEX).times(MANY), frame)?;
                        offered += u64::from(MANY);
                    }
                    Ok::<u64, anyhow::Error>(offered)
                })
            });
            for pusher in pushers {
                offered += pusher.join().map_err(|_| anyhow::anyhow!("a panic"))??;
            }
            Ok::<(), anyhow::Error>(())
        })?;
        let pushed = bench.row(0)?;
        assert_eq!(
            pushed.within + pushed.over,
            before.within + before.over + offered,
            "{gate:?}: a packet that was not counted"
        );
        for cpu in cpus {
            let (was, is) = (by_cpu[cpu], bench.row_by_cpu(0)?[cpu]);
            ensure!(is != was, "{gate:?}: CPU {cpu} counted nothing");
        }

        let ended = until_empty(&bench, gate, &frame)?;
        // Empty at a moment in each of the two stretches.
        let within = (bench.row(0)?.within - before.within) as f64;
        let due = |seconds: Duration| LIMIT as f64 * seconds.as_secs_f64();
        let (least, most) = (due(ended[0] - begun[1]), due(ended[1] - begun[0]));
        println!("{gate:?}: {within} within, {least:.0} to {most:.0} due, {offered} offered by two CPUs");
        let slack = most * 0.02;
        ensure!(
            (least - slack..=most + slack).contains(&within),
            "{gate:?}: {within} within, {least:.0} to {most:.0} due"
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_query_over_budget_is_dropped_in_silence() -> Result<()> {
    for gate in Gate::ALL {
        let bench = bench(&[row(Scope::Client, 2, Action::Drop)?], |_| ())?;
        for name in ["a.example", "b.example"] {
            let query = query(name, "192.0.2.1:40000")?;
            assert_eq!(bench.ask(gate, &query)?, untouched(gate, &query)?);
        }
        for name in ["c.example", "a.example"] {
            let query = query(name, "192.0.2.1:40000")?;
            assert_eq!(bench.ask(gate, &query)?.returned, gate.drop(), "{gate:?}");
        }
        let other = query("a.example", "192.0.2.9:40000")?;
        assert_eq!(bench.ask(gate, &other)?, untouched(gate, &other)?, "another client");
        assert_eq!(bench.row(0)?, RowCount { within: 3, over: 2 });
        only_budgets_did(&bench, &[(Verdict::Drop, 2)])?;
    }
    Ok(())
}

/// A name that is far over its budget ends on the short way, of which nobody but who counts is to know.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_flood_over_its_budget_counts_the_same_on_the_short_way_and_on_the_long_one() -> Result<()> {
    beside_wires(|| {
        for gate in Gate::ALL {
            for action in [Action::Drop, Action::Answer] {
                let taken = |is_short: bool| -> Result<_> {
                    let mut bench = bench(&[row(Scope::Key, 3, action)?], |_| ())?;
                    ensure!(bench.is_short(), "the short way is closed");
                    bench.set_control(|control| control.is_short = is_short.into())?;
                    let mut outcomes = Vec::new();
                    for number in 0..400 {
                        let mut query = query("www.example.com", "192.0.2.1:40000")?;
                        // Every fourth comes again.
                        query.id = number - u16::from(number % 4 == 3);
                        outcomes.push(bench.run_by(Way::on(WIRE), gate, &query.frame()?)?);
                    }
                    Ok((outcomes, bench.counters_of(WIRE)?.0, bench.row(0)?))
                };
                let (short, long) = (taken(true)?, taken(false)?);
                assert_eq!(short, long, "{gate:?} {action:?}");
                assert_eq!(short.2, RowCount { within: 3, over: 397 });
            }
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_query_over_budget_is_answered_as_other_libraries_would() -> Result<()> {
    let mut answered = 0;
    for (number, code) in [
        (2, ResponseCode::ServFail),
        (3, ResponseCode::NXDomain),
        (5, ResponseCode::Refused),
    ] {
        let bench = bench(&[row(Scope::Key, 1, Action::Answer)?], |policy| {
            policy.rcode = number;
        })?;
        for ends in [["192.0.2.1:40000", SERVER], ["[2001:db8::1]:40000", "[2001:db8::2]:53"]] {
            for vlans in [&[][..], &[7], &[7, 4094]] {
                for edns in [
                    Edns0::Without,
                    Edns0::With { dnssec_ok: false },
                    Edns0::With { dnssec_ok: true },
                ] {
                    answered += 1;
                    let mut query = Query::new(&format!("n{answered}.Example.com"), ends[0], ends[1])?;
                    query.envelope.vlans = vlans.to_vec();
                    query.edns = edns;
                    query.checking_disabled = answered % 2 == 0;
                    assert_eq!(bench.ask(Gate::TcIn, &query)?, untouched(Gate::TcIn, &query)?);
                    for gate in Gate::ALL {
                        query.id = query.id.wrapping_add(77);
                        let expected = Outcome {
                            returned: gate.answer(),
                            frame: query.answer_frame(code, RATE_LIMIT)?,
                        };
                        assert_eq!(bench.ask(gate, &query)?, expected, "{gate:?} {query:?}");
                    }
                }
            }
        }
        only_budgets_did(&bench, &[(Verdict::Answer, 2 * 3 * 3 * 3)])?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn only_a_plain_query_of_a_trusted_client_gets_a_budgets_answer() -> Result<()> {
    for gate in Gate::ALL {
        let bench = bench(&[row(Scope::All, 1, Action::Answer)?], |_| ())?;
        bench.ask(gate, &query("first.example", "192.0.2.1:40000")?)?;
        for source in [
            "198.51.100.1:40000",
            "192.0.3.1:40000",
            "192.0.2.1:1023",
            "192.0.2.1:53",
        ] {
            let outcome = bench.ask(gate, &query("www.example", source)?)?;
            assert_eq!(outcome.returned, gate.drop(), "{gate:?} {source}");
        }
        let plain = query("www.example", "192.0.2.1:1024")?;
        let mut message = plain.message()?;
        message[7] = 1;
        let loaded = plain.envelope.around(&message)?;
        assert_eq!(bench.run(gate, &loaded)?.returned, gate.drop(), "with an answer in it");
        assert_eq!(bench.ask(gate, &plain)?.returned, gate.answer());
        only_budgets_did(&bench, &[(Verdict::Drop, 5), (Verdict::Answer, 1)])?;
    }
    Ok(())
}

/// Answers are counted in seconds of the kernel's clock. The test counts those that it took.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_budgets_answers_are_limited_for_each_client_and_for_all() -> Result<()> {
    for gate in Gate::ALL {
        let bench = bench(&[row(Scope::All, 1, Action::Answer)?], |policy| {
            policy.limit_answers(3, 8);
        })?;
        bench.ask(gate, &query("first.example", "192.0.2.1:40000")?)?;
        let mut total = 0;
        let first = second()?;
        for client in 10..20 {
            let since = second()?;
            let before = bench.actions(Verdict::Answer, Reason::Budget)?;
            for port in 0..10 {
                let query = query("www.example", &format!("192.0.2.{client}:{}", 40_000 + port))?;
                bench.ask(gate, &query)?;
            }
            let answered = (bench.actions(Verdict::Answer, Reason::Budget)? - before) as u32;
            let seconds = second()?.wrapping_sub(since) + 1;
            ensure!(
                answered <= 3 * seconds,
                "{gate:?}: {answered} answers for one client in {seconds} s"
            );
            if client == 10 {
                ensure!(answered >= 3, "{gate:?}: {answered} answers for the first client");
            }
            total += answered;
        }
        let seconds = second()?.wrapping_sub(first) + 1;
        ensure!(
            (8..=8 + 8 * seconds).contains(&total),
            "{gate:?}: {total} answers in {seconds} s"
        );
        only_budgets_did(
            &bench,
            &[(Verdict::Answer, total.into()), (Verdict::Drop, 100 - u64::from(total))],
        )?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_observing_budget_touches_no_packet_and_counts_what_it_would_do() -> Result<()> {
    for (action, verdict) in [
        (Action::Answer, Verdict::WouldAnswer),
        (Action::Drop, Verdict::WouldDrop),
    ] {
        for (policy_mode, row_mode) in [
            (Mode::Enforce, Mode::Observe),
            (Mode::Observe, Mode::Enforce),
            (Mode::Observe, Mode::Observe),
        ] {
            for gate in Gate::ALL {
                let watching = Row::new(1, Scope::Key, BOTH, hourly(2)?, action, row_mode);
                let bench = Bench::new(|policy| {
                    *policy = policy_of(policy_mode, Action::Answer);
                    policy.rapid_ticks = 0;
                    policy.add_row(watching);
                })?;
                let query = query("www.example.com", "192.0.2.1:40000")?;
                for _ in 0..7 {
                    assert_eq!(
                        bench.ask(gate, &query)?,
                        untouched(gate, &query)?,
                        "{gate:?} {action:?}"
                    );
                }
                assert_eq!(bench.row(0)?, RowCount { within: 2, over: 5 });
                only_budgets_did(&bench, &[(verdict, 5)])?;
            }
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_first_row_without_room_decides_and_those_after_it_are_not_charged() -> Result<()> {
    let narrow = Row::new(1, Scope::Client, BOTH, hourly(1)?, Action::Drop, Mode::Enforce);
    let broad = Row::new(2, Scope::All, BOTH, hourly(3)?, Action::Answer, Mode::Enforce);
    for gate in Gate::ALL {
        let bench = bench(&[narrow, broad], |_| ())?;
        for (client, due) in [
            (1, gate.pass()),
            (1, gate.drop()),
            (1, gate.drop()),
            (2, gate.pass()),
            (3, gate.pass()),
            (4, gate.answer()),
        ] {
            let query = query("www.example", &format!("192.0.2.{client}:40000"))?;
            let before = bench.counters()?;
            let returned = bench.ask(gate, &query)?.returned;
            assert_eq!(returned, due, "{gate:?} client {client}");
            let answered = bench.counters()?.action(Verdict::Answer, Reason::Budget)
                > before.action(Verdict::Answer, Reason::Budget);
            assert_eq!(answered, client == 4);
        }
        assert_eq!(bench.row(0)?, RowCount { within: 4, over: 2 });
        assert_eq!(bench.row(1)?, RowCount { within: 3, over: 1 });
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn when_the_lease_is_over_no_budget_counts() -> Result<()> {
    let mut bench = bench(&[row(Scope::All, 1, Action::Drop)?], |_| ())?;
    let query = query("www.example", "192.0.2.1:40000")?;
    for gate in Gate::ALL {
        bench.set_lease(u64::MAX)?;
        bench.ask(gate, &query)?;
        assert_eq!(bench.row(0)?.within, 1);
        let over = bench.row(0)?.over;
        bench.set_lease(0)?;
        for _ in 0..3 {
            assert_eq!(bench.ask(gate, &query)?, untouched(gate, &query)?);
        }
        assert_eq!(bench.row(0)?, RowCount { within: 1, over });
    }
    assert_eq!(bench.count(Counter::LeaseOver)?, 9);
    Ok(())
}

/// A name and a client that are over budget stay so while a million names and a million clients come by once.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_million_names_and_sources_flush_no_heavy_hitter() -> Result<()> {
    const STRANGERS: u64 = 1_000_000;
    const BURST: u32 = 20;
    let by_key = Row::new(1, Scope::Key, BOTH, hourly(BURST)?, Action::Drop, Mode::Enforce);
    let by_client = Row::new(2, Scope::Client, BOTH, hourly(BURST)?, Action::Drop, Mode::Enforce);
    let bench = bench(&[by_key, by_client], |_| ())?;
    let gate = Gate::TcIn;
    let stranger = query("xxxxxxxxxxxxxxxx.example", "10.0.0.1:40000")?;
    let mut frame = stranger.frame()?;
    let message_at = frame.len() - stranger.message()?.len();
    let name_at = message_at + 13;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut strangers_passed, mut names_passed, mut clients_passed, mut heavy) = (0, 0, 0, 0);
    for number in 0..STRANGERS {
        let name = random();
        for (nibble, letter) in frame[name_at..name_at + 16].iter_mut().enumerate() {
            *letter = b'a' + (name >> (nibble * 4) & 0xf) as u8;
        }
        let source = random();
        frame[27..30].copy_from_slice(&source.to_ne_bytes()[..3]);
        frame[message_at..message_at + 2].copy_from_slice(&source.to_ne_bytes()[3..5]);
        strangers_passed += u64::from(bench.push(Way::on(IFINDEX), gate, &frame)? == gate.pass());
        if number % 1_000 == 0 {
            heavy += 1;
            let mut famous = frame.clone();
            famous[name_at..name_at + 16].copy_from_slice(b"the-famous-name-");
            names_passed += u32::from(bench.push(Way::on(IFINDEX), gate, &famous)? == gate.pass());
            let mut greedy = frame.clone();
            greedy[26..30].copy_from_slice(&[192, 0, 2, 66]);
            greedy[name_at] = b'z';
            clients_passed += u32::from(bench.push(Way::on(IFINDEX), gate, &greedy)? == gate.pass());
        }
    }
    println!("{names_passed} and {clients_passed} of {heavy} each, {strangers_passed} of {STRANGERS} strangers passed");
    assert_eq!((names_passed, clients_passed), (BURST, BURST));
    assert_eq!(strangers_passed, STRANGERS);
    assert_eq!(bench.count(Counter::Trips)?, 0);
    Ok(())
}

/// The row keeps its buckets while its rate changes, or while it is gone: a bucket is a moment in units of the rate,
/// and under another rate it may be any moment.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_policy_that_changes_leaves_no_bucket_wedged() -> Result<()> {
    let rates = [
        (100, 1, 5),
        (1_000_000, 1, 10_000),
        (10, 3_600, 20),
        (10_000, 1, 1_000),
        (100_000_000, 1, 1_000_000),
        (1, 1, 1),
        (1_000, 1, 100),
        (250_000, 1, 3_000),
    ];
    let frame = query("www.example.com", "192.0.2.1:40000")?.frame()?;
    let gate = Gate::TcIn;
    let mut bench = bench(&[], |_| ())?;
    let mut policy = policy_of(Mode::Enforce, Action::Drop);
    policy.rapid_ticks = 0;
    let bare = policy;
    for (packets, seconds, burst) in rates.into_iter().chain(rates.into_iter().rev()) {
        let rate = Rate::new(packets, seconds, burst).context("no such rate")?;
        policy = bare;
        policy.add_row(Row::new(1, Scope::Key, BOTH, rate, Action::Drop, Mode::Enforce));
        for _ in 0..2 {
            let before = bench.row(0)?;
            let since = monotonic()?;
            bench.set_policy(policy)?;
            bench.push(Way::on(IFINDEX).times(MANY), gate, &frame)?;
            let refills = rate.fill_ns() < 5_000_000_000;
            // It owes one more bucket at the most.
            let patience = since + Duration::from_nanos(2 * rate.fill_ns()) + Duration::from_secs(1);
            while refills && bench.row(0)?.within == before.within {
                ensure!(monotonic()? < patience, "{rate:?}: nothing passes");
                bench.push(Way::on(IFINDEX).times(100), gate, &frame)?;
            }
            let within = bench.row(0)?.within - before.within;
            // The kernel's coarse clock moves in steps of up to 10 ms.
            let elapsed = monotonic()? - since + Duration::from_millis(10);
            let most = f64::from(burst) + packets as f64 / f64::from(seconds) * elapsed.as_secs_f64() * 1.001 + 1.0;
            ensure!(within as f64 <= most, "{rate:?}: {within} within, {most} at the most");

            let counted = bench.row(0)?;
            bench.set_policy(bare)?;
            for _ in 0..3 {
                assert_eq!(
                    bench.push(Way::on(IFINDEX), gate, &frame)?,
                    gate.pass(),
                    "without the row"
                );
            }
            assert_eq!(bench.row(0)?, counted, "the row is gone");
        }
    }
    Ok(())
}
