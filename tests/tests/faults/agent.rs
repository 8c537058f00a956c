//! The agent dies, stands still, starves, and comes again.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::TcAttachType;
use guard_common::abi;
use guard_tests::{
    Namespace, guard,
    guard::{Guard, GuardOptions, pins},
    hooks::at_tc,
    knob, programs,
    siege::{MemoryLimit, START, Seen, Siege, WIRE, monotonic},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{LEASE, LONG_LEASE, MOMENT, SOON, machine, wait_for, wait_for_log};

/// How often the agent is killed, unless `DNSGUARD_KILLS` says otherwise.
const KILLS: u64 = 3;
/// The kernel's clock ticks every 10 ms at the most, and ours is read before and after.
const TICK: Duration = Duration::from_millis(20);
/// Objects that are cut short.
const BAD_OBJECTS: usize = 20;
/// Where the agent answers, inside its namespace.
const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 9533);

fn pid(guard: &Guard) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(guard.process().pid())?))
}

/// Stops every thread of an agent, and waits until they stand.
fn stand_still(guard: &Guard) -> Result<()> {
    kill(pid(guard)?, Signal::SIGSTOP)?;
    let status = format!("/proc/{}/status", guard.process().pid());
    wait_for("all threads stand", || {
        Ok(fs::read_to_string(&status)?.contains("State:\tT"))
    })?;
    Ok(())
}

