//! What is held: answered in place, or dropped.

use anyhow::{Result, ensure};
use guard_common::{
    counter::Counter,
    policy::{Action, Mode},
    remedy::{Reason, Verdict},
};
use guard_tests::{
    frame::{Ede, Edns0, HELD, LOOP, Query, checksums_hold, left_to_the_card},
    question::ResponseCode,
};

use guard_tests::bench::{Bench, Gate, Outcome, policy_of};

const V4: [&str; 2] = ["192.0.2.1:40000", "192.0.2.2:53"];
const V6: [&str; 2] = ["[2001:db8::1]:40000", "[2001:db8::2]:53"];

fn query(name: &str, ends: [&str; 2]) -> Result<Query> {
    Query::new(name, ends[0], ends[1])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

fn is_answered(gate: Gate, query: &Query, outcome: &Outcome, rcode: ResponseCode, ede: Ede) -> Result<()> {
    let expected = query.answer_frame(rcode, ede)?;
    assert_eq!(hex(&outcome.frame), hex(&expected), "{gate:?} {query:?}");
    assert_eq!(outcome.returned, gate.answer(), "{gate:?} {query:?}");
    ensure!(checksums_hold(&outcome.frame)?, "{gate:?} {query:?}: a wrong checksum");
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_query_that_gives_the_loop_away_is_answered_with_its_reason() -> Result<()> {
    for gate in Gate::ALL {
        let mut bench = Bench::new(|_| ())?;
        for ends in [V4, V6] {
            for edns in [Edns0::Without, Edns0::With { dnssec_ok: false }] {
                let name = format!(
                    "{}.{}",
                    if ends == V4 { "four" } else { "six" },
                    if edns == Edns0::Without { "a" } else { "ab" }
                );
                let mut query = query(&name, ends)?;
                query.edns = edns;
                let cut = bench.cut(gate, &query)?;
                is_answered(gate, &cut.query, &cut.outcome, ResponseCode::ServFail, LOOP)?;
                ensure!(cut.passed <= 34, "{} queries went round before", cut.passed);
                let later = bench.ask(gate, &query)?;
                is_answered(gate, &query, &later, ResponseCode::ServFail, HELD)?;
            }
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_answer_made_in_the_kernel_is_the_one_that_other_libraries_build() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    let mut number = 0;
    for ends in [V4, V6] {
        for vlans in [&[][..], &[7], &[7, 4094]] {
            for edns in [
                Edns0::Without,
                Edns0::With { dnssec_ok: false },
                Edns0::With { dnssec_ok: true },
            ] {
                for padding in ["", "x", "xx", "xxx", &"x".repeat(58)] {
                    number += 1;
                    let mut query = query(&format!("n{number:03}{padding}.Example.com"), ends)?;
                    query.edns = edns;
                    bench.cut(Gate::TcIn, &query)?;
                    query.envelope.vlans = vlans.to_vec();
                    query.checking_disabled = number % 2 == 0;
                    query.id = number;
                    for gate in Gate::ALL {
                        let outcome = bench.ask(gate, &query)?;
                        is_answered(gate, &query, &outcome, ResponseCode::ServFail, HELD)?;
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_shortest_and_the_longest_name_are_answered() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    let label = "l".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", &label[..61]);
    let labels = ["x"; 127].join(".");
    for ends in [V4, V6] {
        for name in [".", "a", &longest, &labels] {
            let mut query = query(name, ends)?;
            bench.cut(Gate::TcIn, &query)?;
            for gate in Gate::ALL {
                for edns in [Edns0::Without, Edns0::With { dnssec_ok: true }] {
                    query.edns = edns;
                    let outcome = bench.ask(gate, &query)?;
                    is_answered(gate, &query, &outcome, ResponseCode::ServFail, HELD)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_policy_picks_the_rcode() -> Result<()> {
    for (number, code) in [(3, ResponseCode::NXDomain), (5, ResponseCode::Refused)] {
        let mut bench = Bench::new(|policy| policy.rcode = number)?;
        let query = query("www.example.com", V4)?;
        for gate in Gate::ALL {
            let outcome = if gate == Gate::Xdp {
                bench.cut(gate, &query)?;
                bench.ask(gate, &query)?
            } else {
                bench.ask(gate, &query)?
            };
            is_answered(gate, &query, &outcome, code, HELD)?;
        }
    }
    Ok(())
}

/// A short query comes padded to Ethernet's 60 bytes; its answer is as long as it has to be.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_padding_of_a_short_frame_is_cut_off() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    let mut query = query("a", V4)?;
    query.edns = Edns0::Without;
    bench.cut(Gate::TcIn, &query)?;
    for gate in Gate::ALL {
        let mut frame = query.frame()?;
        frame.resize(80, 0);
        let outcome = bench.run(gate, &frame)?;
        is_answered(gate, &query, &outcome, ResponseCode::ServFail, HELD)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_drop_policy_drops_in_silence() -> Result<()> {
    for gate in Gate::ALL {
        let mut bench = Bench::new(|policy| *policy = policy_of(Mode::Enforce, Action::Drop))?;
        let cut = bench.cut(gate, &query("www.example.com", V4)?)?;
        assert_eq!(cut.outcome.returned, gate.drop());
        assert_eq!(bench.ask(gate, &cut.query)?.returned, gate.drop());
        assert_eq!(bench.actions(Verdict::Drop, Reason::Loop)?, 2);
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn observing_touches_no_packet_and_counts_what_it_would_do() -> Result<()> {
    for (action, verdict) in [
        (Action::Answer, Verdict::WouldAnswer),
        (Action::Drop, Verdict::WouldDrop),
    ] {
        for gate in Gate::ALL {
            let mut bench = Bench::new(|policy| *policy = policy_of(Mode::Observe, action))?;
            let query = query("www.example.com", V6)?;
            let cut = bench.trip(gate, &query)?;
            let untouched = |query: &Query| {
                Ok::<_, anyhow::Error>(Outcome {
                    returned: gate.pass(),
                    frame: query.frame()?,
                })
            };
            assert_eq!(cut.outcome, untouched(&cut.query)?);
            for _ in 0..5 {
                assert_eq!(bench.ask(gate, &query)?, untouched(&query)?);
            }
            assert_eq!(bench.actions(verdict, Reason::Loop)?, 6);
            assert_eq!(bench.count(Counter::Trips)?, 1);
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn only_a_client_in_a_trusted_range_gets_an_answer() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    let trusted = query("www.example.com", V4)?;
    bench.cut(Gate::TcIn, &trusted)?;
    for gate in Gate::ALL {
        let before = bench.actions(Verdict::Drop, Reason::Untrusted)?;
        for source in [
            "198.51.100.1:40000",
            "192.0.3.1:40000",
            "192.0.2.1:1023",
            "192.0.2.1:53",
        ] {
            let query = Query::new("www.example.com", source, V4[1])?;
            assert_eq!(bench.ask(gate, &query)?.returned, gate.drop(), "{gate:?} {source}");
        }
        assert_eq!(bench.actions(Verdict::Drop, Reason::Untrusted)?, before + 4);
        let query = Query::new("www.example.com", "192.0.2.99:1024", V4[1])?;
        assert_eq!(bench.ask(gate, &query)?.returned, gate.answer());
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_query_with_records_or_ip_options_is_dropped() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    let query = query("www.example.com", V4)?;
    bench.cut(Gate::TcIn, &query)?;
    for gate in Gate::ALL {
        for count_at in [6, 8] {
            let mut message = query.message()?;
            message[count_at + 1] = 1;
            assert_eq!(
                bench.run(gate, &query.envelope.around(&message)?)?.returned,
                gate.drop()
            );
        }
        let mut frame = query.frame()?;
        frame[14] = 0x46;
        frame[17] += 4;
        frame.splice(34..34, [1; 4]);
        assert_eq!(bench.run(gate, &frame)?.returned, gate.drop());
    }
    assert_eq!(bench.actions(Verdict::Drop, Reason::Unanswerable)?, 9);
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_client_that_goes_on_is_met_with_silence() -> Result<()> {
    let mut bench = Bench::new(|policy| policy.answers_per_client = 3)?;
    let query = query("www.example.com", V4)?;
    bench.cut(Gate::TcIn, &query)?;
    let other = Query::new("www.example.com", "192.0.2.77:50000", V4[1])?;
    for gate in Gate::ALL {
        assert_eq!(bench.ask(gate, &other)?.returned, gate.answer(), "its three answers");
    }
    for gate in Gate::ALL {
        assert_eq!(bench.ask(gate, &other)?.returned, gate.drop());
    }
    assert_eq!(bench.actions(Verdict::Drop, Reason::Silenced)?, 3);
    let third = Query::new("www.example.com", "192.0.2.78:50000", V4[1])?;
    assert_eq!(
        bench.ask(Gate::TcIn, &third)?.returned,
        Gate::TcIn.answer(),
        "another client"
    );
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn all_clients_together_get_no_more_than_the_hold_allows() -> Result<()> {
    let mut bench = Bench::new(|policy| policy.answers_per_hold = 10)?;
    bench.cut(Gate::TcIn, &query("www.example.com", V4)?)?;
    let mut answered = 1;
    for client in 1..=50 {
        let query = Query::new("www.example.com", &format!("192.0.2.{client}:50000"), V4[1])?;
        answered += u32::from(bench.ask(Gate::TcIn, &query)?.returned == Gate::TcIn.answer());
    }
    assert_eq!(answered, 10);
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn two_spellings_are_one_key_and_each_gets_its_own_back() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    bench.cut(Gate::TcIn, &query("some-longer-name.Service.CONSUL", V4)?)?;
    for gate in Gate::ALL {
        for name in [
            "some-longer-name.service.consul",
            "SOME-LONGER-NAME.SERVICE.CONSUL",
            "sOmE-lOnGeR-nAmE.sErViCe.CoNsUl",
        ] {
            let query = query(name, V4)?;
            let outcome = bench.ask(gate, &query)?;
            is_answered(gate, &query, &outcome, ResponseCode::ServFail, HELD)?;
        }
        let other = query("some-longer-name.service.consum", V4)?;
        assert_eq!(bench.ask(gate, &other)?.returned, gate.pass());
    }
    Ok(())
}

/// On `lo` and on a veth a sender leaves its checksum to a card that is not there.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_checksum_that_is_still_to_be_completed_stays_so() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    for ends in [V4, V6] {
        let query = query("www.example.com", ends)?;
        bench.cut(Gate::TcIn, &query)?;
        for gate in [Gate::TcIn, Gate::TcOut] {
            let outcome = bench.run(gate, &left_to_the_card(&query.frame()?)?)?;
            let expected = left_to_the_card(&query.answer_frame(ResponseCode::ServFail, HELD)?)?;
            assert_eq!(hex(&outcome.frame), hex(&expected));
            assert_eq!(outcome.returned, gate.answer());
        }
    }
    Ok(())
}
