//! cargo-deny: what the workspace is made of, by the rules of `deny.toml`.
//!
//! Licences, sources and duplicates are asked of what is on this disk. What is known against a crate is asked of a
//! database elsewhere, which may be out of reach; then an older copy of it has to do, and without one the step is passed
//! over.

use std::{fs, process::Command};

use anyhow::Result;

use crate::{
    lint::Verdict,
    program::{cargo_home, provide},
    step,
    workspace::Workspace,
};

/// The cargo-deny that is installed.
const VERSION: &str = "0.20.2";

/// Licences, sources and duplicates.
pub(crate) fn dependencies(workspace: &Workspace) -> Result<Verdict> {
    let mut command = deny(workspace, &[])?;
    step::quiet(command.args(["check", "-D", "warnings", "bans", "licenses", "sources"]))?;
    Ok(Verdict::Clean)
}

/// What is known against a crate that is used, or against its version.
pub(crate) fn advisories(workspace: &Workspace) -> Result<Verdict> {
    let fetched = step::quiet(deny(workspace, &[])?.args(["fetch", "db"]));
    if fetched.is_ok() {
        check(&mut deny(workspace, &[])?)?;
        return Ok(Verdict::Clean);
    }
    if !has_copy() {
        let why = "the database of advisories is out of reach, and no older copy of it is here";
        return Ok(Verdict::Skipped(why.to_owned()));
    }
    check(&mut deny(workspace, &["--offline"])?)?;
    let by = "by the copy of the database that is here; the database is out of reach";
    Ok(Verdict::Worth(by.to_owned()))
}

fn check(command: &mut Command) -> Result<()> {
    step::quiet(command.args(["check", "-D", "warnings", "advisories"])).map(drop)
}

/// Whether a database was fetched at some time.
fn has_copy() -> bool {
    let folder = cargo_home().and_then(|home| fs::read_dir(home.join("advisory-dbs")).ok());
    folder.is_some_and(|folder| folder.flatten().any(|entry| entry.path().is_dir()))
}

fn deny(workspace: &Workspace, options: &[&str]) -> Result<Command> {
    let mut command = Command::new(provide("cargo-deny", VERSION)?);
    command.current_dir(&workspace.root).args(options);
    Ok(command)
}
