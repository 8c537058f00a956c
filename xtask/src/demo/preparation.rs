//! The first half of the demo: brings and builds what it needs, then becomes the second half.
//!
//! It runs as the person does, so that what is fetched and built stays theirs. The second half is told by its environment
//! where the agent is.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{
    agent::{Build, KernelObject},
    root::Root,
    second_half,
    workspace::Workspace,
};

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
    second_half::start(root, &[("DNSGUARD_BIN", workspace.agent().as_os_str())])
}
