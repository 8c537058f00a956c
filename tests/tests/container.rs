//! The agent as a container: an image of nothing but the agent, and the committed manifests run by a container engine, on
//! a network with a real loop.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, tc::TcAttachType};
use guard_tests::{
    Namespace, Podman,
    guard::{page, static_binary, wait_freed},
    topology::Topology,
};
use serde_json::Value;

/// What the manifests call the image.
const IMAGE: &str = "localhost/dnsguard:0.1.0";
/// What Podman calls the container of the DaemonSet.
const AGENT: &str = "dnsguard-pod-agent";
/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);
/// For what the kernel or the agent does at its next look.
const SOON: Duration = Duration::from_secs(10);

/// `CAP_NET_ADMIN`, `CAP_PERFMON` and `CAP_BPF`, as `/proc/PID/status` shows them.
const CAPABILITIES: &str = "000000c000001000";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// An engine that has the image.
fn engine(namespace: &Namespace) -> Result<Podman> {
    let podman = Podman::start(namespace)?;
    podman.build(IMAGE, &root().join("deploy/image/Containerfile"), &static_binary()?)?;
    Ok(podman)
}

/// The committed manifests, the configuration changed as an overlay of an operator would; the path is Podman's.
fn manifest(podman: &Podman, change: impl Fn(&str) -> String) -> Result<String> {
    let committed = root().join("deploy/kubernetes");
    for folder in ["", "monitoring"] {
        for entry in fs::read_dir(committed.join(folder))? {
            let path = entry?.path();
            if path.is_file() {
                let name = path.strip_prefix(&committed)?.to_string_lossy();
                podman.write(&format!("base/{name}"), &fs::read_to_string(&path)?)?;
            }
        }
    }
    let configuration = fs::read_to_string(committed.join("configmap.yaml"))?;
    let changed = change(&configuration);
    ensure!(changed != configuration, "nothing is changed in:\n{configuration}");
    podman.write("overlay/configuration.yaml", &changed)?;
    let overlay = "resources: [../base]\ncomponents: [../base/monitoring]\npatches: [{path: configuration.yaml}]\n";
    podman.write("overlay/kustomization.yaml", overlay)?;
    let built = podman.run("kustomize", &["build", "/work/overlay"])?;
    podman.write("manifest.yaml", &built)
}

/// Has the engine run the manifests, in the place of what it ran before, and waits until the agent is ready.
fn play(namespace: &Namespace, podman: &Podman, manifest: &str) -> Result<()> {
    podman.say(&["kube", "play", "--replace", manifest])?;
    wait("the agent is not ready", START, || page(namespace, "/readyz").is_ok())
        .with_context(|| podman.say(&["logs", AGENT]).unwrap_or_default())
}

/// Ends the agent as a kubelet does: SIGTERM, and time to obey.
fn stop(podman: &Podman) -> Result<()> {
    podman.say(&["stop", "--time", "15", AGENT])?;
    let code = podman.say(&["inspect", "--format", "{{.State.ExitCode}}", AGENT])?;
    ensure!(code.trim() == "0", "it ended with {code}");
    Ok(())
}

