//! Is what is committed what the chart renders, and does everybody take it: Helm's lint, the API, the agent?

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{
    FOLDERS, VERSIONS, ask, chart,
    helm::{Case, Chart, Rendered, Told},
    of_folder, plain, readme,
};
use crate::{advice::Advice as _, step, workspace::Workspace};

/// Kinds of Prometheus Operator; the API has no schemas for them.
const FOREIGN: [&str; 3] = ["PodMonitor", "PrometheusRule", "ServiceMonitor"];

/// What writes what is checked here.
const SAVE: &str = "cargo xtask manifests --save";

/// Everything there is to check; needs the agent. Says what was checked.
pub(crate) fn check(workspace: &Workspace) -> Result<String> {
    let (presets, refused) = (presets(workspace)?, refused(workspace)?);
    let mut cases: Vec<Case> = FOLDERS.map(|(_, values, _)| Case::newest(values)).into();
    cases.extend(presets.iter().map(|(_, values)| Case::all(values)));
    cases.extend(refused.iter().map(|(_, values)| Case::newest(values)));
    let response = ask(workspace, cases)?;
    check_version(&response.chart)?;

    let mut told = response.cases.into_iter();
    let mut next = || told.next().context("the driver has too few answers");
    for (folder, _, files) in FOLDERS {
        let rendered = next()?.rendered("the chart's own values")?;
        let folder = workspace.root.join("deploy/kubernetes").join(folder);
        plain::check(&folder, &of_folder(&rendered, files)?).or_next(SAVE)?;
    }
    let mut checked = 0;
    for (name, _) in &presets {
        let rendered = next()?.rendered(name)?;
        check_preset(workspace, &rendered).with_context(|| name.clone())?;
        checked += rendered.checked;
    }
    for (name, values) in &refused {
        check_refusal(values, next()?).with_context(|| name.clone())?;
    }
    let (readme, table) = readme(workspace)?;
    let found = fs::read_to_string(&readme)?;
    ensure!(
        found == table,
        "{} has another table of values; next: {SAVE}",
        readme.display()
    );
    Ok(format!(
        "{checked} objects of {} presets keep the schemas of Kubernetes {}; {} wrong presets are refused",
        presets.len(),
        VERSIONS.join(", "),
        refused.len()
    ))
}

fn check_version(chart: &Chart) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    ensure!(
        chart.version == version && chart.app_version == version,
        "deploy/helm/dnsguard/Chart.yaml is of version {} for {}, and dnsguard is {version}",
        chart.version,
        chart.app_version
    );
    Ok(())
}

/// Lint, the API and the agent take what the chart makes of a preset.
fn check_preset(workspace: &Workspace, rendered: &Rendered) -> Result<()> {
    ensure!(rendered.problems.is_empty(), "{}", rendered.problems.join("\n"));
    let strange = rendered.unchecked.iter().find(|kind| !FOREIGN.contains(&kind.as_str()));
    ensure!(strange.is_none(), "Kubernetes has no kind {strange:?}");
    let configuration = rendered
        .configuration
        .as_ref()
        .context("there is no dnsguard.toml in it")?;
    let path = workspace.target.join("dnsguard.rendered.toml");
    fs::write(&path, configuration)?;
    step::quiet(Command::new(workspace.agent()).arg("check-config").arg(path)).map(drop)
}

/// Wrong values are refused, for what their first line says.
fn check_refusal(values: &str, told: Told) -> Result<()> {
    let why = values.lines().next().and_then(|line| line.strip_prefix("# says: "));
    let why = why.context("it does not begin with `# says: ...`")?;
    let objections = match told {
        Told::Refused { refused } => refused,
        Told::Rendered(rendered) => rendered.problems.join("\n"),
    };
    ensure!(
        objections.contains(why),
        "not refused for `{why}`, but for `{objections}`"
    );
    Ok(())
}

/// The values of the chart's own tests, by file, and its defaults.
fn presets(workspace: &Workspace) -> Result<Vec<(String, String)>> {
    let mut presets = yaml_files(&chart(workspace).join("ci"))?;
    presets.push(("the defaults".to_owned(), String::new()));
    Ok(presets)
}

/// Values that the chart, or the API of Kubernetes, has to refuse. The first line of each says for what.
fn refused(workspace: &Workspace) -> Result<Vec<(String, String)>> {
    yaml_files(&workspace.root.join("deploy/helm/refused"))
}

fn yaml_files(folder: &Path) -> Result<Vec<(String, String)>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "yaml") {
            files.push((path.display().to_string(), fs::read_to_string(&path)?));
        }
    }
    ensure!(!files.is_empty(), "{} has no values", folder.display());
    files.sort();
    Ok(files)
}
