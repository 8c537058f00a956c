//! The rule files by themselves: what `promtool` thinks of them, and whether the documents go with them.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{Prometheus, programs, prometheus::promtool};

use super::files::{ALERTS, DOCUMENTS, checkout};

/// Where the unit tests of the rules are.
const TESTS: &str = "deploy/prometheus/tests";

/// The alerts by name, each with the lines of its rule.
fn alerts() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rules = ALERTS.split("- alert: ").skip(1);
    rules.filter_map(|rule| rule.split_once('\n'))
}

/// The value of a key of a rule that stands on one line.
fn value<'r>(rule: &'r str, key: &str) -> Option<&'r str> {
    let lines = rule.lines().map(str::trim);
    let mut found = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    found.next().map(|text| text.trim_matches('\''))
}

#[test]
#[ignore = "needs promtool: cargo xtask test"]
fn every_rule_does_what_its_test_says() -> Result<()> {
    programs::provide(Prometheus::PROGRAMS)?;
    for file in fs::read_dir(checkout(TESTS))? {
        let path = file?.path();
        let said = promtool(&["test", "rules", &path.display().to_string()], "")?;
        ensure!(said.contains("SUCCESS"), "{said}");
    }
    let example = checkout("deploy/prometheus/prometheus.yml");
    let said = promtool(&["check", "config", &example.display().to_string()], "")?;
    // The example itself, and both files that it names.
    ensure!(said.matches("rules found").count() == 2, "{said}");
    ensure!(!said.to_lowercase().contains("warning"), "{said}");
    Ok(())
}

#[test]
fn every_alert_has_a_test_in_which_it_fires() -> Result<()> {
    let tests = fs::read_to_string(checkout(TESTS).join("alerts.yaml"))?;
    let checks: Vec<_> = tests.split("- eval_time: ").skip(1).collect();
    for (name, _) in alerts() {
        let line = format!("alertname: {name}\n");
        let mut of_it = checks.iter().filter(|check| check.contains(&line));
        ensure!(of_it.any(|check| check.contains("exp_alerts:")), "{name} never fires");
    }
    for check in checks {
        let name = value(check, "alertname").context("a check has a name")?;
        ensure!(
            alerts().any(|(known, _)| known == name),
            "{name} is tested and is no alert"
        );
    }
    Ok(())
}

#[test]
fn every_alert_says_how_bad_it_is_and_where_to_read_on() -> Result<()> {
    for (name, rule) in alerts() {
        let severity = value(rule, "severity").context(name)?;
        ensure!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity}"
        );
        for key in ["summary", "description"] {
            ensure!(rule.contains(&format!("{key}: ")), "{name} has no {key}");
        }
        let runbook = value(rule, "runbook").with_context(|| format!("{name} has no runbook"))?;
        let (file, heading) = runbook.split_once(": ").context(runbook)?;
        let document = DOCUMENTS.iter().find(|(known, _)| *known == file);
        let (_, text) = document.with_context(|| format!("{name}: {file} is no document"))?;
        let mut headings = text.lines().filter(|line| line.starts_with('#'));
        ensure!(
            headings.any(|line| line.trim_start_matches('#').trim().trim_matches('`') == heading),
            "{name}: {file} has no heading `{heading}`"
        );
    }
    Ok(())
}

#[test]
fn the_list_of_alerts_in_the_documents_is_complete() {
    let (_, metrics) = DOCUMENTS[1];
    let listed: BTreeSet<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("| `Dnsguard"))
        .collect();
    let listed: BTreeSet<_> = listed.iter().filter_map(|rest| rest.split('`').next()).collect();
    let known: BTreeSet<_> = alerts().filter_map(|(name, _)| name.strip_prefix("Dnsguard")).collect();
    assert_eq!(listed, known);
}
