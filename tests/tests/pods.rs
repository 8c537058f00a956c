//! Who it is, in a cluster: real pods of a real containerd, named in everything that the agent shows, and addresses where
//! the runtime is silent.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_cri::message::NamespaceMode;
use guard_tests::{
    Namespace,
    containerd::{BRIDGE, Containerd, NODE, Pod},
    guard::{self, Guard, GuardOptions, Mode, Said},
    programs,
    question::{Question, RecordType},
    tcpdump::Tcpdump,
};
use serde_json::Value;

/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);
/// The runtime is asked every 5 s, after a failure within 8 s, and what it said holds for 15 s.
const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks.
const POLL: Duration = Duration::from_millis(100);
/// For how long an idle agent is watched: it asks the runtime, renews its lease and looks at everything several times.
const IDLE: Duration = Duration::from_secs(8);

/// A budget that a few queries exceed, and everything that can be shown.
const CONFIG: &str = "[pods]\nsource = \"cri\"\n[page]\nlisten = \"127.0.0.1:9534\"\n\
    [[budget]]\nname = \"per client\"\nscope = \"client\"\nlimit = 20\n";

/// One test at a time: each runs a containerd.
static MACHINE: Mutex<()> = Mutex::new(());

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_offender_is_a_pod_and_an_address_where_nobody_says_which() -> Result<()> {
    let _alone = MACHINE.lock();
    let node = Namespace::new()?;
    let mut containerd = Containerd::start(&node)?;
    let cart = containerd.run("shop", "cart-1", NamespaceMode::Pod)?;
    let dns = containerd.run("kube-system", "dns-1", NamespaceMode::Pod)?;
    let _host = containerd.run("kube-system", "proxy-1", NamespaceMode::Node)?;
    let options = GuardOptions {
        mode: Mode::Observe,
        extra_toml: CONFIG.to_owned(),
        ..GuardOptions::enforce(&[BRIDGE, &cart.device, &dns.device])
    };
    let guard = Guard::start(&node, &options)?;
    guard.wait_ready(START)?;
    guard.wait_counter("dnsguard_pods_named", &[], 3, PATIENCE)?;

    // A storm: the event names the pod, and the interface that it came by.
    let storm = flooding(&containerd, &[&cart], || guard.wait_event("over_budget", PATIENCE))?;
    let client = &storm["clients"][0];
    ensure!(
        client["client"] == "10.88.0.2" && client["pod"] == "shop/cart-1",
        "{storm}"
    );
    ensure!(
        storm["device"] == *cart.device && storm["device_pod"] == "shop/cart-1",
        "{storm}"
    );
    let reason = storm["reason"].as_str().unwrap_or_default();
    ensure!(reason.ends_with("; 10.88.0.2 is pod shop/cart-1"), "{reason}");

    // Everything else that names clients names it as well, and another beside it.
    let both = [("10.88.0.2", "shop/cart-1"), ("10.88.0.3", "kube-system/dns-1")];
    flooding(&containerd, &[&cart, &dns], || {
        for (address, pod) in both {
            wait_for_client(&guard, address, Some(pod))?;
            let (namespace, name) = pod.split_once('/').unwrap_or_default();
            let labels = [
                format!("name=\"{address}\""),
                format!("client_namespace=\"{namespace}\""),
                format!("client_pod=\"{name}\""),
            ];
            let labels = labels.each_ref().map(String::as_str);
            guard.wait_counter("dnsguard_top_queries_per_second", &labels, 1, PATIENCE)?;
        }
        let lines = queries_of(&node, "kube-system/*")?;
        let line = lines.first().cloned().unwrap_or_default();
        ensure!(
            line["client"] == "10.88.0.3" && line["device_pod"] == "kube-system/dns-1",
            "{line}"
        );
        ensure!(lines.iter().all(|line| line["pod"] == "kube-system/dns-1"), "{lines:?}");
        Ok(())
    })?;
    let status = guard.say(&["status", "-o", "json"])?;
    let pods = &serde_json::from_str::<Value>(&status.out)?["pods"];
    ensure!(pods["named"] == 3 && pods.get("error").is_none(), "{}", status.out);
    let status = guard.say(&["status"])?;
    ensure!(
        status.out.contains("3 pods of this node can be named"),
        "{}",
        status.out
    );

    // A pod goes, and another gets its address: from then on that is who it is.
    containerd.remove(cart)?;
    let next = containerd.run("billing", "invoice-7", NamespaceMode::Pod)?;
    ensure!(
        next.address == Some([10, 88, 0, 2].into()),
        "{next:?} has another address"
    );
    // Its interface is not guarded, but the bridge is.
    flooding(&containerd, &[&next], || {
        wait_for_client(&guard, "10.88.0.2", Some("billing/invoice-7"))
    })?;

    // The runtime hangs: what it said holds for a while, then there are addresses, and a reason.
    containerd.freeze()?;
    flooding(&containerd, &[&next], || wait_for_client(&guard, "10.88.0.2", None))?;
    let status = guard.say(&["status"])?;
    ensure!(
        status.code == Some(3) && status.out.contains("pods are not named") && status.out.contains("did not answer"),
        "{status:?}"
    );
    ensure!(guard.counter("dnsguard_pods_named", &[])? == 0, "it is over");

    // It is killed, and started again: the names are back.
    containerd.kill()?;
    containerd.start_again()?;
    flooding(&containerd, &[&next], || {
        wait_for_client(&guard, "10.88.0.2", Some("billing/invoice-7"))
    })?;
    guard.stop()
}

