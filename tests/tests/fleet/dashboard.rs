//! The dashboard: whether Grafana can show it, and what it asks Prometheus.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::files::DASHBOARD;

/// Units of width of Grafana's grid.
const WIDTH: u64 = 24;
/// What the variables stand for when everything is chosen, and Grafana's own one for a scrape each second.
const VARIABLES: [(&str, &str); 3] = [("$cluster", ".*"), ("$node", ".*"), ("$__rate_interval", "10s")];

fn parsed() -> Result<Value> {
    serde_json::from_str(DASHBOARD).context("the dashboard is JSON")
}

fn panels(dashboard: &Value) -> Result<&Vec<Value>> {
    dashboard["panels"].as_array().context("a dashboard has panels")
}

/// Title and expression of everything that it asks for, as Grafana sends it.
pub(crate) fn expressions() -> Result<Vec<(String, String)>> {
    let dashboard = parsed()?;
    let mut found = Vec::new();
    for panel in panels(&dashboard)? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let mut expression = target["expr"]
                .as_str()
                .context("a target has an expression")?
                .to_owned();
            for (variable, value) in VARIABLES {
                expression = expression.replace(variable, value);
            }
            ensure!(!expression.contains('$'), "an unknown variable in {expression}");
            found.push((panel["title"].to_string(), expression));
        }
    }
    Ok(found)
}

#[test]
fn grafana_can_show_it() -> Result<()> {
    let dashboard = parsed()?;
    for key in ["title", "uid", "description", "refresh"] {
        ensure!(dashboard[key].as_str().is_some_and(|text| !text.is_empty()), "no {key}");
    }
    // That of Grafana 10.4 and 11; later ones migrate it, earlier ones still read it.
    assert_eq!(dashboard["schemaVersion"], 39);
    ensure!(
        dashboard.get("id").is_none_or(Value::is_null),
        "the ID is Grafana's to give"
    );

    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard)? {
        let title = panel["title"].as_str().context("a panel has a title")?;
        let kind = panel["type"].as_str().context(title.to_owned())?;
        ensure!(
            ["row", "stat", "timeseries", "table"].contains(&kind),
            "{title} is a {kind}"
        );
        ensure!(
            ids.insert(panel["id"].as_u64().context(title.to_owned())?),
            "{title}: its ID is taken"
        );
        let side = |key: &str| {
            panel["gridPos"][key]
                .as_u64()
                .with_context(|| format!("{title}: no {key}"))
        };
        let (x, y, width, height) = (side("x")?, side("y")?, side("w")?, side("h")?);
        ensure!(width > 0 && height > 0 && x + width <= WIDTH, "{title} is off the grid");
        for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            ensure!(taken.insert(cell), "{title} lies over another panel at {cell:?}");
        }
        if kind == "row" {
            continue;
        }
        ensure!(
            panel["description"].as_str().is_some_and(|text| text.ends_with('.')),
            "{title} says nothing"
        );
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().context(title.to_owned())?;
        let letters: BTreeSet<_> = targets.iter().map(|target| target["refId"].to_string()).collect();
        ensure!(
            !targets.is_empty() && letters.len() == targets.len(),
            "{title}: {letters:?}"
        );
        ensure!(
            panel["fieldConfig"]["defaults"]["unit"].is_string(),
            "{title} has no unit"
        );
    }
    Ok(())
}

#[test]
fn its_variables_are_those_that_it_uses() -> Result<()> {
    let dashboard = parsed()?;
    let variables = dashboard["templating"]["list"].as_array().context("variables")?;
    let names: Vec<_> = variables
        .iter()
        .filter_map(|variable| variable["name"].as_str())
        .collect();
    assert_eq!(names, ["datasource", "cluster", "node"]);
    for (title, expression) in expressions()? {
        // Nothing is asked for behind the back of whoever chose a cluster.
        ensure!(expression.contains("cluster=~\".*\""), "{title}: {expression}");
    }
    Ok(())
}
