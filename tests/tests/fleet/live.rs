//! A night: loops, budgets, a file that is wrong, an agent that dies, as Prometheus tells of them.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use guard_tests::prometheus::promtool;
use serde_json::Value;

use super::{
    dashboard,
    files::ENA,
    site::{LINK, Site},
};

/// A loop is lit, found, scraped, and told: each within seconds, on two cores that also run the loop.
const SOON: Duration = Duration::from_secs(40);

/// What Prometheus has of its own.
const BUILT_IN: [&str; 2] = ["up", "ALERTS"];

#[test]
#[ignore = "needs root, real resolvers and Prometheus: cargo xtask test"]
fn one_night_over_two_nodes() -> Result<()> {
    Site::run(|site| {
        a_loop_on_one_node_is_told_with_its_name(site)?;
        the_same_loop_on_both_nodes_is_one_incident(site)?;
        what_else_is_wrong_is_told(site)?;
        a_scrape_is_clean(site)?;
        every_rule_is_evaluated_and_knows_its_metrics(site)?;
        every_panel_has_data(site)?;
        an_agent_that_died_is_told(site)
    })
}

/// Waits for an alert with these labels.
fn fires(site: &Site, name: &str, labels: &[(&str, &str)]) -> Result<Value> {
    let wanted = [&[("alertname", name)], labels].concat();
    site.prometheus.wait(name, SOON, |prometheus| {
        let is_wanted = |alert: &Value| wanted.iter().all(|(label, value)| alert["labels"][label] == *value);
        Ok(prometheus.firing()?.into_iter().find(is_wanted))
    })
}

fn a_loop_on_one_node_is_told_with_its_name(site: &Site) -> Result<()> {
    site.ignite(0);
    let instance = site.nodes[0].metrics()?.to_string();
    let labels = [("qname", "x.consul."), ("type", "A"), ("instance", instance.as_str())];
    let alert = fires(site, "DnsguardLoopOpen", &labels)?;
    let summary = format!("x.consul. A goes round at {instance}");
    assert_eq!(alert["annotations"]["summary"], summary);
    Ok(())
}

fn the_same_loop_on_both_nodes_is_one_incident(site: &Site) -> Result<()> {
    site.ignite(1);
    let alert = fires(
        site,
        "DnsguardLoopOnSeveralHosts",
        &[("qname", "x.consul."), ("type", "A")],
    )?;
    let annotations = &alert["annotations"];
    assert_eq!(annotations["summary"], "x.consul. A goes round on 2 hosts");
    let hosts = site.nodes.each_ref().map(|node| node.host.as_str()).join(" ");
    ensure!(
        annotations["description"]
            .to_string()
            .contains(&format!("are {hosts}.")),
        "{alert}"
    );
    // Of the nodes by themselves nobody speaks any more.
    site.prometheus.wait("one incident", SOON, |prometheus| {
        let mut of_it = prometheus.firing()?;
        of_it.retain(|alert| alert["labels"]["qname"] == "x.consul.");
        let is_one = of_it.len() == 1 && of_it[0]["labels"]["alertname"] == "DnsguardLoopOnSeveralHosts";
        Ok(is_one.then_some(()))
    })
}

fn what_else_is_wrong_is_told(site: &Site) -> Result<()> {
    let node = &site.nodes[0];
    node.guard.rewrite(&format!("lease = 7\n{}", node.configuration))?;
    let instance = node.metrics()?.to_string();
    let instance = ("instance", instance.as_str());
    let (host, link) = (("host", node.host.as_str()), ("device", LINK));
    fires(site, "DnsguardReloadFailed", &[instance])?;
    fires(site, "DnsguardAttachFailing", &[instance, link, ("hook", "xdp")])?;
    fires(site, "DnsguardBudgetOver", &[instance, ("budget", "each client")])?;
    fires(site, "DnsguardLinkLocalNearlyUsed", &[host, link])?;
    Ok(())
}

fn a_scrape_is_clean(site: &Site) -> Result<()> {
    for node in &site.nodes {
        let scrape = site.prometheus.scrape(node.metrics()?)?;
        ensure!(
            scrape.contains("dnsguard_loop_open{qname=\"x.consul.\",type=\"A\"} 1\n"),
            "{scrape}"
        );
        // It lints, too: names, units, help.
        assert_eq!(promtool(&["check", "metrics"], &scrape)?, "");
    }
    Ok(())
}

fn every_rule_is_evaluated_and_knows_its_metrics(site: &Site) -> Result<()> {
    let prometheus = &site.prometheus;
    let rules = prometheus.rules()?;
    let recorded = rules.iter().filter(|rule| rule["type"] == "recording");
    let recorded: Vec<_> = recorded.filter_map(|rule| rule["name"].as_str()).collect();
    ensure!(recorded.len() > 10 && recorded.len() < rules.len(), "{recorded:?}");
    for name in &recorded {
        prometheus.wait(name, SOON, |prometheus| Ok(prometheus.query(name)?.first().map(drop)))?;
    }
    let names = prometheus.names()?;
    for rule in &rules {
        assert_eq!(
            (&rule["health"], rule["lastError"].as_str().unwrap_or_default()),
            (&"ok".into(), ""),
            "{rule}"
        );
        let query = rule["query"].as_str().context("a rule has a query")?;
        for name in metrics_of(query) {
            ensure!(names.iter().any(|known| known == name), "{query}: there is no {name}");
        }
    }
    // What only an ENA driver gives comes from a file; that has nothing else.
    for line in ENA.lines().filter(|line| !line.starts_with('#')) {
        ensure!(
            line.starts_with("node_ethtool_") || line.starts_with("dnsguard_ena_"),
            "{line}"
        );
    }
    Ok(())
}

/// The metrics that an expression names.
fn metrics_of(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != ':');
    let is_metric = |word: &&str| {
        let of_ours = ["dnsguard_", "node_ethtool_"]
            .iter()
            .any(|prefix| word.contains(prefix));
        of_ours || BUILT_IN.contains(word)
    };
    words.filter(is_metric).collect()
}

fn every_panel_has_data(site: &Site) -> Result<()> {
    let names = site.prometheus.names()?;
    for (title, expression) in dashboard::expressions()? {
        let metrics = metrics_of(&expression);
        ensure!(!metrics.is_empty(), "{title} is about nothing: {expression}");
        for name in metrics {
            ensure!(names.iter().any(|known| known == name), "{title}: there is no {name}");
        }
        site.prometheus
            .wait(&format!("{title}: {expression}"), SOON, |prometheus| {
                Ok(prometheus.query(&expression)?.first().map(drop))
            })?;
    }
    Ok(())
}

fn an_agent_that_died_is_told(site: &Site) -> Result<()> {
    let node = &site.nodes[1];
    node.guard.kill9();
    let instance = node.metrics()?.to_string();
    let alert = fires(
        site,
        "DnsguardAgentLost",
        &[("instance", &instance), ("severity", "critical")],
    )?;
    assert_eq!(
        alert["annotations"]["summary"],
        format!("no agent answers at {instance}")
    );
    Ok(())
}
