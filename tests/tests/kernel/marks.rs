//! Marks: what they change in a query, that the answer does not show it, and who never gets one.

use anyhow::{Context as _, Result, ensure};
use guard_common::{
    counter::Counter,
    event::Event,
    judge::{Evidence, Note},
    policy::{Action, Mode, Policy},
};
use guard_tests::{
    bench::{Bench, Gate, Outcome, policy_of},
    frame::{Edns0, Query, checksums_hold, left_to_the_card},
    question::{Name, RecordType},
};
use hickory_proto::serialize::binary::BinDecodable as _;
use proptest::prelude::*;

const V4: [&str; 2] = ["192.0.2.1:40000", "192.0.2.2:53"];
const V6: [&str; 2] = ["[2001:db8::1]:40000", "[2001:db8::2]:53"];
/// Queries of one name, of which one is marked before long: the fourth that nobody answers is suspect.
const SOON: u16 = 12;
/// The promise, where the name has letters enough.
const RECIRCULATED: u16 = 8;
/// UDP header and DNS header; the name comes after them.
const UDP_LEN: usize = 8;
const DNS_LEN: usize = 12;

fn marking(policy: &mut Policy) {
    policy.rules.marks = 1;
}

/// The bytes of its frame in front of the message.
fn headers_len(query: &Query) -> Result<usize> {
    Ok(query.frame()?.len() - query.message()?.len())
}

/// A busy forwarder: the next client's query for the same question, or, every other time, the forwarder's own to the next
/// server.
fn next_in_crowd(query: &Query, number: u16) -> Query {
    let mut next = query.clone();
    next.id = query.id.wrapping_add(number);
    let port = 20_000 + number;
    next.envelope.source.set_port(port);
    if number % 2 == 1 {
        next.envelope.source.set_ip(query.envelope.destination.ip());
        next.envelope.destination.set_ip(query.envelope.source.ip());
    }
    next
}

/// A query of a crowd that asks for this, and how it looks with the mark.
fn marked(bench: &Bench, gate: Gate, query: &Query) -> Result<(Query, Vec<u8>)> {
    for number in 0..SOON {
        let query = next_in_crowd(query, number);
        let frame = query.frame()?;
        let outcome = bench.run(gate, &frame)?;
        ensure!(outcome.returned == gate.pass(), "{gate:?} {query:?} is held");
        if outcome.frame != frame {
            return Ok((query, outcome.frame));
        }
    }
    anyhow::bail!("{gate:?}: nothing was marked of {query:?}")
}

/// Bytes of a name in wire form.
fn wire_len(name: &Name) -> usize {
    name.iter().map(|label| 1 + label.len()).sum::<usize>() + 1
}

/// The name in a frame, spelled as it is there.
fn name_in(query: &Query, frame: &[u8]) -> Result<Name> {
    let at = headers_len(query)? + DNS_LEN;
    let len = wire_len(&query.question.name);
    let bytes = frame.get(at..at + len).context("the frame has no name")?;
    Ok(Name::from_bytes(bytes)?)
}

/// The query with its name spelled like that.
fn spelled(query: &Query, name: &Name) -> Query {
    let mut query = query.clone();
    query.question.name = name.clone();
    query
}

