//! bpf-linker and llvm-strip: what turns the compiler's bitcode into the object that is shipped.
//!
//! The linker reads bitcode with an LLVM of its own, which must not be older than the compiler's; that is why its version
//! and its LLVM are pinned here and not taken as they come.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    program, step,
    toolchain::{LLVM_MAJOR, numbers},
};

/// The bpf-linker that is installed, and the oldest that will do.
pub(crate) const LINKER_VERSION: &str = "0.13.0";

/// A bpf-linker.
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

impl Linker {
    pub(crate) fn find(passed_over: &mut Vec<String>) -> Option<Self> {
        let path = program::find("bpf-linker")?;
        match Self::at(path) {
            Ok(linker) => Some(linker),
            Err(why) => {
                passed_over.push(format!("{why:#}"));
                None
            }
        }
    }

    fn at(path: PathBuf) -> Result<Self> {
        let output = step::quiet(Command::new(&path).arg("--version"))
            .with_context(|| format!("{} does not run", path.display()))?;
        let version = output
            .stdout
            .split_whitespace()
            .nth(1)
            .unwrap_or("of unknown version")
            .to_owned();
        if numbers(&version) < numbers(LINKER_VERSION) {
            bail!(
                "{} is bpf-linker {version}, and {LINKER_VERSION} is the oldest that will do",
                path.display()
            );
        }
        Ok(Self { path, version })
    }

    /// rustc looks for its linker on PATH.
    pub(crate) fn search_path(&self) -> Result<std::ffi::OsString> {
        let own = self.path.parent().map(Path::to_owned);
        let path = env::var_os("PATH").unwrap_or_default();
        env::join_paths(own.into_iter().chain(env::split_paths(&path)))
            .with_context(|| format!("{} cannot stand on PATH", self.path.display()))
    }
}

/// The command that installs the linker, and the same as a person types it. By default it would ask for a newer
/// LLVM than the distributions have.
pub(crate) fn install_command() -> (Command, String) {
    let prefix = llvm_prefix();
    let features = format!("llvm-{LLVM_MAJOR}");
    let mut command = step::cargo_install();
    let args = [
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--locked",
        "--no-default-features",
        "--features",
    ];
    command.env("LLVM_PREFIX", &prefix).args(args).arg(&features);
    (
        command,
        format!(
            "LLVM_PREFIX={} cargo install {} {features}",
            prefix.display(),
            args.join(" ")
        ),
    )
}

/// Where the distributions put an LLVM of their own major version.
pub(crate) fn llvm_prefix() -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{LLVM_MAJOR}"))
}

/// The libraries that the linker is built from.
pub(crate) fn llvm_is_here() -> bool {
    llvm_prefix().join("include/llvm").is_dir()
}

/// An llvm-strip: `-g` takes DWARF off and leaves `.BTF` and `.BTF.ext`.
pub(crate) struct Strip {
    pub(crate) path: PathBuf,
}

impl Strip {
    /// The one of the linker's LLVM first, so that two machines write the same bytes.
    pub(crate) fn find(sysroot: Option<&Path>) -> Option<Self> {
        let of_prefix = llvm_prefix().join("bin/llvm-strip");
        let component = format!("lib/rustlib/{}-unknown-linux-gnu/bin/llvm-strip", env::consts::ARCH);
        [Some(of_prefix), step::find_program(&format!("llvm-strip-{LLVM_MAJOR}"))]
            .into_iter()
            .chain([
                sysroot.map(|sysroot| sysroot.join(component)),
                step::find_program("llvm-strip"),
            ])
            .flatten()
            .find(|file| file.is_file())
            .map(|path| Self { path })
    }
}