/// What an agent has in the kernel: pins of links, programs and maps, and programs at the hooks of both interfaces.
fn standing(namespace: &Namespace) -> Result<[usize; 6]> {
    let pins = |folder: &str| -> Result<usize> {
        let folder = pins(abi::VERSION).join(folder);
        Ok(namespace.run(|| fs::read_dir(folder))?.count())
    };
    let hung = |device: &str, direction| -> Result<usize> {
        let count = at_tc(namespace, device, direction)?;
        ensure!(count > 0, "nothing hangs at {device}, {direction:?}");
        Ok(count)
    };
    Ok([
        pins("links")?,
        pins("programs")?,
        pins("maps")?,
        hung("lo", TcAttachType::Ingress)?,
        hung(WIRE, TcAttachType::Ingress)?,
        hung(WIRE, TcAttachType::Egress)?,
    ])
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn an_agent_that_is_killed_and_started_again_costs_nobody_anything() -> Result<()> {
    let _machine = machine();
    let kills = knob("DNSGUARD_KILLS", KILLS)?;
    let siege = Siege::lay(LONG_LEASE)?;
    let options = siege.options("");
    let mut guard = siege.guarded(&options)?;
    let (files, before) = (guard.process().open_files()?, standing(siege.node())?);
    let wire = format!("device=\"{WIRE}\"");
    let seen = guard.counter("dnsguard_dns_queries_total", &[&wire])?;
    let taken = siege.taken()?;
    let load = siege.load()?;
    for _ in 0..kills {
        guard.kill9();
        guard = siege.ready(&options)?;
        let takeover = guard.events_of("takeover")?;
        ensure!(takeover.len() == 1 && takeover[0]["links"] == 3, "{takeover:?}");
        assert_eq!(standing(siege.node())?, before, "nothing piles up");
    }
    let toll = load.end()?;
    println!("killed {kills} times: {toll}");
    toll.unharmed()?;
    assert_eq!(guard.counter("dnsguard_trips_total", &[])?, 1, "nothing was forgotten");
    // No packet went by a program that was not there.
    let expected = seen + (siege.taken()? - taken) + toll.patrons[0].sent;
    let counted = guard.wait_counter("dnsguard_dns_queries_total", &[&wire], expected, SOON)?;
    assert_eq!(counted, expected, "every packet is accounted for");
    wait_for("as many files as before", || Ok(guard.process().open_files()? <= files))?;
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn an_agent_that_stands_still_holds_until_its_lease_is_over_and_not_longer() -> Result<()> {
    let _machine = machine();
    let lease = Duration::from_secs(knob("DNSGUARD_LEASE", LEASE.as_secs())?);
    let mut siege = Siege::lay(lease)?;
    let guard = siege.guarded(&siege.options(""))?;
    // From now on the name has an answer, which nobody gets while the hold of five minutes stands.
    siege.mend()?;
    let load = siege.load()?;
    sleep(MOMENT);
    stand_still(&guard)?;
    let (stopped, until) = (monotonic()?, siege.lease_until()?);
    while monotonic()? < until + MOMENT {
        sleep(MOMENT / 10);
    }
    let toll = load.end()?;
    println!("stopped with {:.1?} left: {toll}", until - stopped);
    toll.nobody_lost()?;
    for sample in &toll.samples {
        if sample.ended + TICK < until {
            ensure!(
                sample.seen == Seen::Held,
                "before the end of the lease: {sample:?}, {until:?}"
            );
        }
        if sample.began > until + TICK {
            ensure!(
                sample.seen == Seen::Passed,
                "after the end of the lease: {sample:?}, {until:?}"
            );
        }
    }
    let passed = toll.samples.iter().find(|sample| sample.seen == Seen::Passed);
    let passed = passed.context("nothing has passed")?;
    println!(
        "passed {:.0?} after the end of the lease",
        passed.ended.saturating_sub(until)
    );

    kill(pid(&guard)?, Signal::SIGCONT)?;
    let told = guard.wait_event("lease", SOON)?;
    let reason = told["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("because the agent did not run"), "{told}");
    let load = siege.load()?;
    sleep(MOMENT);
    let toll = load.end()?;
    toll.unharmed().context("the hold goes on where it was")?;
    guard.wait_counter("dnsguard_passed_total", &["reason=\"lease_over\""], 1, SOON)?;
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn an_agent_without_descriptors_guards_on_and_says_what_it_lacks() -> Result<()> {
    let _machine = machine();
    programs::provide(&["prlimit"])?;
    let siege = Siege::lay(LEASE)?;
    let guard = siege.guarded(&siege.options_for(&["lo", WIRE, "/^late[0-9]$/"], ""))?;
    let limit = |soft: &str| {
        let pid = guard.process().pid();
        siege.node().tool("prlimit", &format!("--pid {pid} --nofile={soft}:"))
    };
    let load = siege.load()?;
    limit("3")?;
    let (cpu, starved) = (guard.process().cpu_seconds()?, Instant::now());
    // Somebody scrapes, somebody plugs in a network card.
    let mut scrape = siege
        .node()
        .run(|| TcpStream::connect(std::net::SocketAddr::from(METRICS)))?;
    siege.node().ip("link add late1 type veth peer name early1")?;
    wait_for_log(
        &guard,
        "cannot accept a connection at 127.0.0.1:9533: Too many open files",
    )?;
    let failed = guard.wait_event("attach_error", SOON)?;
    let reason = failed["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("Too many open files"), "{failed}");
    let until = siege.lease_until()?;
    wait_for("the lease is renewed", || Ok(siege.lease_until()? > until))?;
    scrape.set_read_timeout(Some(MOMENT))?;
    ensure!(scrape.read(&mut [0; 1]).is_err(), "nobody could be accepted");
    let (cpu, starved) = (guard.process().cpu_seconds()? - cpu, starved.elapsed().as_secs_f64());
    let told = guard.process().log().matches("Too many open files").count();

    limit("1024")?;
    wait_for("late1 is guarded", || {
        Ok(guard
            .events_of("attach")?
            .iter()
            .any(|event| event["device"] == "late1"))
    })?;
    ensure!(guard.metrics()?.contains("dnsguard_hooks_failing"));
    let toll = load.end()?;
    println!("without descriptors for {starved:.1} s, {cpu:.1} s of processor time, {told} lines: {toll}");
    toll.unharmed()?;
    ensure!(told < 10, "it says so again and again:\n{}", guard.process().log());
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn an_agent_that_is_killed_for_its_memory_leaves_its_policy_in_force() -> Result<()> {
    let _machine = machine();
    let siege = Siege::lay(LONG_LEASE)?;
    let options = siege.options("");
    let guard = siege.guarded(&options)?;
    let load = siege.load()?;
    let _limit = MemoryLimit::put(guard.process().pid(), 64 << 10)?;
    // Whoever asks makes it want some.
    let killed = Instant::now();
    while guard.process().ended().is_none() {
        ensure!(killed.elapsed() < SOON, "it does not want any memory");
        let asking: Vec<_> = siege.node().run(|| {
            let ask = |_| {
                let mut stream = TcpStream::connect(std::net::SocketAddr::from(METRICS)).ok()?;
                stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
                Some(stream)
            };
            (0..64).map_while(ask).collect()
        });
        sleep(Duration::from_millis(20));
        drop(asking);
    }
    let status = guard.process().ended().context("it runs")?;
    assert_eq!(
        status.signal(),
        Some(Signal::SIGKILL as i32),
        "{status}: {}",
        guard.process().last_words()
    );
    sleep(MOMENT);
    let guard = siege.ready(&options)?;
    assert_eq!(guard.events_of("takeover")?.len(), 1);
    let toll = load.end()?;
    println!("out of memory: {toll}");
    toll.unharmed()?;
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn an_upgrade_and_a_downgrade_leave_no_gap() -> Result<()> {
    let _machine = machine();
    let siege = Siege::lay(LONG_LEASE)?;
    let options = siege.options("at_stop = \"stay\"");
    let guard = siege.guarded(&options)?;
    let load = siege.load()?;
    guard.stop()?;
    let told = guard.events_of("stay")?;
    ensure!(
        told.len() == 1 && told[0]["seconds_left"] == LONG_LEASE.as_secs(),
        "{told:?}"
    );
    let guard = Guard::start_from(&siege.another_binary(0)?, siege.node(), &options)?;
    guard.wait_ready(START)?;
    assert_eq!(guard.events_of("takeover")?.len(), 1);
    assert_eq!(guard.counter("dnsguard_trips_total", &[])?, 1, "nothing was forgotten");

    // Now it is the newer one, whose maps this one does not know.
    guard.kill9();
    let (ours, newer) = (pins(abi::VERSION), pins(abi::VERSION + 1));
    siege.node().run(|| fs::rename(&ours, &newer))?;
    let refused = Guard::start(siege.node(), &options)?;
    let status = refused.process().wait(START)?;
    let said = refused.process().log();
    assert_eq!(status.code(), Some(1), "{said}");
    for part in ["is that of a newer dnsguard", "s more", "dnsguard detach --all"] {
        ensure!(said.contains(part), "{part} is not in: {said}");
    }
    // The newer one comes back.
    siege.node().run(|| fs::rename(&newer, &ours))?;
    let guard = siege.ready(&options)?;
    assert_eq!(guard.counter("dnsguard_trips_total", &[])?, 1, "nothing was forgotten");
    let toll = load.end()?;
    println!("upgraded, downgraded, upgraded again: {toll}");
    toll.unharmed()?;
    guard.stop()
}

/// Starts an agent that cannot start, and returns what it says.
fn does_not_start(siege: &Siege, options: &GuardOptions, code: i32) -> Result<String> {
    let began = Instant::now();
    let guard = Guard::start(siege.node(), options)?;
    let status = guard.process().wait(START)?;
    let said = guard.process().log();
    assert_eq!(status.code(), Some(code), "{said}");
    ensure!(guard.events_of("ready")?.is_empty(), "it was ready");
    println!("exit {code} after {:.1?}: {}", began.elapsed(), said.trim());
    Ok(said)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn what_is_missing_at_the_start_is_named_and_costs_nobody_anything() -> Result<()> {
    let _machine = machine();
    let siege = Siege::lay(LONG_LEASE)?;
    let options = siege.options("");
    siege.guarded(&options)?.kill9();
    let before = standing(siege.node())?;
    let load = siege.load()?;

    // No file.
    let mut command = Command::new(guard::binary()?);
    command.args(["run", "--config", "/run/nowhere.toml"]);
    let without = siege.node().spawn(command)?;
    assert_eq!(without.wait(START)?.code(), Some(2));
    ensure!(without.log().contains("/run/nowhere.toml"), "{}", without.log());
    // One that is wrong.
    let mut wrong = options.clone();
    wrong.extra_toml.push_str("[nonsense]\n");
    ensure!(does_not_start(&siege, &wrong, 2)?.contains("nonsense"));
    // No BPF file system.
    let said = does_not_start(&siege, &siege.options("pin_dir = \"/run/dnsguard\""), 1)?;
    ensure!(said.contains("mount -t bpf"), "{said}");
    // No interface.
    let said = does_not_start(&siege, &siege.options_for(&["lo", "nowhere0"], ""), 1)?;
    ensure!(said.contains("nowhere0"), "{said}");
    // No port.
    {
        let _taken = siege
            .node()
            .run(|| TcpListener::bind(std::net::SocketAddr::from(METRICS)))?;
        let said = does_not_start(&siege, &options, 1)?;
        ensure!(said.contains("127.0.0.1:9533"), "{said}");
    }
    // A kernel object that is none, or half of one.
    let whole = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../guard-ebpf/prebuilt/dnsguard.bpf.o"))?;
    let config = siege.node().file("object.toml", &options.extra_toml)?;
    for number in 0..BAD_OBJECTS {
        let object = PathBuf::from("/run/lab/object.o");
        let length = whole.len() * number / BAD_OBJECTS;
        siege.node().run(|| fs::write(&object, &whole[..length]))?;
        let mut command = Command::new(guard::binary()?);
        command.args(["run", "--mode", "enforce", "--interface", "lo", "--interface", WIRE]);
        command.arg("--config").arg(&config).arg("--object").arg(&object);
        let refused = siege.node().spawn(command)?;
        assert_eq!(refused.wait(START)?.code(), Some(1), "{}", refused.log());
        ensure!(refused.log().contains("kernel object"), "{}", refused.log());
    }
    assert_eq!(standing(siege.node())?, before, "the one before stays as it was");
    // Neither a container runtime: it does without.
    let mut podless = options;
    podless
        .extra_toml
        .push_str("[pods]\nsource = \"cri\"\nsocket = \"/run/nowhere.sock\"\n");
    let guard = siege.ready(&podless)?;
    ensure!(!siege.node().run(|| Path::new("/run/nowhere.sock").exists()));
    assert_eq!(guard.events_of("takeover")?.len(), 1);
    let toll = load.end()?;
    println!("seven things missing: {toll}");
    toll.unharmed()?;
    guard.stop()
}
