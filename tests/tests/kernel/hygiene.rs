//! Egress hygiene: where DNS may go, where it may come from, and who may ask for recursion.

use anyhow::{Context as _, Result, ensure};
use guard_common::{
    address::Prefix,
    counter::Counters,
    policy::{Action, Mode, Policy, Ranges},
    remedy::{Reason, Verdict},
};
use guard_tests::{
    frame::{Edns0, PROHIBITED, Query},
    question::ResponseCode,
};

use guard_tests::bench::{Bench, Gate, IFINDEX, Outcome, WIRE, Way, address, beside_wires, policy_of};

const INCOMING: [Gate; 2] = [Gate::Xdp, Gate::TcIn];

/// The clients are those that [`Bench`] trusts, and others.
const ALLOWED: [[&str; 2]; 2] = [
    ["192.0.2.1:40000", "10.0.0.2:53"],
    ["[2001:db8::1]:40000", "[fd00:ec2::253]:53"],
];
const ELSEWHERE: [[&str; 2]; 2] = [
    ["192.0.2.1:40000", "10.0.0.3:53"],
    ["[2001:db8::1]:40000", "[fd00:ec2::254]:53"],
];
const STRANGERS: [[&str; 2]; 3] = [
    ["198.51.100.1:40000", "10.0.0.2:53"],
    ["192.0.2.200:40000", "10.0.0.2:53"],
    ["[2001:db8:1::1]:40000", "[fd00:ec2::253]:53"],
];

fn query([client, server]: [&str; 2]) -> Result<Query> {
    Query::new("www.example.com", client, server)
}

fn ranges(policy: &mut Policy, prefixes: &[(&str, u8)]) -> Result<Ranges> {
    let prefixes = prefixes
        .iter()
        .map(|(text, bits)| Ok(Prefix::new(address(text.parse()?).octets(), *bits)))
        .collect::<Result<Vec<_>>>()?;
    policy.add_ranges(&prefixes).context("no room for ranges")
}

fn resolvers(policy: &mut Policy) -> Result<Ranges> {
    ranges(policy, &[("10.0.0.2", 128), ("fd00:ec2::253", 128)])
}

/// 192.0.2.0/25 and 2001:db8::/48.
fn clients(policy: &mut Policy) -> Result<Ranges> {
    ranges(policy, &[("192.0.2.0", 96 + 25), ("2001:db8::", 48)])
}

fn bench(change: impl FnOnce(&mut Policy) -> Result<()>) -> Result<Bench> {
    let mut changed = Ok(());
    let bench = Bench::new(|policy| changed = change(policy))?;
    changed.map(|()| bench)
}

/// Both rules for what leaves.
fn leaving(policy: &mut Policy) -> Result<()> {
    policy.hygiene.resolvers = resolvers(policy)?;
    policy.hygiene.sources = clients(policy)?;
    Ok(())
}

/// The rule for what comes in.
fn recursion(policy: &mut Policy) -> Result<()> {
    policy.hygiene.recursion = clients(policy)?;
    Ok(())
}

fn passes(bench: &Bench, device: u32, gate: Gate, query: &Query) -> Result<()> {
    let frame = query.frame()?;
    let outcome = bench.run_by(Way::on(device), gate, &frame)?;
    let passed = Outcome {
        returned: gate.pass(),
        frame,
    };
    ensure!(outcome == passed, "{gate:?} on {device}: {query:?} came to {outcome:?}");
    Ok(())
}

