//! Queries shown to the agent.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use guard_common::{
    budget::{LinkRules, Rate, Row, Scope, Service},
    counter::Counter,
    policy::{Action, Mode},
    remedy::{Reason, Shed, Verdict},
    sample::{Kind, Sample},
    time::{Ticks, ticks_of_ms},
};
use guard_tests::{
    frame::Query,
    question::{Name, RecordType},
};
use nix::time::{ClockId, clock_gettime};

use guard_tests::bench::{Bench, Gate, IFINDEX, OTHER_WIRE, WIRE, Way, address, beside_wires, policy_of};

const SERVER: &str = "192.0.2.2:53";
const BOTH: (bool, bool) = (true, true);
/// More than any of these tests shows in a 60th of a second, however fast.
const PLENTY: u32 = 100_000;

fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

fn row(burst: u32, action: Action) -> Result<Row> {
    let rate = Rate::new(1, 3_600, burst).context("no such rate")?;
    Ok(Row::new(1, Scope::All, BOTH, rate, action, Mode::Enforce))
}

fn of_kind(samples: &[Sample], kind: Kind) -> Vec<&Sample> {
    samples.iter().filter(|sample| sample.kind == kind as u8).collect()
}

fn shows(sample: &Sample, query: &Query) -> Result<()> {
    let name: &Name = &query.question.name;
    let wire: Vec<u8> = name
        .iter()
        .flat_map(|label| [&[label.len() as u8], label].concat())
        .chain([0])
        .collect();
    assert_eq!(sample.wire_name(), wire);
    assert_eq!(sample.qtype, u16::from(query.question.kind));
    let envelope = &query.envelope;
    assert_eq!(sample.client, address(envelope.source.ip()).0);
    assert_eq!(sample.server, address(envelope.destination.ip()).0);
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_few_queries_are_each_shown_once_as_they_are() -> Result<()> {
    beside_wires(|| {
        for gate in Gate::ALL {
            let mut bench = Bench::new(|_| ())?;
            bench.set_control(|control| control.sample_quota = PLENTY)?;
            let label = "l".repeat(63);
            let longest = format!("{label}.{label}.{label}.{}", &label[..61]);
            let mut queries = Vec::new();
            for (number, name) in [".", "a", "Web.Service.Consul", &longest].into_iter().enumerate() {
                for ends in [["192.0.2.1", SERVER], ["[2001:db8::1]", "[2001:db8::2]:8600"]] {
                    let mut query = Query::new(name, &format!("{}:{}", ends[0], 40_000 + number), ends[1])?;
                    query.question.kind = [RecordType::A, RecordType::PTR, RecordType::ANY][number % 3];
                    queries.push(query);
                }
            }
            let from = now()?;
            for query in &queries {
                assert_eq!(bench.push(Way::on(WIRE), gate, &query.frame()?)?, gate.pass());
            }
            let to = now()?;
            let samples = bench.samples()?;
            assert_eq!(samples.len(), queries.len(), "{gate:?}");
            for (sample, query) in samples.iter().zip(&queries) {
                shows(sample, query)?;
                assert_eq!((sample.kind, sample.weight), (Kind::Query as u8, 1));
                assert_eq!((sample.ifindex, sample.egress), (WIRE, u8::from(gate == Gate::TcOut)));
                assert_eq!((sample.verdict, sample.row), (Verdict::Pass as u8, Shed::NO_ROW));
                let at = Duration::from_nanos(sample.at_ns);
                // The coarse clock is behind by up to 10 ms.
                ensure!(
                    (from - Duration::from_millis(20)..=to).contains(&at),
                    "{at:?} is not within {from:?} to {to:?}"
                );
            }
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn responses_and_what_is_no_question_are_not_shown() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    let query = Query::new("www.example", "192.0.2.1:40000", SERVER)?;
    let mut message = query.message()?;
    message[2] |= 0x80;
    let response = query.envelope.back().around(&message)?;
    let other_port = Query::new("www.example", "192.0.2.1:40000", "192.0.2.2:5353")?.frame()?;
    for gate in Gate::ALL {
        for frame in [&response, &other_port] {
            bench.run(gate, frame)?;
        }
    }
    assert_eq!(bench.samples()?.len(), 0);
    bench.set_lease(0)?;
    for gate in Gate::ALL {
        bench.ask(gate, &query)?;
    }
    assert_eq!(bench.samples()?.len(), 0, "when the lease is over");
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_shed_is_shown_as_such_too_with_its_row_and_its_reason() -> Result<()> {
    for gate in Gate::ALL {
        for (action, verdict) in [(Action::Answer, Verdict::Answer), (Action::Drop, Verdict::Drop)] {
            let wide = row(24, Action::Drop)?;
            let narrow = Row::new(2, Scope::Key, BOTH, row(2, action)?.rate, action, Mode::Enforce);
            let mut bench = Bench::new(|policy| {
                policy.rapid_ticks = 0;
                policy.add_row(wide);
                policy.add_row(narrow);
            })?;
            bench.set_control(|control| control.sample_quota = PLENTY)?;
            let query = Query::new("www.example", "192.0.2.1:40000", SERVER)?;
            for _ in 0..5 {
                bench.ask(gate, &query)?;
            }
            let samples = bench.samples()?;
            let (all, shed) = (of_kind(&samples, Kind::Query), of_kind(&samples, Kind::Shed));
            assert_eq!((all.len(), shed.len(), samples.len()), (5, 3, 8));
            for sample in &samples {
                shows(sample, &query)?;
                assert_eq!(sample.weight, 1);
            }
            for sample in shed.iter().chain(&all[2..]) {
                assert_eq!((sample.row, sample.reason), (1, Reason::Budget as u8));
                assert_eq!(sample.verdict, verdict as u8, "{gate:?}");
            }
            assert_eq!((all[1].row, all[1].verdict), (Shed::NO_ROW, Verdict::Pass as u8));
        }
    }
    Ok(())
}

/// Of a held key's repeats, the breaker tells; the sample says what the link-local budget would have shed it for.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_would_be_held_is_not_shown_as_shed() -> Result<()> {
    beside_wires(|| {
        let mut rules = LinkRules::new(1_000, 100_000, Action::Drop, Mode::Enforce).context("no such limit")?;
        rules.add_service(address("169.254.169.253".parse()?), Service::Dns);
        rules.add_device(WIRE);
        let mut bench = Bench::new(|policy| {
            *policy = policy_of(Mode::Observe, Action::Drop);
            policy.link = rules;
        })?;
        bench.set_control(|control| control.sample_quota = PLENTY)?;
        bench.trip(
            Gate::TcOut,
            &Query::new("loop.example", "192.0.2.1:40000", "192.0.2.2:53")?,
        )?;
        let ntp = Query::new("x", "192.0.2.1:40000", "169.254.169.253:123")?.frame()?;
        bench.push(Way::on(WIRE).in_segments(50_000), Gate::TcOut, &ntp)?;
        bench.samples()?;
        let held = Query::new("loop.example", "192.0.2.9:40000", "169.254.169.253:53")?;
        let returned = bench.push(Way::on(WIRE), Gate::TcOut, &held.frame()?)?;
        assert_eq!(returned, Gate::TcOut.pass());
        let samples = bench.samples()?;
        ensure!(of_kind(&samples, Kind::Shed).is_empty(), "it would not have left");
        let [shown] = of_kind(&samples, Kind::Query)[..] else {
            anyhow::bail!("{} samples", samples.len())
        };
        assert_eq!(shown.verdict, Verdict::WouldDrop as u8);
        shows(shown, &held)
    })
}

/// All that is shown of a flood: its samples, the queries that they stand for, and how many windows of the quota it
/// lasted.
fn flood(bench: &mut Bench, gate: Gate, frame: &[u8], kind: Kind) -> Result<(u64, u64, u64, u64)> {
    const MANY: u32 = 20_000;
    let window = || Ok::<_, anyhow::Error>(u64::from(Ticks::from_ns(now()?.as_nanos() as u64).0 >> 4));
    let (from, first) = (now()?, window()?);
    let (mut pushed, mut samples, mut weight) = (0, 0, 0);
    while now()? - from < Duration::from_secs(3) {
        bench.push(Way::on(IFINDEX).times(MANY), gate, frame)?;
        pushed += u64::from(MANY);
        for sample in of_kind(&bench.samples()?, kind) {
            samples += 1;
            weight += u64::from(sample.weight);
        }
    }
    assert_eq!(bench.count(Counter::SamplesLost)?, 0);
    Ok((pushed, samples, weight, window()? - first + 1))
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_flood_is_shown_in_few_samples_that_stand_for_all_of_it() -> Result<()> {
    // What is shown of either kind: so many in a window, then half of what follows, and so on.
    const QUOTA: u32 = 8;
    for (gate, kind) in [
        (Gate::TcIn, Kind::Query),
        (Gate::Xdp, Kind::Query),
        (Gate::TcOut, Kind::Shed),
    ] {
        let within = row(1, Action::Drop)?;
        let mut bench = Bench::new(|policy| {
            policy.rapid_ticks = 0;
            if kind == Kind::Shed {
                policy.add_row(within);
            }
        })?;
        bench.set_control(|control| control.sample_quota = QUOTA)?;
        let frame = Query::new("www.example", "192.0.2.1:40000", SERVER)?.frame()?;
        let (pushed, samples, weight, windows) = flood(&mut bench, gate, &frame, kind)?;
        println!("{gate:?}: {samples} samples of {pushed} queries in {windows} windows stand for {weight}");
        let off = weight.abs_diff(pushed) as f64 / pushed as f64;
        ensure!(off < 0.2, "{gate:?}: {weight} shown of {pushed}");
        // As many CPUs as the thread was on, each with a quota of its own.
        let cpus = std::thread::available_parallelism()?.get() as u64;
        let most = (windows * 3 + 17) * u64::from(QUOTA) * cpus;
        ensure!(
            samples <= most,
            "{gate:?}: {samples} samples in {windows} windows, {most} at the most"
        );
        ensure!(samples * 100 < pushed, "{gate:?}: {samples} samples of {pushed}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_query_that_crosses_two_interfaces_is_shown_once() -> Result<()> {
    beside_wires(|| {
        let mut bench = Bench::new(|policy| policy.rapid_ticks = ticks_of_ms(100))?;
        bench.set_control(|control| control.sample_quota = PLENTY)?;
        let count = 20;
        for number in 0..count {
            let query = Query::new(&format!("n{number}.example"), "192.0.2.1:40000", SERVER)?;
            let frame = query.frame()?;
            bench.push(Way::on(WIRE), Gate::TcIn, &frame)?;
            bench.push(Way::on(OTHER_WIRE), Gate::TcOut, &frame)?;
        }
        // What takes more than a second on its way is a query that is sent again.
        let crossed = bench.counters_of(OTHER_WIRE)?.get(Counter::SeenElsewhere);
        ensure!(crossed > 0, "no query was known on the second interface");
        assert_eq!(bench.samples()?.len() as u64, 2 * count - crossed);
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn samples_that_nobody_fetches_are_counted_as_lost() -> Result<()> {
    let mut bench = Bench::new(|policy| policy.rapid_ticks = 0)?;
    bench.set_control(|control| control.sample_quota = PLENTY)?;
    let frame = Query::new("www.example", "192.0.2.1:40000", SERVER)?.frame()?;
    let sent = 5_000;
    for _ in 0..sent {
        assert_eq!(bench.push(Way::on(IFINDEX), Gate::TcIn, &frame)?, Gate::TcIn.pass());
    }
    let lost = bench.count(Counter::SamplesLost)?;
    let shown = bench.samples()?.len() as u64;
    assert_eq!(shown + lost, sent);
    ensure!(lost > 0 && shown > 1_000, "{shown} shown, {lost} lost");
    bench.push(Way::on(IFINDEX), Gate::TcIn, &frame)?;
    assert_eq!(bench.samples()?.len(), 1, "there is room again");
    Ok(())
}
