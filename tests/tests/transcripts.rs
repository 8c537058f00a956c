//! What every command prints, as a person sees it and as a program reads it: transcripts in `tests/transcripts`.
//!
//! `[..]` in them stands for what differs from run to run. After a change of what is printed,
//! `TRYCMD=overwrite cargo xtask test transcripts` writes them anew: read the difference, and put the `[..]` back.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use guard_tests::{
    Namespace,
    guard::{Guard, GuardOptions, binary},
    programs,
    topology::Topology,
};
use trycmd::TestCases;

/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);

/// The transcripts in a folder, with a way to the agent whose socket is given.
fn transcripts(folder: &str, socket: &Path) -> Result<()> {
    let cases = TestCases::new();
    cases
        .register_bin("dnsguard", binary()?)
        .env("DNSGUARD_SOCKET", socket.display().to_string())
        // Neither colours nor the width of a terminal, whoever runs this.
        .env("NO_COLOR", "1")
        .timeout(Duration::from_secs(30))
        .case(format!("transcripts/{folder}/*.trycmd"))
        .run();
    Ok(())
}

/// An agent whose socket lies where those outside of its namespace find it as well.
fn start(namespace: &Namespace, folder: &Path, toml: &str) -> Result<Guard> {
    let socket = folder.join("control.sock");
    let toml = format!("{toml}[control]\nsocket = \"{}\"\n", socket.display());
    let options = GuardOptions {
        extra_toml: toml,
        ..GuardOptions::enforce(&["lo"])
    };
    let guard = Guard::start(namespace, &options)?;
    guard.wait_ready(START)?;
    Ok(guard)
}

const BUDGETS: &str = "\
[[budget]]
name = \"per client\"
scope = \"client\"
limit = 200
[[budget]]
name = \"reverse\"
scope = \"all\"
types = [\"PTR\"]
limit = \"30/min\"
";

#[test]
#[ignore = "needs the agent's binary: cargo xtask test"]
fn every_help_and_every_answer_without_an_agent() -> Result<()> {
    transcripts("help", Path::new("/nonexistent/control.sock"))
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_quiet_agent() -> Result<()> {
    let (namespace, folder) = (Namespace::new()?, tempfile::tempdir()?);
    let _guard = start(&namespace, folder.path(), BUDGETS)?;
    let socket = folder.path().join("control.sock");
    transcripts("quiet", &socket)?;
    transcripts("changes", &socket)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn an_agent_that_holds_a_loop() -> Result<()> {
    programs::provide(Topology::DEMO.programs())?;
    let folder = tempfile::tempdir()?;
    let looped = Topology::DEMO.start()?;
    let guard = start(looped.namespace(), folder.path(), "[breaker]\nhold_ms = 300000\n")?;
    looped.ignite()?;
    guard.wait_event("trip", START).context("no loop")?;
    // The agent looks once a second at what is held.
    std::thread::sleep(Duration::from_secs(2));
    transcripts("looped", &folder.path().join("control.sock"))
}
