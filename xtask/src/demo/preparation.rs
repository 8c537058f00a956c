//! The first half of the demo: brings and builds what it needs, then becomes the second half.
//!
//! It runs as the person does, so that what is fetched and built stays theirs. The second half is this program again,
//! under sudo if need be, told by its environment where the agent is.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    agent::{Build, KernelObject},
    root::Root,
    step,
    workspace::Workspace,
};

/// What sudo does not pass on, and the second half goes by.
const PASSED_ON: [&str; 6] = [
    "CARGO",
    "CARGO_MANIFEST_DIR",
    "DNSGUARD_CACHE",
    "NO_COLOR",
    "PATH",
    "TERM",
];

/// Brings what `provide` fetches; returns only if something is in the way.
pub(crate) fn run(workspace: &Workspace, provide: impl FnOnce() -> Result<()>) -> Result<ExitCode> {
    // Asked first: nobody wants to wait for a build and then hear this.
    let root = Root::find().context(
        "the demo needs root, for network namespaces and to load the guard, and there is no sudo to ask; next: run \
         `cargo xtask demo` as root",
    )?;
    provide().context("the demo needs real programs")?;
    let object = KernelObject::at_hand(workspace)?;
    // A debug build costs the figures nothing: packets are judged in the kernel, by an object that is always optimised.
    Build { workspace, object }.agent()?;
    if root == Root::BySudo {
        step::note("going on as root, by sudo: network namespaces and the guard need it");
    }
    let failed = second_half(workspace, root)?.exec();
    Err(failed).context("cannot start the second half of the demo")
}

/// This program again, with the same arguments.
fn second_half(workspace: &Workspace, root: Root) -> Result<Command> {
    let mut command = root.command("env");
    for name in PASSED_ON {
        if let Some(value) = env::var_os(name) {
            command.arg(assignment(name, &value));
        }
    }
    command.arg(assignment("DNSGUARD_BIN", workspace.agent().as_os_str()));
    command.arg(env::current_exe().context("cannot find this program's own file")?);
    command.args(env::args_os().skip(1)).arg("--prepared");
    Ok(command)
}

fn assignment(name: &str, value: &OsStr) -> OsString {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(value);
    text
}
