//! Load is not a loop: what busy, slow and broken set-ups do on `lo` never trips the guard.
//!
//! The guard is in `enforce` mode, so that a wrong verdict would also show as a lost answer.

use std::{sync::Mutex, time::Duration};

use anyhow::{Result, ensure};
use guard_tests::{
    client::Retry,
    guard::{Guard, GuardOptions},
    load::{Load, Middle},
    programs,
};

/// One load at a time.
static MACHINE: Mutex<()> = Mutex::new(());

fn it_does_not_trip(load: Load) -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(load.programs())?;
    let site = load.start()?;
    // The resolvers behind the first one listen on ports of their own, all of which speak DNS.
    let mut ports: Vec<u16> = site
        .resolvers()
        .iter()
        .map(|resolver| resolver.address().port())
        .collect();
    ports.extend(site.upstream().map(|upstream| upstream.address().port()));
    ports.push(53);
    ports.sort_unstable();
    ports.dedup();
    let options = GuardOptions {
        extra_toml: format!("ports = {ports:?}\n"),
        ..GuardOptions::enforce(&["lo"])
    };
    let guard = Guard::start(site.namespace(), &options)?;
    guard.wait_ready(Duration::from_secs(20))?;
    let report = site.run()?;
    // The agent reads the counters once a second.
    let queries = counted_queries(&guard, report.queries)?;
    println!("{load}: {queries} queries judged, {report:?}");
    let trips = guard.events_of("trip")?;
    ensure!(trips.is_empty(), "{load} was taken for a loop: {trips:?}");
    ensure!(
        sum(&guard.metrics()?, "dnsguard_actions_total")? == 0,
        "{load}: queries were held"
    );
    guard.stop()
}

/// Waits until at least `expected` queries show in the metrics.
fn counted_queries(guard: &Guard, expected: u64) -> Result<u64> {
    for _ in 0..50 {
        let queries = sum(&guard.metrics()?, "dnsguard_dns_queries_total")?;
        if queries >= expected {
            return Ok(queries);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("the guard did not see the {expected} queries:\n{}", guard.metrics()?)
}

/// The sum over all series of a metric.
fn sum(metrics: &str, name: &str) -> Result<u64> {
    let mut total = 0;
    for line in metrics.lines().filter(|line| line.starts_with(&format!("{name}{{"))) {
        let value = line.rsplit(' ').next().unwrap_or_default();
        total += value.parse::<f64>()? as u64;
    }
    Ok(total)
}

macro_rules! loads {
    ($($name:ident: $load:expr;)*) => {
        $(
            #[test]
            #[ignore = "needs root and real resolvers: cargo xtask test"]
            fn $name() -> Result<()> {
                it_does_not_trip($load)
            }
        )*
    };
}

loads! {
    a_client_that_repeats_its_query_to_a_dead_upstream: Load::DeadUpstream { retry: Retry::Same };
    a_client_that_asks_anew_of_a_dead_upstream: Load::DeadUpstream { retry: Retry::Fresh };
    a_herd_behind_dnsmasq: Load::Herd { middle: Middle::Dnsmasq };
    a_herd_behind_unbound: Load::Herd { middle: Middle::Unbound };
    search_list_walks: Load::SearchWalk;
    a_chain_of_resolvers_at_5000_queries_a_second: Load::Chain;
    names_in_random_case: Load::MixedCase;
}
