//! The tree that every [`super::Debian`] begins with, made once by debootstrap.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::programs;

/// What is in it beside what debootstrap calls a minimal base.
const PACKAGES: &str = "systemd,systemd-sysv";

/// Where it is. The first time it is made.
pub(super) fn tree() -> Result<PathBuf> {
    let suite = programs::suite();
    programs::cached(&format!("debian-{suite}"), |tree| bootstrap(&suite, tree))
}

fn bootstrap(suite: &str, tree: &Path) -> Result<()> {
    programs::provide(&["debootstrap", "wget"])?;
    let program = programs::locate("debootstrap")?;
    let run = |mirror: &str| {
        let mut command: Command = program.command();
        if let Some(root) = program.root() {
            // It is from the private tree, and so is what it reads; so may be wget.
            command.env("DEBOOTSTRAP_DIR", root.join("usr/share/debootstrap"));
        }
        command.env("PATH", programs::search_path()?);
        if let Some(proxy) = programs::proxy() {
            command.env("http_proxy", proxy);
        }
        // What is downloaded was checked; a test tree need not survive a loss of power.
        command
            .args(["--variant=minbase", "--include", PACKAGES, suite])
            .arg(tree)
            .arg(mirror);
        programs::finish(&mut command, "debootstrap")
    };
    eprintln!("programs: debootstrap makes a Debian {suite}, some 30 s ...");
    programs::of_mirrors(run).context("make a Debian with debootstrap")?;
    // The archives are unpacked by now.
    for entry in fs::read_dir(tree.join("var/cache/apt/archives"))? {
        let path = entry?.path();
        if path.is_file() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