/// The agent has every reason to ask DNS for something: names of pods, of clients, of itself. It never does.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_agent_asks_dns_for_nothing_ever() -> Result<()> {
    let _alone = MACHINE.lock();
    programs::provide(&["setpriv", "strace", "tcpdump"])?;
    let node = Namespace::new()?;
    node.cover(
        "resolv.conf",
        &format!("nameserver {NODE}\nsearch cluster.local\noptions timeout:1\n"),
    )?;
    node.cover("nsswitch.conf", "hosts: dns\n")?;
    let containerd = Containerd::start(&node)?;
    let pod = containerd.run("shop", "cart-1", NamespaceMode::Pod)?;
    let tcpdump = Tcpdump::start(&node, "any", &["port 53 or port 5353 or port 5355 or port 853"])?;

    // It is traced from its first system call, with everything switched on, and asked for all there is to ask.
    let config = node.file("dnsguard.toml", CONFIG)?;
    let trace = node.file("trace", "")?;
    let mut command = programs::locate("strace")?.command();
    command
        .args(["-D", "-f", "-qq", "-s", "256", "-e", "trace=%network", "-o"])
        .arg(&trace);
    // With what it may have in a cluster: naming pods needs nothing more.
    command.arg(programs::locate("setpriv")?.path());
    command.args(["--bounding-set", "-all,+bpf,+net_admin,+perfmon", "--inh-caps", "-all"]);
    command.arg(guard::binary()?).arg("run").arg("--config").arg(&config);
    command.args([
        "--mode",
        "observe",
        "--interface",
        "lo",
        "--interface",
        BRIDGE,
        "--events",
        "jsonl",
    ]);
    let agent = node.spawn(command)?;
    let said = |arguments: &[&str]| -> Result<Said> {
        let mut command = std::process::Command::new(guard::binary()?);
        command.args(arguments);
        let process = node.spawn(command)?;
        let status = process.wait(PATIENCE)?;
        Ok(Said {
            code: status.code(),
            out: process.output(),
            err: process.log(),
        })
    };
    let deadline = Instant::now() + PATIENCE;
    while !said(&["status"])?.out.contains(BRIDGE) {
        ensure!(Instant::now() < deadline, "no agent:\n{}", agent.last_words());
        sleep(POLL);
    }
    let rights = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    ensure!(
        rights.contains("CapEff:\t000000c000001000"),
        "BPF, PERFMON and NET_ADMIN: {rights}"
    );
    let idle = Instant::now();
    let commands: [&[&str]; 6] = [
        &["status", "-o", "json"],
        &["top", "-o", "json"],
        &["loops", "list"],
        &["explain", "www.example.com"],
        &["policy", "get"],
        &["reload"],
    ];
    for command in commands {
        said(command)?;
    }
    sleep(IDLE.saturating_sub(idle.elapsed()));
    let silence = tcpdump.stop()?;
    ensure!(
        silence.packets == 0,
        "{} packets of DNS from nobody but the agent",
        silence.packets
    );

    // Nor when there are clients to be named.
    flooding(&containerd, &[&pod], || {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let top = said(&["top", "-o", "json"])?.out;
            if top.contains("\"shop/cart-1\"") {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "nobody is named: {top}");
            sleep(POLL);
        }
    })?;
    agent.stop()?;
    let trace = node.run(|| fs::read_to_string(&trace))?;
    for call in trace.lines() {
        let family = call.split_once("socket(").map(|(_, arguments)| arguments);
        ensure!(
            family.is_none_or(|arguments| !arguments.starts_with("AF_INET")
                || arguments.contains("SOCK_STREAM")
                || arguments.contains("IPPROTO_IP) =")),
            "a socket for datagrams: {call}"
        );
        ensure!(
            ![
                "htons(53)",
                "htons(853)",
                "htons(5353)",
                "htons(5355)",
                "nscd/socket",
                "resolve/io.systemd"
            ]
            .iter()
            .any(|sign| call.contains(sign)),
            "a look-up: {call}"
        );
    }
    // It was seen at work: the trace is of the right process.
    for sign in ["containerd.sock", "AF_NETLINK", "htons(9533)", "htons(9534)"] {
        ensure!(trace.contains(sign), "{sign} is not in the trace");
    }
    Ok(())
}

