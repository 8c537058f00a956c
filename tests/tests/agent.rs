//! The agent comes and goes, and the kernel holds what it was told: no gap, no trace, and no say beyond the lease.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs, tc::TcAttachType},
};
use guard_common::abi;
use guard_tests::{
    Namespace, Prober,
    client::{Reply, ask},
    guard::{self, Guard, GuardOptions, Mode},
    hooks::{self, at_xdp},
    programs,
    question::{Question, RecordType, ResponseCode},
    topology::{Loop, Topology},
    veth,
};
use serde_json::json;

/// Where the agent pins its maps and links unless told otherwise.
const PIN_DIR: &str = "/sys/fs/bpf/dnsguard";
/// The wire of [`site`], on both sides.
const WIRE: &str = "veth0";
/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);
/// The kernel frees programs and maps a grace period after their last user.
const FREED: Duration = Duration::from_secs(10);
/// The shortest lease that can be set.
const LEASE: Duration = Duration::from_secs(5);
/// One that outlasts every restart.
const LONG_LEASE: Duration = Duration::from_secs(300);
/// One query to a server on the same host.
const SECOND: Duration = Duration::from_secs(1);

/// One test at a time: each takes the whole machine.
static MACHINE: Mutex<()> = Mutex::new(());

fn enforce(interfaces: &[&str], toml: &str) -> GuardOptions {
    GuardOptions {
        extra_toml: toml.to_owned(),
        ..GuardOptions::enforce(interfaces)
    }
}

fn ready(namespace: &Namespace, options: &GuardOptions) -> Result<Guard> {
    let guard = Guard::start(namespace, options)?;
    guard.wait_ready(START)?;
    Ok(guard)
}

/// Two namespaces with a wire between them; the guard goes into the first.
fn site() -> Result<[Namespace; 2]> {
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    veth::veth(&here, &there, WIRE, &[("10.53.0.1/24", "10.53.0.2/24")])?;
    Ok([here, there])
}

/// Every way in which programs can hang: XDP, and TC by this method, in and out.
fn everywhere(tc: &str) -> GuardOptions {
    enforce(&["lo", WIRE], &format!("[attach]\nxdp = \"generic\"\ntc = \"{tc}\"\n"))
}

/// What an agent has in the kernel, by the kernel's own IDs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    programs: BTreeSet<u32>,
    links: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    /// Those of the maps that outlive the agent. Constants, such as `.rodata`, come and go with a program, and so does
    /// `DESKS`, which holds nothing from one packet to the next.
    pinned: BTreeSet<u32>,
}

impl Standing {
    fn of(guard: &Guard) -> Result<Self> {
        let programs: BTreeSet<u32> = guard
            .events_of("attach")?
            .iter()
            .map(|event| event["program_id"].as_u64().map(|id| id as u32))
            .collect::<Option<_>>()
            .context("an attachment says which program it is")?;
        let mut maps = BTreeSet::new();
        for program in loaded_programs()
            .flatten()
            .filter(|program| programs.contains(&program.id()))
        {
            maps.extend(program.map_ids()?.unwrap_or_default());
        }
        let links = loaded_links()
            .flatten()
            .filter(|link| programs.contains(&link.program_id()))
            .map(|link| link.id())
            .collect();
        let pinned = loaded_maps()
            .flatten()
            .filter(|map| maps.contains(&map.id()) && !map.name().starts_with(b".rodata") && map.name() != b"DESKS")
            .map(|map| map.id())
            .collect();
        ensure!(!maps.is_empty(), "the programs {programs:?} have no maps");
        Ok(Self {
            programs,
            links,
            maps,
            pinned,
        })
    }

    /// What of it the kernel still has.
    fn left(&self) -> Self {
        let of = |ids: BTreeSet<u32>, ours: &BTreeSet<u32>| ids.intersection(ours).copied().collect();
        // What is freed while the list is read shows as an error.
        let maps: BTreeSet<u32> = loaded_maps().flatten().map(|map| map.id()).collect();
        Self {
            programs: of(
                loaded_programs().flatten().map(|program| program.id()).collect(),
                &self.programs,
            ),
            links: of(loaded_links().flatten().map(|link| link.id()).collect(), &self.links),
            pinned: of(maps.clone(), &self.pinned),
            maps: of(maps, &self.maps),
        }
    }

