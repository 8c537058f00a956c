//! `cargo xtask image`: the container image, which is the agent and nothing else.
//!
//! The agent is linked statically: it looks up no names, so it needs nothing of the C library's that is loaded at run
//! time. Podman or docker puts it into an image if the machine has one; else the lab's Podman does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use clap::Args;
use guard_tests::{Namespace, Podman, programs};

use crate::{
    advice::Advice as _,
    agent::{Build, KernelObject, Profile},
    root::Root,
    step,
    workspace::Workspace,
};

/// What the image is called until somebody pushes it to a registry.
const REPOSITORY: &str = "localhost/dnsguard";

/// Build the container image into target/image.
///
/// It holds one file, a statically linked agent. The archive is what `podman load`, `docker load`, `kind load
/// image-archive` and `ctr -n k8s.io images import` take.
#[derive(Args)]
#[command(after_help = "Example:\n  cargo xtask image && podman load --input target/image/dnsguard-0.1.0.tar")]
pub(crate) struct ImageArgs {}

pub(crate) fn run(workspace: &Workspace, _: &ImageArgs) -> Result<ExitCode> {
    // A client without its daemon is no engine.
    let works = |name: &&str| step::quiet(Command::new(name).arg("info")).is_ok();
    let engine = ["podman", "docker"].into_iter().find(works);
    if engine.is_none() {
        let root = Root::find().filter(|root| *root == Root::Already);
        let next = "apt-get install podman, or run `cargo xtask image` as root, which brings a Podman of its own";
        root.context("neither podman nor docker works here").or_next(next)?;
        programs::provide(&["ip", programs::PODMAN])?;
    }
    let object = KernelObject::at_hand(workspace)?;
    let agent = Build { workspace, object }.static_agent(Profile::Release)?;

    let version = env!("CARGO_PKG_VERSION");
    let (tag, archive) = (
        format!("{REPOSITORY}:{version}"),
        workspace.target.join(format!("image/dnsguard-{version}.tar")),
    );
    if let Err(error) = fs::remove_file(&archive)
        && archive.exists()
    {
        return Err(error).with_context(|| format!("take away the old {}", archive.display()));
    }
    let containerfile = workspace.root.join("deploy/image/Containerfile");
    match engine {
        Some(engine) => by(engine, &tag, &containerfile, &agent, &archive)?,
        None => by_the_lab(&tag, &containerfile, &agent, &archive)?,
    }
    let size = fs::metadata(&archive)?.len() as f64 / 1e6;
    println!("{tag}, {size:.1} MB: {}", workspace.shown(&archive));
    Ok(ExitCode::SUCCESS)
}

/// By what the machine has; the image is in its store as well, then.
fn by(engine: &str, tag: &str, containerfile: &Path, agent: &Path, archive: &Path) -> Result<()> {
    let context = agent.parent().context("the agent lies in a folder")?;
    let mut build = Command::new(engine);
    build
        .args(["build", "--tag", tag, "--build-arg"])
        .arg(concat!("VERSION=", env!("CARGO_PKG_VERSION")));
    build.arg("--file").arg(containerfile).arg(context);
    step::capture("building the image", &mut build)?;
    let mut save = Command::new(engine);
    save.args(["save", "--output"]).arg(archive).arg(tag);
    step::capture("saving the image", &mut save).map(drop)
}

fn by_the_lab(tag: &str, containerfile: &Path, agent: &Path, archive: &Path) -> Result<()> {
    step::note("building the image");
    let podman = Podman::start(&Namespace::new()?)?;
    podman.build(tag, containerfile, agent)?;
    let saved: PathBuf = podman.save(tag)?;
    podman.take(&saved, archive)
}
