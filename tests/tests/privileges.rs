//! What a running agent may do, what others may do to it, and what a deployment asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::{Array, Map, MapData, PerCpuArray, PerCpuValues},
    programs::loaded_programs,
};
use guard_common::{abi, budget::MeterLine, counter::Counters, flow::FlowLine, local::Local, remedy::Allowance};
use guard_tests::{
    Namespace, bench,
    guard::{self, Guard, GuardOptions},
};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(40);
/// Nobody.
const STRANGER: u32 = 65_534;

/// Numbers of capabilities (include/uapi/linux/capability.h).
const NET_ADMIN: u32 = 12;
const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
/// What it takes to follow interfaces.
const FOLLOWING: [u32; 3] = [NET_ADMIN, PERFMON, BPF];

fn start(toml: &str) -> Result<(Namespace, Guard)> {
    let namespace = Namespace::new()?;
    let options = GuardOptions {
        extra_toml: toml.to_owned(),
        ..GuardOptions::enforce(&["lo", "late*"])
    };
    let guard = Guard::start(&namespace, &options)?;
    guard.wait_ready(START)?;
    Ok((namespace, guard))
}

fn mask(capabilities: &[u32]) -> u64 {
    capabilities.iter().map(|number| 1 << number).sum()
}

/// The fields of `/proc/PID/task/TID/status` of each thread, and its name.
fn threads(guard: &Guard) -> Result<Vec<BTreeMap<String, String>>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", guard.process().pid()))?;
    let status = |task: io::Result<fs::DirEntry>| -> Result<_> {
        let text = fs::read_to_string(task?.path().join("status"))?;
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Ok(fields
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect())
    };
    tasks.map(status).collect()
}

/// Every thread has these capabilities, or none; nothing can be gained, and system calls are filtered.
fn has_at_most(guard: &Guard, capabilities: &[u32]) -> Result<()> {
    let (all, mut found) = (mask(capabilities), BTreeSet::new());
    for thread in threads(guard)? {
        let set = |name: &str| u64::from_str_radix(&thread[name], 16).context("a set of capabilities");
        let effective = set("CapEff")?;
        ensure!(effective == all || effective == 0, "{thread:#?} has not {all:x}");
        ensure!(set("CapPrm")? == effective, "{thread:#?} may have more");
        for gained in ["CapInh", "CapAmb", "CapBnd"] {
            ensure!(set(gained)? == 0, "{thread:#?} may hand something on");
        }
        ensure!(thread["NoNewPrivs"] == "1" && thread["Seccomp"] == "2", "{thread:#?}");
        if thread["Name"] == "events" {
            ensure!(effective == 0, "{thread:#?} only writes lines");
        }
        found.insert(effective);
    }
    ensure!(found == BTreeSet::from([0, all]), "{found:x?}");
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn an_agent_of_root_keeps_three_capabilities_and_still_does_all_its_work() -> Result<()> {
    let (namespace, guard) = start("")?;
    has_at_most(&guard, &FOLLOWING)?;
    // An interface that comes, a change by a command, another file, and a signal.
    namespace.ip("link add late0 type veth peer name other0")?;
    guard.wait_counter("dnsguard_attachment_info", &["device=\"late0\""], 2, START)?;
    let said = guard.say(&["policy", "set", "breaker.hold_ms", "2000"])?;
    ensure!(said.code == Some(0), "{said:?}");
    guard.rewrite("[breaker]\ntest_ms = 1500\n")?;
    kill(Pid::from_raw(guard.process().pid().cast_signed()), Signal::SIGHUP)?;
    guard.wait_counter("dnsguard_policy_generation", &[], 3, START)?;
    namespace.ip("link del late0")?;
    // Threads that came for these, too.
    has_at_most(&guard, &FOLLOWING)?;
    guard.stop()?;
    for left in ["/sys/fs/bpf/dnsguard", "/run/dnsguard"] {
        ensure!(!namespace.run(|| Path::new(left).exists()), "{left} is still there");
    }
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn only_a_guard_of_other_namespaces_keeps_what_it_takes_to_find_and_enter_them() -> Result<()> {
    let (_namespace, guard) = start("ports = [5399]\n[attach]\nnamespaces = ['auto']\n")?;
    let all = [&FOLLOWING[..], &[SYS_PTRACE, SYS_ADMIN]].concat();
    has_at_most(&guard, &all)?;
    guard.stop()?;
    let (_namespace, guard) = start("[attach]\nnamespaces = ['/run/netns/blue']\n")?;
    has_at_most(&guard, &[&FOLLOWING[..], &[SYS_ADMIN]].concat())?;
    guard.stop()
}

/// All that is below a directory.
fn below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(below(&path)?);
        }
        found.push(path);
    }
    Ok(found)
}

