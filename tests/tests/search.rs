//! A real stub resolver that walks a search list: the agent sees it in the queries, and says what to do about it.

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use guard_tests::{
    Namespace,
    guard::{Guard, GuardOptions, Mode},
    upstream::{Manner, Upstream},
};

/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);
/// Samples are looked at four times a second, walks once.
const PATIENCE: Duration = Duration::from_secs(10);

/// The list of a Kubernetes pod on EC2.
const RESOLV_CONF: &str = "nameserver 127.0.0.1\n\
    search shop.svc.cluster.local svc.cluster.local cluster.local ec2.internal\n\
    options ndots:5 timeout:1 attempts:1\n";

/// glibc's resolver, with its own configuration, asks for names with less than five dots.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_walk_of_glibc_is_recognised_and_explained() -> Result<()> {
    let pod = Namespace::new()?;
    pod.cover("resolv.conf", RESOLV_CONF)?;
    pod.cover("nsswitch.conf", "hosts: dns\n")?;
    let nobody = Upstream::start(&pod, "127.0.0.1:53".parse()?, Manner::KnowsNothing)?;
    let guard = observing(&pod)?;

    // A name that is fully qualified walks nowhere.
    for number in 0..10 {
        look_up(&pod, &format!("plain{number}.example.com."));
    }
    for number in 0..10 {
        look_up(&pod, &format!("www{number}.example.com"));
        // What comes too fast is shown to the agent in part.
        sleep(Duration::from_millis(20));
    }
    ensure!(
        nobody.seen() >= 10 * 2 + 10 * 10,
        "{} queries: nobody walked",
        nobody.seen()
    );
    let walk = guard.wait_event("search_walk", PATIENCE)?;
    assert_eq!(walk["client"], "127.0.0.1", "{walk}");
    let wasted = walk["wasted"].as_u64().unwrap_or_default();
    ensure!(
        (20..=80).contains(&wasted),
        "8 of 10 queries for each name are wasted: {walk}"
    );
    let example = walk["example"].as_str().unwrap_or_default();
    ensure!(
        example.starts_with("www") && example.ends_with(".example.com."),
        "{walk}"
    );
    let suffixes: Vec<_> = walk["suffixes"].as_array().into_iter().flatten().collect();
    for suffix in ["shop.svc.cluster.local.", "svc.cluster.local.", "cluster.local."] {
        ensure!(suffixes.iter().any(|told| *told == suffix), "{suffix} is not in {walk}");
    }
    ensure!(
        walk["reason"].as_str().is_some_and(|reason| reason.contains("ndots")),
        "{walk}"
    );
    guard.wait_counter("dnsguard_search_walk_wasted_queries_total", &[], 40, PATIENCE)?;
    ensure!(guard.events_of("trip")?.is_empty(), "a walk is no loop");
    guard.stop()
}

/// Who asks most is shown to whoever asks the agent.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_top_is_shown_by_a_command_and_in_the_metrics() -> Result<()> {
    let host = Namespace::new()?;
    host.cover("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
    host.cover("nsswitch.conf", "hosts: dns\n")?;
    let _nobody = Upstream::start(&host, "127.0.0.1:53".parse()?, Manner::KnowsNothing)?;
    let guard = observing(&host)?;
    for number in 0..40 {
        look_up(&host, &format!("q{number}.busy.example."));
    }
    let zone = ["by=\"zone\"", "name=\"busy.example.\""];
    guard.wait_counter("dnsguard_top_queries_per_second", &zone, 1, PATIENCE)?;

    let table = guard.say(&["top"])?.out;
    ensure!(
        table.contains("busy.example.") && table.contains("127.0.0.1"),
        "{table}"
    );
    let json = guard.say(&["top", "-o", "json"])?.json(0)?;
    assert_eq!(json["schema"], 1, "{json}");
    guard.stop()?;
    // Nobody is there any more.
    let said = guard.say(&["top"])?;
    assert_eq!(said.code, Some(4), "{said:?}");
    Ok(())
}

fn observing(host: &Namespace) -> Result<Guard> {
    let options = GuardOptions {
        mode: Mode::Observe,
        ..GuardOptions::enforce(&["lo"])
    };
    let guard = Guard::start(host, &options)?;
    guard.wait_ready(START)?;
    Ok(guard)
}

/// Asks glibc for the addresses of a name that nobody has: it fails in any case.
fn look_up(host: &Namespace, name: &str) {
    drop(host.tool("getent", &format!("ahosts {name}")));
}
