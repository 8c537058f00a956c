//! The real programs the lab runs, wherever they come from.
//!
//! **Invariant: the system's packages stay as they are.** A program on `PATH` is used as it is; one that is
//! missing is unpacked into a private tree ([`provide`]) and run from there.

mod fetch;
mod sources;

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

pub use fetch::provide;
pub(crate) use fetch::{cached, finish, of_mirrors, proxy, suite, unpack_over, unpack_parts};

/// The programs the lab knows, and the Debian and Ubuntu package of each; [`DNSMASQ_0X20`] is none.
const PACKAGES: &[(&str, &str)] = &[
    ("chromedriver", "chromium-driver"),
    ("chromium", "chromium"),
    ("consul", "consul"),
    ("containerd", "containerd"),
    ("crun", "crun"),
    ("ctr", "containerd"),
    ("debootstrap", "debootstrap"),
    ("delv", "bind9-dnsutils"),
    ("dig", "bind9-dnsutils"),
    ("dnsdist", "dnsdist"),
    ("dnsmasq", "dnsmasq-base"),
    ("dnssec-keygen", "bind9-utils"),
    ("dnssec-signzone", "bind9-utils"),
    ("ethtool", "ethtool"),
    ("host-local", "containernetworking-plugins"),
    ("ip", "iproute2"),
    ("iptables-nft", "iptables"),
    ("kresd", "knot-resolver"),
    ("musl-gcc", "musl-tools"),
    ("named", "bind9"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("nsupdate", "bind9-dnsutils"),
    ("pdns_recursor", "pdns-recursor"),
    ("prlimit", "util-linux"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("setpriv", "util-linux"),
    ("strace", "strace"),
    ("systemd-resolved", "systemd-resolved"),
    ("tc", "iproute2"),
    ("tcpdump", "tcpdump"),
    ("tmux", "tmux"),
    ("unbound", "unbound"),
    ("unshare", "util-linux"),
    ("wget", "wget"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// A dnsmasq that knows `--do-0x20-encode`, which came with 2.91: built from Debian's source, where the system's own one
/// is older.
pub const DNSMASQ_0X20: &str = "dnsmasq-0x20";

/// A Podman 5, with kustomize beside it: in a tree of its own, because it comes from a newer Debian than many systems are,
/// with the C library of that; see [`crate::Podman`].
pub const PODMAN: &str = "podman-5";

/// Where a system has programs that are not on everybody's `PATH`.
const SYSTEM: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/sbin",
    "/sbin",
    "/usr/lib/systemd",
    "/lib/systemd",
    "/usr/lib/cni",
];

/// Where the private tree has programs.
const PRIVATE: [&str; 7] = [
    "usr/bin",
    "usr/sbin",
    "bin",
    "sbin",
    "usr/lib/systemd",
    "lib/systemd",
    "usr/lib/cni",
];

/// The names of all programs that [`provide`] knows how to bring.
pub fn known() -> impl Iterator<Item = &'static str> {
    let packaged = PACKAGES.iter().map(|(name, _)| *name);
    packaged.chain([DNSMASQ_0X20, PODMAN])
}

/// A program that is there.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// Set for a program of the private tree, whose libraries lie there too.
    libraries: Option<OsString>,
}

impl Program {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The root of the private tree, if it is from there: what it expects in `/usr` lies below.
    pub(crate) fn root(&self) -> Option<PathBuf> {
        self.libraries.is_some().then(tree)
    }

    /// A command that runs it.
    pub fn command(&self) -> Command {
        self.with_libraries(Command::new(&self.path))
    }

    /// Lets a command find the libraries that this program was built with.
    pub(crate) fn with_libraries(&self, mut command: Command) -> Command {
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
            // What iptables loads lies beside its libraries.
            let extensions = env::split_paths(libraries).map(|folder| folder.join("xtables"));
            if let Some(folder) = extensions.into_iter().find(|folder| folder.is_dir()) {
                command.env("XTABLES_LIBDIR", folder);
            }
        }
        command
    }
}