fn wait(what: &str, patience: Duration, holds: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !holds() {
        ensure!(Instant::now() < deadline, "{what} after {patience:?}");
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Programs at the TC hook of `lo`, and whether anything is pinned.
fn in_the_kernel(namespace: &Namespace) -> Result<(usize, bool)> {
    namespace.run(|| {
        let programs = SchedClassifier::query_tcx("lo", TcAttachType::Ingress)?.1.len();
        Ok((programs, Path::new("/sys/fs/bpf/dnsguard").exists()))
    })
}

/// The value of a line of `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::trim)
}

#[test]
#[ignore = "needs root, real resolvers and Podman: cargo xtask test"]
fn the_daemonset_cuts_a_loop_with_its_rights_and_no_others() -> Result<()> {
    let circle = Topology::DEMO.start()?;
    let node = circle.namespace();
    let podman = engine(node)?;
    let enforce = |text: &str| text.replace("mode = \"observe\"", "mode = \"enforce\"");
    play(node, &podman, &manifest(&podman, enforce)?)?;
    ensure!(page(node, "/livez").is_ok(), "the probe of its life fails");

    let pid = podman.say(&["inspect", "--format", "{{.State.Pid}}", AGENT])?;
    let status = podman.proc(pid.trim(), "status")?;
    for (name, value) in [
        ("CapPrm", CAPABILITIES),
        ("CapEff", CAPABILITIES),
        ("CapBnd", CAPABILITIES),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(field(&status, name), Some(value), "{name}");
    }
    let mounts = podman.proc(pid.trim(), "mountinfo")?;
    let at = |place: &str| {
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        mounts
            .find(|fields| fields[4] == place)
            .map(|fields| fields[5].starts_with("ro"))
    };
    let places = ["/", "/sys", "/sys/fs/bpf", "/etc/dnsguard", "/run/dnsguard"];
    let expected = [true, true, false, true, false].map(Some);
    assert_eq!(places.map(at), expected, "whether each can only be read:\n{mounts}");

    circle.ignite()?;
    let held = || {
        let metrics = page(node, "/metrics").unwrap_or_default();
        metrics
            .lines()
            .any(|line| line.starts_with("dnsguard_trips_total{") && !line.ends_with(" 0"))
    };
    wait("no loop is cut", SOON, held).with_context(|| page(node, "/metrics").unwrap_or_default())?;
    let before = circle.packets()?;
    sleep(Duration::from_millis(500));
    let passed = circle.packets()? - before;
    ensure!(passed < 1_000, "{passed} packets went round in half a second");

    // As `kubectl exec` does it.
    let said = podman.say(&["exec", AGENT, "/dnsguard", "loops", "list", "-o", "json"])?;
    let loops: Value = serde_json::from_str(&said)?;
    let name = circle.question().name.to_string().trim_end_matches('.').to_owned();
    ensure!(said.contains(&name), "{loops:#} does not name {name}");
    Ok(())
}

#[test]
#[ignore = "needs root and Podman: cargo xtask test"]
fn an_update_leaves_no_gap_and_a_last_stop_leaves_nothing() -> Result<()> {
    let node = Namespace::new()?;
    let podman = engine(&node)?;
    let other = |text: &str| text.replace("top = 20", "top = 21");
    let first = manifest(&podman, other)?;
    play(&node, &podman, &first)?;
    assert_eq!(in_the_kernel(&node)?, (1, true));
    stop(&podman)?;
    assert_eq!(in_the_kernel(&node)?, (1, true), "it stays for the next one");
    play(&node, &podman, &first)?;
    assert_eq!(in_the_kernel(&node)?, (1, true), "the next one takes it over");

    let leaving = |text: &str| text.replace("at_stop = \"stay\"", "at_stop = \"detach\"");
    play(&node, &podman, &manifest(&podman, leaving)?)?;
    stop(&podman)?;
    // Before it is removed it is told to leave.
    wait_freed("something is left", || Ok(in_the_kernel(&node)? == (0, false)))
}

#[test]
#[ignore = "needs root and Podman: cargo xtask test"]
fn an_image_without_files_names_a_group_that_it_does_not_know() -> Result<()> {
    let node = Namespace::new()?;
    let podman = engine(&node)?;
    let configuration = podman.write("group.toml", "[control]\ngroup = \"operators\"\n")?;
    let volume = format!("{configuration}:/dnsguard.toml:ro");
    let run = [
        "run",
        "--rm",
        "--network=host",
        "--cap-drop=all",
        "--cap-add=BPF,NET_ADMIN,PERFMON",
    ];
    let agent = [
        "--volume=/sys/fs/bpf:/sys/fs/bpf",
        "--volume",
        &volume,
        IMAGE,
        "run",
        "--config=/dnsguard.toml",
    ];
    let error = podman.say(&[&run[..], &agent[..]].concat()).unwrap_err().to_string();
    let expected = "there is no group operators; make it, or set [control] group to one that there is";
    ensure!(error.contains(expected), "{error}");
    Ok(())
}

#[test]
#[ignore = "needs root and Podman: cargo xtask test"]
fn containers_end_with_the_engine() -> Result<()> {
    let node = Namespace::new()?;
    let podman = engine(&node)?;
    let other = |text: &str| text.replace("top = 20", "top = 21");
    play(&node, &podman, &manifest(&podman, other)?)?;
    let namespace = podman.pid_namespace()?;
    let running = || {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter(|entry| fs::read_link(entry.path().join("ns/pid")).is_ok_and(|its| its == namespace))
            .count()
    };
    ensure!(
        running() >= 3,
        "pause, conmon and the agent are {} processes",
        running()
    );
    drop(podman);
    wait("its processes are still there", SOON, || running() == 0)
}