    fn is_gone(&self) -> Result<()> {
        let deadline = Instant::now() + FREED;
        loop {
            let left = self.left();
            if left.programs.is_empty() && left.links.is_empty() && left.maps.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the kernel still has {left:?}");
            sleep(Duration::from_millis(20));
        }
    }
}

/// Programs at both TC hooks of a device.
fn at_tc(namespace: &Namespace, device: &str) -> Result<usize> {
    let at = |direction| hooks::at_tc(namespace, device, direction);
    Ok(at(TcAttachType::Ingress)? + at(TcAttachType::Egress)?)
}

/// Nothing hangs anywhere, and nothing is pinned.
fn is_bare(namespace: &Namespace) -> Result<()> {
    for device in ["lo", WIRE] {
        if namespace.tool("ip", &format!("link show dev {device}")).is_ok() {
            let left = format!("programs are left at the hooks of {device}");
            guard::wait_freed(&left, || {
                Ok((at_tc(namespace, device)?, at_xdp(namespace, device)?) == (0, 0))
            })?;
        }
    }
    ensure!(!exists(namespace, PIN_DIR), "{PIN_DIR} is left");
    Ok(())
}

fn exists(namespace: &Namespace, path: &str) -> bool {
    namespace.run(|| Path::new(path).exists())
}

/// Runs `dnsguard detach --all` with further arguments: its exit code, and what it says to standard output and error.
fn detach(namespace: &Namespace, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(guard::binary()?);
    command.args(["detach", "--all"]).args(arguments);
    let process = namespace.spawn(command)?;
    let status = process.wait(START)?;
    Ok((status.code(), process.output(), process.log()))
}

