//! Budgets and egress hygiene on a real wire, with real resolvers: who is let through, who is not, and what is told.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{
    Namespace,
    client::{Reply, ask},
    frame::{PROHIBITED, RATE_LIMIT},
    guard::{Guard, GuardOptions, Mode},
    question::{Question, RecordType, ResponseCode},
    resolver::{Dnsmasq, Duties, Resolver},
    upstream::{Manner, Upstream},
    veth,
};
use hickory_proto::{
    op::Message,
    rr::rdata::opt::{EdnsCode, EdnsOption},
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};

/// The wire, on both sides.
const WIRE: &str = "veth0";
/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);
/// What takes no time is there long before.
const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for a packet on a veth, on a busy machine.
const MOMENT: Duration = Duration::from_millis(300);

/// The guarded host, with a resolver on it.
const HOST: &str = "10.53.0.1";
/// Clients, and servers, on the other side.
const ONE: &str = "10.53.0.2";
const OTHER: &str = "10.53.0.3";

/// One test at a time: they count packets.
static MACHINE: Mutex<()> = Mutex::new(());

/// The guarded host and a network beside it.
fn site() -> Result<[Namespace; 2]> {
    let (host, outside) = (Namespace::new()?, Namespace::new()?);
    veth::veth(&host, &outside, WIRE, &[(&format!("{HOST}/24"), &format!("{ONE}/24"))])?;
    outside.ip(&format!("address add {OTHER}/24 dev {WIRE}"))?;
    Ok([host, outside])
}

fn ready(host: &Namespace, mode: Mode, toml: &str) -> Result<Guard> {
    let options = GuardOptions {
        mode,
        extra_toml: toml.to_owned(),
        ..GuardOptions::enforce(&[WIRE])
    };
    let guard = Guard::start(host, &options)?;
    guard.wait_ready(START)?;
    Ok(guard)
}

/// A resolver that knows every name itself.
fn resolver(host: &Namespace) -> Result<Resolver> {
    let dnsmasq = Dnsmasq {
        duties: Duties {
            listen: vec![at(HOST)?],
            forwards: Vec::new(),
            answers: vec!["example".to_owned()],
        },
        extra: Vec::new(),
    };
    dnsmasq.start(host)
}

fn at(address: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse::<IpAddr>()?, 53))
}

/// A socket that is told of errors, as glibc's resolver asks for.
fn client_on(namespace: &Namespace, address: &str) -> Result<UdpSocket> {
    let socket = namespace.udp(SocketAddr::new(address.parse::<IpAddr>()?, 0))?;
    setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    socket.set_read_timeout(Some(MOMENT))?;
    Ok(socket)
}

/// Sends so many queries for names of their own, evenly over a time; none of them may fail.
fn send(socket: &UdpSocket, server: &str, name: &str, kind: RecordType, count: u16, time: Duration) -> Result<()> {
    let (server, start) = (at(server)?, Instant::now());
    for number in 0..count {
        let due = start + time * u32::from(number) / u32::from(count.max(1));
        sleep(due.saturating_duration_since(Instant::now()));
        let question = Question::new(&format!("q{number}.{name}"), kind)?;
        socket
            .send_to(&question.query(number)?, server)
            .context("the sender is told of an error")?;
    }
    Ok(())
}

/// All messages that arrive until there are none for a moment.
fn received(socket: &UdpSocket) -> Vec<Message> {
    let mut buffer = [0; 2_048];
    let mut messages = Vec::new();
    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
        messages.extend(Message::from_vec(&buffer[..length]));
    }
    messages
}

/// Asks once, as a client on the other side.
fn once(outside: &Namespace, server: &str, name: &str, kind: RecordType) -> Result<Reply> {
    ask(
        outside,
        at(server)?,
        &Question::new(name, kind)?,
        1,
        Duration::from_secs(1),
    )
}