/// A response to the query: an address whose owner is the question's name, compressed.
fn response(query: &Query, rcode: u8) -> Result<Vec<u8>> {
    let mut message = query.message()?;
    (message[2], message[3]) = (message[2] | 0x80, 0x80 | rcode);
    if rcode == 0 {
        message[7] = 1;
        let question_end = DNS_LEN + wire_len(&query.question.name) + 4;
        let answer = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 99];
        message.splice(question_end..question_end, answer);
    }
    query.envelope.back().around(&message)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_suspect_query_is_marked_and_nothing_else_of_it_changes() -> Result<()> {
    let longest = format!("{0}.{0}.{0}.{1}", "l".repeat(63), "m".repeat(61));
    let bench = Bench::new(marking)?;
    let mut number = 0;
    for gate in Gate::ALL {
        for ends in [V4, V6] {
            for vlans in [&[][..], &[7], &[7, 4094]] {
                for name in ["abc", "www.example.com", "x-1.2.3.a0b1c2d3e4.example", &longest] {
                    for edns in [Edns0::Without, Edns0::With { dnssec_ok: true }] {
                        number += 1;
                        // Each is a question of its own.
                        let mut query = Query::new(name, ends[0], ends[1])?;
                        query.question.kind = RecordType::from(1_000 + number);
                        query.envelope.vlans = vlans.to_vec();
                        query.edns = edns;
                        let (query, frame) = marked(&bench, gate, &query)?;
                        let name = name_in(&query, &frame)?;
                        let plain = &query.question.name;
                        ensure!(
                            name.to_ascii() != plain.to_ascii() && name.to_lowercase() == plain.to_lowercase(),
                            "{name} for {plain}"
                        );
                        assert_eq!(frame, spelled(&query, &name).frame()?, "{gate:?} {query:?}");
                        ensure!(checksums_hold(&frame)?);
                    }
                }
            }
        }
    }
    let counters = bench.counters()?;
    assert_eq!(counters.get(Counter::Marked), u64::from(number));
    assert_eq!(counters.get(Counter::NotMarked), 0);
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_answer_is_spelled_as_the_client_spelled_it() -> Result<()> {
    let bench = Bench::new(marking)?;
    let mut number = 0;
    for gate in Gate::ALL {
        for ends in [V4, V6] {
            for vlans in [&[][..], &[7], &[7, 4094]] {
                for name in ["abc.test", "wWw.ExAmple.COM", &"tEst".repeat(15)] {
                    for rcode in [0, 3, 2] {
                        number += 1;
                        let mut query = Query::new(name, ends[0], ends[1])?;
                        query.question.kind = RecordType::from(1_000 + number);
                        query.envelope.vlans = vlans.to_vec();
                        let (query, frame) = marked(&bench, gate, &query)?;
                        let marked = spelled(&query, &name_in(&query, &frame)?);
                        let outcome = bench.run(gate, &response(&marked, rcode)?)?;
                        let restored = Outcome {
                            returned: gate.pass(),
                            frame: response(&query, rcode)?,
                        };
                        assert_eq!(outcome, restored, "{gate:?} {query:?}");
                        ensure!(checksums_hold(&outcome.frame)?);
                    }
                }
            }
        }
    }
    assert_eq!(bench.count(Counter::Restored)?, u64::from(number));
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_checksum_that_is_none_or_not_complete_stays_so() -> Result<()> {
    let bench = Bench::new(marking)?;
    let none = |query: &Query, frame: &mut [u8]| -> Result<()> {
        let at = headers_len(query)? - UDP_LEN + 6;
        frame[at..at + 2].fill(0);
        Ok(())
    };
    for (number, gate) in Gate::ALL.into_iter().enumerate() {
        let mut query = Query::new("www.example.com", V4[0], V4[1])?;
        query.question.kind = RecordType::from(1_000 + number as u16);
        let (query, frame) = marked(&bench, gate, &query)?;
        let marked = spelled(&query, &name_in(&query, &frame)?);
        let (mut before, mut after) = (response(&marked, 0)?, response(&query, 0)?);
        none(&query, &mut before)?;
        none(&query, &mut after)?;
        assert_eq!(bench.run(gate, &before)?.frame, after, "{gate:?}");
    }
    // What the kernel knows of a packet's checksum, a test run at TC cannot tell it; real packets do (`strict`).
    for ends in [V4, V6] {
        let mut query = Query::new("www.example.org", ends[0], ends[1])?;
        query.question.kind = RecordType::from(1_010);
        let (query, frame) = marked(&bench, Gate::Xdp, &query)?;
        let marked = spelled(&query, &name_in(&query, &frame)?);
        let before = left_to_the_card(&response(&marked, 0)?)?;
        let after = left_to_the_card(&response(&query, 0)?)?;
        assert_eq!(bench.run(Gate::Xdp, &before)?.frame, after);
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn clients_whose_queries_were_joined_with_a_marked_one_do_not_see_the_mark() -> Result<()> {
    for gate in Gate::ALL {
        let bench = Bench::new(marking)?;
        let query = Query::new("www.example.com", V4[0], V4[1])?;
        let (_, frame) = marked(&bench, gate, &query)?;
        let mark = name_in(&query, &frame)?;
        let asks = |name: &Name, port: u16| -> Result<Query> {
            let mut query = spelled(&query, name);
            query.envelope.source.set_port(port);
            bench.run(gate, &query.frame()?)?;
            Ok(query)
        };
        // A forwarder that joins equal queries answers all of them in the spelling of one.
        let plain = asks(&query.question.name, 30_000)?;
        let joined = bench.run(gate, &response(&spelled(&plain, &mark), 0)?)?;
        assert_eq!(joined.frame, response(&plain, 0)?, "{gate:?}");
        // Whoever spells otherwise would not have got his own spelling without the guard either.
        let random = Name::from_ascii("wWw.eXaMpLe.cOm.")?;
        let other = asks(&random, 30_001)?;
        let answer = response(&spelled(&other, &mark), 0)?;
        assert_eq!(bench.run(gate, &answer)?.frame, answer, "{gate:?}");
        // A spelling that is no mark is nobody's business, nor is a response that nobody asked for.
        let plain = asks(&query.question.name, 30_002)?;
        let odd = response(&spelled(&plain, &random), 0)?;
        assert_eq!(bench.run(gate, &odd)?.frame, odd, "{gate:?}");
        let mut unasked = spelled(&query, &mark);
        unasked.envelope.source.set_port(30_003);
        let unasked = response(&unasked, 0)?;
        assert_eq!(bench.run(gate, &unasked)?.frame, unasked, "{gate:?}");
    }
    Ok(())
}

/// Lets a crowd ask for so long that it would be marked; nothing of it is changed.
fn is_never_marked(bench: &Bench, gate: Gate, query: &Query, message: &[u8]) -> Result<()> {
    for number in 0..SOON {
        let next = next_in_crowd(query, number);
        let mut message = message.to_vec();
        message[..2].copy_from_slice(&next.id.to_be_bytes());
        let frame = next.envelope.around(&message)?;
        let unchanged = Outcome {
            returned: gate.pass(),
            frame: frame.clone(),
        };
        assert_eq!(bench.run(gate, &frame)?, unchanged, "{gate:?} {query:?}");
    }
    assert_eq!(bench.count(Counter::Marked)?, 0, "{gate:?} {query:?}");
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_signed_is_never_marked() -> Result<()> {
    /// A record of the root with this type and some data, in class ANY.
    fn record(kind: u16) -> Vec<u8> {
        let mut record = vec![0];
        record.extend_from_slice(&kind.to_be_bytes());
        record.extend_from_slice(&[0, 255, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]);
        record
    }
    let (tsig, sig) = (250, 24);
    for gate in Gate::ALL {
        for edns in [Edns0::Without, Edns0::With { dnssec_ok: false }] {
            for kind in [tsig, sig] {
                let bench = Bench::new(marking)?;
                let mut query = Query::new("www.example.com", V4[0], V4[1])?;
                query.edns = edns;
                let mut message = query.message()?;
                message.extend_from_slice(&record(kind));
                message[11] += 1;
                is_never_marked(&bench, gate, &query, &message)?;
            }
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_name_without_letters_enough_is_never_marked() -> Result<()> {
    for gate in Gate::ALL {
        for name in [".", "1.2.3.4.", "_9.a-0.b"] {
            let bench = Bench::new(marking)?;
            let query = Query::new(name, V4[0], V4[1])?;
            is_never_marked(&bench, gate, &query, &query.message()?)?;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn who_may_only_watch_marks_if_the_policy_says_so() -> Result<()> {
    for gate in Gate::ALL {
        let query = Query::new("www.example.com", V4[0], V4[1])?;
        let watch = policy_of(Mode::Observe, Action::Answer);
        let bench = Bench::new(|policy| *policy = watch)?;
        is_never_marked(&bench, gate, &query, &query.message()?)?;
        let bench = Bench::new(|policy| {
            *policy = watch;
            marking(policy);
        })?;
        marked(&bench, gate, &query)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn without_room_to_remember_a_mark_there_is_none_and_the_loop_is_found_anyway() -> Result<()> {
    for gate in Gate::ALL {
        let mut bench = Bench::new(marking)?;
        bench.fill_marks()?;
        let query = Query::new("www.example.com", V4[0], V4[1])?;
        is_never_marked(&bench, gate, &query, &query.message()?)?;
        ensure!(bench.count(Counter::NotMarked)? > 0, "{gate:?}");
        let looped = Query::new("www.example.org", V4[0], V4[1])?;
        bench.cut(gate, &looped)?;
        let trip = bench.events()?.pop().context("no event")?;
        ensure!(trip.evidence != Evidence::Mark as u8 && trip.bits == 0, "{trip:?}");
    }
    Ok(())
}

/// Lets two forwarders that take a new socket and a new ID for each query, and keep the case, ask each other until the
/// breaker opens; the event of the trip.
fn looped(bench: &mut Bench, gate: Gate, query: &Query) -> Result<Event> {
    let mut name = query.question.name.clone();
    for number in 0..100 {
        let next = spelled(&next_in_crowd(query, number), &name);
        let outcome = bench.ask(gate, &next)?;
        if outcome.returned != gate.pass() {
            return bench.events()?.pop().context("no event");
        }
        name = name_in(&next, &outcome.frame)?;
    }
    anyhow::bail!("{gate:?}: {query:?} went round 100 times")
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_mark_that_comes_back_proves_the_loop() -> Result<()> {
    for gate in Gate::ALL {
        for ends in [V4, V6] {
            let mut bench = Bench::new(marking)?;
            let query = Query::new("www.example.com", ends[0], ends[1])?;
            let trip = looped(&mut bench, gate, &query)?;
            assert_eq!(trip.note, Note::Trip as u8);
            assert_eq!(trip.evidence, Evidence::Mark as u8, "{gate:?}");
            ensure!(trip.bits >= 16, "{gate:?}: {} bits", trip.bits);
            ensure!(
                trip.recirculated <= RECIRCULATED,
                "{gate:?}: {} went round",
                trip.recirculated
            );
            assert_eq!(bench.count(Counter::Proofs)?, 1);
            assert_eq!(bench.count(Counter::Trips)?, 1);
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_answer_withdraws_the_suspicion() -> Result<()> {
    for gate in Gate::ALL {
        let bench = Bench::new(marking)?;
        let query = Query::new("www.example.com", V4[0], V4[1])?;
        let (asked, frame) = marked(&bench, gate, &query)?;
        let marked = spelled(&asked, &name_in(&asked, &frame)?);
        bench.run(gate, &response(&marked, 0)?)?;
        // The mark comes back, but the question was answered: the first two hops say nothing.
        for number in 100..102 {
            let late = spelled(&next_in_crowd(&query, number), &marked.question.name);
            let outcome = bench.ask(gate, &late)?;
            assert_eq!(outcome.frame, late.frame()?, "{gate:?}");
        }
        assert_eq!((bench.count(Counter::Marked)?, bench.count(Counter::Trips)?), (1, 0));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the name, the client and the door: what comes back is what would have come back without a guard.
    #[test]
    #[ignore = "needs root: cargo xtask test"]
    fn no_client_sees_a_mark(
        labels in prop::collection::vec("[a-zA-Z0-9_]{1,20}", 1..8),
        gate in prop::sample::select(Gate::ALL.to_vec()),
        back in prop::sample::select(Gate::ALL.to_vec()),
        v6: bool,
        edns: bool,
    ) {
        let name = labels.join(".");
        prop_assume!(name.chars().filter(char::is_ascii_alphabetic).count() >= 5);
        let bench = bench_of_this_thread().map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        let check = || -> Result<()> {
            let ends = if v6 { V6 } else { V4 };
            let mut query = Query::new(&name, ends[0], ends[1])?;
            query.edns = if edns { Edns0::With { dnssec_ok: false } } else { Edns0::Without };
            let (query, frame) = marked(&bench, gate, &query)?;
            let mark = name_in(&query, &frame)?;
            ensure!(frame == spelled(&query, &mark).frame()?);
            let outcome = bench.run(back, &response(&spelled(&query, &mark), 0)?)?;
            ensure!(outcome.frame == response(&query, 0)?, "{:?}", outcome.frame);
            Ok(())
        };
        check().map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
    }
}

/// One object for all cases: loading takes longer than they do.
fn bench_of_this_thread() -> Result<std::rc::Rc<Bench>> {
    thread_local! {
        static BENCH: std::cell::OnceCell<std::rc::Rc<Bench>> = const { std::cell::OnceCell::new() };
    }
    BENCH.with(|cell| match cell.get() {
        Some(bench) => Ok(bench.clone()),
        None => {
            let bench = std::rc::Rc::new(Bench::new(marking)?);
            Ok(cell.get_or_init(|| bench).clone())
        }
    })
}
