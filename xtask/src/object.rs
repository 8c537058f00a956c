//! The kernel object: built so that equal sources and equal tools give equal bytes, wherever the checkout lies.
//!
//! The flags are those of aya-build, which cannot pass the path mappings that this takes. The CPU is `v3`, which Linux
//! has known since 5.1: arithmetic and jumps of 32 bits make programs shorter, and spare the verifier. LLVM 22 drops the
//! fetch from relaxed atomics there, which no verifier sees: `lint` takes no atomic at all.

use std::{env, ffi::OsString, fs, path::Path, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    sources, step,
    toolchain::{Compiler, Toolchain},
    workspace::Workspace,
};

/// Little-endian: every host that is supported is.
const TARGET: &str = "bpfel-unknown-none";

/// What follows `cargo build`, or another verb, for the bpf target.
pub(crate) const ARGS: [&str; 8] = [
    "-p",
    "guard-ebpf",
    "--release",
    "--locked",
    "--target",
    TARGET,
    "-Z",
    "build-std=core",
];

/// Variables of the person's environment that would change the object's bytes or the compiler.
const FOREIGN: [&str; 9] = [
    "AYA_",
    "CARGO_BUILD_",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTFLAGS",
];

/// An object on disk.
pub(crate) struct Object {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    pub(crate) sha256: String,
    /// What the compiler complained about on the way, or nothing.
    pub(crate) warnings: String,
}

/// Builds the object into `target/ebpf`.
pub(crate) fn build(workspace: &Workspace, toolchain: &Toolchain) -> Result<Object> {
    build_with(workspace, toolchain, workspace.object(), &[])
}

/// Builds the one that logs what it does, for whoever works on it, beside the other.
pub(crate) fn build_with_log(workspace: &Workspace, toolchain: &Toolchain) -> Result<Object> {
    let path = workspace.object().with_file_name("dnsguard-log.bpf.o");
    build_with(workspace, toolchain, path, &["--features", "log"])
}

fn build_with(workspace: &Workspace, toolchain: &Toolchain, path: PathBuf, features: &[&str]) -> Result<Object> {
    let target_dir = workspace.target.join("ebpf-build");
    let mut command = workspace.cargo();
    command
        .arg("build")
        .args(ARGS)
        .args(features)
        .arg("--target-dir")
        .arg(&target_dir);
    set_environment(&mut command, workspace, &toolchain.compiler)?;
    command.env("PATH", toolchain.linker.search_path()?);
    let output = step::capture("building the kernel object", &mut command)?;
    let linked = target_dir.join(TARGET).join("release/dnsguard");
    let folder = path.parent().context("the object has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut strip = Command::new(&toolchain.strip.path);
    step::quiet(strip.arg("-g").arg("-o").arg(&path).arg(&linked))
        .with_context(|| format!("cannot strip {}", linked.display()))?;
    Ok(Object {
        warnings: warnings(&output.stderr),
        ..read(path)?
    })
}

/// An object that is already there.
pub(crate) fn read(path: PathBuf) -> Result<Object> {
    let bytes = fs::read(&path).with_context(|| format!("cannot read the kernel object {}", path.display()))?;
    Ok(Object {
        sha256: sources::sha256_of(&bytes),
        path,
        bytes,
        warnings: String::new(),
    })
}

/// What cargo repeats of the compiler's warnings, without its progress. It repeats them also when nothing is built.
fn warnings(stderr: &str) -> String {
    let lines = stderr.lines().skip_while(|line| !line.starts_with("warning:"));
    lines
        .filter(|line| !line.starts_with("    Finished"))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Makes a cargo compile with this compiler and these flags, and with nothing that the person's environment adds.
pub(crate) fn set_environment(command: &mut Command, workspace: &Workspace, compiler: &Compiler) -> Result<()> {
    for (key, _) in env::vars_os() {
        if FOREIGN.iter().any(|prefix| key.to_string_lossy().starts_with(prefix)) {
            command.env_remove(&key);
        }
    }
    command.env("RUSTC", compiler.rustc()).env("RUSTC_BOOTSTRAP", "1");
    if let Some(library) = compiler.unusual_library() {
        command.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace, compiler)?);
    Ok(())
}

fn flags(workspace: &Workspace, compiler: &Compiler) -> Result<OsString> {
    // One object serves every host: neither XDP nor TC hands a program the host's registers, which are all that this
    // cfg selects.
    let mut flags = OsString::from(
        "--cfg=bpf_target_arch=\"x86_64\"\x1f-Cdebuginfo=2\x1f-Ctarget-cpu=v3\x1f-Clink-arg=--btf\x1f-Clink-arg=--disable-expand-memcpy-in-order",
    );
    let library = &compiler.library;
    let real_library = library
        .canonicalize()
        .with_context(|| format!("cannot find {}", library.display()))?;
    let registry = workspace.registry(TARGET)?;
    // Debian's library is known by two names: rustc writes one or the other.
    let mappings: [(&Path, &str); 4] = [
        (library, "/rust/library"),
        (&real_library, "/rust/library"),
        (&registry, "/crates"),
        (&workspace.root, "/dnsguard"),
    ];
    for (from, to) in mappings {
        flags.push("\x1f--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::warnings;

    #[test]
    fn a_warning_is_kept_and_progress_is_not() {
        let build = "   Compiling core v0.0.0\nwarning: unused\n --> main.rs\n    Finished `release` profile\n";
        assert_eq!(warnings(build), "warning: unused\n --> main.rs\n");
        assert_eq!(
            warnings("   Compiling core v0.0.0\n    Finished `release` profile\n"),
            ""
        );
    }
}
