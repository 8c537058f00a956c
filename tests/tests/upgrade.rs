//! What an agent finds under its pin path that another version or somebody else has left there: it takes over what is
//! dnsguard's, and nothing else.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, loaded_links, tc::TcAttachType};
use guard_common::{abi, flow::FlowLine};
use guard_tests::{
    Namespace,
    foreign::Foreign,
    guard::{Guard, GuardOptions, wait_freed},
    hooks::{at_tc, at_xdp},
    veth,
};
use serde_json::json;

const PIN_DIR: &str = "/sys/fs/bpf/dnsguard";
const WIRE: &str = "veth0";
/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);
/// The shortest lease that can be set.
const LEASE: Duration = Duration::from_secs(5);

/// One test at a time: each takes the whole machine.
static MACHINE: Mutex<()> = Mutex::new(());

fn site() -> Result<[Namespace; 2]> {
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    veth::veth(&here, &there, WIRE, &[("10.53.0.1/24", "10.53.0.2/24")])?;
    Ok([here, there])
}

/// Every way in which programs can hang: XDP, and TC by this method, in and out.
fn everywhere(tc: &str) -> GuardOptions {
    let lease = LEASE.as_secs();
    GuardOptions {
        extra_toml: format!("[attach]\nxdp = \"generic\"\ntc = \"{tc}\"\n[lease]\nseconds = {lease}\n"),
        ..GuardOptions::enforce(&["lo", WIRE])
    }
}

fn ready(namespace: &Namespace, options: &GuardOptions) -> Result<Guard> {
    let guard = Guard::start(namespace, options)?;
    guard.wait_ready(START)?;
    Ok(guard)
}

/// The directory of a version.
fn version(number: u32) -> PathBuf {
    Path::new(PIN_DIR).join(format!("v{number}"))
}

/// Leaves what an agent of this version would leave that was killed, links attached; returns the links, by the kernel's
/// numbers.
fn left_by(namespace: &Namespace, number: u32, tc: &str) -> Result<BTreeSet<u32>> {
    let guard = ready(namespace, &everywhere(tc))?;
    let links = links(&guard)?;
    guard.kill9();
    if tc == "tcx" {
        // The first version pinned no programs.
        namespace.run(|| -> Result<()> {
            for pin in fs::read_dir(version(abi::VERSION).join("programs"))? {
                fs::remove_file(pin?.path())?;
            }
            Ok(())
        })?;
    }
    namespace.run(|| fs::rename(version(abi::VERSION), version(number)))?;
    Ok(links)
}

/// The links that run the programs of an agent.
fn links(guard: &Guard) -> Result<BTreeSet<u32>> {
    let programs: BTreeSet<_> = guard
        .events_of("attach")?
        .iter()
        .map(|event| event["program_id"].as_u64())
        .collect::<Option<_>>()
        .context("an attachment says which program it is")?;
    let links = loaded_links().flatten();
    let links = links.filter(|link| programs.contains(&link.program_id().into()));
    Ok(links.map(|link| link.id()).collect())
}

/// Programs at the hooks of both interfaces.
fn attached(namespace: &Namespace) -> Result<usize> {
    let mut count = 0;
    for device in ["lo", WIRE] {
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            count += at_tc(namespace, device, direction)?;
        }
        count += at_xdp(namespace, device)?;
    }
    Ok(count)
}

fn exists(namespace: &Namespace, path: &Path) -> bool {
    namespace.run(|| path.exists())
}

