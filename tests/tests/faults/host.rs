//! The host under the agent: its disk, its clock, its BPF file system, and whoever else is on it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::{
        fs::{FileExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use guard_common::abi;
use guard_tests::{
    Namespace,
    client::ask,
    guard::{Guard, binary, pins},
    question::{Question, RecordType},
    siege::{START, Siege, monotonic},
};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount, umount2},
    sys::statvfs::statvfs,
};

use crate::{GROWTH_KIB, LEASE, LONG_LEASE, MOMENT, SOON, machine, status, wait_for, wait_for_log};

const BPFFS: &str = "/sys/fs/bpf";
const SOCKET: &str = "/run/dnsguard/control.sock";
const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 9533);

fn links(namespace: &Namespace) -> usize {
    let folder = pins(abi::VERSION).join("links");
    namespace.run(|| fs::read_dir(folder).map_or(0, Iterator::count))
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn what_was_pinned_is_pinned_again_where_another_bpf_file_system_is_mounted() -> Result<()> {
    let _machine = machine();
    let siege = Siege::lay(LONG_LEASE)?;
    let node = siege.node();
    let options = siege.options("");
    let guard = siege.guarded(&options)?;
    let load = siege.load()?;
    assert_eq!(node.run(|| umount(BPFFS)), Err(Errno::EBUSY), "the agent has it open");
    node.run(|| umount2(BPFFS, MntFlags::MNT_DETACH))?;
    let told = wait_for_log(&guard, "/sys/fs/bpf/dnsguard was unmounted: ")?;
    ensure!(
        guard.process().log().contains("mount -t bpf"),
        "{}",
        guard.process().log()
    );
    assert_eq!(links(node), 0);
    node.run(|| mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=700")))?;
    let again = wait_for("all of it is pinned again", || Ok(links(node) == 3))?;
    wait_for_log(&guard, "what is in force is pinned in it")?;
    // The proof: the next agent finds it.
    guard.kill9();
    sleep(MOMENT);
    let guard = siege.ready(&options)?;
    let takeover = guard.events_of("takeover")?;
    ensure!(takeover.len() == 1 && takeover[0]["links"] == 3, "{takeover:?}");
    assert_eq!(guard.counter("dnsguard_trips_total", &[])?, 1, "nothing was forgotten");
    let toll = load.end()?;
    println!("told after {told:.1?}, pinned {again:.1?} after the mount: {toll}");
    toll.unharmed()?;
    guard.stop()?;
    assert_eq!(links(node), 0);
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_full_disk_costs_lines_and_says_how_many() -> Result<()> {
    let _machine = machine();
    let siege = Siege::lay(LONG_LEASE)?;
    let node = siege.node();
    let guard = siege.guarded(&siege.options(""))?;
    let resize = |bytes: u64| {
        let size = format!("size={bytes}");
        node.run(|| {
            mount(
                None::<&str>,
                "/run",
                None::<&str>,
                MsFlags::MS_REMOUNT,
                Some(size.as_str()),
            )
        })
    };
    let used = node.run(|| statvfs("/run"))?;
    let used = (used.blocks() - used.blocks_free()) * used.fragment_size();
    let load = siege.load()?;
    resize(used)?;
    let mut number = 0;
    let mut trip = || -> Result<()> {
        number += 1;
        let question = Question::new(&format!("another-loop-{number}.consul."), RecordType::A)?;
        ask(node, siege.looped().server(), &question, 3, Duration::from_millis(100)).map(drop)
    };
    let lost = || guard.counter("dnsguard_events_lost_total", &["stage=\"output\""]);
    let began = Instant::now();
    while lost()? < 3 {
        ensure!(began.elapsed() < SOON, "there is room:\n{}", guard.metrics()?);
        trip()?;
    }
    resize(512 << 20)?;
    trip()?;
    wait_for("it goes on", || {
        Ok(guard.process().output().contains("standard output could not take them"))
    })?;
    let toll = load.end()?;
    toll.unharmed()?;
    // All lines but one are whole: the one that the disk took half of.
    let output = guard.process().output();
    let torn: Vec<_> = output
        .lines()
        .filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err())
        .collect();
    ensure!(torn.len() <= 1, "{torn:?}");
    let told = output
        .lines()
        .filter(|line| line.contains("\"event\":\"lost\""))
        .count();
    assert_eq!(told, 1, "{output}");
    println!("disk full, {} lines lost, {} torn: {toll}", lost()?, torn.len());
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_flooded_control_socket_holds_up_nobody_but_commands() -> Result<()> {
    /// Twice as many as are served at once.
    const SILENT: usize = 64;
    const RUDE: usize = 2_000;
    let _machine = machine();
    let siege = Siege::lay(LEASE)?;
    let node = siege.node();
    let guard = siege.guarded(&siege.options(""))?;
    let load = siege.load()?;
    let before = guard.process().rss_kib()?;
    // They come and go, with nonsense.
    node.run(|| -> Result<()> {
        for _ in 0..RUDE {
            let mut stream = UnixStream::connect(SOCKET)?;
            // Whoever is not read any more may have no room.
            let _ = stream.write_all(b"GET /v1/ HTTP/9.9\r\n\r\n");
        }
        Ok(())
    })?;
    // They come and say nothing; the agent gives each five seconds.
    let silent: Vec<_> = node.run(|| (0..SILENT).map(|_| UnixStream::connect(SOCKET)).collect());
    let until = siege.lease_until()?;
    let asked = Instant::now();
    let said = status(&guard)?;
    let waited = asked.elapsed();
    ensure!(said["warnings"].to_string().contains("loop"), "{said}");
    // Who looks at the metrics is not held up, nor is the lease.
    ensure!(guard.metrics()?.contains("dnsguard_lease_seconds_remaining"));
    wait_for("the lease is renewed", || Ok(siege.lease_until()? > until))?;
    drop(silent);
    let asked = Instant::now();
    status(&guard)?;
    let toll = load.end()?;
    let after = guard.process().rss_kib()?;
    println!(
        "flooded socket: status after {waited:.1?}, then {:.1?}; {before} KiB, then {after} KiB: {toll}",
        asked.elapsed()
    );
    toll.unharmed()?;
    ensure!(after < before + GROWTH_KIB, "{before} KiB, then {after} KiB");
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_hundred_scrapers_are_all_served() -> Result<()> {
    const SCRAPERS: usize = 100;
    const SCRAPES: usize = 3;
    let _machine = machine();
    let siege = Siege::lay(LONG_LEASE)?;
    let node = siege.node();
    let guard = siege.guarded(&siege.options(""))?;
    let scrape = || -> Result<Duration> {
        let began = Instant::now();
        let mut stream = TcpStream::connect(SocketAddr::from(METRICS))?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(text.starts_with("HTTP/1.") && text.contains(" 200 OK"), "{text}");
        ensure!(text.contains("\ndnsguard_trips_total"), "{text}");
        Ok(began.elapsed())
    };
    let load = siege.load()?;
    let before = guard.process().rss_kib()?;
    let times = node.run(|| {
        thread::scope(|scope| {
            let scrapers: Vec<_> = (0..SCRAPERS)
                .map(|_| scope.spawn(|| (0..SCRAPES).map(|_| scrape()).collect::<Result<Vec<_>>>()))
                .collect();
            let scraped = scrapers.into_iter().map(|one| one.join().expect("it does not panic"));
            scraped.collect::<Result<Vec<_>>>()
        })
    })?;
    let after = guard.process().rss_kib()?;
    sleep(MOMENT * 2);
    let toll = load.end()?;
    let mut times: Vec<_> = times.into_iter().flatten().collect();
    times.sort();
    let p99 = times.get(times.len() * 99 / 100).context("nobody scraped")?;
    println!(
        "{} scrapes, 99 of 100 within {p99:.1?}, {before} KiB, then {after} KiB: {toll}",
        times.len()
    );
    assert_eq!(times.len(), SCRAPERS * SCRAPES);
    toll.unharmed()?;
    guard.stop()
}

/// A library that moves the wall clock of the program that it is loaded into, by as many seconds as a file says.
const CLOCK: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *now) {
    static volatile long *step;
    int result = syscall(SYS_clock_gettime, id, now);
    if (result == 0 && id == CLOCK_REALTIME) {
        if (!step)
            step = mmap(0, sizeof *step, PROT_READ, MAP_SHARED, open(getenv("LAB_CLOCK"), O_RDONLY), 0);
        now->tv_sec += *step;
    }
    return result;
}
"#;

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_wall_clock_that_is_stepped_changes_nothing_but_dates() -> Result<()> {
    let _machine = machine();
    let siege = Siege::lay(LEASE)?;
    let node = siege.node();
    // The machine's own clock is left alone: others are at work here. The kernel's side has none but the monotonic one.
    let source = node.file("clock.c", CLOCK)?;
    let library = source.with_extension("so");
    node.tool(
        "cc",
        &format!("-shared -fPIC -O1 -o {} {}", library.display(), source.display()),
    )?;
    let step = node.run(|| fs::File::create("/run/lab/step"))?;
    let set = |seconds: i64| step.write_all_at(&seconds.to_ne_bytes(), 0);
    set(0)?;
    let script = format!(
        "#!/bin/sh\nLAB_CLOCK=/run/lab/step LD_PRELOAD={} exec {} \"$@\"\n",
        library.display(),
        binary()?.display()
    );
    let script = node.file("dnsguard-stepped", &script)?;
    node.run(|| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))?;
    let guard = Guard::start_from(&script, node, &siege.options(""))?;
    guard.wait_ready(START)?;
    siege.ignite(&guard)?;

    let load = siege.load()?;
    let mut dates = Vec::new();
    for (number, seconds) in [0, 3_600, -86_400, 0].into_iter().enumerate() {
        set(seconds)?;
        let until = siege.lease_until()?;
        let question = Question::new(&format!("another-loop-{number}.consul."), RecordType::A)?;
        let wanted = format!("another-loop-{number}.consul");
        ask(node, siege.looped().server(), &question, 2, MOMENT)?;
        let mut told = None;
        wait_for("a trip is told", || {
            let trips = guard.events_of("trip")?;
            told = trips.into_iter().find(|trip| trip.to_string().contains(&wanted));
            Ok(told.is_some())
        })?;
        let told = told.context("no trip")?;
        dates.push(told["time"].as_str().unwrap_or_default().to_owned());
        wait_for("the lease is renewed", || Ok(siege.lease_until()? > until))?;
        ensure!(siege.lease_until()? <= monotonic()? + LEASE);
    }
    let toll = load.end()?;
    println!("stepped, {dates:?}: {toll}");
    toll.unharmed()?;
    ensure!(
        dates[2] < dates[0] && dates[0] < dates[3] && dates[3] < dates[1],
        "it was not stepped: {dates:?}"
    );
    for kind in ["lease", "expire", "release", "extend"] {
        let told = guard.events_of(kind)?;
        ensure!(told.is_empty(), "{told:?}");
    }
    guard.stop()
}
