//! `cargo xtask lint`: what must be clean before a commit.
//!
//! All steps run, also after one has failed: a person wants to hear everything at once. What this machine has no
//! tool for is said and passed over.

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::{
    deny, ebpf, elf, instructions,
    object::{self, Object},
    step,
    toolchain::{Survey, Toolchain},
    workspace::Workspace,
};

/// Check formatting, lints, docs, dependencies, and the kernel object.
///
/// Runs rustfmt and clippy over every crate, builds the docs with warnings as errors, and has cargo-deny, which is
/// installed if it is missing, check the dependencies by deny.toml. Then it looks at the kernel object: it must be built
/// without a warning, must be what its sources give, and must not have a symbol of a panic, for the verifier refuses a
/// program that reaches one. Steps whose tool is not here are skipped, with the reason.
#[derive(Args)]
#[command(after_help = "Example:\n  cargo xtask lint   exit 1 if anything is not clean")]
pub(crate) struct LintArgs {}

/// What a step that did not fail has to say.
pub(crate) enum Verdict {
    Clean,
    /// Clean, and how much that is worth.
    Worth(String),
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
        Ok(Verdict::Worth(words)) => println!("{name}: clean: {words}"),
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
    judge("dependencies", deny::dependencies(workspace));
    judge("advisories", deny::advisories(workspace));
    judge("every crate has the workspace's lints", inherited(workspace));
    judge("committed kernel object", ebpf::check(workspace).map(Verdict::Worth));
    match built {
        Ok(Some(object)) => {
            judge("kernel object's warnings", no_warnings(&object));
            judge("kernel object's symbols", no_panic(&object));
            judge("kernel object's instructions", no_unwanted_instructions(&object));
        }
        Ok(None) => {
            judge("kernel object's warnings", Ok(no_toolchain()));
            let committed = |check: fn(&Object) -> Result<Verdict>| {
                object::read(workspace.prebuilt()).and_then(|object| check(&object))
            };
            judge("kernel object's symbols", committed(no_panic));
            judge("kernel object's instructions", committed(no_unwanted_instructions));
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

/// Clippy has to be of the release whose `core` it reads, so for the bpf target only the compiler's own will do.
fn clippy_bpf(workspace: &Workspace, toolchain: Option<&Toolchain>) -> Result<Verdict> {
    let own = toolchain.and_then(|toolchain| Some((&toolchain.compiler, toolchain.compiler.clippy()?)));
    let Some((compiler, clippy)) = own else {
        return clippy_here(workspace);
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

/// Without such a clippy, this machine's own reads the crate as if it were for this machine.
fn clippy_here(workspace: &Workspace) -> Result<Verdict> {
    let mut command = workspace.cargo();
    command.args(["clippy", "-p", "guard-ebpf", "--release", "--locked", "--target-dir"]);
    command
        .arg(workspace.target.join("ebpf-clippy"))
        .args(["--", "-D", "warnings"]);
    command.env("RUSTC_BOOTSTRAP", "1");
    command.env(
        "CARGO_ENCODED_RUSTFLAGS",
        "--cfg=bpf_target_arch=\"x86_64\"\x1f-Cpanic=abort",
    );
    step::stream("linting the kernel object", &mut command)?;
    Ok(Verdict::Worth(
        "but for what only the bpf target compiles; its compiler has no clippy here".to_owned(),
    ))
}

/// A crate that forgets the workspace's lints is checked by none of them, its unsafe blocks above all.
fn inherited(workspace: &Workspace) -> Result<Verdict> {
    let mut without = Vec::new();
    for manifest in workspace.manifests()? {
        let text = fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
        let table: toml::Table = text.parse().with_context(|| format!("in {}", manifest.display()))?;
        if !inherits(&table) {
            without.push(workspace.shown(&manifest));
        }
    }
    if !without.is_empty() {
        bail!("`[lints] workspace = true` is missing in {}", without.join(", "));
    }
    Ok(Verdict::Clean)
}

fn inherits(manifest: &toml::Table) -> bool {
    let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
    lints.and_then(toml::Value::as_bool) == Some(true)
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

fn no_unwanted_instructions(object: &Object) -> Result<Verdict> {
    let sections = elf::code(&object.bytes).with_context(|| format!("cannot read {}", object.path.display()))?;
    ensure!(
        sections.iter().any(|code| !code.is_empty()),
        "{} has no instructions",
        object.path.display()
    );
    let unwanted: Vec<String> = sections
        .iter()
        .flat_map(|code| instructions::unwanted(code))
        .map(|(number, why)| format!("instruction {number} is {why}"))
        .collect();
    if !unwanted.is_empty() {
        bail!(
            "not every kernel that it is for runs it rightly: {}",
            unwanted.join(", ")
        );
    }
    Ok(Verdict::Clean)
}

fn no_toolchain() -> Verdict {
    Verdict::Skipped("this machine cannot build the kernel object; next: cargo xtask setup".to_owned())
}

#[cfg(test)]
mod tests {
    use super::inherits;

    #[test]
    fn a_crate_has_the_workspaces_lints_only_if_it_says_so() {
        for (text, expected) in [
            ("[lints]\nworkspace = true\n", true),
            ("[lints]\nworkspace = false\n", false),
            ("[lints.clippy]\nall = \"warn\"\n", false),
            ("[package]\nname = \"x\"\n", false),
        ] {
            assert_eq!(inherits(&text.parse().unwrap()), expected, "{text}");
        }
    }
}
