//! `dnsguard doctor` on hosts that have something: real resolvers in a loop, programs of others, no capabilities.
//!
//! The doctor sees every process of the machine, those of other tests too; what is asked of it is what it says of this
//! test's own.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::TcAttachType;
use guard_tests::{
    Namespace,
    foreign::Foreign,
    guard::{self, Guard, GuardOptions, Mode},
    programs,
    resolver::{Dnsmasq, Duties, Forward, Resolved, Resolver, Unbound},
    topology::{Forwarder, Topology, Wire},
};
use serde_json::Value;

/// Nothing to mend; something to mend; bad configuration.
const WELL: i32 = 0;
const FOUND: i32 = 3;
const BAD_CONFIGURATION: i32 = 2;

/// How long the doctor may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);
/// The wire, on both sides.
const WIRE: &str = "veth0";

/// One test at a time: consul and its neighbours take the processors.
static MACHINE: Mutex<()> = Mutex::new(());

/// What the doctor said.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Result<Value> {
        let json: Value = serde_json::from_str(&self.out).with_context(|| format!("{}{}", self.out, self.err))?;
        assert_eq!(json["schema"], 1, "{json}");
        Ok(json)
    }

    /// The findings of one check.
    fn of(&self, check: &str) -> Result<Vec<Value>> {
        let json = self.json()?;
        let findings = json["findings"].as_array().context("no findings")?.iter();
        Ok(findings.filter(|finding| finding["check"] == check).cloned().collect())
    }

    /// The loops in which all of these processes are.
    fn loops(&self, resolvers: &[&Resolver]) -> Result<Vec<Value>> {
        let mut found = self.of("loops.circle")?;
        let pids: Vec<_> = resolvers
            .iter()
            .map(|one| format!("(pid {})", one.process().pid()))
            .collect();
        found.retain(|finding| pids.iter().all(|pid| text(finding, "what").contains(pid)));
        Ok(found)
    }
}

fn text<'v>(finding: &'v Value, key: &str) -> &'v str {
    finding[key].as_str().unwrap_or_default()
}

/// Runs the doctor inside, behind `before` if that is not empty.
fn doctor_behind(namespace: &Namespace, before: &[&str], arguments: &[&str]) -> Result<Said> {
    let binary = guard::binary()?;
    let mut words = before.to_vec();
    let binary = binary.to_str().context("a path in UTF-8")?;
    words.push(binary);
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .arg("doctor")
        .args(arguments)
        .env_remove("RUST_LOG");
    let process = namespace.spawn(command)?;
    let status = process.wait(PATIENCE)?;
    let out = process.output();
    Ok(Said {
        code: status.code(),
        err: process.log().replacen(&out, "", 1),
        out,
    })
}

fn doctor(namespace: &Namespace) -> Result<Said> {
    doctor_behind(namespace, &[], &["-o", "json", "--seconds", "0"])
}

/// Where this test's own processes are the only ones, and a `/proc` shows no others.
const ALONE: [&str; 4] = ["unshare", "--pid", "--fork", "--mount-proc"];

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn the_incident_is_named_as_written_and_gone_when_it_is_mended() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(Topology::INCIDENT.programs())?;
    let mut built = Topology::INCIDENT.start()?;
    let said = doctor(built.namespace())?;
    assert_eq!(said.code, Some(FOUND), "{}", said.err);
    let resolvers: Vec<_> = built.resolvers().collect();
    let found = said.loops(&resolvers)?;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["level"], "fail");
    let (what, why, remedy) = (
        text(&found[0], "what"),
        text(&found[0], "why"),
        text(&found[0], "remedy"),
    );
    ensure!(what.contains("dnsmasq (pid") && what.contains("consul (pid"), "{what}");
    ensure!(what.ends_with("for DS queries in consul."), "{what}");
    for part in [
        "dnsmasq sends consul. to 127.0.0.1:8600 (/run/lab/",
        "consul.json",
        "before 1.19",
        "--type DS",
    ] {
        ensure!(why.contains(part), "no {part}: {why}");
    }
    ensure!(
        remedy.starts_with("take 127.0.0.1:53, 127.0.0.2:53, 127.0.0.3:53 out of consul's recursors"),
        "{remedy}"
    );

    let listeners = said.of("resolvers.listens")?;
    for (resolver, port) in resolvers.iter().zip([":53 (lo)", ":8600 (lo)"]) {
        let pid = format!("(pid {})", resolver.process().pid());
        let told = listeners.iter().map(|finding| text(finding, "what"));
        ensure!(
            told.clone().any(|what| what.contains(&pid) && what.contains(port)),
            "{:?}",
            told.collect::<Vec<_>>()
        );
    }
    let ports = said.of("resolvers.port")?;
    ensure!(
        ports
            .iter()
            .any(|finding| text(finding, "remedy") == "ports = [53, 8600]"),
        "{ports:?}"
    );

    built.mend()?;
    let said = doctor(built.namespace())?;
    let resolvers: Vec<_> = built.resolvers().collect();
    assert_eq!(said.loops(&resolvers)?, [Value::Null; 0]);
    Ok(())
}

