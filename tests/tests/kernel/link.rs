//! The link-local budget at egress: what is charged, what is shed, and in which order.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use guard_common::{
    budget::{LinkRules, Service},
    counter::{Counter, Counters, link_index},
    policy::{Action, Mode, Policy},
    remedy::{Reason, Verdict},
    time::ticks_of_ms,
};
use guard_tests::{
    Question,
    frame::{Query, RATE_LIMIT},
    question::{RecordType, ResponseCode},
};
use nix::time::{ClockId, clock_gettime};

use guard_tests::bench::{Bench, Gate, OTHER_WIRE, Outcome, WIRE, Way, address, beside_wires, policy_of};

const DNS_V4: &str = "169.254.169.253";
const DNS_V6: &str = "fd00:ec2::253";
const SERVICES: [(&str, Service); 7] = [
    (DNS_V4, Service::Dns),
    ("169.254.169.254", Service::Imds),
    ("169.254.169.123", Service::Ntp),
    (DNS_V6, Service::Dns),
    ("fd00:ec2::254", Service::Imds),
    ("fd00:ec2::123", Service::Ntp),
    ("169.254.170.2", Service::Other),
];

/// What comes back in a second is next to nothing, and one packet of the reserve: a test may take its time.
const LIMIT: u32 = 16;
const BURST: u32 = 100_000;
const GATE: Gate = Gate::TcOut;

fn rules(action: Action, mode: Mode, devices: &[u32]) -> Result<LinkRules> {
    let Some(mut rules) = LinkRules::new(LIMIT, BURST, action, mode) else {
        anyhow::bail!("no such limit")
    };
    for (text, service) in SERVICES {
        ensure!(rules.add_service(address(text.parse()?), service), "no room for {text}");
    }
    for device in devices {
        ensure!(rules.add_device(*device), "no room for {device}");
    }
    Ok(rules)
}

/// A bench whose two wires have a budget each, that drops.
struct Link {
    bench: Bench,
    rules: LinkRules,
    clients: u8,
}

impl Link {
    fn new(change: impl FnOnce(&mut Policy)) -> Result<Self> {
        Self::with(rules(Action::Drop, Mode::Enforce, &[WIRE, OTHER_WIRE])?, change)
    }

    fn with(rules: LinkRules, change: impl FnOnce(&mut Policy)) -> Result<Self> {
        let bench = Bench::new(|policy| {
            policy.link = rules;
            policy.zone_labels[0] = 2;
            policy.rapid_ticks = 0;
            change(policy);
        })?;
        Ok(Self {
            bench,
            rules,
            clients: 0,
        })
    }

    /// A query of a client that has not asked before.
    fn newcomer(&mut self, name: &str) -> Result<Query> {
        self.clients += 1;
        query(name, self.clients)
    }

    fn send(&self, device: u32, frame: &[u8]) -> Result<u32> {
        self.bench.push(Way::on(device), GATE, frame)
    }

    fn ask(&self, device: u32, query: &Query) -> Result<u32> {
        self.send(device, &query.frame()?)
    }

    /// Charges so many packets to the budget of a wire.
    fn charge(&self, device: u32, packets: u32) -> Result<()> {
        let imds = tcp("169.254.169.254", 80, |builder| builder)?;
        for start in (0..packets).step_by(50_000) {
            let way = Way::on(device).in_segments((packets - start).min(50_000));
            assert_eq!(self.bench.push(way, GATE, &imds)?, GATE.pass());
        }
        Ok(())
    }

