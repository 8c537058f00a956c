//! The toolchain of the kernel object: a compiler that can build `core` for the bpf target, the linker that makes
//! one BPF object of it, and the tool that takes the debug sections off.
//!
//! `core` has to come as source, because nobody ships it built for bpf. A nightly with `rust-src` has it, and so have
//! Debian's `rustc-web` and `rust-web-src`; the latter is not a nightly, but `RUSTC_BOOTSTRAP=1` makes it behave so.
//! Nothing here installs anything: `setup` does.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    advice::Advice as _,
    linker::{Linker, Strip},
    step,
};

/// Names the compiler to take: a rustup toolchain, or the path of a sysroot.
pub(crate) const TOOLCHAIN_VARIABLE: &str = "GUARD_EBPF_TOOLCHAIN";
/// The LLVM that the linker is built with. A linker cannot read the bitcode of a compiler with a newer one.
pub(crate) const LLVM_MAJOR: u32 = 22;
/// What the crates of the kernel object need, as the workspace declares it.
pub(crate) const OLDEST_RUSTC: &str = env!("CARGO_PKG_RUST_VERSION");

/// All that is needed to build the kernel object.
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: Linker,
    pub(crate) strip: Strip,
}

/// What is there, and why the rest was passed over.
pub(crate) struct Survey {
    pub(crate) compiler: Option<Compiler>,
    pub(crate) linker: Option<Linker>,
    pub(crate) strip: Option<Strip>,
    pub(crate) passed_over: Vec<String>,
}

impl Survey {
    /// Looks at this machine. Fails only if `GUARD_EBPF_TOOLCHAIN` asks for something that does not do.
    pub(crate) fn take() -> Result<Self> {
        let mut passed_over = Vec::new();
        let compiler = Compiler::find(&mut passed_over)?;
        let strip = Strip::find(compiler.as_ref().map(|compiler| compiler.sysroot.as_path()));
        Ok(Self {
            compiler,
            linker: Linker::find(&mut passed_over),
            strip,
            passed_over,
        })
    }

    pub(crate) fn complete(self) -> Result<Toolchain, Box<Self>> {
        match self {
            Self {
                compiler: Some(compiler),
                linker: Some(linker),
                strip: Some(strip),
                ..
            } => Ok(Toolchain {
                compiler,
                linker,
                strip,
            }),
            incomplete => Err(Box::new(incomplete)),
        }
    }
}

/// A rustc that has the sources of `core`.
#[derive(Debug)]
pub(crate) struct Compiler {
    /// What a person would call it: a rustup toolchain's name, or the sysroot.
    pub(crate) name: String,
    pub(crate) sysroot: PathBuf,
    /// The folder with `core/`, `alloc/` and the `Cargo.lock` of the standard library.
    pub(crate) library: PathBuf,
    pub(crate) version: RustcVersion,
}

impl Compiler {
    fn find(passed_over: &mut Vec<String>) -> Result<Option<Self>> {
        if let Some(wanted) = env::var_os(TOOLCHAIN_VARIABLE).filter(|value| !value.is_empty()) {
            let wanted = wanted.to_string_lossy();
            let found = Self::named(&wanted)
                .with_context(|| format!("{TOOLCHAIN_VARIABLE}={wanted} cannot build the kernel object"))
                .or_next(format!("unset {TOOLCHAIN_VARIABLE}"))?;
            return Ok(Some(found));
        }
        let candidates = nightlies().into_iter().chain(["/usr".to_owned()]);
        for name in candidates {
            match Self::named(&name).and_then(Self::readable_by_linker) {
                Ok(compiler) => return Ok(Some(compiler)),
                Err(why) => passed_over.push(format!("{why:#}")),
            }
        }
        Ok(None)
    }

    fn named(name: &str) -> Result<Self> {
        let sysroot = if name.contains('/') {
            PathBuf::from(name)
        } else {
            rustup_sysroot(name)?
        };
        let rustc = sysroot.join("bin/rustc");
        if !rustc.is_file() {
            bail!("there is no {}", rustc.display());
        }
        let output = step::quiet(Command::new(&rustc).arg("-vV"))?;
        let version = RustcVersion::parse(&output.stdout).with_context(|| format!("`{} -vV`", rustc.display()))?;
        let library = library(&sysroot, &version.release)
            .with_context(|| format!("{name} has no sources of the standard library"))?;
        if numbers(&version.release) < numbers(OLDEST_RUSTC) {
            bail!(
                "{name} is rustc {}, and {OLDEST_RUSTC} is the oldest that will do",
                version.release
            );
        }
        Ok(Self {
            name: name.to_owned(),
            sysroot,
            library,
            version,
        })
    }

