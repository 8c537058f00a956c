//! `cargo xtask setup`: brings what the kernel object's toolchain lacks.
//!
//! In this order: the distribution's packages, then rustup's `rust-src` where those are not to be had, then
//! bpf-linker from source. All else in the workspace builds with stable Rust alone.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;

use crate::{
    advice::Advice as _,
    debian,
    linker::{self, LINKER_VERSION},
    step,
    toolchain::{self, LLVM_MAJOR, OLDEST_RUSTC, Survey, Toolchain},
};

/// Install what is missing to build the kernel object.
///
/// Looks for three things: a rustc with the sources of the standard library, bpf-linker, and llvm-strip. The compiler
/// is the one that GUARD_EBPF_TOOLCHAIN names (a rustup toolchain or the path of a sysroot), else a rustup nightly
/// with rust-src, else the packages rustc-web and rust-web-src. What is missing is installed with apt-get and `cargo
/// install`; the first time this takes some minutes. Nothing is installed if nothing is missing.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  cargo xtask setup --check   what is missing, and the command that brings it\n  \
    cargo xtask setup           install it (asks sudo for root)"
)]
pub(crate) struct SetupArgs {
    /// Only name each missing thing and the command that brings it; exit 1 if anything is missing.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &SetupArgs) -> Result<ExitCode> {
    let toolchain = if args.check {
        match Survey::take()?.complete() {
            Ok(toolchain) => toolchain,
            Err(survey) => {
                missing(&survey).iter().for_each(|line| println!("{line}"));
                return Ok(ExitCode::FAILURE);
            }
        }
    } else {
        provide()?
    };
    println!("{}", describe(&toolchain));
    Ok(ExitCode::SUCCESS)
}

/// The toolchain, after installing what it lacked.
pub(crate) fn provide() -> Result<Toolchain> {
    let survey = match Survey::take()?.complete() {
        Ok(toolchain) => return Ok(toolchain),
        Err(survey) => survey,
    };
    survey
        .passed_over
        .iter()
        .for_each(|why| step::note(&format!("passed over: {why}")));
    install(&survey).context("the kernel object's toolchain is not complete")?;
    Survey::take()?.complete().map_err(|survey| {
        anyhow!(
            "the kernel object's toolchain is still not complete:\n{}",
            missing(&survey).join("\n")
        )
    })
}

/// One line that names the three parts.
pub(crate) fn describe(toolchain: &Toolchain) -> String {
    format!(
        "the kernel object is built with rustc {} ({}), bpf-linker {}, {}",
        toolchain.compiler.version.release,
        toolchain.compiler.name,
        toolchain.linker.version,
        toolchain.strip.path.display(),
    )
}

/// One line for each missing part: what it is, and what brings it.
fn missing(survey: &Survey) -> Vec<String> {
    let mut lines = Vec::new();
    let llvm = debian::install_line(&debian::llvm());
    if survey.compiler.is_none() {
        let packages = debian::install_line(&debian::COMPILER);
        lines.push(format!(
            "rustc {OLDEST_RUSTC} or newer with the standard library's sources: {packages}"
        ));
    }
    if survey.strip.is_none() {
        lines.push(format!("llvm-strip: {llvm}"));
    }
    if survey.linker.is_none() {
        let (_, install) = linker::install_command();
        let before = if linker::llvm_is_here() {
            String::new()
        } else {
            format!("{llvm} && ")
        };
        lines.push(format!("bpf-linker {LINKER_VERSION}: {before}{install}"));
    }
    lines
}

fn install(survey: &Survey) -> Result<()> {
    if survey.compiler.is_none()
        && let Err(no_packages) = debian::install(&debian::COMPILER.map(str::to_owned))
    {
        add_rust_src().with_context(|| format!("no compiler from packages ({no_packages:#})"))?;
    }
    if survey.strip.is_none() || survey.linker.is_none() {
        let packages = debian::install(&debian::llvm()).with_context(|| format!("no LLVM {LLVM_MAJOR} from packages"));
        match packages {
            Err(why) if linker::llvm_is_here() => step::note(&format!("going on with the LLVM that is here ({why:#})")),
            other => other.or_next(format!("cargo install bpf-linker --version {LINKER_VERSION} --locked"))?,
        }
    }
    if survey.linker.is_none() {
        let (mut command, _) = linker::install_command();
        step::stream("building bpf-linker, some minutes", &mut command)?;
    }
    Ok(())
}

/// Last resort: the sources for a nightly that is here without them.
fn add_rust_src() -> Result<()> {
    let nightlies = toolchain::nightlies();
    let Some(nightly) = nightlies.first() else {
        bail!("rustup has no nightly either; next: rustup toolchain install nightly --component rust-src");
    };
    let mut command = Command::new("rustup");
    command.args(["component", "add", "rust-src", "--toolchain", nightly]);
    step::capture("adding rust-src", &mut command)?;
    Ok(())
}