#[test]
#[ignore = "needs root"]
fn a_stranger_gets_at_nothing() -> Result<()> {
    let (namespace, guard) = start("")?;
    let root = Path::new("/sys/fs/bpf/dnsguard");
    let pins = namespace.run(|| -> Result<_> {
        // The lab's own BPF file system is root's alone; a host's need not be.
        fs::set_permissions("/sys/fs/bpf", fs::Permissions::from_mode(0o755))?;
        let mut pins = below(root)?;
        pins.push(root.to_owned());
        for pin in &pins {
            let mode = pin.metadata()?.permissions().mode() & 0o7777;
            let expected = if pin.is_dir() { 0o700 } else { 0o600 };
            ensure!(mode == expected, "{} has the mode {mode:o}", pin.display());
        }
        Ok(pins)
    })?;
    let counters = guard::pins(abi::VERSION).join("maps").join(abi::COUNTERS);
    let number = namespace.run(|| -> Result<_> { Ok(MapData::from_pin(&counters)?.info()?.id()) })?;
    ensure!(pins.contains(&counters) && pins.len() > 15, "{pins:?}");
    let pid = Pid::from_raw(guard.process().pid().cast_signed());
    namespace.run_as(STRANGER, || -> Result<()> {
        let refused = |what: &str, error: Option<io::ErrorKind>| {
            ensure!(error == Some(io::ErrorKind::PermissionDenied), "{what}: {error:?}");
            Ok(())
        };
        for pin in &pins {
            refused(
                &pin.display().to_string(),
                File::open(pin).err().map(|error| error.kind()),
            )?;
            ensure!(MapData::from_pin(pin).is_err(), "{} can be opened", pin.display());
        }
        ensure!(MapData::from_id(number).is_err(), "map {number} can be opened");
        ensure!(
            loaded_programs().flatten().next().is_none(),
            "programs can be looked up"
        );
        let socket = UnixStream::connect("/run/dnsguard/control.sock");
        refused("the control socket", socket.err().map(|error| error.kind()))?;
        for name in ["mem", "environ", "fd"] {
            let path = format!("/proc/{pid}/{name}");
            let error = if name == "fd" {
                fs::read_dir(&path).err()
            } else {
                File::open(&path).err()
            };
            refused(&path, error.map(|error| error.kind()))?;
        }
        ensure!(
            kill(pid, Signal::SIGTERM) == Err(Errno::EPERM),
            "the agent can be told to stop"
        );
        Ok(())
    })?;
    guard.stop()
}

/// What writing a value to a map says that programs alone are to write to.
fn written<T: aya::Pod + Default>(map: Map) -> Result<io::ErrorKind> {
    let error = match map {
        Map::Array(_) => Array::<_, T>::try_from(map)?.set(0, T::default(), 0).err(),
        map => {
            let values = vec![T::default(); aya::util::nr_cpus().map_err(|(_, error)| error)?];
            PerCpuArray::<_, T>::try_from(map)?
                .set(0, PerCpuValues::try_from(values)?, 0)
                .err()
        }
    };
    let error = anyhow::Error::new(error.context("it could be written to")?);
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    Ok(causes.next().with_context(|| format!("{error:#}"))?.kind())
}

