//! Interfaces that come and go, and the hosts of each preset.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{
    Namespace,
    client::ask,
    cni::{Node, Plugin},
    foreign::Foreign,
    guard::{Guard, GuardOptions, Mode},
    question::{Question, RecordType},
    upstream::{Manner, Upstream},
    veth, wait,
};
use serde_json::Value;

/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);
/// What takes no time is there long before.
const PATIENCE: Duration = Duration::from_secs(20);
/// The promise for a network card that is plugged in.
const PLUGGED: Duration = Duration::from_secs(1);
/// Queries to each server.
const QUERIES: usize = 20;

fn ready(namespace: &Namespace, options: &GuardOptions) -> Result<Guard> {
    let guard = Guard::start(namespace, options)?;
    guard.wait_ready(START)?;
    Ok(guard)
}

/// Waits until `done` says so.
fn wait_for(guard: &Guard, what: &str, done: impl FnMut() -> Result<bool>) -> Result<()> {
    let waited = wait(what, PATIENCE, done);
    waited.map(drop).with_context(|| guard.process().output())
}

fn of_device<'e>(events: &'e [Value], kind: &str, device: &str) -> Vec<&'e Value> {
    let is_it = |event: &&Value| event["event"] == kind && event["device"] == device;
    events.iter().filter(is_it).collect()
}

