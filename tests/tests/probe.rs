//! `dnsguard probe` with real resolvers: loops are proven and named, and nothing else is called a loop.
//!
//! A probe lights what it finds. Each test ends with its namespaces, and every resolver with them.

use std::{
    net::SocketAddr,
    process::Command,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{
    Namespace, Process,
    guard::{self, Guard, GuardOptions},
    load::Load,
    programs,
    resolver::{Dnsdist, Dnsmasq, Duties, Forward, Resolver, Unbound},
    topology::{Forwarder, Loop, Topology, Wire},
    upstream::{Manner, Upstream},
    veth,
};
use serde_json::Value;

const NO_LOOP: i32 = 0;
const NOT_DONE: i32 = 1;
const BAD_USAGE: i32 = 2;
const WENT_ROUND: i32 = 3;
const NO_ANSWER: i32 = 4;
const NO_HOPS: i32 = 5;

/// Longer than any probe here takes: one that hangs is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// One loop at a time: each takes the whole machine.
static MACHINE: Mutex<()> = Mutex::new(());

/// What a probe said.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(guard::binary()?);
    command.arg("probe").args(arguments);
    Ok(command)
}

fn run(namespace: &Namespace, command: Command) -> Result<Said> {
    let process: Process = namespace.spawn(command)?;
    let status = process.wait(PATIENCE)?;
    Ok(Said {
        code: status.code(),
        out: process.output(),
        err: process.log(),
    })
}

fn probe(namespace: &Namespace, arguments: &[&str]) -> Result<Said> {
    run(namespace, command(arguments)?)
}

/// The same as JSON, with the exit code that it has to have.
fn report(namespace: &Namespace, arguments: &[&str], code: i32) -> Result<Value> {
    let said = probe(namespace, &[arguments, &["-o", "json"]].concat())?;
    ensure!(
        said.code == Some(code),
        "{:?} is not {code}:\n{}{}",
        said.code,
        said.out,
        said.err
    );
    let report: Value = serde_json::from_str(&said.out).with_context(|| format!("not JSON: {}", said.out))?;
    assert_eq!(report["exit_code"], code);
    Ok(report)
}

/// The servers of a way, such as "127.0.0.1:53 dnsmasq".
fn servers(route: &Value) -> Vec<String> {
    let stops = route.as_array().into_iter().flatten();
    stops
        .map(|stop| {
            let process = stop["process"].as_str().unwrap_or("?");
            format!("{} {process}", stop["server"].as_str().unwrap_or("?"))
        })
        .collect()
}

/// The verdict of the only query.
fn verdict(report: &Value) -> &str {
    report["queries"][0]["verdict"].as_str().unwrap_or_default()
}

/// Probes a loop for its own question, and kills it.
fn burn(built: &Loop) -> Result<Value> {
    let server = built.server().to_string();
    let question = built.question();
    let (name, kind) = (question.name.to_string(), question.kind.to_string());
    let report = report(
        built.namespace(),
        &["--server", &server, "--type", &kind, &name, "--timeout", "5"],
        WENT_ROUND,
    );
    built.kill();
    let report = report?;
    assert_eq!(verdict(&report), "went_round", "{report:#}");
    Ok(report)
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, number], 53))
}

fn dnsmasq(namespace: &Namespace, listen: SocketAddr, to: &[SocketAddr], extra: &[&str]) -> Result<Resolver> {
    let dnsmasq = Dnsmasq {
        duties: Duties {
            listen: vec![listen],
            forwards: to.iter().map(|to| Forward::new("", *to)).collect(),
            answers: Vec::new(),
        },
        extra: extra.iter().map(|&line| line.to_owned()).collect(),
    };
    dnsmasq.start(namespace)
}

