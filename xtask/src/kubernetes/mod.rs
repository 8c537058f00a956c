//! `cargo xtask manifests`: the Helm chart, and the plain manifests that are rendered from it.
//!
//! `deploy/helm/dnsguard` is written by hand, but for the table of values in its README. `deploy/kubernetes` is what it
//! renders, with a `kustomization.yaml` beside it. Both are committed: nobody needs Helm, or this, to use them.

mod check;
mod helm;
mod plain;
mod values;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

pub(crate) use self::check::check;
use self::helm::{Case, Rendered, Request, Response, Told};
use crate::{
    agent::{Build, KernelObject},
    workspace::Workspace,
};

/// Where the plain manifests are installed, and what they are called.
const RELEASE: &str = "dnsguard";

/// The oldest Kubernetes that the chart takes, the last without a field for AppArmor, and the newest with schemas.
const VERSIONS: [&str; 3] = ["1.25.0", "1.29.0", "1.37.0"];

/// The folders of plain manifests below `deploy/kubernetes`: the values of each, and the files that go there.
const FOLDERS: [(&str, &str, &[&str]); 2] = [
    ("", "", &["configmap.yaml", "daemonset.yaml", "serviceaccount.yaml"]),
    (
        "monitoring",
        "podMonitor: {enabled: true}\nprometheusRule: {enabled: true}\ndashboards: {enabled: true}\n",
        &["dashboards.yaml", "podmonitor.yaml", "prometheusrule.yaml"],
    ),
];

/// Render the plain Kubernetes manifests from the Helm chart, or check everything there is of both.
///
/// Renders with Helm's own library, which comes from PyPI into the lab's cache.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask manifests --save    render deploy/kubernetes and the chart's table of values\n  \
    cargo xtask manifests --check   is what is committed what the chart renders, and does Kubernetes take it?")]
pub(crate) struct ManifestsArgs {
    #[command(flatten)]
    what: What,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Write what is rendered.
    #[arg(long)]
    save: bool,
    /// Change nothing: check the committed files, every preset of ci/ against lint, the API's schemas and the agent,
    /// and that what is wrong is refused.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &ManifestsArgs) -> Result<ExitCode> {
    if args.what.save {
        save(workspace)?;
    } else {
        let object = KernelObject::at_hand(workspace)?;
        let build = Build { workspace, object };
        build.agent()?;
        println!("{}", check(workspace)?);
    }
    Ok(ExitCode::SUCCESS)
}

fn chart(workspace: &Workspace) -> PathBuf {
    workspace.root.join("deploy/helm/dnsguard")
}

fn save(workspace: &Workspace) -> Result<()> {
    let cases = FOLDERS.map(|(_, values, _)| Case::newest(values)).into();
    for ((folder, _, files), told) in FOLDERS.iter().zip(ask(workspace, cases)?.cases) {
        let folder = workspace.root.join("deploy/kubernetes").join(folder);
        plain::save(&folder, &of_folder(&told.rendered("the chart's own values")?, files)?)?;
    }
    let (readme, table) = readme(workspace)?;
    fs::write(readme, table)?;
    Ok(())
}

fn ask(workspace: &Workspace, cases: Vec<Case>) -> Result<Response> {
    let chart = chart(workspace);
    helm::ask(&Request {
        chart,
        release: RELEASE.to_owned(),
        cases,
    })
}

impl Case {
    fn newest(values: &str) -> Self {
        Self {
            values: values.to_owned(),
            versions: VERSIONS[VERSIONS.len() - 1..].to_vec(),
        }
    }

    fn all(values: &str) -> Self {
        Self {
            values: values.to_owned(),
            versions: VERSIONS.to_vec(),
        }
    }
}

impl Told {
    fn rendered(self, name: &str) -> Result<Rendered> {
        match self {
            Self::Rendered(rendered) => Ok(rendered),
            Self::Refused { refused } => bail!("{name}: {refused}"),
        }
    }
}

/// Just these of the files that were rendered.
fn of_folder(rendered: &Rendered, names: &[&str]) -> Result<BTreeMap<String, String>> {
    let mut files = plain::files(&rendered.files);
    files.retain(|name, _| names.contains(&name.as_str()));
    ensure!(
        files.len() == names.len(),
        "the chart does not render all of {}",
        names.join(", ")
    );
    Ok(files)
}

/// The chart's README, and what it should say.
fn readme(workspace: &Workspace) -> Result<(PathBuf, String)> {
    let chart = chart(workspace);
    let path = chart.join("README.md");
    let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let table = values::put(&read(&path)?, &read(&chart.join("values.yaml"))?)?;
    Ok((path, table))
}
