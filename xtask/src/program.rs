//! Programs of cargo's that a step needs, each in one version: what another one would say is another one's word.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::step;

/// Installs a program if it is missing, or another version; where it is.
pub(crate) fn provide(name: &str, version: &str) -> Result<PathBuf> {
    if let Some(path) = find(name).filter(|path| is_of(path, version)) {
        return Ok(path);
    }
    let mut command = step::cargo_install();
    command.args([name, "--version", version, "--locked", "--force"]);
    step::capture(&format!("building {name}, some minutes"), &mut command)?;
    find(name).with_context(|| format!("cargo install brought no {name}"))
}

/// On `PATH`, or where cargo installs.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    step::find_program(name).or_else(|| {
        let installed = cargo_home()?.join("bin").join(name);
        installed.is_file().then_some(installed)
    })
}

/// Where cargo keeps what is not a workspace's.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| env::home_dir().map(|home| home.join(".cargo")))
}

fn is_of(path: &PathBuf, version: &str) -> bool {
    let said = step::quiet(Command::new(path).arg("--version"));
    said.is_ok_and(|said| said.stdout.split_whitespace().any(|word| word == version))
}