/// Two dnsdist that ask each other.
const TWO_DNSDIST: Topology = Topology::Circle {
    forwarder: Forwarder::Dnsdist,
    hops: 2,
    wire: Wire::Loopback,
};

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn the_incident_is_proven_and_both_servers_are_named() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(Topology::INCIDENT.programs())?;
    let built = Topology::INCIDENT.start()?;
    let report = burn(&built)?;
    let expected = ["127.0.0.1:53 dnsmasq", "127.0.0.1:8600 consul", "127.0.0.1:53 dnsmasq"];
    assert_eq!(servers(&report["queries"][0]["routes"][0]), expected, "{report:#}");
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn the_incident_is_found_without_a_name() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(Topology::INCIDENT.programs())?;
    let built = Topology::INCIDENT.start()?;
    built
        .namespace()
        .cover("resolv.conf", "search corp.example\nnameserver 127.0.0.1\n")?;
    let said = probe(built.namespace(), &[])?;
    built.kill();
    assert_eq!(said.code, Some(WENT_ROUND), "{}{}", said.out, said.err);
    let round = "DS *.consul. at 127.0.0.1:53: it went round\n    \
                 127.0.0.1:53 (dnsmasq) -> 127.0.0.1:8600 (consul) -> 127.0.0.1:53 (dnsmasq)\n";
    ensure!(said.out.contains(round), "{}", said.out);
    for part in [
        "A *.consul. at 127.0.0.1:53: ",
        "DS corp.example. at 127.0.0.1:53: ",
        " went round, ",
    ] {
        ensure!(said.out.contains(part), "no {part} in\n{}", said.out);
    }
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn every_loop_of_the_lab_is_proven() -> Result<()> {
    let _machine = MACHINE.lock();
    let circle = |forwarder, hops, wire| Topology::Circle { forwarder, hops, wire };
    for (topology, stops) in [
        (Topology::DEMO, 3),
        (circle(Forwarder::Dnsdist, 2, Wire::Loopback), 3),
        (circle(Forwarder::Dnsdist, 3, Wire::Loopback), 4),
        (circle(Forwarder::Dnsmasq, 3, Wire::Loopback), 4),
        (circle(Forwarder::Dnsmasq, 2, Wire::VethV4), 3),
        (circle(Forwarder::Dnsdist, 2, Wire::VethV6), 3),
        (Topology::ConsulPair, 3),
        (Topology::Incident { wire: Wire::VethV4 }, 3),
    ] {
        programs::provide(topology.programs())?;
        let report = burn(&topology.start()?).with_context(|| topology.to_string())?;
        let route = servers(&report["queries"][0]["routes"][0]);
        assert_eq!(
            (route.len(), route.first()),
            (stops, route.last()),
            "{topology}: {report:#}"
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_loop_that_the_first_server_is_no_part_of_is_proven() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(&["ip", "dnsmasq", "dnsdist"])?;
    let built = TWO_DNSDIST.start()?;
    let front = dnsmasq(built.namespace(), address(8), &[built.server()], &[])?;
    let report = report(
        built.namespace(),
        &["--server", "127.0.0.8", "-t", "A", "*.consul"],
        WENT_ROUND,
    );
    built.kill();
    drop(front);
    let report = report?;
    let expected = [
        "127.0.0.8:53 dnsmasq",
        "127.0.0.1:53 dnsdist",
        "127.0.0.2:53 dnsdist",
        "127.0.0.1:53 dnsdist",
    ];
    assert_eq!(servers(&report["queries"][0]["routes"][0]), expected, "{report:#}");
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_chain_of_forwarders_is_shown_and_is_no_loop() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(&["ip", "dnsmasq", "dnsdist", "unbound"])?;
    let namespace = Namespace::new()?;
    let _upstream = Upstream::start(&namespace, address(9), Manner::Answers(Duration::from_millis(300)))?;
    let third = Unbound {
        duties: Duties {
            listen: vec![address(3)],
            forwards: vec![Forward::new("", address(9))],
            answers: Vec::new(),
        },
        ..Unbound::default()
    };
    let _third = third.start(&namespace)?;
    let second = Dnsdist {
        duties: Duties {
            listen: vec![address(2)],
            forwards: vec![Forward::new("", address(3))],
            answers: Vec::new(),
        },
        extra: Vec::new(),
    };
    let _second = second.start(&namespace)?;
    let _first = dnsmasq(&namespace, address(1), &[address(2)], &[])?;
    let report = report(&namespace, &["-s", "127.0.0.1", "-t", "A", "*.example.com"], NO_LOOP)?;
    assert_eq!(verdict(&report), "answered", "{report:#}");
    let route = servers(&report["queries"][0]["routes"][0]);
    assert_eq!(
        route[..3],
        ["127.0.0.1:53 dnsmasq", "127.0.0.2:53 dnsdist", "127.0.0.3:53 unbound"],
        "{report:#}"
    );
    ensure!(route.len() == 4 && route[3].starts_with("127.0.0.9:53"), "{route:?}");
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn no_load_is_taken_for_a_loop() -> Result<()> {
    let _machine = MACHINE.lock();
    // What the loads themselves ask for, at the same moment, and a new name beside it.
    let names = [
        "dead.example",
        "cold.example",
        "popular.example",
        "some-longer-name-0.example",
        "some-longer-name-1.example",
        "api3.partner.example.ec2.internal",
        "*.example",
    ];
    for load in Load::ALL {
        programs::provide(load.programs())?;
        let site = load.start()?;
        let queries = thread::scope(|scope| -> Result<usize> {
            let clients = scope.spawn(|| site.run());
            let mut queries = 0;
            while !clients.is_finished() {
                let arguments = [
                    &["-s", "127.0.0.1", "-t", "A", "-o", "json", "--timeout", "1"][..],
                    &names,
                ]
                .concat();
                let said = probe(site.namespace(), &arguments)?;
                let report: Value = serde_json::from_str(&said.out).context(said.err)?;
                ensure!(report["went_round"] == 0, "{load}: {report:#}");
                queries += report["queries"].as_array().map_or(0, Vec::len);
            }
            clients.join().expect("the clients do not panic")?;
            Ok(queries)
        })?;
        println!("{load}: {queries} probes, none went round");
        ensure!(queries > 0, "{load}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_loop_that_burns_already_is_proven_again() -> Result<()> {
    let _machine = MACHINE.lock();
    let topology = TWO_DNSDIST;
    programs::provide(topology.programs())?;
    let built = topology.start()?;
    let server = built.server().to_string();
    let mut said = Vec::new();
    // Servers that burn may lose the next query: then it is silent, and no doubt is cast on anything.
    for _ in 0..6 {
        let next = probe(
            built.namespace(),
            &["-s", &server, "-t", "A", "--timeout", "1", "x.consul."],
        )?;
        ensure!(!next.out.contains("random capitals"), "{}", next.out);
        said.push(next);
        if said.iter().filter(|said| said.code == Some(WENT_ROUND)).count() == 3 {
            break;
        }
    }
    built.kill();
    let proven = said.iter().filter(|said| said.code == Some(WENT_ROUND)).count();
    let all: Vec<_> = said.iter().map(|said| said.out.as_str()).collect();
    ensure!(proven > 1, "{}", all.concat());
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn forwarders_that_try_again_are_no_loop() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(&["ip", "dnsmasq", "unbound"])?;
    let namespace = Namespace::new()?;
    // Two dead upstreams; unbound asks each of them five times, and dnsmasq repeats as fast as it can be told to.
    let dead = [8, 9].map(|number| Upstream::start(&namespace, address(number), Manner::Dead));
    let unbound = Unbound {
        duties: Duties {
            listen: vec![address(3)],
            forwards: vec![Forward::new("", address(8)), Forward::new("", address(9))],
            answers: Vec::new(),
        },
        ..Unbound::default()
    };
    let _unbound = unbound.start(&namespace)?;
    let dead: Vec<_> = dead.into_iter().collect::<Result<_>>()?;
    let _second = dnsmasq(
        &namespace,
        address(2),
        &[address(8), address(9)],
        &["all-servers", "fast-dns-retry=200,5000"],
    )?;
    let _first = dnsmasq(
        &namespace,
        address(1),
        &[address(2), address(3)],
        &["all-servers", "fast-dns-retry=200,5000"],
    )?;
    for server in ["127.0.0.3", "127.0.0.1", "127.0.0.2"] {
        let arguments = [
            "-s",
            server,
            "--timeout",
            "6",
            "-t",
            "A",
            "*.example.com",
            "www.example.com",
        ];
        let report = report(&namespace, &arguments, NO_ANSWER)?;
        assert_eq!(report["went_round"], 0, "{report:#}");
        // unbound takes a new socket each time, dnsmasq the same.
        if server == "127.0.0.3" {
            assert_eq!(report["queries"][0]["verdict"], "unclear", "{report:#}");
        }
    }
    ensure!(dead.iter().all(|dead| dead.seen() > 4), "nobody tried again");
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn dead_upstreams_and_dead_servers_are_no_loop_and_no_answer() -> Result<()> {
    programs::provide(&["ip", "dnsmasq"])?;
    let namespace = Namespace::new()?;
    let _dead = Upstream::start(&namespace, address(9), Manner::Dead)?;
    let _first = dnsmasq(&namespace, address(1), &[address(9)], &[])?;
    // Nobody listens at 127.0.0.7, and there is no way to 192.0.2.1.
    let servers = ["-s", "127.0.0.1", "-s", "127.0.0.7", "-s", "192.0.2.1"];
    let arguments = [&servers[..], &["-t", "A", "--timeout", "1", "www.example.com"]].concat();
    let report = report(&namespace, &arguments, NO_ANSWER)?;
    let verdicts: Vec<_> = (0..3)
        .map(|index| report["queries"][index]["verdict"].as_str())
        .collect();
    assert_eq!(
        verdicts,
        ["silent", "unreachable", "unreachable"].map(Some),
        "{report:#}"
    );
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn an_excepted_server_is_sent_nothing() -> Result<()> {
    programs::provide(&["ip"])?;
    let namespace = Namespace::new()?;
    let spared = Upstream::start(&namespace, address(5), Manner::Answers(Duration::ZERO))?;
    let asked = Upstream::start(&namespace, address(6), Manner::KnowsNothing)?;
    namespace.cover("resolv.conf", "nameserver 127.0.0.5\nnameserver 127.0.0.6\n")?;
    let config = namespace.file("probe.toml", "[probe]\nexcept = ['127.0.0.4/31']\n")?;
    let config = config.to_str().context("a path")?;
    for except in [
        ["--except", "127.0.0.5"],
        ["--except", "127.0.0.4/31"],
        ["--config", config],
    ] {
        let report = report(&namespace, &except, NO_LOOP)?;
        assert_eq!(report["skipped"][0]["server"], "127.0.0.5:53", "{report:#}");
        assert_eq!(report["skipped"][0]["reason"], "excepted");
    }
    // consul. alone, with a star and without: A, DS, DS.
    assert_eq!((spared.seen(), asked.seen()), (0, 9));

    let packets = namespace.packets("lo")?;
    let said = probe(&namespace, &["--except", "127.0.0.0/8"])?;
    assert_eq!((said.code, said.out.as_str()), (Some(BAD_USAGE), ""));
    ensure!(said.err.contains("127.0.0.5:53 (excepted)"), "{}", said.err);
    assert_eq!(namespace.packets("lo")?, packets, "something was sent");
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn json_has_a_schema_and_every_field() -> Result<()> {
    programs::provide(&["ip"])?;
    let namespace = Namespace::new()?;
    let _upstream = Upstream::start(&namespace, address(9), Manner::Answers(Duration::ZERO))?;
    let report = report(&namespace, &["-s", "127.0.0.9", "-t", "A", "X.example"], NO_LOOP)?;
    assert_eq!((&report["schema"], &report["sees_hops"]), (&1.into(), &true.into()));
    assert_eq!((&report["answered"], &report["went_round"]), (&1.into(), &0.into()));
    ensure!(report["cut_short"].is_null() && report["skipped"].as_array().is_some_and(Vec::is_empty));
    let query = &report["queries"][0];
    for (field, value) in [
        ("name", "x.example."),
        ("asked", "x.example."),
        ("type", "A"),
        ("server", "127.0.0.9:53"),
        ("verdict", "answered"),
        ("rcode", "NOERROR"),
    ] {
        assert_eq!(query[field], value, "{report:#}");
    }
    let hop = &query["hops"][0];
    assert_eq!((&hop["to"], &hop["interface"]), (&"127.0.0.9:53".into(), &"lo".into()));
    ensure!(query["milliseconds"].is_f64() && hop["milliseconds"].is_f64() && hop["from"].is_string());
    assert_eq!(query["routes"][0][0]["certain"], true);
    for empty in ["extended_errors", "notes"] {
        ensure!(query[empty].as_array().is_some_and(Vec::is_empty), "{report:#}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_name_without_letters_is_asked_for_below() -> Result<()> {
    programs::provide(&["ip"])?;
    let namespace = Namespace::new()?;
    let _upstream = Upstream::start(&namespace, address(9), Manner::KnowsNothing)?;
    let report = report(&namespace, &["-s", "127.0.0.9", "-t", "A", "."], NO_LOOP)?;
    assert_eq!(
        (&report["queries"][0]["name"], &report["queries"][0]["rcode"]),
        (&"*.".into(), &"NXDOMAIN".into())
    );
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn without_the_right_to_capture_it_tells_who_answers() -> Result<()> {
    programs::provide(&["ip"])?;
    let namespace = Namespace::new()?;
    let _upstream = Upstream::start(&namespace, address(9), Manner::Answers(Duration::ZERO))?;
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set", "-net_raw", "--inh-caps", "-net_raw"])
        .arg(guard::binary()?)
        .args(["probe", "-s", "127.0.0.9", "-t", "A", "www.example.com"]);
    let said = run(&namespace, command)?;
    assert_eq!(said.code, Some(NO_HOPS), "{}{}", said.out, said.err);
    ensure!(
        said.out.contains("NOERROR in ") && said.out.contains("CAP_NET_RAW"),
        "{}",
        said.out
    );
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn the_right_to_capture_is_all_that_a_proof_takes() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(Topology::DEMO.programs())?;
    let built = Topology::DEMO.start()?;
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set", "-all,+net_raw", "--inh-caps", "-all"])
        .arg(guard::binary()?)
        .args(["probe", "-s", &built.server().to_string(), "-t", "A", "x.consul."]);
    let said = run(built.namespace(), command)?;
    built.kill();
    assert_eq!(said.code, Some(WENT_ROUND), "{}{}", said.out, said.err);
    // Whose the sockets are, nobody told.
    ensure!(
        said.out.contains("    127.0.0.1:53 -> 127.0.0.2:53 -> 127.0.0.1:53\n"),
        "{}",
        said.out
    );
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn it_ends_when_its_time_is_up_or_somebody_says_so() -> Result<()> {
    programs::provide(&["ip"])?;
    let namespace = Namespace::new()?;
    let dead = Upstream::start(&namespace, address(9), Manner::Dead)?;
    let names: Vec<_> = (0..20).map(|number| format!("n{number}.example.com")).collect();
    let mut arguments = vec!["-s", "127.0.0.9", "--timeout", "20"];
    arguments.extend(names.iter().map(String::as_str));
    let start = Instant::now();
    let report = report(&namespace, &[&arguments[..], &["--max-time", "1"]].concat(), NOT_DONE)?;
    ensure!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(report["cut_short"], "its time was up");

    let seen = dead.seen();
    let process = namespace.spawn(command(&arguments)?)?;
    while dead.seen() == seen {
        ensure!(process.ended().is_none(), "{}", process.last_words());
        thread::sleep(Duration::from_millis(5));
    }
    let status = process.stop()?;
    assert_eq!(status.code(), Some(NOT_DONE), "{}", process.last_words());
    ensure!(process.output().contains("interrupted"), "{}", process.output());
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn beside_an_agent_that_cuts_the_loop_it_says_who_holds_the_name() -> Result<()> {
    let _machine = MACHINE.lock();
    let topology = TWO_DNSDIST;
    programs::provide(topology.programs())?;
    let built = topology.start()?;
    let guard = Guard::start(built.namespace(), &GuardOptions::enforce(&["lo"]))?;
    guard.wait_ready(Duration::from_secs(10))?;
    built.ignite()?;
    guard.wait_event("trip", Duration::from_secs(5))?;
    let server = built.server().to_string();
    let arguments = ["-s", &server, "-t", "A", "x.consul."];
    // Between two holds one query is let through: that one goes round.
    let mut said = probe(built.namespace(), &arguments)?;
    for _ in 0..5 {
        if said.out.contains("a running dnsguard holds this name") {
            break;
        }
        said = probe(built.namespace(), &arguments)?;
    }
    ensure!(
        said.out.contains("dnsguard: query loop") && said.out.contains("a running dnsguard holds this name"),
        "{}{}",
        said.out,
        said.err
    );
    // A new name goes round until it is held as well, and that is proven.
    let report = report(built.namespace(), &["-s", &server, "-t", "A", "*.consul."], WENT_ROUND)?;
    assert_eq!(verdict(&report), "went_round");
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_query_that_crosses_a_bridge_and_a_router_is_one_query() -> Result<()> {
    programs::provide(&["ip", "dnsmasq", "nft"])?;
    // client -- router -- server: the probe runs in the middle and in the client, and nothing is a loop.
    let (client, router, server) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
    veth::veth(&client, &router, "left", &[("10.53.1.1/24", "10.53.1.2/24")])?;
    veth::veth(&router, &server, "right", &[("10.53.2.1/24", "10.53.2.2/24")])?;
    client.ip("route add default via 10.53.1.2")?;
    // As on a node: services have addresses that lie nowhere.
    router.ip("route add 10.96.0.0/16 via 10.53.2.2")?;
    router.tool("sysctl", "-q -w net.ipv4.ip_forward=1")?;
    let rules = router.file(
        "rules.nft",
        "table ip nat {\n chain before {\n  type nat hook prerouting priority -100;\n  \
         ip daddr 10.96.0.10 udp dport 53 dnat to 10.53.2.2:53\n }\n chain out {\n  \
         type nat hook output priority -100;\n  ip daddr 10.96.0.10 udp dport 53 dnat to 10.53.2.2:53\n }\n \
         chain after {\n  type nat hook postrouting priority 100;\n  oifname right masquerade random\n }\n}\n",
    )?;
    router.tool("nft", &format!("-f {}", rules.display()))?;
    let _upstream = Upstream::start(&server, "10.53.2.2:53".parse()?, Manner::Answers(Duration::ZERO))?;
    // A forwarder in the client's network, whose queries the router sees twice.
    let _forwarder = dnsmasq(&client, "10.53.1.1:53".parse()?, &["10.96.0.10:53".parse()?], &[])?;
    for (namespace, asked) in [
        (&client, "10.53.1.1"),
        (&client, "10.96.0.10"),
        (&router, "10.53.1.1"),
        (&router, "10.96.0.10"),
    ] {
        let said = probe(namespace, &["-s", asked, "-t", "A", "www.example.com", "*.example.com"])?;
        assert_eq!(said.code, Some(NO_LOOP), "{asked}: {}{}", said.out, said.err);
    }
    Ok(())
}

#[test]
fn bad_usage_sends_nothing() -> Result<()> {
    for arguments in [
        &["--type", "XX", "example.com"][..],
        &["--server", "localhost", "example.com"],
        &["--except", "10.0.0.1/8"],
        &["--timeout", "0"],
        &["--config", "/nonexistent/dnsguard.toml"],
        &["--server", "127.0.0.1", "--except", "127.0.0.1", "example.com"],
        &["a..b"],
    ] {
        let output = command(arguments)?.output()?;
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(BAD_USAGE), 0),
            "{arguments:?}"
        );
        ensure!(!output.stderr.is_empty());
    }
    Ok(())
}
