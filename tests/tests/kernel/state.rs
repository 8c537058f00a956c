//! What is remembered, told and counted.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use guard_common::{
    abi,
    counter::Counter,
    judge::{Evidence, Note, SLOTS},
    key::Key,
    question::Message,
    remedy::{Reason, Verdict},
};
use guard_tests::{
    frame::{HELD, Query},
    question::{RecordType, ResponseCode},
};

use guard_tests::bench::{Bench, Gate, IFINDEX, SECRET};

const SOURCE: &str = "192.0.2.1:40000";
const SERVER: &str = "192.0.2.2:53";

/// The key that the judge natively gives a query.
fn key(query: &Query) -> Result<Key> {
    let frame = query.frame()?;
    let start = frame.len() - query.message()?.len();
    let message = Message::read(frame.as_slice(), start, frame.len())
        .ok()
        .context("unreadable")?;
    Key::of(frame.as_slice(), &message.question, &SECRET).context("no key")
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_trip_is_told_with_its_name_and_its_hops() -> Result<()> {
    for gate in Gate::ALL {
        for (source, server) in [(SOURCE, SERVER), ("[2001:db8::1]:40000", "[2001:db8::2]:8600")] {
            let mut bench = Bench::new(|_| ())?;
            let mut query = Query::new("Web.Service.Consul", source, server)?;
            query.question.kind = RecordType::DS;
            let cut = bench.cut(gate, &query)?;
            let events = bench.events()?;
            let trips: Vec<_> = events.iter().filter(|event| event.note == Note::Trip as u8).collect();
            let [trip] = trips[..] else {
                anyhow::bail!("{} trips told", trips.len())
            };
            assert_eq!(trip.wire_name(), b"\x03Web\x07Service\x06Consul\0");
            assert_eq!((trip.qtype, trip.qclass, trip.id), (43, 1, cut.query.id));
            assert_eq!(trip.key, key(&query)?.0, "kernel and native hash agree");
            assert_eq!((trip.ifindex, trip.egress), (IFINDEX, u8::from(gate == Gate::TcOut)));
            assert_eq!(trip.evidence, Evidence::Pace as u8);
            assert_eq!(trip.verdict, Verdict::Answer as u8);
            assert_eq!(trip.held, 1);
            assert_eq!(usize::from(trip.hops), cut.passed + 1);
            ensure!(
                (1..=32).contains(&trip.recirculated),
                "{} recirculated",
                trip.recirculated
            );
            let envelope = &cut.query.envelope;
            assert_eq!(trip.source_port, envelope.source.port());
            assert_eq!(trip.destination_port, envelope.destination.port());
            for (words, socket) in [(trip.source, envelope.source), (trip.destination, envelope.destination)] {
                let octets: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
                let expected = match socket.ip() {
                    std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    std::net::IpAddr::V6(address) => address.octets(),
                };
                assert_eq!(octets, expected);
            }
            let suspects = events
                .iter()
                .take_while(|event| event.note == Note::Suspect as u8)
                .count();
            assert_eq!(
                suspects,
                events.len() - 1,
                "nothing but suspicion goes before a trip, and nothing comes after"
            );
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_allowed_key_is_told_and_goes_on() -> Result<()> {
    for gate in Gate::ALL {
        let query = Query::new("allowed.example", SOURCE, SERVER)?;
        let allowed = key(&query)?;
        let mut bench = Bench::new(|policy| assert!(policy.allow(allowed)))?;
        bench.trip(gate, &query)?;
        let events = bench.events()?;
        let trip = events.last().context("no event")?;
        assert_eq!((trip.note, trip.key), (Note::Trip as u8, allowed.0));
        assert_eq!(trip.verdict, Verdict::WouldAnswer as u8);
        for _ in 0..10 {
            let outcome = bench.ask(gate, &query)?;
            assert_eq!(outcome.returned, gate.pass(), "{gate:?}");
        }
        assert_eq!(bench.count(Counter::Marked)?, 0, "what is only watched is not marked");
        let other = Query::new("other.example", SOURCE, SERVER)?;
        bench.cut(gate, &other)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn names_of_every_length_are_told_whole() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    for len in [1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 63] {
        let name: String = ('a'..='z').cycle().take(len).collect();
        bench.cut(Gate::TcIn, &Query::new(&name, SOURCE, SERVER)?)?;
        let trip = bench.events()?.pop().context("no event")?;
        assert_eq!(trip.wire_name(), [&[len as u8], name.as_bytes(), &[0]].concat());
    }
    bench.cut(Gate::TcIn, &Query::new(".", SOURCE, SERVER)?)?;
    assert_eq!(bench.events()?.pop().context("no event")?.wire_name(), [0]);
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_counters_add_up() -> Result<()> {
    for gate in Gate::ALL {
        let mut bench = Bench::new(|policy| policy.answers_per_client = 2)?;
        let query = Query::new("www.example.com", SOURCE, SERVER)?;
        let cut = bench.cut(gate, &query)?;
        for _ in 0..10 {
            bench.ask(gate, &query)?;
        }
        let sent = cut.passed as u64 + 1 + 10;
        let counters = bench.counters()?;
        assert_eq!(counters.get(Counter::QueriesV4), sent);
        assert_eq!(
            (counters.get(Counter::Trips), counters.get(Counter::AnswerFailed)),
            (1, 0)
        );
        // The two that went first were new; all others came to a server that had the question, one by one.
        assert_eq!(counters.get(Counter::Recirculations), cut.passed as u64 + 1 - 2);
        let answered = counters.action(Verdict::Answer, Reason::Loop);
        let silenced = counters.action(Verdict::Drop, Reason::Silenced);
        assert_eq!(answered + silenced, 11);
        assert_eq!(answered + silenced + cut.passed as u64, sent);
        ensure!(
            (2..=4).contains(&answered),
            "two sockets' addresses, two answers each: {answered}"
        );
        let actions: u64 = counters.0[32..].iter().sum();
        assert_eq!(actions, 11, "nothing else was done");
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_answer_to_the_test_query_releases_the_name() -> Result<()> {
    for gate in Gate::ALL {
        // A hold of one tick: it is over when the kernel's coarse clock moves on.
        let mut bench = Bench::new(|policy| policy.rules.hold_ticks = 1)?;
        let query = Query::new("www.example.com", SOURCE, SERVER)?;
        bench.cut(gate, &query)?;
        let response = |query: &Query, flags: u8| -> Result<Vec<u8>> {
            let mut message = query.message()?;
            (message[2], message[3]) = (message[2] | 0x80, flags);
            query.envelope.back().around(&message)
        };
        let mut tested = None;
        for id in 0..10_000 {
            let mut query = query.clone();
            query.id = id;
            if bench.ask(gate, &query)?.returned == gate.pass() {
                tested = Some(query);
                break;
            }
        }
        let tested = tested.with_context(|| format!("{gate:?}: no test was let through"))?;
        assert_ne!(bench.ask(gate, &query)?.returned, gate.pass(), "one query only");
        for (held, flags) in [(&query, 0x82), (&query, 0x80)] {
            assert_eq!(bench.run(gate, &response(held, flags)?)?.returned, gate.pass());
        }
        let releases = bench.count(Counter::Releases)?;
        assert_eq!(releases, 0, "neither an error nor an answer to a held query releases");
        assert_eq!(bench.run(gate, &response(&tested, 0x80)?)?.returned, gate.pass());
        assert_eq!(bench.count(Counter::Releases)?, 1);
        assert_eq!(bench.events()?.pop().context("no event")?.note, Note::Release as u8);
        assert_eq!(bench.ask(gate, &query)?.returned, gate.pass());
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_name_whose_bucket_is_full_of_loops_passes_and_is_counted() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    let mut buckets: HashMap<u32, Vec<Query>> = HashMap::new();
    let mut crowded = None;
    for number in 0..1_000_000 {
        let query = Query::new(&format!("name{number}.example"), SOURCE, SERVER)?;
        let bucket = buckets.entry(abi::key_bucket(key(&query)?)).or_default();
        bucket.push(query);
        if bucket.len() > SLOTS {
            crowded = Some(bucket.clone());
            break;
        }
    }
    let crowded = crowded.context("no bucket has eight names")?;
    for query in &crowded[..SLOTS] {
        bench.cut(Gate::TcIn, query)?;
    }
    assert_eq!(bench.ask(Gate::TcIn, &crowded[SLOTS])?.returned, Gate::TcIn.pass());
    assert_eq!(bench.count(Counter::TableFull)?, 1);
    let held = bench.ask(Gate::TcIn, &crowded[0])?;
    assert_eq!(held.frame, crowded[0].answer_frame(ResponseCode::ServFail, HELD)?);
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn types_and_classes_are_keys_of_their_own() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    let looped = Query::new("www.example.com", SOURCE, SERVER)?;
    bench.cut(Gate::TcIn, &looped)?;
    let mut other = looped.clone();
    other.question.kind = RecordType::AAAA;
    assert_eq!(bench.ask(Gate::TcIn, &other)?.returned, Gate::TcIn.pass());
    let mut chaos = looped.message()?;
    let class_at = 12 + "www.example.com".len() + 2 + 3;
    chaos[class_at] = 3;
    assert_eq!(
        bench.run(Gate::TcIn, &looped.envelope.around(&chaos)?)?.returned,
        Gate::TcIn.pass()
    );
    Ok(())
}