/// The first word of a storm that names somebody: it is told without names if there are none in time, and again after
/// ten seconds.
fn named(guard: &Guard, list: &str) -> Result<serde_json::Value> {
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let told = guard.events_of("over_budget")?;
        let names = |event: &serde_json::Value| event[list].as_array().is_some_and(|list| !list.is_empty());
        if let Some(event) = told.into_iter().find(names) {
            return Ok(event);
        }
        ensure!(Instant::now() < deadline, "no over_budget with {list}");
        sleep(Duration::from_millis(50));
    }
}

/// The INFO-CODE and the EXTRA-TEXT of the EDE, if there is one.
fn ede(message: &Message) -> Option<(u16, String)> {
    let Some(EdnsOption::Unknown(_, option)) = message.edns.as_ref()?.option(EdnsCode::Unknown(15)) else {
        return None;
    };
    let (code, text) = option.split_first_chunk()?;
    Some((u16::from_be_bytes(*code), String::from_utf8_lossy(text).into_owned()))
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_client_over_its_budget_is_stopped_and_named_and_its_neighbour_is_not() -> Result<()> {
    let _machine = MACHINE.lock();
    let [host, outside] = site()?;
    let resolver = resolver(&host)?;
    let toml = "[[budget]]\nname = 'each client'\nscope = 'client'\ndirection = 'in'\nlimit = 50\nburst = 50\n";
    let guard = ready(&host, Mode::Enforce, toml)?;

    let (greedy, modest) = (client_on(&outside, ONE)?, client_on(&outside, OTHER)?);
    let start = Instant::now();
    send(
        &greedy,
        HOST,
        "a.example.",
        RecordType::A,
        1_500,
        Duration::from_secs(2),
    )?;
    send(&modest, HOST, "b.example.", RecordType::A, 40, Duration::from_secs(1))?;
    let seconds = start.elapsed().as_secs_f64();
    let (greedy, modest) = (received(&greedy).len(), received(&modest).len());
    let most = 50.0 + 50.0 * seconds;
    ensure!(greedy as f64 <= most * 1.02, "{greedy} answers, {most} allowed");
    ensure!(greedy >= 50, "{greedy} answers: not even the burst");
    ensure!(modest == 40, "{modest} of 40 for the neighbour");

    let over = named(&guard, "clients")?;
    assert_eq!(over["budget"], "each client", "{over}");
    assert_eq!(over["clients"][0]["client"], ONE, "{over}");
    let within = ["budget=\"each client\"", "result=\"within\""];
    guard.wait_counter(
        "dnsguard_budget_packets_total",
        &within,
        (greedy + modest) as u64,
        PATIENCE,
    )?;
    let dropped = ["action=\"drop\"", "reason=\"budget\""];
    assert_eq!(
        guard.counter("dnsguard_actions_total", &dropped)?,
        1_500 - greedy as u64
    );
    // A veth has no counters of EC2's: that is normal, and said once for each interface.
    let missing = guard.wait_event("no_allowance_counters", PATIENCE)?;
    assert_eq!((&missing["device"], &missing["driver"]), (&WIRE.into(), &"veth".into()));
    sleep(Duration::from_secs(6));
    assert_eq!(guard.events_of("no_allowance_counters")?.len(), 1);
    drop(resolver);
    guard.stop()
}

fn drops_in_silence(tc: &str) -> Result<()> {
    let _machine = MACHINE.lock();
    let [host, outside] = site()?;
    let toml = format!(
        "[attach]\ntc = '{tc}'\n[[budget]]\nname = 'out'\nscope = 'all'\ndirection = 'out'\nlimit = '1/h'\nburst = 7\n"
    );
    let guard = ready(&host, Mode::Enforce, &toml)?;
    let server = outside.udp(at(ONE)?)?;
    server.set_read_timeout(Some(MOMENT))?;
    let client = client_on(&host, HOST)?;
    // An error, such as ENOBUFS, would fail this.
    send(&client, ONE, "example.", RecordType::A, 60, MOMENT)?;
    assert_eq!(received(&server).len(), 7);
    assert!(received(&client).is_empty());
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn what_tcx_sheds_going_out_is_gone_without_a_sound() -> Result<()> {
    drops_in_silence("tcx")
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn what_clsact_sheds_going_out_is_gone_without_a_sound() -> Result<()> {
    drops_in_silence("clsact")
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn answers_of_a_budget_say_why_and_end() -> Result<()> {
    let _machine = MACHINE.lock();
    let [host, outside] = site()?;
    let toml = "[answer]\nper_client = 5\n\
        [[budget]]\nname = 'in'\nscope = 'all'\ndirection = 'in'\nlimit = '1/h'\nburst = 3\naction = 'answer'\n";
    let guard = ready(&host, Mode::Enforce, toml)?;
    let server = host.udp(at(HOST)?)?;
    server.set_read_timeout(Some(MOMENT))?;
    let client = client_on(&outside, ONE)?;
    send(&client, HOST, "example.", RecordType::A, 200, MOMENT)?;
    assert_eq!(received(&server).len(), 3);
    let answers = received(&client);
    // Five in each second; the sending may have taken more than one.
    ensure!(
        answers.len() >= 5 && answers.len() < 50,
        "{} answers to 197 queries",
        answers.len()
    );
    for answer in &answers {
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(ede(answer), Some((RATE_LIMIT.0, RATE_LIMIT.1.to_owned())), "{answer:?}");
    }
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_flood_of_random_names_is_limited_and_named_by_its_zone() -> Result<()> {
    let _machine = MACHINE.lock();
    let [host, outside] = site()?;
    let _resolver = resolver(&host)?;
    let toml = "[[budget]]\nname = 'zones'\nscope = 'zone'\nlabels = 2\ndirection = 'in'\nlimit = 30\nburst = 30\n";
    let guard = ready(&host, Mode::Enforce, toml)?;
    let flood = client_on(&outside, ONE)?;
    let start = Instant::now();
    send(
        &flood,
        HOST,
        "victim.example.",
        RecordType::A,
        1_000,
        Duration::from_secs(2),
    )?;
    let most = 30.0 + 30.0 * start.elapsed().as_secs_f64();
    // The same client, another zone.
    let good = client_on(&outside, ONE)?;
    send(&good, HOST, "good.example.", RecordType::A, 20, Duration::from_secs(1))?;
    let through = received(&flood).len();
    ensure!(
        through >= 30 && through as f64 <= most * 1.02,
        "{through} answers, {most} allowed"
    );
    assert_eq!(received(&good).len(), 20);
    let over = named(&guard, "zones")?;
    assert_eq!(over["zones"][0]["zone"], "victim.example.", "{over}");
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn types_that_amplify_have_a_limit_of_their_own() -> Result<()> {
    let _machine = MACHINE.lock();
    let [host, outside] = site()?;
    let toml = "[[budget]]\nname = 'amplifiers'\nscope = 'client'\ndirection = 'in'\ntypes = ['ANY', 'TXT']\n\
        limit = '1/h'\nburst = 4\n";
    let guard = ready(&host, Mode::Enforce, toml)?;
    let server = host.udp(at(HOST)?)?;
    server.set_read_timeout(Some(MOMENT))?;
    let client = client_on(&outside, ONE)?;
    for (kind, through) in [(RecordType::TXT, 3), (RecordType::ANY, 1), (RecordType::A, 30)] {
        let count = if kind == RecordType::TXT { 3 } else { 30 };
        send(&client, HOST, "example.", kind, count, MOMENT)?;
        assert_eq!(received(&server).len(), through, "{kind}");
    }
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn observing_a_budget_counts_and_names_and_touches_nothing() -> Result<()> {
    let _machine = MACHINE.lock();
    let budget = "[[budget]]\nname = 'in'\nscope = 'client'\ndirection = 'in'\nlimit = '1/h'\nburst = 2\n";
    for (mode, toml) in [
        (Mode::Observe, budget.to_owned()),
        (Mode::Enforce, format!("{budget}mode = 'observe'\n")),
        (Mode::Enforce, format!("{budget}action = 'count'\n")),
    ] {
        let [host, outside] = site()?;
        let guard = ready(&host, mode, &toml)?;
        let server = host.udp(at(HOST)?)?;
        server.set_read_timeout(Some(MOMENT))?;
        send(&client_on(&outside, ONE)?, HOST, "example.", RecordType::A, 50, MOMENT)?;
        assert_eq!(received(&server).len(), 50, "{toml}");
        let would = ["action=\"would_drop\"", "reason=\"budget\""];
        assert_eq!(guard.wait_counter("dnsguard_actions_total", &would, 48, PATIENCE)?, 48);
        let over = named(&guard, "clients")?;
        assert_eq!(
            (&over["mode"], &over["clients"][0]["client"]),
            (&"observe".into(), &ONE.into())
        );
        guard.stop()?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_budget_that_watches_does_not_stand_in_the_way_of_one_that_acts() -> Result<()> {
    let _machine = MACHINE.lock();
    let [host, outside] = site()?;
    let toml = "[[budget]]\nname = 'watched'\nscope = 'client'\ndirection = 'in'\nlimit = '1/h'\nburst = 2\naction = 'count'\n\
        [[budget]]\nname = 'held'\nscope = 'all'\ndirection = 'in'\nlimit = '1/h'\nburst = 9\n";
    let guard = ready(&host, Mode::Enforce, toml)?;
    let server = host.udp(at(HOST)?)?;
    server.set_read_timeout(Some(MOMENT))?;
    send(&client_on(&outside, ONE)?, HOST, "example.", RecordType::A, 50, MOMENT)?;
    assert_eq!(received(&server).len(), 9);
    for (budget, over) in [("watched", 48), ("held", 41)] {
        let labels = [format!("budget=\"{budget}\""), "result=\"over\"".to_owned()];
        let labels = labels.each_ref().map(String::as_str);
        assert_eq!(
            guard.wait_counter("dnsguard_budget_packets_total", &labels, over, PATIENCE)?,
            over
        );
    }
    guard.stop()
}

/// A host that forwards: what comes in by one guarded interface and leaves by another is counted in either direction,
/// once.
#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn what_is_forwarded_is_counted_once_in_each_direction() -> Result<()> {
    let _machine = MACHINE.lock();
    let [host, outside] = site()?;
    let pods = Namespace::new()?;
    veth::veth(&host, &pods, "pods0", &[("10.54.0.1/24", "10.54.0.2/24")])?;
    host.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
    pods.ip("route add default via 10.54.0.1")?;
    outside.ip(&format!("route add 10.54.0.0/24 via {HOST}"))?;
    let budgets = [("in", "in"), ("out", "out"), ("both", "both")]
        .map(|(name, direction)| {
            format!("[[budget]]\nname = '{name}'\nscope = 'client'\ndirection = '{direction}'\nlimit = 1000\ntypes = ['A']\nzones = ['{name}.example']\n")
        })
        .concat();
    let options = GuardOptions {
        mode: Mode::Enforce,
        extra_toml: budgets,
        ..GuardOptions::enforce(&[WIRE, "pods0"])
    };
    let guard = Guard::start(&host, &options)?;
    guard.wait_ready(START)?;
    let server = outside.udp(at(ONE)?)?;
    server.set_read_timeout(Some(MOMENT))?;
    let pod = client_on(&pods, "10.54.0.2")?;
    for name in ["in", "out", "both"] {
        send(&pod, ONE, &format!("{name}.example."), RecordType::A, 20, MOMENT)?;
        assert_eq!(received(&server).len(), 20);
    }
    for name in ["in", "out", "both"] {
        let labels = [format!("budget=\"{name}\""), "result=\"within\"".to_owned()];
        let labels = labels.each_ref().map(String::as_str);
        let counted = guard.wait_counter("dnsguard_budget_packets_total", &labels, 20, PATIENCE)?;
        assert_eq!(counted, 20, "{name}");
    }
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn dns_leaves_only_to_listed_resolvers_and_only_from_own_addresses() -> Result<()> {
    let _machine = MACHINE.lock();
    let toml = format!("[hygiene]\nresolvers = ['{ONE}/32']\nsources = ['own']\n");
    for mode in [Mode::Observe, Mode::Enforce] {
        let [host, outside] = site()?;
        let (listed, unlisted) = (outside.udp(at(ONE)?)?, outside.udp(at(OTHER)?)?);
        for server in [&listed, &unlisted] {
            server.set_read_timeout(Some(MOMENT))?;
        }
        let guard = ready(&host, mode, &toml)?;
        let own = client_on(&host, HOST)?;
        send(&own, ONE, "example.", RecordType::A, 5, MOMENT)?;
        send(&own, OTHER, "example.", RecordType::A, 5, MOMENT)?;
        let foreign = host.run(|| forging_socket("192.0.2.66:0".parse()?))?;
        send(&foreign, ONE, "forged.example.", RecordType::A, 5, MOMENT)?;

        let enforced = mode == Mode::Enforce;
        assert_eq!(received(&listed).len(), if enforced { 5 } else { 10 });
        assert_eq!(received(&unlisted).len(), if enforced { 0 } else { 5 });
        let action = if enforced {
            "action=\"drop\""
        } else {
            "action=\"would_drop\""
        };
        for reason in ["reason=\"resolver\"", "reason=\"source\""] {
            assert_eq!(
                guard.wait_counter("dnsguard_actions_total", &[action, reason], 5, PATIENCE)?,
                5
            );
        }

        // An address that the host gets later is its own as soon as the agent has seen it.
        host.ip(&format!("address add 192.0.2.66/32 dev {WIRE}"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = guard.counter("dnsguard_actions_total", &["reason=\"source\""])?;
            send(&foreign, ONE, "now-own.example.", RecordType::A, 1, Duration::ZERO)?;
            sleep(Duration::from_millis(1_300));
            if guard.counter("dnsguard_actions_total", &["reason=\"source\""])? == before {
                break;
            }
            ensure!(Instant::now() < deadline, "a new address stays foreign");
        }
        guard.stop()?;
    }
    Ok(())
}

/// A socket on an address that this host has not got.
fn forging_socket(address: SocketAddr) -> Result<UdpSocket> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::IpTransparent, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket.into())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn strangers_are_refused_recursion_and_others_are_not() -> Result<()> {
    let _machine = MACHINE.lock();
    let [host, outside] = site()?;
    let _upstream = Upstream::start(&host, at(HOST)?, Manner::Answers(Duration::ZERO))?;
    let guard = ready(
        &host,
        Mode::Enforce,
        &format!("[hygiene]\nrecursion = ['{OTHER}/32']\n"),
    )?;
    let reply = once(&outside, HOST, "a.example.", RecordType::A)?;
    let answer = reply.message.context("a trusted stranger gets an answer")?;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    assert_eq!(ede(&answer), Some((PROHIBITED.0, PROHIBITED.1.to_owned())));

    let listed = client_on(&outside, OTHER)?;
    send(&listed, HOST, "b.example.", RecordType::A, 10, MOMENT)?;
    assert_eq!(received(&listed).len(), 10);
    let reason = ["action=\"answer\"", "reason=\"recursion\""];
    assert_eq!(guard.wait_counter("dnsguard_actions_total", &reason, 1, PATIENCE)?, 1);
    guard.stop()
}
