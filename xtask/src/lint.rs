//! `cargo xtask lint`: what must be clean before a commit.
//!
//! All steps run, also after one has failed: a person wants to hear everything at once. What this machine has no
//! tool for is said and passed over.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    ebpf, elf,
    object::{self, Object},
    step,
    toolchain::{Survey, Toolchain},
    workspace::Workspace,
};

/// Check formatting, lints, docs, and the kernel object.
///
/// Runs rustfmt and clippy over every crate, builds the docs with warnings as errors, and looks at the kernel object:
/// it must be built without a warning, must not be older than its sources, and must not have a symbol of a panic, for
/// the verifier refuses a program that reaches one. Steps whose tool is not here are skipped, with the reason.
#[derive(Args)]
#[command(after_help = "Example:\n  cargo xtask lint   exit 1 if anything is not clean")]
pub(crate) struct LintArgs {}

/// What a step that did not fail has to say.
enum Verdict {
    Clean,
    Skipped(String),
}

pub(crate) fn run(workspace: &Workspace, _args: &LintArgs) -> Result<ExitCode> {
    let toolchain = Survey::take()?.complete().ok();
    let built = toolchain
        .as_ref()
        .map(|toolchain| object::build(workspace, toolchain))
        .transpose();
    let mut failed = Vec::new();
    let mut judge = |name: &'static str, verdict: Result<Verdict>| match verdict {
        Ok(Verdict::Clean) => println!("{name}: clean"),
        Ok(Verdict::Skipped(why)) => println!("{name}: skipped, {why}"),
        Err(error) => {
            println!("{name}: {error:#}");
            failed.push(name);
        }
    };
    judge(
        "rustfmt",
        cargo(workspace, "formatting", &["fmt", "--all", "--check"], ""),
    );
    let clippy = [
        "clippy",
        "--workspace",
        "--exclude",
        "guard-ebpf",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    judge("clippy", cargo(workspace, "linting", &clippy, ""));
    judge("clippy of the kernel object", clippy_bpf(workspace, toolchain.as_ref()));
    let doc = ["doc", "--no-deps", "--workspace", "--exclude", "guard-ebpf"];
    judge("docs", cargo(workspace, "building the docs", &doc, "-D warnings"));
    judge(
        "committed kernel object",
        ebpf::check_sources(workspace).map(|_| Verdict::Clean),
    );
    match built {
        Ok(Some(object)) => {
            judge("kernel object's warnings", no_warnings(&object));
            judge("kernel object's symbols", no_panic(&object));
        }
        Ok(None) => {
            judge("kernel object's warnings", Ok(no_toolchain()));
            judge(
                "kernel object's symbols",
                object::read(workspace.prebuilt()).and_then(|object| no_panic(&object)),
            );
        }
        Err(error) => judge("kernel object", Err(error)),
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("not clean: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

fn cargo(workspace: &Workspace, what: &str, args: &[&str], rustdoc_flags: &str) -> Result<Verdict> {
    let mut command = workspace.cargo();
    command.args(args);
    if !rustdoc_flags.is_empty() {
        command.env("RUSTDOCFLAGS", rustdoc_flags);
    }
    step::stream(what, &mut command)?;
    Ok(Verdict::Clean)
}

/// Clippy has to be of the release whose `core` it reads, so only the compiler's own will do.
fn clippy_bpf(workspace: &Workspace, toolchain: Option<&Toolchain>) -> Result<Verdict> {
    let Some(toolchain) = toolchain else {
        return Ok(no_toolchain());
    };
    let compiler = &toolchain.compiler;
    let Some(clippy) = compiler.clippy() else {
        return Ok(Verdict::Skipped(format!("{} has no clippy", compiler.name)));
    };
    let mut command = Command::new(clippy);
    command.current_dir(&workspace.root).arg("clippy").args(object::ARGS);
    command
        .arg("--target-dir")
        .arg(workspace.target.join("ebpf-clippy"))
        .args(["--", "-D", "warnings"]);
    object::set_environment(&mut command, workspace, compiler)?;
    step::stream("linting the kernel object", &mut command)?;
    Ok(Verdict::Clean)
}

fn no_warnings(object: &Object) -> Result<Verdict> {
    if !object.warnings.is_empty() {
        bail!("the compiler has warnings\n{}", object.warnings.trim_end());
    }
    Ok(Verdict::Clean)
}

fn no_panic(object: &Object) -> Result<Verdict> {
    let symbols = elf::symbols(&object.bytes).with_context(|| format!("cannot read {}", object.path.display()))?;
    let panics: Vec<&str> = symbols
        .iter()
        .map(String::as_str)
        .filter(|name| name.contains("panic"))
        .collect();
    if !panics.is_empty() {
        bail!(
            "it reaches a panic, and such a program does not load: {}",
            panics.join(", ")
        );
    }
    Ok(Verdict::Clean)
}

fn no_toolchain() -> Verdict {
    Verdict::Skipped("this machine cannot build the kernel object; next: cargo xtask setup".to_owned())
}