/// What is written as a loop between real resolvers is found; the probe agrees.
fn is_found(topology: Topology, queries: &str) -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(topology.programs())?;
    let built = topology.start()?;
    let said = doctor(built.namespace())?;
    let resolvers: Vec<_> = built.resolvers().collect();
    let found = said.loops(&resolvers)?;
    assert_eq!(found.len(), 1, "{topology}: {}", said.out);
    ensure!(text(&found[0], "what").ends_with(queries), "{topology}: {}", found[0]);

    // The command that it gives for a proof is one, and proves it.
    let (_, command) = text(&found[0], "why")
        .rsplit_once("proves it: dnsguard ")
        .context("no command")?;
    let words = command.replace('\'', "");
    let mut proof = Command::new(guard::binary()?);
    proof.args(words.split(' ')).args(["--timeout", "1"]);
    let process = built.namespace().spawn(proof)?;
    let status = process.wait(PATIENCE)?;
    assert_eq!(
        status.code(),
        Some(FOUND),
        "{command}: {}{}",
        process.output(),
        process.log()
    );
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn two_dnsmasq_that_send_a_domain_to_each_other_are_found() -> Result<()> {
    is_found(Topology::DEMO, "for every name in consul.")
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_ring_of_three_dnsdist_is_found() -> Result<()> {
    let ring = Topology::Circle {
        forwarder: Forwarder::Dnsdist,
        hops: 3,
        wire: Wire::Loopback,
    };
    is_found(ring, "for every name in consul.")
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn two_consul_that_recurse_to_each_other_are_found() -> Result<()> {
    is_found(Topology::ConsulPair, "for every name that no closer rule takes")
}

fn dnsmasq(namespace: &Namespace, listen: SocketAddr, zone: &str, to: SocketAddr) -> Result<Resolver> {
    let dnsmasq = Dnsmasq {
        duties: Duties {
            listen: vec![listen],
            forwards: vec![Forward::new(zone, to)],
            answers: Vec::new(),
        },
        extra: Vec::new(),
    };
    dnsmasq.start(namespace)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_dnsmasq_that_asks_the_stub_which_asks_it_is_found() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(&["ip", "dnsmasq", "systemd-resolved"])?;
    let namespace = Namespace::new()?;
    let (stub, here) = (
        SocketAddr::from(Resolved::ADDRESS),
        SocketAddr::from(([127, 0, 0, 1], 53)),
    );
    // Without a link to the world systemd-resolved asks nobody.
    namespace.ip("link add near type veth peer name far")?;
    namespace.ip("address add 10.53.0.1/24 dev near")?;
    namespace.ip("link set near up")?;
    namespace.ip("link set far up")?;
    let dnsmasq = dnsmasq(&namespace, here, "", stub)?;
    let resolved = Resolved { server: here }.start(&namespace)?;
    let said = doctor(&namespace)?;
    let found = said.loops(&[&dnsmasq, &resolved])?;
    assert_eq!(found.len(), 1, "{}", said.out);
    ensure!(
        text(&found[0], "what").contains("for every name that no closer rule takes"),
        "{}",
        found[0]
    );
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_domain_that_goes_one_way_only_is_no_loop() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(&["ip", "dnsmasq", "unbound"])?;
    let namespace = Namespace::new()?;
    let (first, second) = (
        SocketAddr::from(([127, 0, 0, 1], 53)),
        SocketAddr::from(([127, 0, 0, 2], 53)),
    );
    let duties = Duties {
        listen: vec![second],
        forwards: vec![Forward::new("example", first)],
        answers: vec!["consul".to_owned()],
    };
    let unbound = Unbound {
        duties,
        ..Unbound::default()
    }
    .start(&namespace)?;
    let dnsmasq = dnsmasq(&namespace, first, "consul", second)?;
    let said = doctor(&namespace)?;
    assert_eq!(said.loops(&[&dnsmasq, &unbound])?, [Value::Null; 0]);
    assert_eq!(said.loops(&[&dnsmasq])?, [Value::Null; 0]);
    // With the domain sent back it is one.
    drop(dnsmasq);
    let looped = self::dnsmasq(&namespace, first, "example", second)?;
    let said = doctor(&namespace)?;
    assert_eq!(said.loops(&[&looped, &unbound])?.len(), 1, "{}", said.out);
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn programs_of_others_are_named_with_their_hook() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, there] = [Namespace::new()?, Namespace::new()?];
    guard_tests::veth::veth(&here, &there, WIRE, &[("10.53.0.1/24", "10.53.0.2/24")])?;
    let _foreign = [
        Foreign::xdp(&here, WIRE, "xdp_dispatcher")?,
        Foreign::tcx(&here, WIRE, TcAttachType::Ingress, "cil_from_netdev")?,
        Foreign::clsact(&here, WIRE, TcAttachType::Egress, "handle_egress")?,
    ];
    let said = doctor(&here)?;
    for (check, id, part) in [
        (
            "programs.xdp",
            _foreign[0].id(),
            "XDP (driver) has the program xdp_dispatcher",
        ),
        (
            "programs.tcx",
            _foreign[1].id(),
            "tcx ingress has the program cil_from_netdev",
        ),
        (
            "programs.clsact",
            _foreign[2].id(),
            "clsact egress has the program handle_egress",
        ),
    ] {
        let found = said.of(check)?;
        assert_eq!(found.len(), 1, "{check}: {}", said.out);
        let what = text(&found[0], "what");
        ensure!(what.starts_with(WIRE) && what.contains(part), "{what}");
        ensure!(
            what.contains(&format!("(id {id})")) && what.contains("most likely"),
            "{what}"
        );
        assert_eq!(found[0]["level"], "info");
    }
    // Whoever wants that place and no other cannot have it.
    let config = here.file(
        "driver.toml",
        &format!("[attach]\ninterfaces = [\"{WIRE}\"]\nxdp = \"driver\"\n"),
    )?;
    let config = config.to_str().context("a path in UTF-8")?;
    let said = doctor_behind(&here, &[], &["--config", config, "-o", "json", "--seconds", "0"])?;
    assert_eq!(said.code, Some(FOUND));
    assert_eq!(said.of("programs.xdp")?[0]["level"], "fail");
    assert_eq!(said.of("interfaces.xdp")?[0]["level"], "fail");
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_running_guard_is_told_from_others_and_what_it_does_not_see_is_named() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(&["ip", "dnsmasq"])?;
    let [here, there] = [Namespace::new()?, Namespace::new()?];
    guard_tests::veth::veth(&here, &there, WIRE, &[("10.53.0.1/24", "10.53.0.2/24")])?;
    let upstream = SocketAddr::from(([10, 53, 0, 2], 53));
    let _dnsmasq = dnsmasq(&here, SocketAddr::from(([127, 0, 0, 1], 53)), "example", upstream)?;
    let options = GuardOptions {
        mode: Mode::Observe,
        ..GuardOptions::enforce(&["lo"])
    };
    let guard = Guard::start(&here, &options)?;
    guard.wait_ready(START)?;
    let said = doctor(&here)?;
    let none = said.of("programs.none")?;
    ensure!(text(&none[0], "what").ends_with("one of dnsguard's"), "{none:?}");
    let legs = said.of("resolvers.leg")?;
    let leg = |device: &str| {
        legs.iter()
            .find(|leg| text(leg, "what").starts_with(device))
            .context("no such leg")
    };
    assert_eq!(leg("lo")?["level"], "ok");
    let wire = leg(WIRE)?;
    assert_eq!(wire["level"], "warn", "{wire}");
    ensure!(text(wire, "what").contains("dnsmasq to 10.53.0.2:53"), "{wire}");
    assert_eq!(text(wire, "remedy"), "[attach] interfaces = [\"lo\", \"veth0\"]");
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_host_with_nothing_to_mend_ends_with_zero() -> Result<()> {
    let _machine = MACHINE.lock();
    let namespace = Namespace::new()?;
    namespace.cover("resolv.conf", "search example\n")?;
    let said = doctor_behind(&namespace, &ALONE, &["-o", "json", "--seconds", "0"])?;
    assert_eq!(said.code, Some(WELL), "{}{}", said.out, said.err);
    let level = said.json()?["level"].clone();
    ensure!(level == "ok" || level == "info", "{level}");
    assert_eq!(said.of("resolvers.none")?.len(), 1, "{}", said.out);
    assert_eq!(said.err, "");

    let said = doctor_behind(&namespace, &ALONE, &["--seconds", "0"])?;
    assert_eq!(said.code, Some(WELL), "{}{}", said.out, said.err);
    assert_eq!(said.out.lines().last(), Some("nothing to mend"));
    let said = doctor_behind(&namespace, &ALONE, &["-o", "jsonl", "--seconds", "0"])?;
    for line in said.out.lines() {
        let line: Value = serde_json::from_str(line)?;
        ensure!(line["schema"] == 1 && line["check"].is_string(), "{line}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn whoever_may_not_look_is_told_what_was_not_seen() -> Result<()> {
    let _machine = MACHINE.lock();
    let namespace = Namespace::new()?;
    // Somebody else's server, on a port of DNS.
    let _server = namespace.udp(SocketAddr::from(([127, 0, 0, 1], 53)))?;
    // Where nobody else can reach the build directory, this copy can be run all the same.
    let copy = "/run/dnsguard";
    let binary = guard::binary()?;
    namespace.run(|| fs::copy(binary, Path::new(copy)))?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.args(["--bounding-set", "-all", "--inh-caps", "-all", copy]);
    command
        .args(["doctor", "-o", "json", "--seconds", "0"])
        .env_remove("RUST_LOG");
    let process = namespace.spawn(command)?;
    let status = process.wait(PATIENCE)?;
    let said = Said {
        code: status.code(),
        out: process.output(),
        err: process.log(),
    };
    assert_eq!(said.code, Some(FOUND), "{}", said.err);
    let missing = said.of("privileges.capabilities")?;
    let named: Vec<_> = missing.iter().map(|finding| text(finding, "what")).collect();
    assert_eq!(named.len(), 4, "{named:?}");
    for (check, part) in [
        ("kernel.programs", "Operation not permitted"),
        ("programs.unseen", "could not be seen"),
        ("resolvers.unseen", "could not be seen"),
        ("resolvers.listens", "somebody answers at 127.0.0.1:53 (lo)"),
    ] {
        let found = said.of(check)?;
        ensure!(
            found.iter().any(|finding| text(finding, "what").contains(part)),
            "{check}: {found:?}"
        );
        if check != "resolvers.listens" {
            ensure!(text(&found[0], "remedy").contains("CAP_"), "{check}: {found:?}");
        }
    }
    assert_eq!(said.of("programs.none")?, [Value::Null; 0], "it cannot know");
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn an_interface_that_is_not_there_stops_the_guard() -> Result<()> {
    let namespace = Namespace::new()?;
    let config = namespace.file("none.toml", "[attach]\ninterfaces = [\"lo\", \"eth7\"]\n")?;
    let config = config.to_str().context("a path in UTF-8")?;
    let said = doctor_behind(&namespace, &[], &["--config", config, "-o", "json", "--seconds", "0"])?;
    assert_eq!(said.code, Some(FOUND));
    let found = said.of("interfaces.link")?;
    ensure!(
        text(&found[0], "what").starts_with("there is no interface eth7"),
        "{found:?}"
    );
    let broken = namespace.file("broken.toml", "mode = \"enforced\"\n")?;
    let broken = broken.to_str().context("a path in UTF-8")?;
    let said = doctor_behind(&namespace, &[], &["--config", broken])?;
    assert_eq!((said.code, said.out.as_str()), (Some(BAD_CONFIGURATION), ""));
    ensure!(said.err.contains("broken.toml:1:8: mode is"), "{}", said.err);
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn counters_are_watched_for_as_long_as_is_asked() -> Result<()> {
    let namespace = Namespace::new()?;
    let start = Instant::now();
    let said = doctor_behind(&namespace, &[], &["-o", "json", "--seconds", "2"])?;
    ensure!(start.elapsed() >= Duration::from_secs(2));
    let found = said.of("pressure.culprit")?;
    ensure!(text(&found[0], "what").contains("in 2 s"), "{found:?}");
    Ok(())
}