/// All that was done, on an interface.
fn done(bench: &Bench, device: u32) -> Result<Vec<(Verdict, Reason, u64)>> {
    let counters: Counters = bench.counters_of(device)?;
    let mut done = Vec::new();
    for verdict in [Verdict::Answer, Verdict::Drop, Verdict::WouldAnswer, Verdict::WouldDrop] {
        for reason in Reason::ALL {
            let count = counters.action(verdict, reason);
            if count > 0 {
                done.push((verdict, reason, count));
            }
        }
    }
    Ok(done)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn queries_leave_only_to_resolvers_and_only_from_sources() -> Result<()> {
    beside_wires(|| {
        let bench = bench(leaving)?;
        for ends in ALLOWED {
            passes(&bench, WIRE, Gate::TcOut, &query(ends)?)?;
        }
        for ends in ELSEWHERE.into_iter().chain(STRANGERS) {
            let returned = bench.push(Way::on(WIRE), Gate::TcOut, &query(ends)?.frame()?)?;
            assert_eq!(returned, Gate::TcOut.drop(), "{ends:?}");
        }
        assert_eq!(
            done(&bench, WIRE)?,
            [(Verdict::Drop, Reason::Resolver, 2), (Verdict::Drop, Reason::Source, 3)]
        );
        for ends in ELSEWHERE.into_iter().chain(STRANGERS) {
            for gate in INCOMING {
                let mut query = query(ends)?;
                query.id = gate as u16;
                passes(&bench, WIRE, gate, &query)?;
            }
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_rule_without_ranges_is_off() -> Result<()> {
    beside_wires(|| {
        let only_resolvers = bench(|policy| {
            policy.hygiene.resolvers = resolvers(policy)?;
            Ok(())
        })?;
        let only_sources = bench(|policy| {
            policy.hygiene.sources = clients(policy)?;
            Ok(())
        })?;
        for ends in STRANGERS {
            passes(&only_resolvers, WIRE, Gate::TcOut, &query(ends)?)?;
        }
        for ends in ELSEWHERE {
            passes(&only_sources, WIRE, Gate::TcOut, &query(ends)?)?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_stranger_who_asks_for_recursion_is_refused() -> Result<()> {
    beside_wires(|| {
        for gate in INCOMING {
            let bench = bench(recursion)?;
            for ends in ALLOWED {
                passes(&bench, WIRE, gate, &query(ends)?)?;
            }
            let mut refused = 0;
            for ends in [STRANGERS[1], STRANGERS[2]] {
                for vlans in [&[][..], &[7]] {
                    for edns in [Edns0::Without, Edns0::With { dnssec_ok: true }] {
                        refused += 1;
                        let mut query = query(ends)?;
                        query.id = refused as u16;
                        query.envelope.vlans = vlans.to_vec();
                        query.edns = edns;
                        let due = Outcome {
                            returned: gate.answer(),
                            frame: query.answer_frame(ResponseCode::Refused, PROHIBITED)?,
                        };
                        let outcome = bench.run_by(Way::on(WIRE), gate, &query.frame()?)?;
                        assert_eq!(outcome, due, "{gate:?} {query:?}");

                        query.recursion_desired = false;
                        passes(&bench, WIRE, gate, &query)?;
                    }
                }
            }
            // A client in no trusted range gets no answer from us.
            let untrusted = query(STRANGERS[0])?;
            assert_eq!(bench.push(Way::on(WIRE), gate, &untrusted.frame()?)?, gate.drop());
            assert_eq!(
                done(&bench, WIRE)?,
                [
                    (Verdict::Answer, Reason::Recursion, refused),
                    (Verdict::Drop, Reason::Recursion, 1)
                ]
            );
            for ends in STRANGERS {
                let mut query = query(ends)?;
                query.id = 99;
                passes(&bench, WIRE, Gate::TcOut, &query)?;
            }
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_stays_on_this_host_breaks_no_rule() -> Result<()> {
    beside_wires(|| {
        let bench = bench(|policy| {
            leaving(policy)?;
            recursion(policy)
        })?;
        for (number, gate) in Gate::ALL.into_iter().enumerate() {
            for ends in ELSEWHERE.into_iter().chain(STRANGERS) {
                let mut query = query(ends)?;
                query.id = number as u16;
                passes(&bench, IFINDEX, gate, &query)?;
            }
            let mut to_itself = query(["198.51.100.1:40000", "198.51.100.1:53"])?;
            to_itself.id = number as u16;
            passes(&bench, WIRE, gate, &to_itself)?;
        }
        assert_eq!((done(&bench, IFINDEX)?, done(&bench, WIRE)?), (vec![], vec![]));
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn observing_hygiene_touches_no_packet() -> Result<()> {
    beside_wires(|| {
        for (policy_mode, hygiene_mode) in [
            (Mode::Enforce, Mode::Observe),
            (Mode::Observe, Mode::Enforce),
            (Mode::Observe, Mode::Observe),
        ] {
            let bench = bench(|policy| {
                *policy = policy_of(policy_mode, Action::Answer);
                leaving(policy)?;
                recursion(policy)?;
                policy.hygiene = policy.hygiene.in_mode(hygiene_mode);
                Ok(())
            })?;
            passes(&bench, WIRE, Gate::TcOut, &query(ELSEWHERE[0])?)?;
            passes(&bench, WIRE, Gate::TcOut, &query(STRANGERS[0])?)?;
            for gate in INCOMING {
                let mut stranger = query(STRANGERS[0])?;
                stranger.id = 1 + gate as u16;
                passes(&bench, WIRE, gate, &stranger)?;
            }
            assert_eq!(
                done(&bench, WIRE)?,
                [
                    (Verdict::WouldAnswer, Reason::Recursion, 2),
                    (Verdict::WouldDrop, Reason::Resolver, 1),
                    (Verdict::WouldDrop, Reason::Source, 1)
                ]
            );
        }
        Ok(())
    })
}