/// Does `work` while each of these pods asks the node for about a hundred names a second.
fn flooding<T>(containerd: &Containerd, pods: &[&Pod], work: impl FnOnce() -> Result<T>) -> Result<T> {
    let sockets = pods.iter().map(|pod| containerd.udp(pod)).collect::<Result<Vec<_>>>()?;
    let node: SocketAddr = format!("{NODE}:53").parse()?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for socket in &sockets {
            scope.spawn(|| flood(socket, node, &is_over));
        }
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        done
    })
}

fn flood(socket: &UdpSocket, node: SocketAddr, is_over: &AtomicBool) {
    for number in 0_u16.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let question = Question::new(&format!("n{number}.shop.example"), RecordType::A).expect("a name");
        let query = question.query(number).expect("a query");
        // Nobody answers; that is not what this is about.
        let _ = socket.send_to(&query, node);
        sleep(Duration::from_millis(10));
    }
}

/// Waits until this address is among the clients of `top`, as this pod or as none.
fn wait_for_client(guard: &Guard, address: &str, pod: Option<&str>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let top = guard.say(&["top", "-o", "json"])?.json(0)?;
        let mut clients = top["clients"].as_array().into_iter().flatten();
        let client = clients.find(|client| client["client"] == address);
        if client.is_some_and(|client| client["pod"].as_str() == pod) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{address} is not {pod:?} in {top}");
        sleep(POLL);
    }
}

/// Some of the queries that pass, of these pods alone.
fn queries_of(node: &Namespace, pods: &str) -> Result<Vec<Value>> {
    let mut command = std::process::Command::new(guard::binary()?);
    command.args([
        "observe",
        "-f",
        "--queries",
        "--last",
        "0",
        "--event",
        "query",
        "--pod",
        pods,
        "-o",
        "jsonl",
    ]);
    let observe = node.spawn(command)?;
    let deadline = Instant::now() + PATIENCE;
    while observe.output().lines().count() < 10 {
        ensure!(Instant::now() < deadline, "no queries:\n{}", observe.last_words());
        sleep(POLL);
    }
    observe.kill();
    let output = observe.output();
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    Ok(whole.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}