    /// Takes all that there is, and the reserve, which is for questions of those who ask little.
    fn drain(&self, device: u32) -> Result<()> {
        static ASKERS: AtomicU16 = AtomicU16::new(0);
        self.charge(device, 2 * BURST)?;
        for segments in [10_000, 1_000, 100, 10, 1] {
            loop {
                let [high, low] = ASKERS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
                let source = format!("10.1.{high}.{low}:40000");
                let query = Query::new("drain.example", &source, &format!("{DNS_V4}:53"))?;
                let way = Way::on(device).in_segments(segments);
                if self.bench.push(way, GATE, &query.frame()?)? != GATE.pass() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Why the query is shed, by the counters of its interface. It is a mistake if it is not.
    fn shed(&self, device: u32, frame: &[u8]) -> Result<Reason> {
        let before = self.bench.counters_of(device)?;
        let returned = self.send(device, frame)?;
        ensure!(returned == GATE.drop(), "it came to {returned}");
        let after = self.bench.counters_of(device)?;
        let counted: Vec<Reason> = Reason::ALL
            .into_iter()
            .filter(|reason| after.action(Verdict::Drop, *reason) > before.action(Verdict::Drop, *reason))
            .collect();
        ensure!(counted.len() == 1, "{counted:?}");
        Ok(counted[0])
    }

    fn counted(&self, device: u32, service: Service) -> Result<u64> {
        Ok(self.bench.counters_of(device)?.0[link_index(service)])
    }

    /// Packets charged to a wire's budget, which is not full, by `send`. Both looks at the bucket are for the same
    /// moment, so that nothing comes in between them.
    fn charged(&self, link: u32, send: impl FnOnce() -> Result<()>) -> Result<u64> {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        let at_ns = now.as_nanos() as u64;
        let before = self.bench.link_level(link, &self.rules, at_ns)?;
        send()?;
        Ok((before - self.bench.link_level(link, &self.rules, at_ns)?) / 16)
    }
}

fn query(name: &str, client: u8) -> Result<Query> {
    Query::new(name, &format!("10.0.0.{client}:40000"), &format!("{DNS_V4}:53"))
}

/// The response to a query, as it comes in.
fn response(query: &Query) -> Result<Vec<u8>> {
    let mut message = query.message()?;
    message[2] |= 0x80;
    query.envelope.back().around(&message)
}

/// Does what has to be done within a second, because a question is pending for two; again, if it took longer.
fn soon<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..20 {
        let since = Instant::now();
        let result = attempt();
        if since.elapsed() < Duration::from_secs(1) {
            return result;
        }
    }
    anyhow::bail!("this machine takes more than a second for a few packets")
}

fn tcp(
    server: &str,
    port: u16,
    flags: impl FnOnce(
        etherparse::PacketBuilderStep<etherparse::TcpHeader>,
    ) -> etherparse::PacketBuilderStep<etherparse::TcpHeader>,
) -> Result<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let ip = match server.parse()? {
        IpAddr::V4(server) => ethernet.ipv4([10, 0, 0, 1], server.octets(), 64),
        IpAddr::V6(server) => ethernet.ipv6([0xfd; 16], server.octets(), 64),
    };
    let mut frame = Vec::new();
    flags(ip.tcp(40_000, port, 1, 512)).write(&mut frame, &[])?;
    Ok(frame)
}

fn udp(server: &str, port: u16, vlans: &[u16]) -> Result<Vec<u8>> {
    let (client, server) = if server.contains(':') {
        ("[2001:db8::1]:40000", format!("[{server}]:{port}"))
    } else {
        ("10.0.0.1:40000", format!("{server}:{port}"))
    };
    let mut envelope = Query::new(".", client, &server)?.envelope;
    envelope.vlans = vlans.to_vec();
    envelope.around(&[0; 48])
}

fn echo(server: &str) -> Result<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let mut frame = Vec::new();
    match server.parse()? {
        IpAddr::V4(server) => ethernet
            .ipv4([10, 0, 0, 1], server.octets(), 64)
            .icmpv4_echo_request(1, 1)
            .write(&mut frame, &[0; 8])?,
        IpAddr::V6(server) => ethernet
            .ipv6([0xfd; 16], server.octets(), 64)
            .icmpv6_echo_request(1, 1)
            .write(&mut frame, &[0; 8])?,
    }
    Ok(frame)
}

/// A part of a query that was cut in pieces: the first, or one further on.
fn fragment(first: bool) -> Result<Vec<u8>> {
    let mut frame = query("fragment.example", 1)?.frame()?;
    frame[20..22].copy_from_slice(if first { &[0x20, 0] } else { &[0, 10] });
    Ok(frame)
}

