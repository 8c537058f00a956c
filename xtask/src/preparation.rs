//! The first half of what runs in a lab, `demo` and `bench`: brings and builds what it needs, then becomes the second
//! half.
//!
//! It runs as the person does, so that what is fetched and built stays theirs. The second half is told by its
//! environment where the agent is.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{
    agent::{Build, KernelObject, Profile},
    root::Root,
    second_half,
    workspace::Workspace,
};

/// Brings what `provide` fetches for `cargo xtask WHAT`, and builds the agent like this, if at all; returns only if
/// something is in the way.
pub(crate) fn run(
    workspace: &Workspace,
    what: &str,
    agent: Option<Profile>,
    provide: impl FnOnce() -> Result<()>,
) -> Result<ExitCode> {
    // Asked first: nobody wants to wait for a build and then hear this.
    let root = Root::find().with_context(|| {
        format!(
            "the {what} needs root, for network namespaces and to load the guard, and there is no sudo to ask; next: \
             run `cargo xtask {what}` as root"
        )
    })?;
    provide().with_context(|| format!("the {what} needs real programs"))?;
    let object = KernelObject::at_hand(workspace)?;
    let build = Build { workspace, object };
    let agent = match agent {
        Some(Profile::Dev) => {
            build.agent()?;
            Some(workspace.agent())
        }
        Some(Profile::Release) => Some(build.release_agent()?),
        None => None,
    };
    let object = object.path(workspace);
    let mut variables = vec![("DNSGUARD_OBJECT", object.as_os_str())];
    variables.extend(agent.iter().map(|agent| ("DNSGUARD_BIN", agent.as_os_str())));
    second_half::start(root, &variables)
}