#[test]
#[ignore = "needs root"]
fn maps_that_programs_alone_write_to_are_frozen() -> Result<()> {
    let (namespace, guard) = start("")?;
    let open = |name: &str| -> Result<Map> {
        let pin = guard::pins(abi::VERSION).join("maps").join(name);
        Ok(Map::from_map_data(MapData::from_pin(pin)?)?)
    };
    namespace.run(|| -> Result<()> {
        for (name, said) in [
            (abi::COUNTERS, written::<Counters>(open(abi::COUNTERS)?)),
            (abi::ALLOWANCES, written::<Allowance>(open(abi::ALLOWANCES)?)),
            (abi::FLOWS, written::<FlowLine>(open(abi::FLOWS)?)),
            (abi::LOCALS, written::<Local>(open(abi::LOCALS)?)),
        ] {
            let said = said.with_context(|| name.to_owned())?;
            ensure!(said == io::ErrorKind::PermissionDenied, "{name}: {said}");
        }
        // One with locks cannot be: what is asked here is answered otherwise.
        Array::<_, MeterLine>::try_from(open(abi::METERS)?)?.set(0, MeterLine::default(), 0)?;
        Ok(())
    })?;
    // Constants are pinned nowhere.
    let numbers: BTreeSet<u64> = guard
        .events_of("attach")?
        .iter()
        .filter_map(|told| told["program_id"].as_u64())
        .collect();
    let mut constants = 0;
    for program in loaded_programs()
        .flatten()
        .filter(|program| numbers.contains(&u64::from(program.id())))
    {
        for number in program.map_ids()?.unwrap_or_default() {
            let data = MapData::from_id(number)?;
            if data.info()?.name().ends_with(b".rodata") {
                let error = bench::overwrite(&data).err().map(|error| error.kind());
                ensure!(error == Some(io::ErrorKind::PermissionDenied), "constants: {error:?}");
                constants += 1;
            }
        }
    }
    ensure!(constants > 0, "no constants are there");
    guard.stop()
}

#[test]
#[ignore = "needs root"]
fn nothing_listens_beyond_loopback_unless_told() -> Result<()> {
    let (namespace, guard) = start("")?;
    let listening = namespace.run(|| -> Result<Vec<String>> {
        let mut listening = Vec::new();
        for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"] {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{table}"))?;
            // A header; then number, local address, remote address, state: 0A is LISTEN, and 07 any socket of UDP.
            let rows = text
                .lines()
                .skip(1)
                .map(|line| line.split_whitespace().collect::<Vec<_>>());
            let rows = rows.filter(|row| matches!(row.get(3), Some(&"0A" | &"07")));
            listening.extend(rows.map(|row| row[1].to_owned()));
        }
        Ok(listening)
    })?;
    // 127.0.0.1:9533.
    ensure!(listening == ["0100007F:253D"], "{listening:?}");
    guard.stop()
}

#[test]
fn no_deployment_asks_for_more_than_the_agent_keeps() -> Result<()> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let read = |name: &str| fs::read_to_string(deploy.join(name)).with_context(|| name.to_owned());
    let lines = |text: &str| -> Vec<String> { text.lines().map(|line| line.trim().to_owned()).collect() };

    let pod = lines(&read("kubernetes/daemonset.yaml")?);
    let has = |line: &str| pod.iter().any(|found| found == line);
    for line in [
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "type: RuntimeDefault",
    ] {
        ensure!(has(line), "no {line}");
    }
    ensure!(
        !pod.iter().any(|line| line.starts_with("privileged:")),
        "a privileged container"
    );
    let at = pod
        .iter()
        .position(|line| line == "capabilities:")
        .context("no capabilities")?;
    let expected = ["add:", "- BPF", "- NET_ADMIN", "- PERFMON", "drop:", "- ALL"];
    ensure!(
        pod[at + 1..].iter().take(expected.len()).eq(expected.iter()),
        "{:?}",
        &pod[at..]
    );

    let unit = lines(&read("systemd/dnsguard.service")?);
    for line in [
        "User=dnsguard",
        "AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON",
        "CapabilityBoundingSet=CAP_BPF CAP_NET_ADMIN CAP_PERFMON",
        "NoNewPrivileges=yes",
        "SystemCallFilter=@system-service bpf",
        "ProtectSystem=strict",
        "UMask=0077",
    ] {
        ensure!(unit.iter().any(|found| found == line), "no {line}");
    }
    Ok(())
}