/// What goes to link-local services and is never shed.
fn others() -> Result<Vec<(&'static str, Vec<u8>, Service)>> {
    let mut no_question = query("none.example", 1)?.message()?;
    no_question[5] = 0;
    Ok(vec![
        ("NTP", udp("169.254.169.123", 123, &[])?, Service::Ntp),
        ("NTP in a VLAN", udp("169.254.169.123", 123, &[7])?, Service::Ntp),
        ("NTP over IPv6", udp("fd00:ec2::123", 123, &[])?, Service::Ntp),
        ("IMDS, SYN", tcp("169.254.169.254", 80, |tcp| tcp.syn())?, Service::Imds),
        (
            "IMDS over IPv6",
            tcp("fd00:ec2::254", 80, |tcp| tcp.ack(1))?,
            Service::Imds,
        ),
        ("IMDS, ICMP", echo("169.254.169.254")?, Service::Imds),
        (
            "another service",
            tcp("169.254.170.2", 80, |tcp| tcp.syn())?,
            Service::Other,
        ),
        ("the resolver, ICMP", echo(DNS_V4)?, Service::Dns),
        ("the resolver, ICMPv6", echo(DNS_V6)?, Service::Dns),
        ("the resolver, a first fragment", fragment(true)?, Service::Dns),
        ("the resolver, a later fragment", fragment(false)?, Service::Dns),
        (
            "the resolver, TCP, SYN and ACK",
            tcp(DNS_V4, 53, |tcp| tcp.syn().ack(1))?,
            Service::Dns,
        ),
        (
            "the resolver, TCP, ACK",
            tcp(DNS_V4, 53, |tcp| tcp.ack(1))?,
            Service::Dns,
        ),
        (
            "the resolver, TCP, FIN",
            tcp(DNS_V6, 53, |tcp| tcp.fin().ack(1))?,
            Service::Dns,
        ),
        (
            "the resolver, TCP, RST",
            tcp(DNS_V6, 53, |tcp| tcp.rst())?,
            Service::Dns,
        ),
        (
            "the resolver, SYN to another port",
            tcp(DNS_V4, 853, |tcp| tcp.syn())?,
            Service::Dns,
        ),
        (
            "the resolver, UDP to another port",
            udp(DNS_V4, 443, &[])?,
            Service::Dns,
        ),
        (
            "the resolver, no question",
            query("none.example", 1)?.envelope.around(&no_question)?,
            Service::Dns,
        ),
    ])
}

