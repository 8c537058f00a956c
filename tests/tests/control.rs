//! The control socket of a running agent: who may use it, what it tells, and what it changes without a packet lost.

use std::{
    fs,
    os::unix::fs::symlink,
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{
    Namespace,
    flood::{Flooding, Pace, Stream},
    frame::Query,
    guard::{Guard, GuardOptions, Said, binary},
    programs,
    topology::{Loop, Topology},
    veth, wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);
/// What the agent does by itself, it has done by then.
const SOON: Duration = Duration::from_secs(15);
/// A hold that outlasts every test.
const LONG_HOLD: &str = "[breaker]\nhold_ms = 300000\n";
/// Nobody.
const STRANGER: &str = "65534";

const FAILED: i32 = 1;
const BAD: i32 = 2;
const FOUND: i32 = 3;
const NOBODY: i32 = 4;
const NOT_PERMITTED: i32 = 5;

/// One at a time: some of them take the whole machine.
static MACHINE: Mutex<()> = Mutex::new(());

fn start(namespace: &Namespace, toml: &str, interfaces: &[&str]) -> Result<Guard> {
    let options = GuardOptions {
        extra_toml: toml.to_owned(),
        ..GuardOptions::enforce(interfaces)
    };
    let guard = Guard::start(namespace, &options)?;
    guard.wait_ready(START)?;
    Ok(guard)
}

/// A loop that is held for as long as the test lasts.
fn held(toml: &str) -> Result<(Loop, Guard)> {
    programs::provide(Topology::DEMO.programs())?;
    let looped = Topology::DEMO.start()?;
    let guard = start(looped.namespace(), &format!("{toml}{LONG_HOLD}"), &["lo"])?;
    looped.ignite()?;
    guard.wait_event("trip", SOON)?;
    Ok((looped, guard))
}

fn wait_for(what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    wait(what, SOON, is_so).map(drop)
}

fn setting(guard: &Guard, key: &str) -> Result<String> {
    let said = guard.say(&["policy", "get", key])?;
    ensure!(said.code == Some(0), "{said:?}");
    Ok(said.out.trim().to_owned())
}

/// `dnsguard status` as user and groups that are given to `setpriv`.
fn status_as(guard: &Guard, identity: &[&str]) -> Result<Said> {
    let mut command = programs::locate("setpriv")?.command();
    command.args(identity).arg(binary()?).arg("status");
    guard.say_by(command)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn root_and_the_group_may_and_a_stranger_may_not() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(&["ip", "setpriv"])?;
    let namespace = Namespace::new()?;
    let alone = start(&namespace, "", &["lo"])?;
    assert_eq!(alone.say(&["status"])?.code, Some(0));
    let stranger = ["--reuid", STRANGER, "--regid", STRANGER, "--clear-groups"];
    let said = status_as(&alone, &stranger)?;
    assert_eq!(said.code, Some(NOT_PERMITTED), "{said:?}");
    // Somebody has opened the socket to all: the agent looks who it is.
    let socket = "/run/dnsguard/control.sock";
    namespace.run(|| fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o666)))?;
    let said = status_as(&alone, &stranger)?;
    assert_eq!(said.code, Some(NOT_PERMITTED), "{said:?}");
    ensure!(said.err.contains("uid 65534 may not give commands"), "{}", said.err);
    alone.stop()?;
    ensure!(!namespace.run(|| fs::exists(socket))?, "the socket is left");

    let shared = start(&namespace, "[control]\ngroup = \"nogroup\"\n", &["lo"])?;
    for groups in [
        &["--reuid", STRANGER, "--regid", STRANGER, "--clear-groups"],
        &["--reuid", STRANGER, "--regid", "1", "--groups=65534"][..],
    ] {
        let said = status_as(&shared, groups)?;
        assert_eq!(said.code, Some(0), "{groups:?}: {said:?}");
    }
    let said = status_as(&shared, &["--reuid", STRANGER, "--regid", "1", "--clear-groups"])?;
    assert_eq!(said.code, Some(NOT_PERMITTED), "{said:?}");
    shared.stop()?;
    let said = shared.say(&["status"])?;
    assert_eq!(said.code, Some(NOBODY), "{said:?}");
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_second_agent_does_not_take_the_socket_of_the_first() -> Result<()> {
    let _machine = MACHINE.lock();
    let namespace = Namespace::new()?;
    let first = start(&namespace, "", &["lo"])?;
    let toml = "[metrics]\nlisten = \"\"\n[attach]\npin_dir = \"/sys/fs/bpf/second\"\n";
    let options = GuardOptions {
        extra_toml: toml.to_owned(),
        ..GuardOptions::enforce(&["lo"])
    };
    let second = Guard::start(&namespace, &options)?;
    let status = second.process().wait(START)?;
    assert_eq!(status.code(), Some(FAILED));
    ensure!(
        second.process().log().contains("another dnsguard answers at"),
        "{}",
        second.process().log()
    );
    assert_eq!(first.say(&["status"])?.code, Some(0));
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_breaker_is_released_and_allowed_by_hand_and_both_are_told() -> Result<()> {
    let _machine = MACHINE.lock();
    let (looped, guard) = held("")?;
    let name = looped.question().name.to_string();
    let explained = guard.say(&["explain", &name, "-o", "json"])?.json(FOUND)?;
    assert_eq!(explained["verdict"], "held");
    assert_eq!(explained["state"]["phase"], "open");
    assert_eq!(explained["breaker"]["proof"], "proven");

    let said = guard.say(&["loops", "release", &name])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    let released = guard.wait_event("release", SOON)?;
    ensure!(
        released["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("by uid 0")),
        "{released}"
    );
    let list = guard.say(&["loops", "list", "-o", "json"])?.json(0)?;
    assert_eq!(list["loops"], Value::Array(Vec::new()));
    assert_eq!(
        guard.say(&["explain", &name, "-o", "json"])?.json(0)?["verdict"],
        "pass"
    );

    // It still goes round: it is cut again, unless it is allowed.
    looped.kill();
    let said = guard.say(&["loops", "allow", &name, "A", "--for", "3"])?;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(guard.events_of("allow")?.len(), 1);
    let list = guard.say(&["loops", "list", "-o", "json"])?.json(0)?;
    assert_eq!(list["allowed"][0]["from"], "by hand");
    let ended = guard.wait_event("disallow", SOON)?;
    ensure!(
        ended["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("time is over")),
        "{ended}"
    );
    let said = guard.say(&["loops", "disallow", &name])?;
    assert_eq!(said.code, Some(FAILED), "{said:?}");
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn an_allowed_loop_goes_on_and_is_told() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(Topology::DEMO.programs())?;
    let looped = Topology::DEMO.start()?;
    let guard = start(looped.namespace(), LONG_HOLD, &["lo"])?;
    let name = looped.question().name.to_string();
    assert_eq!(guard.say(&["loops", "allow", &name, "A"])?.code, Some(0));
    looped.ignite()?;
    let trip = guard.wait_event("trip", SOON)?;
    ensure!(
        trip["reason"]
            .as_str()
            .is_some_and(|reason| reason.ends_with("it goes on, because it is allowed")),
        "{trip}"
    );
    let before = looped.packets()?;
    wait_for("the loop goes on", || Ok(looped.packets()? > before + 1_000))?;
    assert_eq!(
        guard.say(&["explain", &name, "-o", "json"])?.json(FOUND)?["verdict"],
        "would_hold"
    );
    assert_eq!(guard.counter("dnsguard_actions_total", &["action=\"answer\""])?, 0);

    // Taken back, it is held: nothing has to trip again.
    assert_eq!(guard.say(&["loops", "disallow", &name])?.code, Some(0));
    wait_for("the loop stands still", || {
        let before = looped.packets()?;
        sleep(Duration::from_millis(300));
        Ok(looped.packets()? < before + 10)
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_bad_file_changes_nothing_and_says_where_it_is_wrong() -> Result<()> {
    let _machine = MACHINE.lock();
    let namespace = Namespace::new()?;
    let guard = start(&namespace, "[breaker]\nhold_ms = 700\n", &["lo"])?;
    let successful = || guard.counter("dnsguard_config_last_reload_successful", &[]);
    wait_for("it starts well", || Ok(successful()? == 1))?;
    let generation = guard.counter("dnsguard_policy_generation", &[])?;

    guard.rewrite("[breaker]\nhold_ms = 900\nhold_mx_ms = 5\n")?;
    let said = guard.say(&["reload"])?;
    assert_eq!(said.code, Some(BAD), "{said:?}");
    ensure!(
        said.err.contains(":3:1: unknown key 'hold_mx_ms' in [breaker]"),
        "{}",
        said.err
    );
    wait_for("the metric says so", || Ok(successful()? == 0))?;
    assert_eq!(setting(&guard, "breaker.hold_ms")?, "700");
    assert_eq!(guard.counter("dnsguard_policy_generation", &[])?, generation);
    let status = guard.say(&["status", "-o", "json"])?.json(FOUND)?;
    ensure!(
        status["warnings"][0]
            .as_str()
            .is_some_and(|text| text.contains("hold_mx_ms")),
        "{status}"
    );

    // What is fixed at the start is refused whole as well.
    guard.rewrite("[breaker]\nhold_ms = 900\n[attach]\ntc = \"clsact\"\n")?;
    let said = guard.say(&["reload"])?;
    assert_eq!(said.code, Some(BAD), "{said:?}");
    ensure!(
        said.err.contains("attach.tc cannot change while the agent runs"),
        "{}",
        said.err
    );
    assert_eq!(setting(&guard, "breaker.hold_ms")?, "700");

    guard.rewrite("[breaker]\nhold_ms = 900\n")?;
    let said = guard.say(&["reload"])?;
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(0), "breaker.hold_ms: 700 -> 900\n")
    );
    wait_for("the metric says so", || Ok(successful()? == 1))?;
    assert_eq!(setting(&guard, "breaker.hold_ms")?, "900");
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_signal_a_changed_file_and_a_configmap_reload_too() -> Result<()> {
    let _machine = MACHINE.lock();
    let namespace = Namespace::new()?;
    let guard = start(&namespace, "[breaker]\nhold_ms = 700\n", &["lo"])?;
    let is = |hold: &str| setting(&guard, "breaker.hold_ms").map(|found| found == hold);

    // Written over, as an editor does it.
    namespace.run(|| fs::write(guard.config(), "[breaker]\nhold_ms = 800\n"))?;
    wait_for("a changed file is loaded", || is("800"))?;
    let reload = guard.events_of("reload")?.pop().context("no event")?;
    assert_eq!(
        (&reload["trigger"], &reload["successful"]),
        (&"file".into(), &true.into())
    );

    let pid = Pid::from_raw(i32::try_from(guard.process().pid())?);
    // Sooner than the agent looks by itself.
    namespace.run(|| fs::write(guard.config(), "[breaker]\nhold_ms = 900\n"))?;
    kill(pid, Signal::SIGHUP)?;
    wait_for("SIGHUP reloads", || is("900"))?;
    ensure!(
        guard
            .events_of("reload")?
            .iter()
            .any(|event| event["trigger"] == "signal")
    );

    // Kubernetes: a link to a link to a directory, and the one in the middle is replaced.
    let map = guard.config().with_file_name("map");
    namespace.run(|| -> Result<()> {
        for (version, hold) in [("..v1", 1_100), ("..v2", 1_200)] {
            fs::create_dir_all(map.join(version))?;
            fs::write(
                map.join(version).join("dnsguard.toml"),
                format!("[breaker]\nhold_ms = {hold}\n"),
            )?;
        }
        symlink("..v1", map.join("..data"))?;
        symlink("..data/dnsguard.toml", map.join("dnsguard.toml"))?;
        fs::remove_file(guard.config())?;
        symlink(map.join("dnsguard.toml"), guard.config())?;
        Ok(())
    })?;
    wait_for("the linked file is loaded", || is("1100"))?;
    namespace.run(|| -> Result<()> {
        symlink("..v2", map.join("..data_tmp"))?;
        Ok(fs::rename(map.join("..data_tmp"), map.join("..data"))?)
    })?;
    wait_for("the swapped link is followed", || is("1200"))?;
    guard.stop()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_set_by_hand_outlives_a_reload_until_it_is_taken_back() -> Result<()> {
    let _machine = MACHINE.lock();
    let namespace = Namespace::new()?;
    let budget = "[[budget]]\nname = \"per client\"\nscope = \"client\"\nlimit = 200\n";
    let guard = start(&namespace, budget, &["lo"])?;
    assert_eq!(guard.say(&["policy", "mode", "observe"])?.code, Some(0));
    assert_eq!(
        guard
            .say(&["policy", "set", "budget.\"per client\".limit", "300"])?
            .code,
        Some(0)
    );
    guard.rewrite(&format!("{budget}[breaker]\nhold_ms = 700\n"))?;
    assert_eq!(guard.say(&["reload"])?.code, Some(0));
    assert_eq!(setting(&guard, "mode")?, "\"observe\"");
    assert_eq!(setting(&guard, "breaker.hold_ms")?, "700");
    let policy = guard.say(&["policy", "get", "-o", "json"])?.json(0)?;
    ensure!(
        policy["limits"][0]
            .as_str()
            .is_some_and(|limit| limit.contains("300/s")),
        "{policy}"
    );

    let said = guard.say(&["policy", "set", "breaker.hold_ms", "1"])?;
    assert_eq!(said.code, Some(BAD), "{said:?}");
    let said = guard.say(&["policy", "set", "--dry-run", "breaker.hold_ms", "800"])?;
    assert_eq!(said.out, "would change breaker.hold_ms: 700 -> 800\n");
    assert_eq!(setting(&guard, "breaker.hold_ms")?, "700");

    assert_eq!(guard.say(&["policy", "reset", "mode"])?.code, Some(0));
    assert_eq!(setting(&guard, "mode")?, "\"enforce\"");
    assert_eq!(guard.say(&["policy", "reset"])?.code, Some(0));
    let policy = guard.say(&["policy", "get", "-o", "json"])?.json(0)?;
    ensure!(
        policy["limits"][0]
            .as_str()
            .is_some_and(|limit| limit.contains("200/s")),
        "{policy}"
    );
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn counts_and_open_breakers_go_on_through_a_reload() -> Result<()> {
    let _machine = MACHINE.lock();
    let one = "[[budget]]\nname = \"one\"\nscope = \"all\"\nlimit = 1000000\n";
    let two = "[[budget]]\nname = \"two\"\nscope = \"zone\"\nlabels = [1, 2]\nlimit = 1000000\n";
    let (looped, guard) = held(&format!("{one}{two}"))?;
    let within = |name: &str| {
        guard.counter(
            "dnsguard_budget_packets_total",
            &[&format!("budget=\"{name}\""), "result=\"within\""],
        )
    };
    let loops = guard.say(&["loops", "list", "-o", "json"])?.json(0)?;
    assert_eq!(loops["loops"].as_array().map(Vec::len), Some(1));
    let before = (within("one")?, within("two")?);
    ensure!(before.0 > 0 && before.1 > 0, "{before:?}");

    // The rows trade places, and one budget is new.
    let three = "[[budget]]\nname = \"three\"\nscope = \"key\"\nlimit = 1000000\n";
    guard.rewrite(&format!("{two}{three}{one}{LONG_HOLD}"))?;
    assert_eq!(guard.say(&["reload"])?.code, Some(0));
    sleep(Duration::from_millis(1_500));
    let after = (within("one")?, within("two")?);
    ensure!(
        after.0 >= before.0 && after.1 >= before.1,
        "{before:?} became {after:?}"
    );
    assert_eq!(after.0 - before.0, after.1 - before.1, "both count every query");
    ensure!(within("three")? <= after.0 - before.0 + 8, "what is new begins at zero");

    let loops = guard.say(&["loops", "list", "-o", "json"])?.json(0)?;
    assert_eq!(
        loops["loops"].as_array().map(Vec::len),
        Some(1),
        "the breaker is open: {loops}"
    );
    let held = loops["loops"][0]["held"].as_u64().context("no count")?;
    looped.ignite()?;
    wait_for("the looped query is held as before", || {
        let loops = guard.say(&["loops", "list", "-o", "json"])?.json(0)?;
        Ok(loops["loops"][0]["held"].as_u64().is_some_and(|now| now > held))
    })?;
    assert_eq!(guard.events_of("trip")?.len(), 1, "nothing had to trip again");
    Ok(())
}

/// Datagrams that reached the sockets of a namespace, which has none that wants them.
fn delivered(namespace: &Namespace) -> Result<u64> {
    let table = namespace.run(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
    let mut lines = table.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
    let at = names
        .split_whitespace()
        .position(|name| name == "NoPorts")
        .context("no NoPorts")?;
    Ok(values.split_whitespace().nth(at).context("no value")?.parse()?)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_hundred_reloads_under_a_hundred_thousand_packets_a_second_lose_none() -> Result<()> {
    const RELOADS: u32 = 100;
    const PACKETS: u64 = 1_000_000;
    /// However slow the machine is.
    const MOST: Duration = Duration::from_secs(40);
    let _machine = MACHINE.lock();
    programs::provide(&["ip", "ethtool"])?;
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    veth::veth(&here, &there, "veth0", &[("10.53.0.1/24", "10.53.0.2/24")])?;
    // Either of them lets everything pass. A packet that met the row of the first and the range of the second would be
    // charged to a budget of one packet a day.
    let of = |range: &str, limit: &str| {
        format!(
            "[[budget]]\nname = \"b\"\nscope = \"destination\"\ndirection = \"in\"\nlimit = \"{limit}\"\nburst = 1\n\
             destinations = [\"{range}\"]\n"
        )
    };
    here.tool("ethtool", "-K veth0 gro on")?;
    let policies = [
        of("192.0.2.0/24", "24/h"),
        of("10.53.0.0/24", "100000000/s").replace("burst = 1\n", ""),
    ];
    let guard = start(&here, &policies[0], &["veth0"])?;

    let query = Query::new("www.example.com", "10.53.0.2:40000", "10.53.0.1:53")?;
    let mut frame = query.frame()?;
    frame[..6].copy_from_slice(&veth::station(&here, "veth0")?);
    frame[6..12].copy_from_slice(&veth::station(&there, "veth0")?);

    let before = delivered(&here)?;
    let flood = Stream::start(&there, "veth0", Flooding::same(frame), Pace::PerSecond(100_000))?;
    let deadline = Instant::now() + MOST;
    let mut reloads = 0;
    while (reloads < RELOADS || flood.sent()?.packets < PACKETS) && Instant::now() < deadline {
        reloads += 1;
        guard.rewrite(&policies[reloads as usize % 2])?;
        let said = guard.say(&["reload"])?;
        ensure!(said.code == Some(0), "{said:?}");
    }
    let sent = flood.stop()?;
    // The last packets are on their way, and the agent counts once a second.
    sleep(Duration::from_millis(2_500));
    let seen = guard.counter("dnsguard_dns_queries_total", &["device=\"veth0\""])?;
    let passed = delivered(&here)? - before;
    let per_second = sent.packets as f64 / sent.elapsed.as_secs_f64();
    println!("{reloads} reloads, {per_second:.0} packets/s, {seen} seen, {passed} delivered");
    ensure!(seen > PACKETS / 10 && reloads > 10, "that was no flood: {sent:?}");
    assert_eq!(passed, seen, "the guard has lost some");
    for verdict in ["drop", "answer"] {
        assert_eq!(
            guard.counter("dnsguard_actions_total", &[&format!("action=\"{verdict}\"")])?,
            0
        );
    }
    assert_eq!(guard.counter("dnsguard_budget_packets_total", &["result=\"over\""])?, 0);
    guard.stop()
}