/// The pins of links.
fn pins(namespace: &Namespace) -> Result<BTreeSet<String>> {
    namespace.run(|| {
        let mut found = BTreeSet::new();
        for version in fs::read_dir("/sys/fs/bpf/dnsguard")? {
            let Ok(links) = fs::read_dir(version?.path().join("links")) else {
                continue;
            };
            for link in links {
                found.insert(link?.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(found)
    })
}

#[test]
#[ignore = "needs root"]
fn one_packet_is_one_hop_on_the_node_of_each_network_plugin() -> Result<()> {
    for plugin in Plugin::ALL {
        on_the_node_of(plugin).with_context(|| format!("{plugin:?}"))?;
    }
    Ok(())
}

/// Every query crosses two or more guarded interfaces of the node, in each direction.
fn on_the_node_of(plugin: Plugin) -> Result<()> {
    let node = Node::new(plugin)?;
    let options = GuardOptions {
        // A second network card is known by its hardware; here there is none.
        interfaces: vec!["lo".to_owned(), "/^ens[0-9]+$/".to_owned()],
        extra_toml: "[attach]\npreset = 'auto'\n".to_owned(),
        mode: Mode::Enforce,
    };
    let guard = ready(&node.host, &options)?;
    let events = guard.events_of("attach")?;
    let devices: BTreeSet<_> = events.iter().filter_map(|event| event["device"].as_str()).collect();
    ensure!(
        devices.iter().copied().eq(plugin.carriers()),
        "{devices:?} and not {:?}",
        plugin.carriers()
    );

    let mut asked = 0;
    let mut seen = 0;
    for (server, address) in node.servers() {
        let upstream = Upstream::start(server, address, Manner::Answers(Duration::ZERO))?;
        for number in 0..QUERIES {
            let question = Question::new(&format!("Name{number}.{}.example", address.port()), RecordType::A)?;
            let reply = ask(&node.pods[0], address, &question, 5, Duration::from_secs(1))?;
            ensure!(reply.answered(), "{address} does not answer: {reply:?}");
            asked += u64::from(reply.tries);
        }
        seen += upstream.seen();
    }
    ensure!(seen >= asked, "{seen} of {asked} queries came to their servers");
    let elsewhere = guard.wait_counter("dnsguard_seen_elsewhere_total", &[], asked, PATIENCE)?;
    let sightings = guard.counter("dnsguard_dns_queries_total", &[])?;
    let repeats = guard.counter("dnsguard_retransmits_total", &[])?;
    ensure!(
        sightings - elsewhere - repeats <= asked && sightings >= 2 * asked,
        "{asked} queries: {sightings} sightings, {elsewhere} of them elsewhere, {repeats} repeats"
    );
    ensure!(
        guard.counter("dnsguard_recirculations_total", &[])? == 0,
        "{}",
        guard.metrics()?
    );
    guard.stop()
}

#[test]
#[ignore = "needs root"]
fn a_network_card_that_is_plugged_in_is_guarded_within_a_second() -> Result<()> {
    let (host, beyond) = (Namespace::new()?, Namespace::new()?);
    let options = GuardOptions {
        extra_toml: "[attach]\npreset = 'host'\n[[budget]]\npreset = 'aws-link-local'\nlimit = 100\nburst = 10\n"
            .to_owned(),
        mode: Mode::Enforce,
        ..GuardOptions::default()
    };
    let guard = ready(&host, &options)?;
    veth::veth(&host, &beyond, "ens6", &[("10.9.0.7/24", "10.9.0.2/24")])?;
    let plugged = Instant::now();
    host.ip("route add default via 10.9.0.2")?;
    let is_limited = || -> Result<bool> {
        Ok(guard
            .metrics()?
            .contains("dnsguard_link_local_limit_packets_per_second{device=\"ens6\"} 100"))
    };
    wait_for(&guard, "the guard of ens6", || {
        Ok(of_device(&guard.events()?, "attach", "ens6").len() == 2 && is_limited()?)
    })?;
    // The metrics are a second behind; what is in force is told when it is.
    let policy = guard.wait_event("policy", PATIENCE)?;
    ensure!(policy["generation"].is_u64(), "{policy}");
    let attached = guard.events()?;
    let attached = of_device(&attached, "attach", "ens6");
    ensure!(
        attached.iter().all(|event| event["reason"]
            .as_str()
            .is_some_and(|why| why.contains("leads outward"))),
        "{attached:?}"
    );
    eprintln!("ens6 was guarded and in the metrics after {:?}", plugged.elapsed());

    // The VPC's resolver of the address that it got is under the budget.
    let resolver = SocketAddr::from((Ipv4Addr::new(10, 9, 0, 2), 53));
    let client = host.udp(SocketAddr::from((Ipv4Addr::new(10, 9, 0, 7), 0)))?;
    for number in 0..200 {
        let question = Question::new(&format!("n{number}.example"), RecordType::A)?;
        client.send_to(&question.query(number)?, resolver)?;
    }
    guard.wait_counter(
        "dnsguard_budget_packets_total",
        &["budget=\"aws-link-local\"", "result=\"over\""],
        50,
        PATIENCE,
    )?;
    guard.stop()
}

#[test]
#[ignore = "needs root"]
fn an_interface_is_attached_to_within_a_second_of_its_coming() -> Result<()> {
    let host = Namespace::new()?;
    let guard = ready(&host, &GuardOptions::enforce(&["lo", "ens*"]))?;
    let mut worst = Duration::ZERO;
    for number in 0..10 {
        let name = format!("ens{number}");
        host.ip(&format!("link add {name} type veth peer name peer{number}"))?;
        let plugged = Instant::now();
        wait_for(&guard, &name, || {
            Ok(of_device(&guard.events()?, "attach", &name).len() == 2)
        })?;
        worst = worst.max(plugged.elapsed());
    }
    eprintln!("the slowest of ten was attached to after {worst:?}");
    ensure!(worst < PLUGGED, "{worst:?}");
    guard.stop()
}

#[test]
#[ignore = "needs root"]
fn five_hundred_pods_come_and_go_and_nothing_is_left() -> Result<()> {
    const WAVES: usize = 10;
    const PODS: usize = 50;
    let (host, pods) = (Namespace::new()?, Namespace::new()?);
    let guard = ready(&host, &GuardOptions::enforce(&["lo", "cali*"]))?;
    let process = format!("/proc/{}", guard.process().pid());
    let open_files = || -> Result<usize> { Ok(fs::read_dir(format!("{process}/fd"))?.count()) };
    let memory_kb = || -> Result<u64> {
        let status = fs::read_to_string(format!("{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line
            .and_then(|line| line.split_whitespace().next())
            .context("no VmRSS")?
            .parse()?)
    };
    let count = |kind: &str| -> Result<usize> {
        Ok(guard
            .process()
            .output()
            .matches(&format!("\"event\":\"{kind}\""))
            .count())
    };
    let there = pods.net_path();
    let wave = |number: usize| -> Result<()> {
        let before = (count("attach")?, count("detach")?);
        let mut batch = String::new();
        for pod in 0..PODS {
            batch.push_str(&format!(
                "link add cali{number:05x}{pod:06x} group 7 type veth peer name p{number}x{pod} netns {}\n",
                there.display()
            ));
        }
        let add = host.file("add.batch", &batch)?;
        host.ip(&format!("-batch {}", add.display()))?;
        wait_for(&guard, "the last pod's link", || {
            Ok(count("attach")? == before.0 + 2 * PODS)
        })?;
        host.ip("link del group 7")?;
        wait_for(&guard, "its end", || Ok(count("detach")? == before.1 + 2 * PODS))
    };
    let began = Instant::now();
    let pinned = pins(&host)?;
    // The first wave brings the allocator, and whatever else is made once, to its size.
    wave(0)?;
    let (files, kilobytes) = (open_files()?, memory_kb()?);
    for number in 1..WAVES {
        wave(number)?;
    }
    eprintln!(
        "{} interfaces came and went in {:?}; {files} files then, {} now; {kilobytes} kB then, {} now",
        WAVES * PODS,
        began.elapsed(),
        open_files()?,
        memory_kb()?
    );
    ensure!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    ensure!(pins(&host)? == pinned, "{:?}", pins(&host)?);
    ensure!(open_files()? <= files, "{} files, {files} before", open_files()?);
    ensure!(
        memory_kb()? < kilobytes + 4_096,
        "{} kB, {kilobytes} before",
        memory_kb()?
    );
    // The metrics are a second behind.
    wait_for(&guard, "the end of their series", || {
        Ok(!guard.metrics()?.contains("cali"))
    })?;
    let metrics = guard.metrics()?;
    ensure!(
        guard.counter("dnsguard_attaches_total", &[])? == (1 + 2 * WAVES * PODS) as u64,
        "{metrics}"
    );
    ensure!(
        guard.counter("dnsguard_detaches_total", &[])? == (2 * WAVES * PODS) as u64,
        "{metrics}"
    );
    guard.stop()?;
    ensure!(
        host.run(|| !fs::exists("/sys/fs/bpf/dnsguard").unwrap_or(true)),
        "pins are left"
    );
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn what_cannot_be_attached_is_tried_again_until_it_can() -> Result<()> {
    let host = Namespace::new()?;
    host.ip("link add veth1 type veth peer name veth2")?;
    let foreign = Foreign::xdp(&host, "veth1", "somebody")?;
    let options = GuardOptions {
        extra_toml: "[attach]\nxdp = 'driver'\n".to_owned(),
        ..GuardOptions::enforce(&["lo", "veth1"])
    };
    let guard = ready(&host, &options)?;
    let error = guard.wait_event("attach_error", PATIENCE)?;
    let reason = error["reason"].as_str().unwrap_or_default();
    ensure!(reason.ends_with("it is tried again in 1 s"), "{error}");
    ensure!(
        guard.counter("dnsguard_hooks_failing", &[])? == 1,
        "{}",
        guard.metrics()?
    );
    guard.wait_counter("dnsguard_attach_errors_total", &["device=\"veth1\""], 2, PATIENCE)?;
    ensure!(
        guard.events_of("attach_error")?.len() == 1,
        "the same reason is told once"
    );
    drop(foreign);
    wait_for(&guard, "XDP on veth1", || {
        Ok(of_device(&guard.events()?, "attach", "veth1")
            .iter()
            .any(|event| event["hook"] == "xdp"))
    })?;
    wait_for(&guard, "the end of the failure", || {
        Ok(guard.counter("dnsguard_hooks_failing", &[])? == 0)
    })?;
    guard.stop()
}

#[test]
#[ignore = "needs root"]
fn another_selection_is_taken_up_by_a_reload() -> Result<()> {
    let host = Namespace::new()?;
    for number in [1, 3] {
        host.ip(&format!("link add veth{number} type veth peer name veth{}", number + 1))?;
    }
    let with = |attach: &str| format!("mode = 'enforce'\n[attach]\n{attach}\n");
    let options = GuardOptions {
        extra_toml: with("interfaces = ['lo', 'veth1']"),
        mode: Mode::Enforce,
        ..GuardOptions::default()
    };
    let guard = ready(&host, &options)?;
    guard.rewrite(&with("interfaces = ['lo', 'veth*']\nexclude = ['veth1', '/[24]/']"))?;
    guard.say(&["reload"])?;
    wait_for(&guard, "veth3", || {
        Ok(of_device(&guard.events()?, "attach", "veth3").len() == 2)
    })?;
    let events = guard.events()?;
    let detached = of_device(&events, "detach", "veth1");
    ensure!(detached.len() == 2, "{events:?}");
    let reason = detached[0]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("lo, veth*, but not veth1, /[24]/"), "{reason}");
    ensure!(of_device(&events, "attach", "veth2").is_empty(), "{events:?}");

    // What is named has to be there: else nothing changes.
    guard.rewrite(&with("interfaces = ['lo', 'veth9']"))?;
    let said = guard.say(&["reload"])?;
    ensure!(
        said.code == Some(2) && said.err.contains("there is no interface veth9"),
        "{said:?}"
    );
    ensure!(
        of_device(&guard.events()?, "detach", "veth3").is_empty(),
        "veth3 is let go"
    );

    // One that is gone is awaited, and so is a name that another interface gets.
    host.ip("link del veth3")?;
    wait_for(&guard, "the end of veth3", || {
        Ok(of_device(&guard.events()?, "detach", "veth3").len() == 2)
    })?;
    host.ip("link set veth1 name veth3")?;
    wait_for(&guard, "the other veth3", || {
        Ok(of_device(&guard.events()?, "attach", "veth3").len() == 4)
    })?;
    guard.stop()
}