fn leaves_nothing_when_stopped(tc: &str) -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    let guard = ready(&here, &everywhere(tc))?;
    let standing = Standing::of(&guard)?;
    assert_eq!(
        (at_tc(&here, "lo")?, at_tc(&here, WIRE)?, at_xdp(&here, WIRE)?),
        (1, 1, 1)
    );
    guard.stop()?;
    is_bare(&here)?;
    assert_eq!(guard.events_of("detach")?.len(), 3, "each detachment is told");
    drop(guard);
    standing.is_gone()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_stopped_agent_leaves_nothing_behind_with_tcx() -> Result<()> {
    leaves_nothing_when_stopped("tcx")
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_stopped_agent_leaves_nothing_behind_with_clsact() -> Result<()> {
    leaves_nothing_when_stopped("clsact")
}

fn detach_removes_every_trace(tc: &str) -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    let guard = ready(&here, &everywhere(tc))?;
    let standing = Standing::of(&guard)?;
    guard.kill9();
    drop(guard);
    assert_eq!(
        (at_tc(&here, "lo")?, at_tc(&here, WIRE)?, at_xdp(&here, WIRE)?),
        (1, 1, 1),
        "it was killed"
    );
    let (code, said, log) = detach(&here, &[])?;
    assert_eq!((code, log.as_str()), (Some(0), ""));
    ensure!(said.contains(PIN_DIR), "{said}");
    is_bare(&here)?;
    standing.is_gone()?;

    let (code, said, log) = detach(&here, &[])?;
    assert_eq!((code, log.as_str()), (Some(0), ""));
    ensure!(
        said.contains("nothing of dnsguard"),
        "with nothing there it says so: {said}"
    );
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn detach_removes_every_trace_of_a_killed_agent_with_tcx() -> Result<()> {
    detach_removes_every_trace("tcx")
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn detach_removes_every_trace_of_a_killed_agent_with_clsact() -> Result<()> {
    detach_removes_every_trace("clsact")
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn detach_works_under_a_running_agent_which_then_ends_well() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    let guard = ready(&here, &everywhere("auto"))?;
    assert_eq!(detach(&here, &[])?.0, Some(0));
    is_bare(&here)?;
    guard.stop()?;
    is_bare(&here)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn detach_removes_nothing_that_is_not_ours() -> Result<()> {
    let _machine = MACHINE.lock();
    let here = Namespace::new()?;
    // Others lay out their pins, and their homes, like this as well.
    let others = ["/sys/fs/bpf/other/maps", "/sys/fs/bpf/other/links", "/run/home/v1/maps"];
    here.run(|| others.iter().try_for_each(fs::create_dir_all))?;
    let file = "/run/home/v1/maps/europe";
    here.run(|| fs::write(file, ""))?;

    detach(&here, &["--pin-dir", "/sys/fs/bpf"])?;
    ensure!(
        others[..2].iter().all(|path| exists(&here, path)),
        "somebody else's pins are gone"
    );
    let (code, _, log) = detach(&here, &["--pin-dir", "/run/home"])?;
    ensure!(exists(&here, file), "a file that is no pin is gone");
    assert_eq!(code, Some(1), "{log}");
    ensure!(log.contains("BPF file system"), "{log}");
    Ok(())
}

/// Starts a loop and waits until it is cut for the rest of the test; whoever asks gets an answer each time.
fn cut(built: &Loop, tc: &str, lease: Duration) -> Result<(Guard, GuardOptions)> {
    cut_with(built, tc, lease, "")
}

/// The same with further keys of `[attach]`.
fn cut_with(built: &Loop, tc: &str, lease: Duration, at_stop: &str) -> Result<(Guard, GuardOptions)> {
    let lease = lease.as_secs();
    let toml = format!(
        "[breaker]\nhold_ms = 300000\n[lease]\nseconds = {lease}\n[attach]\ntc = \"{tc}\"\n{at_stop}\
         [answer]\nper_client = 65535\nper_hold = 65535\n"
    );
    let options = enforce(&["lo"], &toml);
    let guard = ready(built.namespace(), &options)?;
    built.ignite()?;
    guard.wait_event("trip", SECOND)?;
    ensure!(is_held(&once(built)?), "a tripped name is answered by the guard");
    Ok((guard, options))
}

fn once(built: &Loop) -> Result<Reply> {
    ask(built.namespace(), built.server(), built.question(), 1, SECOND)
}

fn is_held(reply: &Reply) -> bool {
    reply.rcode() == Some(ResponseCode::ServFail)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn the_last_policy_holds_without_the_agent_until_the_lease_is_over() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(Topology::DEMO.programs())?;
    let mut built = Topology::DEMO.start()?;
    let (guard, options) = cut(&built, "auto", LEASE)?;
    guard.kill9();
    let killed = Instant::now();
    drop(guard);

    // It was renewed at most a third of it ago.
    let watch = LEASE / 2;
    let packets = built.packets()?;
    let others = Prober::run(built.namespace(), built.server(), built.bystanders(), 50, watch)?;
    let looped = (built.packets()? - packets).saturating_sub(others.queries * 4);
    // The kernel has had its say before the mend: what it does now, it does of itself.
    let reply = once(&built)?;
    if killed.elapsed() < LEASE * 2 / 3 {
        ensure!(is_held(&reply), "the looped name is still held: {reply:?}");
        ensure!(looped < 100, "{looped} packets of the loop while the agent is dead");
    }
    assert_eq!(others.answered, others.sent, "{others:?}");

    // From now on it has an answer, which nobody gets while the hold of five minutes stands.
    built.mend()?;
    let reply = loop {
        let reply = once(&built)?;
        if reply.answered() {
            break reply;
        }
        ensure!(
            killed.elapsed() < LEASE + START,
            "the lease is over, and still {reply:?}"
        );
        sleep(Duration::from_millis(50));
    };
    println!(
        "passes {:.1} s after the kill: {:?}",
        killed.elapsed().as_secs_f64(),
        reply.rcode()
    );

    let guard = ready(built.namespace(), &options)?;
    let passed = guard.counter("dnsguard_passed_total", &["reason=\"lease_over\""])?;
    ensure!(passed > 0, "what passed after the lease is counted");
    guard.stop()
}

/// How the agents of [`a_restart_takes_over`] end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// By SIGKILL.
    Killed,
    /// By SIGTERM; the next one is of another binary.
    Upgraded,
}

fn a_restart_takes_over(tc: &str, end: End) -> Result<()> {
    const QPS: u32 = 300;
    let restarts = if end == End::Killed { 5 } else { 3 };
    let _machine = MACHINE.lock();
    programs::provide(Topology::DEMO.programs())?;
    let built = Topology::DEMO.start()?;
    let at_stop = if end == End::Killed { "" } else { "at_stop = \"stay\"\n" };
    let (mut guard, options) = cut_with(&built, tc, LONG_LEASE, at_stop)?;
    guard.wait_counter("dnsguard_trips_total", &[], 1, FREED)?;
    let first = Standing::of(&guard)?;
    let recirculated = guard.counter("dnsguard_recirculations_total", &[])?;
    let queries = guard.counter("dnsguard_dns_queries_total", &[])?;

    let over = AtomicBool::new(false);
    let (reports, last) = thread::scope(|scope| -> Result<_> {
        let prober = scope.spawn(|| {
            let mut reports = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let report = Prober::run(built.namespace(), built.server(), built.bystanders(), QPS, SECOND);
                reports.push(report);
            }
            reports.into_iter().collect::<Result<Vec<_>>>()
        });
        // No panic in here: the prober would never end.
        let restarted = (|| {
            let mut standing = first.clone();
            for restart in 0..restarts {
                guard = match end {
                    End::Killed => {
                        guard.kill9();
                        ready(built.namespace(), &options)?
                    }
                    End::Upgraded => upgrade(&guard, built.namespace(), &options, restart)?,
                };
                let now = Standing::of(&guard)?;
                ensure!(
                    now.programs.is_disjoint(&standing.programs),
                    "the program is a new one: {now:?}"
                );
                ensure!(
                    now.links == standing.links,
                    "the link is the same one: {now:?}, {standing:?}"
                );
                ensure!(
                    now.pinned == standing.pinned,
                    "the maps are the same ones: {now:?}, {standing:?}"
                );
                ensure!(is_held(&once(&built)?), "the looped name is still held");
                standing = now;
            }
            Ok(standing)
        })();
        over.store(true, Ordering::Relaxed);
        let reports = prober.join().expect("the prober does not panic")?;
        Ok((reports, restarted?))
    })?;

    let sent: u64 = reports.iter().map(|report| report.sent).sum();
    println!("{sent} queries over {restarts} restarts by {tc}");
    for report in &reports {
        assert_eq!(report.answered, report.sent, "{report:?}");
    }
    assert_eq!(at_tc(built.namespace(), "lo")?, 1, "one program at the hook");
    let stale = Standing {
        links: BTreeSet::new(),
        maps: &first.maps - &first.pinned,
        ..first.clone()
    };
    stale.is_gone()?;
    assert_eq!(last.pinned, first.pinned);
    let takeover = guard.events_of("takeover")?;
    assert_eq!(
        (takeover.len(), &takeover[0]["links"], &takeover[0]["abi"]),
        (1, &json!(1), &json!(abi::VERSION))
    );

    // Each query came by twice, on its way to the first resolver and to the next server.
    let expected = queries + 2 * sent;
    let counted = guard.wait_counter("dnsguard_dns_queries_total", &[], expected, FREED);
    counted.context("while the agent was away, the kernel missed queries")?;
    assert_eq!(guard.counter("dnsguard_trips_total", &[])?, 1);
    assert_eq!(
        guard.counter("dnsguard_recirculations_total", &[])?,
        recirculated,
        "nothing went round again"
    );
    guard.stop()?;
    drop(guard);
    if end == End::Upgraded {
        detach(built.namespace(), &[])?;
    }
    is_bare(built.namespace())?;
    last.is_gone()
}

/// Stops an agent that leaves the guard in force, and starts one of a binary of its own.
fn upgrade(guard: &Guard, namespace: &Namespace, options: &GuardOptions, number: usize) -> Result<Guard> {
    guard.stop()?;
    let told = guard.events()?;
    let last = told.last().context("it said nothing")?;
    ensure!(last["event"] == "stay" && last["devices"] == json!(["lo"]), "{last}");
    ensure!(
        last["seconds_left"] == LONG_LEASE.as_secs(),
        "the whole lease is left: {last}"
    );
    ensure!(guard.events_of("detach")?.is_empty(), "what stays is not detached");
    let new = PathBuf::from(format!("/run/dnsguard-{number}"));
    let binary = guard::binary()?;
    // There is room for one, and it is some 150 MB: the one before goes with its last process.
    let old = PathBuf::from(format!("/run/dnsguard-{}", number.wrapping_sub(1)));
    namespace.run(|| fs::remove_file(old).or(Ok(())).and_then(|()| fs::copy(binary, &new)))?;
    let guard = Guard::start_from(&new, namespace, options)?;
    guard.wait_ready(START)?;
    Ok(guard)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_restarted_agent_takes_over_without_a_gap_with_tcx() -> Result<()> {
    a_restart_takes_over("tcx", End::Killed)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_restarted_agent_takes_over_without_a_gap_with_clsact() -> Result<()> {
    a_restart_takes_over("clsact", End::Killed)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn an_upgraded_agent_takes_over_without_a_gap_with_tcx() -> Result<()> {
    a_restart_takes_over("tcx", End::Upgraded)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn an_upgraded_agent_takes_over_without_a_gap_with_clsact() -> Result<()> {
    a_restart_takes_over("clsact", End::Upgraded)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_restart_with_fewer_interfaces_lets_the_others_go() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    for (before, after) in [("tcx", "clsact"), ("clsact", "tcx")] {
        ready(&here, &everywhere(before))?.kill9();
        let toml = format!("[attach]\ntc = \"{after}\"\n");
        let agent = ready(&here, &enforce(&["lo"], &toml))?;
        guard::wait_freed(&format!("{before} to {after}: other programs than one at lo"), || {
            Ok((at_tc(&here, "lo")?, at_tc(&here, WIRE)?, at_xdp(&here, WIRE)?) == (1, 0, 0))
        })?;
        agent.stop()?;
        is_bare(&here)?;
    }
    Ok(())
}

/// Runs an agent that must not start: exit code 1, and one line that says why.
fn refused(namespace: &Namespace, options: &GuardOptions) -> Result<String> {
    let guard = Guard::start(namespace, options)?;
    let status = guard.process().wait(START)?;
    let log = guard.process().log();
    assert_eq!(status.code(), Some(1), "{log}");
    ensure!(guard.events_of("ready")?.is_empty(), "it was ready");
    let lines: Vec<_> = log.lines().collect();
    let [line] = lines[..] else {
        bail!("one line says it all, and not\n{log}")
    };
    let reason = line
        .strip_prefix("dnsguard: ")
        .with_context(|| format!("whose words are these: {line}"))?;
    says_it_once(reason)?;
    println!("{reason}");
    Ok(reason.to_owned())
}

/// No cause stands in a message twice.
fn says_it_once(reason: &str) -> Result<()> {
    let mut parts = BTreeSet::new();
    for part in reason.split(": ") {
        ensure!(parts.insert(part), "it says `{part}` twice: {reason}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_second_agent_is_refused_and_the_first_goes_on() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    let guard = ready(&here, &everywhere("auto"))?;
    let standing = Standing::of(&guard)?;
    let reason = refused(&here, &enforce(&["lo"], "[metrics]\nlisten = \"\"\n"))?;
    ensure!(
        reason.contains("another dnsguard") && reason.contains(PIN_DIR),
        "{reason}"
    );
    ensure!(reason.contains("--pin-dir"), "it says what to do: {reason}");

    assert_eq!(standing.left(), standing, "the first one's programs are untouched");
    assert_eq!(
        (at_tc(&here, "lo")?, at_tc(&here, WIRE)?, at_xdp(&here, WIRE)?),
        (1, 1, 1)
    );
    assert_eq!(guard.page("/readyz")?, "ok\n");
    guard.stop()?;
    is_bare(&here)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn an_interface_that_is_not_there_is_named_and_nothing_is_attached() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    let reason = refused(&here, &enforce(&["lo", "nowhere0", WIRE], ""))?;
    ensure!(
        reason.contains("nowhere0") && reason.contains("ip -brief link"),
        "{reason}"
    );
    is_bare(&here)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_taken_port_is_named_and_nothing_is_attached() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    let _taken = here.run(|| TcpListener::bind("127.0.0.1:9533"))?;
    let reason = refused(&here, &enforce(&["lo"], ""))?;
    ensure!(
        reason.contains("127.0.0.1:9533") && reason.contains("[metrics] listen"),
        "{reason}"
    );
    is_bare(&here)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_pin_directory_elsewhere_is_refused_and_nothing_is_attached() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    let reason = refused(&here, &enforce(&["lo"], "[attach]\npin_dir = \"/run/dnsguard\"\n"))?;
    ensure!(
        reason.contains("/run/dnsguard") && reason.contains("mount -t bpf"),
        "{reason}"
    );
    ensure!(!exists(&here, "/run/dnsguard"), "the directory is left");
    is_bare(&here)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn its_pages_say_how_it_is() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(Topology::DEMO.programs())?;
    let built = Topology::DEMO.start()?;
    let (guard, _) = cut(&built, "auto", LEASE)?;
    assert_eq!(guard.page("/livez")?, "ok\n");
    assert_eq!(guard.page("/readyz")?, "ok\n");
    ensure!(guard.page("/nothing").is_err());
    guard.wait_counter(
        "dnsguard_actions_total",
        &["action=\"answer\"", "reason=\"loop\""],
        1,
        FREED,
    )?;
    let held = Question::new(&built.question().name.to_string(), RecordType::A)?
        .name
        .to_string();
    guard.wait_counter("dnsguard_loop_held_total", &[&format!("qname=\"{held}\"")], 1, FREED)?;
    assert_eq!(guard.counter("dnsguard_loops_active", &[])?, 1);
    assert_eq!(
        guard.counter("dnsguard_mode", &[&format!("mode=\"{}\"", Mode::Enforce)])?,
        1
    );
    well_formed(&guard.metrics()?)?;
    guard.stop()
}

/// Checks an exposition as Prometheus's text format wants it: families whole, each with HELP and TYPE, no series twice.
fn well_formed(exposition: &str) -> Result<()> {
    let mut families = BTreeSet::new();
    let mut series = BTreeSet::new();
    let mut family = "";
    let mut lines = exposition.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').with_context(|| format!("no help: {line}"))?;
            ensure!(families.insert(name) && !words.is_empty(), "{line}");
            let kind = lines
                .next()
                .and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")));
            ensure!(matches!(kind, Some("counter" | "gauge")), "{name} is a {kind:?}");
            ensure!(
                (kind == Some("counter")) == name.ends_with("_total"),
                "{name} is a {kind:?}"
            );
            family = name;
            continue;
        }
        let (key, value) = line.rsplit_once(' ').with_context(|| format!("no value: {line}"))?;
        ensure!(key.split('{').next() == Some(family), "{line} stands under {family}");
        ensure!(series.insert(key), "{key} is there twice");
        ensure!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{line}");
    }
    ensure!(
        families.iter().all(|name| name.starts_with("dnsguard_")),
        "{families:?}"
    );
    ensure!(families.len() > 15, "{families:?}");
    // Who has Prometheus's own judge at hand hears it as well.
    if let Ok(promtool) = programs::locate("promtool") {
        let mut child = promtool
            .command()
            .args(["check", "metrics"])
            .stdin(std::process::Stdio::piped())
            .spawn()?;
        std::io::Write::write_all(&mut child.stdin.take().context("no pipe")?, exposition.as_bytes())?;
        ensure!(child.wait()?.success(), "promtool does not like\n{exposition}");
    }
    Ok(())
}
