//! `cargo xtask ebpf`: the kernel object, built, saved, and checked against its sources.
//!
//! The committed object lets stable Rust alone build the agent. It is worth that only while it is what the sources say,
//! so the check has two parts: the hash of the sources, which works everywhere, and the object's bytes, which works with
//! the tools that made it.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    advice::Advice as _,
    manifest::Manifest,
    object::{self, Object},
    setup, sources,
    toolchain::{Survey, Toolchain},
    workspace::Workspace,
};

/// Build the kernel object, reproducibly, into target/ebpf/dnsguard.bpf.o.
///
/// Equal sources, rustc and bpf-linker give equal bytes, wherever the checkout lies. One build of it is committed as
/// guard-ebpf/prebuilt/dnsguard.bpf.o, so that stable Rust alone builds the agent; MANIFEST.json beside it says what
/// it was built from. Whoever changes guard-common or guard-ebpf saves it anew.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  cargo xtask ebpf           build it; installs what is missing (see setup --help)\n  \
    cargo xtask ebpf --save    build it and commit to it\n  \
    cargo xtask ebpf --check   is the committed object the one of today's sources?\n  \
    cargo xtask ebpf --log     one that logs; then: cargo build --features kernel-log, and\n                             \
    RUST_LOG=debug dnsguard run --object target/ebpf/dnsguard-log.bpf.o"
)]
pub(crate) struct EbpfArgs {
    /// Check that the committed object was built from today's sources, and, with the same tools, to the same bytes.
    #[arg(long, conflicts_with = "save")]
    check: bool,
    /// Also write the object and its manifest to guard-ebpf/prebuilt.
    #[arg(long)]
    save: bool,
    /// Build one that logs each ruling, into target/ebpf/dnsguard-log.bpf.o; for work on the kernel side only.
    #[arg(long, conflicts_with_all = ["check", "save"])]
    log: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &EbpfArgs) -> Result<ExitCode> {
    if args.check {
        println!("{}", check(workspace)?);
        return Ok(ExitCode::SUCCESS);
    }
    let toolchain = setup::provide()?;
    if args.log {
        println!(
            "{}",
            describe(workspace, &object::build_with_log(workspace, &toolchain)?)
        );
        return Ok(ExitCode::SUCCESS);
    }
    // Hashed before the build: an edit made meanwhile shows as what it is, a source newer than the object.
    let sources = sources::sha256(&workspace.root)?;
    let built = object::build(workspace, &toolchain)?;
    eprint!("{}", built.warnings);
    println!("{}", describe(workspace, &built));
    if args.save {
        println!(
            "{}",
            describe(workspace, &save(workspace, &toolchain, sources, &built)?)
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks the committed object and says in one line what that check was worth.
pub(crate) fn check(workspace: &Workspace) -> Result<String> {
    let manifest = check_sources(workspace)?;
    let Ok(toolchain) = Survey::take()?.complete() else {
        return Ok(not_compared("this machine cannot build it; next: cargo xtask setup"));
    };
    if let Some(why) = manifest.other_tools(&toolchain) {
        return Ok(not_compared(&why));
    }
    let built = object::build(workspace, &toolchain)?;
    if built.sha256 != manifest.object_sha256 {
        bail!(
            "the committed kernel object is not what its sources and recorded tools give:\n  committed {}\n  built     \
             {} ({})\nnext: cargo xtask ebpf --save",
            manifest.object_sha256,
            built.sha256,
            workspace.shown(&built.path),
        );
    }
    Ok("the committed kernel object is what today's sources give, byte by byte".to_owned())
}

/// The part of the check that needs no toolchain: the object is whole, and not older than its sources.
pub(crate) fn check_sources(workspace: &Workspace) -> Result<Manifest> {
    let manifest = Manifest::read(&workspace.manifest())?;
    let committed = object::read(workspace.prebuilt()).or_next("cargo xtask ebpf --save")?;
    if committed.sha256 != manifest.object_sha256 {
        bail!(
            "{} is not the object of its manifest (sha256 {}, recorded {}); next: cargo xtask ebpf --save",
            workspace.shown(&committed.path),
            committed.sha256,
            manifest.object_sha256,
        );
    }
    if sources::sha256(&workspace.root)? != manifest.sources_sha256 {
        bail!("the committed kernel object is older than its sources: run cargo xtask ebpf --save");
    }
    Ok(manifest)
}

fn save(workspace: &Workspace, toolchain: &Toolchain, sources: String, built: &Object) -> Result<Object> {
    let path = workspace.prebuilt();
    let folder = path.parent().context("the committed object has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(&path, &built.bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Manifest::new(built.sha256.clone(), sources, toolchain).write(&workspace.manifest())?;
    object::read(path)
}

fn describe(workspace: &Workspace, object: &Object) -> String {
    format!(
        "{}  {} bytes  sha256 {}",
        workspace.shown(&object.path),
        object.bytes.len(),
        object.sha256
    )
}

fn not_compared(why: &str) -> String {
    format!("the committed kernel object is as new as its sources; its bytes were not compared: {why}")
}
