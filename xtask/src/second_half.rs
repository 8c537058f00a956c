//! A command in two halves: the first one fetches and builds, and belongs to the person; then it becomes the second one,
//! this program again, as root.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use crate::{root::Root, step};

/// What sudo does not pass on, and the second half goes by.
const PASSED_ON: [&str; 6] = [
    "CARGO",
    "CARGO_MANIFEST_DIR",
    "DNSGUARD_CACHE",
    "NO_COLOR",
    "PATH",
    "TERM",
];

/// Becomes this program with the same arguments and `--prepared`, as root, with these variables in its environment. Returns
/// only if that fails.
pub(crate) fn start(root: Root, variables: &[(&str, &OsStr)]) -> Result<ExitCode> {
    if root == Root::BySudo {
        step::note("going on as root, by sudo: network namespaces and the kernel object need it");
    }
    let mut command = root.command("env");
    for name in PASSED_ON {
        if let Some(value) = env::var_os(name) {
            command.arg(assignment(name, &value));
        }
    }
    for (name, value) in variables {
        command.arg(assignment(name, value));
    }
    command.arg(env::current_exe().context("cannot find this program's own file")?);
    command.args(env::args_os().skip(1)).arg("--prepared");
    Err(command.exec()).context("cannot go on as root")
}

fn assignment(name: &str, value: &OsStr) -> OsString {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(value);
    text
}