/// What asks the resolver, in the forms that may be shed.
fn questions() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let v6 = |name| Query::new(name, "[2001:db8::1]:40000", &format!("[{DNS_V6}]:53"));
    let mut tagged = query("tagged.example", 2)?;
    tagged.envelope.vlans = vec![7];
    let mut twice = v6("twice.example")?;
    twice.envelope.source = "[2001:db8::2]:40000".parse()?;
    twice.envelope.vlans = vec![7, 8];
    Ok(vec![
        ("IPv4", query("plain.example", 1)?.frame()?),
        ("IPv4 in a VLAN", tagged.frame()?),
        ("IPv6", v6("plain6.example")?.frame()?),
        ("IPv6 in two VLANs", twice.frame()?),
        ("a connection", tcp(DNS_V4, 53, |tcp| tcp.syn())?),
        ("a connection over IPv6", tcp(DNS_V6, 53, |tcp| tcp.syn())?),
    ])
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_packet_to_a_service_is_charged_and_counted() -> Result<()> {
    beside_wires(|| {
        let link = Link::new(|_| ())?;
        link.charge(WIRE, 10_000)?;
        let questions = questions()?
            .into_iter()
            .map(|(what, frame)| (what, frame, Service::Dns));
        for (what, frame, service) in others()?.into_iter().chain(questions) {
            for segments in [1, 1, 7] {
                let before = link.bench.counters_of(WIRE)?;
                let charged = link.charged(0, || {
                    let way = Way::on(WIRE).in_segments(segments);
                    let passed = Outcome {
                        returned: GATE.pass(),
                        frame: frame.clone(),
                    };
                    ensure!(
                        link.bench.run_by(way, GATE, &frame)? == passed,
                        "{what}: it did not pass"
                    );
                    Ok(())
                })?;
                assert_eq!(charged, u64::from(segments), "{what}");
                let after = link.bench.counters_of(WIRE)?;
                for other in Service::ALL {
                    let due = if other == service { u64::from(segments) } else { 0 };
                    assert_eq!(
                        after.0[link_index(other)] - before.0[link_index(other)],
                        due,
                        "{what}: {other:?}"
                    );
                }
            }
        }
        assert_eq!(link.counted(OTHER_WIRE, Service::Dns)?, 0);
        assert_eq!(
            link.bench.link_level(1, &link.rules, 0)?,
            u64::from(BURST) * 16,
            "the other wire's is full"
        );
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn only_questions_are_shed_when_nothing_is_left() -> Result<()> {
    beside_wires(|| {
        let link = Link::new(|_| ())?;
        // As deep in debt as it goes: more than a minute until something is there again.
        link.charge(WIRE, 2 * BURST)?;
        for (what, frame, service) in others()? {
            let before = link.counted(WIRE, service)?;
            assert_eq!(link.send(WIRE, &frame)?, GATE.pass(), "{what}");
            assert_eq!(link.counted(WIRE, service)?, before + 1, "{what}");
        }
        link.drain(WIRE)?;
        for (what, frame) in questions()? {
            let before = link.counted(WIRE, Service::Dns)?;
            assert_eq!(link.shed(WIRE, &frame)?, Reason::Exhausted, "{what}");
            assert_eq!(link.counted(WIRE, Service::Dns)?, before, "what is shed is not let out");
            link.drain(WIRE)?;
        }
        for (what, frame) in questions()? {
            assert_eq!(link.send(OTHER_WIRE, &frame)?, GATE.pass(), "{what} on the other wire");
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn repeats_go_first_then_who_has_more_than_a_share_then_everybody() -> Result<()> {
    beside_wires(|| {
        let mut link = Link::new(|_| ())?;
        // More than three quarters are left: nobody is shed.
        soon(|| {
            let query = link.newcomer("www.example")?;
            for _ in 0..3 {
                ensure!(link.ask(WIRE, &query)? == GATE.pass(), "shed while there is plenty");
            }
            Ok(())
        })?;

        // Half of it is left: repeats are shed, and nothing else.
        link.charge(WIRE, BURST / 2)?;
        soon(|| {
            let mut query = link.newcomer("www.example")?;
            ensure!(link.ask(WIRE, &query)? == GATE.pass(), "a new question");
            query.id = !query.id;
            query.envelope.source.set_port(41_000);
            ensure!(
                link.shed(WIRE, &query.frame()?)? == Reason::Repeat,
                "from another port, with another ID"
            );
            query.question = Question::new("www.example", RecordType::AAAA)?;
            ensure!(link.ask(WIRE, &query)? == GATE.pass(), "another type");
            Ok(())
        })?;

        // A tenth is left: a source that asks all the time gets no more, but for a zone that it has not asked about.
        link.charge(WIRE, BURST * 2 / 5)?;
        let sweeper = link.newcomer("0.sweep.example")?;
        let (mut passed, mut last) = (0, sweeper.clone());
        let refused = loop {
            let mut query = sweeper.clone();
            let name = format!("{passed}.sweep.example");
            query.question = Question::new(&name, RecordType::PTR)?;
            if link.ask(WIRE, &query)? != GATE.pass() {
                break query;
            }
            passed += 1;
            ensure!(passed < 5_000, "a sweep got all that it asked for");
            last = query;
        };
        ensure!(passed > 1, "a share is more than one packet here");
        assert_eq!(link.bench.counters_of(WIRE)?.action(Verdict::Drop, Reason::Share), 1);
        assert_eq!(last.envelope.source, refused.envelope.source);
        let mut aside = sweeper;
        aside.question = Question::new("www.other.org", RecordType::A)?;
        assert_eq!(link.ask(WIRE, &aside)?, GATE.pass(), "another zone of the same source");
        let newcomer = link.newcomer("new.sweep.example")?;
        assert_eq!(link.ask(WIRE, &newcomer)?, GATE.pass(), "another source");

        // Nothing is left but the reserve, then nothing at all.
        link.charge(WIRE, BURST)?;
        let newcomer = link.newcomer("zero.example")?;
        assert_eq!(link.ask(WIRE, &newcomer)?, GATE.pass(), "the reserve");
        for name in ["one.example", "two.example"] {
            link.drain(WIRE)?;
            let newcomer = link.newcomer(name)?;
            assert_eq!(link.shed(WIRE, &newcomer.frame()?)?, Reason::Exhausted);
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_answer_ends_what_is_pending() -> Result<()> {
    beside_wires(|| {
        let mut link = Link::new(|_| ())?;
        link.charge(WIRE, BURST / 2)?;
        for (gate, flags) in [(Gate::TcIn, 0), (Gate::Xdp, 0), (Gate::TcIn, 2)] {
            soon(|| {
                let query = link.newcomer("www.example")?;
                ensure!(link.ask(WIRE, &query)? == GATE.pass(), "a new question");
                ensure!(
                    link.shed(WIRE, &query.frame()?)? == Reason::Repeat,
                    "while it is pending"
                );
                let mut response = response(&query)?;
                response[45] |= flags;
                link.bench.push(Way::on(WIRE), gate, &response)?;
                ensure!(
                    link.ask(WIRE, &query)? == GATE.pass(),
                    "RCODE {flags} at {gate:?} settles it"
                );
                ensure!(link.shed(WIRE, &query.frame()?)? == Reason::Repeat, "pending once more");
                Ok(())
            })?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_query_that_was_shed_is_not_pending() -> Result<()> {
    beside_wires(|| {
        let mut link = Link::new(|_| ())?;
        link.charge(OTHER_WIRE, BURST / 2)?;
        soon(|| {
            let query = link.newcomer("www.example")?;
            for _ in 0..3 {
                link.drain(WIRE)?;
                let reason = link.shed(WIRE, &query.frame()?)?;
                // Asked for the third time, it has had its share.
                ensure!(reason != Reason::Repeat, "{reason:?}");
            }
            ensure!(link.ask(OTHER_WIRE, &query)? == GATE.pass(), "it was never let out");
            ensure!(link.shed(OTHER_WIRE, &query.frame()?)? == Reason::Repeat, "now it was");
            link.drain(WIRE)?;
            ensure!(link.shed(WIRE, &query.frame()?)? != Reason::Repeat, "by the other wire");
            Ok(())
        })
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_goes_elsewhere_or_comes_in_is_left_alone() -> Result<()> {
    beside_wires(|| {
        let rules = rules(Action::Drop, Mode::Enforce, &[WIRE])?;
        let link = Link::with(rules, |_| ())?;
        link.charge(WIRE, BURST)?;
        let counts = |device| Service::ALL.map(|service| link.counted(device, service).unwrap_or(u64::MAX));
        let charged = link.charged(0, || {
            let before = [counts(WIRE), counts(OTHER_WIRE)];
            let elsewhere = [
                Query::new("a.example", "10.0.0.1:40000", "169.254.169.252:53")?.frame()?,
                // Its last byte has the lower six bits of the resolver's.
                Query::new("b.example", "10.0.0.1:40000", "169.254.169.189:53")?.frame()?,
                Query::new("c.example", "10.0.0.1:40000", "10.0.0.2:53")?.frame()?,
                Query::new("d.example", "[2001:db8::1]:40000", "[fd00:ec2::1:253]:53")?.frame()?,
                tcp("169.254.169.252", 53, |tcp| tcp.syn())?,
                udp("10.0.0.2", 123, &[])?,
            ];
            for frame in &elsewhere {
                ensure!(link.send(WIRE, frame)? == GATE.pass(), "it goes elsewhere");
            }
            for (what, frame) in questions()? {
                ensure!(
                    link.send(OTHER_WIRE, &frame)? == GATE.pass(),
                    "{what}: this wire has no budget"
                );
                for gate in [Gate::Xdp, Gate::TcIn] {
                    ensure!(
                        link.bench.push(Way::on(WIRE), gate, &frame)? == gate.pass(),
                        "{what}: it comes in"
                    );
                }
            }
            assert_eq!([counts(WIRE), counts(OTHER_WIRE)], before);
            Ok(())
        })?;
        assert_eq!(charged, 0);
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn when_the_lease_is_over_nothing_is_shed() -> Result<()> {
    beside_wires(|| {
        let mut link = Link::new(|_| ())?;
        link.charge(WIRE, 2 * BURST)?;
        link.bench.set_lease(0)?;
        for (what, frame) in questions()? {
            assert_eq!(link.send(WIRE, &frame)?, GATE.pass(), "{what}");
        }
        link.bench.set_lease(u64::MAX)?;
        for (what, frame) in questions()? {
            link.drain(WIRE)?;
            assert_eq!(link.send(WIRE, &frame)?, GATE.drop(), "{what}");
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_trusted_client_is_answered_if_the_budget_says_so() -> Result<()> {
    beside_wires(|| {
        let link = Link::with(rules(Action::Answer, Mode::Enforce, &[WIRE])?, |_| ())?;
        for ends in [
            ["192.0.2.1:40000", "169.254.169.253:53"],
            ["[2001:db8::1]:40000", "[fd00:ec2::253]:53"],
        ] {
            let query = Query::new("www.example", ends[0], ends[1])?;
            let answered = Outcome {
                returned: GATE.answer(),
                frame: query.answer_frame(ResponseCode::ServFail, RATE_LIMIT)?,
            };
            link.drain(WIRE)?;
            assert_eq!(link.bench.run_by(Way::on(WIRE), GATE, &query.frame()?)?, answered);
        }
        let untrusted = query("www.example", 1)?;
        link.drain(WIRE)?;
        assert_eq!(link.shed(WIRE, &untrusted.frame()?)?, Reason::Exhausted);
        let connection = tcp(DNS_V4, 53, |tcp| tcp.syn())?;
        link.drain(WIRE)?;
        assert_eq!(
            link.shed(WIRE, &connection)?,
            Reason::Exhausted,
            "there is no answer to that"
        );
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_observing_link_budget_lets_all_out_and_counts_what_it_would_shed() -> Result<()> {
    beside_wires(|| {
        let link = Link::with(rules(Action::Drop, Mode::Observe, &[WIRE])?, |_| ())?;
        link.charge(WIRE, 2 * BURST)?;
        // The reserve as well: it is taken, and not given to who would be shed.
        let asked = query("first.example", 99)?.frame()?;
        link.bench.push(Way::on(WIRE).in_segments(BURST / 8), GATE, &asked)?;
        let before = link.bench.counters_of(WIRE)?;
        let would = |counters: &Counters| counters.action(Verdict::WouldDrop, Reason::Exhausted);
        for (what, frame) in questions()? {
            let passed = Outcome {
                returned: GATE.pass(),
                frame: frame.clone(),
            };
            assert_eq!(link.bench.run_by(Way::on(WIRE), GATE, &frame)?, passed, "{what}");
        }
        let count = questions()?.len() as u64;
        let after = link.bench.counters_of(WIRE)?;
        let dns = link_index(Service::Dns);
        assert_eq!(after.0[dns], before.0[dns] + count);
        // One a second comes back.
        let shed = would(&after) - would(&before);
        ensure!(shed > 0 && shed <= count, "{shed} of {count}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_held_query_does_not_leave_and_is_not_charged() -> Result<()> {
    beside_wires(|| {
        let mut link = Link::new(|policy| policy.rapid_ticks = ticks_of_ms(10_000))?;
        link.bench
            .trip(GATE, &Query::new("loop.example", "192.0.2.1:40000", "192.0.2.2:53")?)?;
        assert_eq!(link.bench.count(Counter::Trips)?, 1);
        link.charge(WIRE, 10_000)?;
        let before = link.counted(WIRE, Service::Dns)?;
        let held = link.newcomer("loop.example")?;
        let charged = link.charged(0, || {
            let reason = link.shed(WIRE, &held.frame()?)?;
            ensure!(reason == Reason::Untrusted, "{reason:?}");
            Ok(())
        })?;
        assert_eq!((charged, link.counted(WIRE, Service::Dns)?), (0, before));
        Ok(())
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_new_limit_finds_no_bucket_wedged() -> Result<()> {
    beside_wires(|| {
        let mut link = Link::new(|_| ())?;
        let mut policy = policy_of(Mode::Enforce, Action::Drop);
        for (limit, burst) in [
            (2, 100_000),
            (900, 112),
            (100_000, 100_000),
            (900, 112),
            (5, 5),
            (1_024, 1_024),
        ] {
            let mut rules = LinkRules::new(limit, burst, Action::Drop, Mode::Enforce).context("no such limit")?;
            rules.add_service(address(DNS_V4.parse()?), Service::Dns);
            rules.add_service(address("169.254.169.254".parse()?), Service::Imds);
            rules.add_device(WIRE);
            policy.link = rules;
            link.bench.set_policy(policy)?;
            // It owes one more bucket at the most, and a newcomer needs one packet in it.
            let patience = Duration::from_secs(1) + Duration::from_nanos(2 * rules.rate().fill_ns());
            let since = Instant::now();
            let newcomer = link.newcomer("www.example")?;
            while link.ask(WIRE, &newcomer)? != GATE.pass() {
                ensure!(
                    since.elapsed() < patience,
                    "{limit} a second, {burst} at once: nothing passes"
                );
            }
            link.charge(WIRE, 2 * burst)?;
            link.bench.set_policy(policy_of(Mode::Enforce, Action::Drop))?;
            assert_eq!(link.ask(WIRE, &newcomer)?, GATE.pass(), "without the budget");
        }
        Ok(())
    })
}