/// Finds a program on `PATH`, in `/usr/sbin` or where systemd keeps its own, else in the private tree.
///
/// The error says which command brings it.
pub fn locate(name: &str) -> Result<Program> {
    if name == PODMAN {
        let path = podman_root()?.join("usr/bin/podman");
        return Ok(Program { path, libraries: None });
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let system = env::split_paths(&path)
        .chain(SYSTEM.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file());
    if let Some(path) = system {
        return Ok(Program { path, libraries: None });
    }
    let tree = tree();
    let private = PRIVATE
        .map(|directory| tree.join(directory).join(name))
        .into_iter()
        .find(|path| path.is_file());
    match private {
        Some(path) => Ok(Program {
            path,
            libraries: Some(libraries(&tree)),
        }),
        None => {
            let demo = match name {
                "consul" => ", or cargo xtask demo consul",
                "dnsmasq" | "ip" => ", or cargo xtask demo",
                "nft" | "unbound" => ", or cargo xtask demo storm",
                _ => "",
            };
            bail!("needs {name}: run cargo xtask test{demo}")
        }
    }
}

/// `PATH` with the private tree at its end, for programs that run others.
pub(crate) fn search_path() -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let tree = tree();
    let folders = env::split_paths(&path)
        .chain(SYSTEM.map(PathBuf::from))
        .chain(PRIVATE.map(|folder| tree.join(folder)));
    env::join_paths(folders).context("the cache has a name that cannot stand on PATH")
}

/// The version a program reports, such as `2.90`.
pub fn version(name: &str) -> Result<String> {
    let argument = match name {
        "consul" => "version",
        "dig" => "-v",
        "ip" | "kresd" | "unbound" | "named" => "-V",
        _ => "--version",
    };
    let said = locate(name)?
        .command()
        .arg(argument)
        .output()
        .with_context(|| format!("{name} {argument}"))?;
    // dig speaks to standard error.
    let text = [said.stdout, said.stderr].concat();
    first_version(&String::from_utf8_lossy(&text)).with_context(|| format!("{name} {argument} names no version"))
}

/// The first run of digits and dots that holds a digit on both sides of a dot.
fn first_version(text: &str) -> Option<String> {
    text.split(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .map(|word| word.trim_matches('.'))
        .find(|word| word.contains('.'))
        .map(str::to_owned)
}

/// Where downloads and the private tree lie: `$DNSGUARD_CACHE`, or `target/programs` of the workspace.
pub fn cache() -> PathBuf {
    env::var_os("DNSGUARD_CACHE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/programs"),
        PathBuf::from,
    )
}

/// The root of the private tree.
fn tree() -> PathBuf {
    cache().join("root")
}

/// The root of Podman's tree.
pub(crate) fn podman_root() -> Result<PathBuf> {
    let root = cache().join("podman/root");
    // The last thing that is made there.
    if root.join("work").is_dir() {
        root.canonicalize().with_context(|| format!("find {}", root.display()))
    } else {
        bail!("needs {PODMAN}: run cargo xtask test, or cargo xtask image")
    }
}

/// The library directories of the private tree, as `LD_LIBRARY_PATH` wants them.
fn libraries(tree: &Path) -> OsString {
    let mut found = Vec::new();
    for parent in [tree.join("usr/lib"), tree.join("lib")] {
        let triplets = fs::read_dir(&parent)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.to_string_lossy().contains("-linux-gnu"));
        // systemd's programs share a library that only they know, and so do PulseAudio's, which Chromium is linked to.
        found.extend(triplets.flat_map(|triplet| [triplet.join("systemd"), triplet.join("pulseaudio"), triplet]));
        found.push(parent);
    }
    env::join_paths(found).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_each_program_says() {
        for (said, version) in [
            ("Dnsmasq version 2.90  Copyright (c) 2000-2024 Simon Kelley", "2.90"),
            ("dnsdist 1.7.3 (Lua 5.1.4 [LuaJIT 2.1.0-beta3])", "1.7.3"),
            ("Version 1.17.1\n\nConfigure line: --build=x", "1.17.1"),
            ("Consul v1.8.7\nProtocol 2 spoken", "1.8.7"),
            ("DiG 9.18.33-1~deb12u2-Debian", "9.18.33"),
            ("ip utility, iproute2-6.1.0, libbpf 1.1.2", "6.1.0"),
            ("systemd 252 (252.39-1~deb12u2)\n+PAM +AUDIT", "252.39"),
            ("getent (Debian GLIBC 2.36-9+deb12u10) 2.36", "2.36"),
            ("nftables v1.0.6 (Lester Gooch #5)", "1.0.6"),
            (
                "BIND 9.18.49-1~deb12u3-Debian (Extended Support Version) <id:>",
                "9.18.49",
            ),
            ("Knot Resolver, version 5.6.0", "5.6.0"),
        ] {
            assert_eq!(first_version(said).as_deref(), Some(version), "{said}");
        }
        assert_eq!(first_version("no. version."), None);
    }

    #[test]
    fn a_missing_program_is_named_with_the_command_that_brings_it() {
        let error = locate("no-such-resolver").unwrap_err().to_string();
        assert_eq!(error, "needs no-such-resolver: run cargo xtask test");
    }
}