fn an_older_version_is_taken_over(tc: &str) -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    let before = left_by(&here, abi::VERSION - 1, tc)?;
    // Links, and where there are none, filters.
    assert_eq!((attached(&here)?, before.len()), (3, if tc == "tcx" { 3 } else { 1 }));

    let guard = ready(&here, &everywhere(tc))?;
    assert_eq!(attached(&here)?, 3, "two versions never judge the same packet");
    assert_eq!(links(&guard)?, before, "programs were replaced in their links");
    ensure!(!exists(&here, &version(abi::VERSION - 1)), "its pins are gone");
    let told = guard.events_of("takeover")?;
    ensure!(
        told.len() == 1 && told[0]["abi"] == json!(abi::VERSION - 1) && told[0]["links"] == json!(3),
        "{told:?}"
    );
    guard.stop()?;
    wait_freed("programs are attached", || Ok(attached(&here)? == 0))?;
    ensure!(!exists(&here, Path::new(PIN_DIR)), "{PIN_DIR} is left");
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_an_older_version_left_is_taken_over_in_place_with_tcx() -> Result<()> {
    an_older_version_is_taken_over("tcx")
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_an_older_version_left_is_taken_over_in_place_with_clsact() -> Result<()> {
    an_older_version_is_taken_over("clsact")
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_older_version_that_hung_elsewhere_is_detached() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    left_by(&here, abi::VERSION - 1, "clsact")?;
    let options = GuardOptions {
        extra_toml: "[attach]\ntc = \"tcx\"\n".to_owned(),
        ..GuardOptions::enforce(&["lo"])
    };
    let guard = ready(&here, &options)?;
    wait_freed("the filters of the one before are there", || Ok(attached(&here)? == 1))?;
    ensure!(!exists(&here, &version(abi::VERSION - 1)), "its pins are gone");
    guard.stop()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_newer_version_is_refused_until_its_lease_is_over() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    let newer = version(abi::VERSION + 1);
    left_by(&here, abi::VERSION + 1, "tcx")?;
    let left = Instant::now();

    let guard = Guard::start(&here, &everywhere("tcx"))?;
    let status = guard.process().wait(START)?;
    let said = guard.process().log();
    // It was renewed at most a third of it before.
    if left.elapsed() < LEASE / 2 {
        assert_eq!(status.code(), Some(1), "{said}");
        for part in [
            newer.to_str().unwrap_or_default(),
            "newer dnsguard",
            "s more",
            "dnsguard detach --all",
        ] {
            ensure!(said.contains(part), "{part} is not in: {said}");
        }
        assert_eq!(attached(&here)?, 3, "it is left as it is");
        ensure!(exists(&here, &newer) && !exists(&here, &version(abi::VERSION)));
    }
    drop(guard);

    sleep(LEASE.saturating_sub(left.elapsed()));
    let guard = ready(&here, &everywhere("tcx"))?;
    ensure!(!exists(&here, &newer), "its pins are gone");
    assert_eq!(attached(&here)?, 3);
    guard.stop()?;
    wait_freed("programs are attached", || Ok(attached(&here)? == 0))?;
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_not_ours_under_our_names_is_neither_used_nor_removed() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    let links = version(abi::VERSION).join("links");
    here.run(|| fs::create_dir_all(&links))?;
    let lo = links.join("1-tc-ingress-tcx");
    let stranger = Foreign::pinned(&here, "lo", TcAttachType::Ingress, "stranger", &lo)?;
    // Another program's pin that no version would name like this.
    let other = links.join("theirs");
    let _other = Foreign::pinned(&here, WIRE, TcAttachType::Egress, "other", &other)?;

    let guard = ready(&here, &everywhere("tcx"))?;
    let failed = guard.events_of("attach_error")?;
    let reason = failed.first().context("nothing failed")?["reason"].to_string();
    ensure!(failed.len() == 1 && failed[0]["device"] == "lo", "{failed:?}");
    ensure!(
        reason.contains("1-tc-ingress-tcx") && reason.contains("--pin-dir"),
        "{reason}"
    );
    ensure!(guard.events_of("attach")?.len() == 2, "the other hooks are guarded");
    guard.stop()?;
    let at_lo = here.run(|| SchedClassifier::query_tcx("lo", TcAttachType::Ingress))?.1;
    let ids: Vec<_> = at_lo.iter().map(|program| program.id()).collect();
    assert_eq!(ids, [stranger.id()], "it hangs where it hung, and nothing else does");
    ensure!(exists(&here, &lo) && exists(&here, &other), "their pins are theirs");
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_map_of_another_kind_under_our_name_is_not_used() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    let maps = version(abi::VERSION).join("maps");
    here.run(|| fs::create_dir_all(&maps))?;
    // In all but its kind it is ours: a hash map's values are nowhere until somebody puts them there.
    Foreign::map(
        &here,
        abi::FLOWS,
        size_of::<FlowLine>(),
        abi::FLOW_LINES,
        &maps.join(abi::FLOWS),
    )?;
    let guard = ready(&here, &everywhere("tcx"))?;
    let said = guard.process().log();
    ensure!(said.contains("FLOWS is not the map that this version needs"), "{said}");
    assert_eq!(guard.events_of("attach")?.len(), 3);
    guard.stop()?;
    ensure!(!exists(&here, Path::new(PIN_DIR)), "{PIN_DIR} is left");
    Ok(())
}