    fn readable_by_linker(self) -> Result<Self> {
        if numbers(&self.version.llvm).0 > LLVM_MAJOR {
            bail!(
                "{} has LLVM {}, newer than the linker's {LLVM_MAJOR} ({TOOLCHAIN_VARIABLE}={} takes it all the same)",
                self.name,
                self.version.llvm,
                self.name,
            );
        }
        Ok(self)
    }

    pub(crate) fn rustc(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }

    /// Debian's compiler comes without clippy, and the clippy of another release cannot read its `core`.
    pub(crate) fn clippy(&self) -> Option<PathBuf> {
        Some(self.sysroot.join("bin/cargo-clippy")).filter(|file| file.is_file())
    }

    /// The library's folder, if cargo would not look there by itself.
    pub(crate) fn unusual_library(&self) -> Option<&Path> {
        Some(self.library.as_path()).filter(|library| **library != usual_library(&self.sysroot))
    }
}

/// The parts of `rustc -vV` that decide which object comes out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RustcVersion {
    /// `1.96.0 (ac68faa20 2026-05-25)`, and who built it if it says so.
    pub(crate) full: String,
    pub(crate) release: String,
    pub(crate) llvm: String,
}

impl RustcVersion {
    fn parse(text: &str) -> Result<Self> {
        let after = |prefix: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(prefix));
            line.map(|rest| rest.trim().to_owned())
                .with_context(|| format!("no line begins with `{prefix}`"))
        };
        Ok(Self {
            full: after("rustc ")?,
            release: after("release: ")?,
            llvm: after("LLVM version: ")?,
        })
    }
}

/// Major and minor of a version as compilers, linkers and packages write it: `1.97.0-nightly`, `1:22.1.8-1~deb12u1`.
pub(crate) fn numbers(version: &str) -> (u32, u32) {
    let upstream = version.split_once(':').map_or(version, |(_epoch, rest)| rest);
    let mut parts = upstream
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// The rustup toolchains whose name begins with `nightly`.
pub(crate) fn nightlies() -> Vec<String> {
    let listed = step::quiet(Command::new("rustup").args(["toolchain", "list"])).map(|output| output.stdout);
    let listed = listed.unwrap_or_default();
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| name.starts_with("nightly"))
        .map(str::to_owned)
        .collect()
}

fn rustup_sysroot(toolchain: &str) -> Result<PathBuf> {
    let mut command = Command::new("rustup");
    // A probe must not download a toolchain.
    command
        .env("RUSTUP_AUTO_INSTALL", "0")
        .args(["run", toolchain, "rustc", "--print", "sysroot"]);
    let output = step::quiet(&mut command).with_context(|| format!("rustup has no toolchain {toolchain}"))?;
    Ok(PathBuf::from(output.stdout.trim()))
}

fn usual_library(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library")
}

/// Debian's source package may be there without the link from the compiler's sysroot.
fn library(sysroot: &Path, release: &str) -> Option<PathBuf> {
    let packaged = PathBuf::from(format!("/usr/src/rustc-{release}/library"));
    let has_sources = |library: &PathBuf| fs::metadata(library.join("Cargo.lock")).is_ok();
    [usual_library(sysroot), packaged].into_iter().find(has_sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
        commit-date: 2026-05-25\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    #[test]
    fn a_compiler_is_known_by_release_build_and_llvm() {
        let version = RustcVersion::parse(DEBIAN).unwrap();
        assert_eq!(
            version.full,
            "1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"
        );
        assert_eq!((version.release.as_str(), version.llvm.as_str()), ("1.96.0", "22.1.8"));
        let error = RustcVersion::parse("rustc 1.96.0\n").unwrap_err();
        assert!(error.to_string().contains("release: "), "{error}");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("1.97.0-nightly") > numbers("1.96.0"));
        assert!(numbers("1.100.0") > numbers("1.99"));
        assert_eq!(numbers("1:22.1.8-1~deb12u1"), (22, 1));
        assert_eq!(numbers("0.13.0"), (0, 13));
        assert_eq!(numbers("(none)"), (0, 0));
    }
}
