//! The workspace: where its files are, and a cargo that runs in it as if a person had typed the command.
//!
//! Cargo itself is asked for the target folder and the registry's folder, because a person's configuration moves both.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::step;

/// The folders every command works in.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// `target`, unless the person's cargo configuration says otherwise.
    pub(crate) target: PathBuf,
}

impl Workspace {
    pub(crate) fn open() -> Result<Self> {
        // `cargo run` sets the variable; the constant serves a binary that is called by its path.
        let manifest_dir =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest_dir
            .parent()
            .with_context(|| format!("{} has no parent folder", manifest_dir.display()))?
            .canonicalize()
            .with_context(|| format!("cannot find the workspace above {}", manifest_dir.display()))?;
        let metadata = metadata(&root, &["--no-deps"])?;
        let target = metadata["target_directory"]
            .as_str()
            .context("cargo metadata names no target folder")?;
        Ok(Self {
            target: target.into(),
            root,
        })
    }

    /// The object that `cargo xtask ebpf` leaves.
    pub(crate) fn object(&self) -> PathBuf {
        self.target.join("ebpf/dnsguard.bpf.o")
    }

    /// The object that is committed, for those who cannot build one.
    pub(crate) fn prebuilt(&self) -> PathBuf {
        self.root.join("guard-ebpf/prebuilt/dnsguard.bpf.o")
    }

    /// What the committed object was built from and with.
    pub(crate) fn manifest(&self) -> PathBuf {
        self.root.join("guard-ebpf/prebuilt/MANIFEST.json")
    }

    /// The agent as `cargo build -p guard-user` leaves it.
    pub(crate) fn agent(&self) -> PathBuf {
        self.target.join("debug/dnsguard")
    }

    /// The cargo that runs this command, in the workspace's root.
    pub(crate) fn cargo(&self) -> Command {
        cargo(&self.root)
    }

    /// The folder that holds the sources of the crates from the registry, for `--remap-path-prefix`: its name
    /// differs between mirrors, its place between users.
    pub(crate) fn registry(&self, bpf_target: &str) -> Result<PathBuf> {
        let metadata = metadata(&self.root, &["--filter-platform", bpf_target])?;
        let packages = metadata["packages"]
            .as_array()
            .context("cargo metadata lists no packages")?;
        let manifest = packages
            .iter()
            .find(|package| package["name"] == "aya-ebpf")
            .and_then(|package| package["manifest_path"].as_str())
            .context("cargo metadata does not know aya-ebpf, which guard-ebpf/Cargo.toml should name")?;
        let registry = Path::new(manifest).ancestors().nth(2);
        Ok(registry
            .with_context(|| format!("{manifest} lies too near the root"))?
            .to_owned())
    }

    /// The `Cargo.toml` of each crate of the workspace.
    pub(crate) fn manifests(&self) -> Result<Vec<PathBuf>> {
        let metadata = metadata(&self.root, &["--no-deps"])?;
        let packages = metadata["packages"]
            .as_array()
            .context("cargo metadata lists no packages")?;
        let manifests = packages.iter().filter_map(|package| package["manifest_path"].as_str());
        Ok(manifests.map(PathBuf::from).collect())
    }

    /// A path as it is shown: relative to the workspace where it can be.
    pub(crate) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

/// Cargo without what the outer `cargo run` left in the environment for this process alone: crates with
/// `rerun-if-env-changed` on such variables would be rebuilt at each change of hands.
pub(crate) fn cargo(dir: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(dir);
    for (key, _) in env::vars_os() {
        let name = key.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&key);
        }
    }
    command
}

fn metadata(root: &Path, args: &[&str]) -> Result<Value> {
    let mut command = cargo(root);
    command
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(args);
    let output = step::quiet(&mut command).context("cannot read the workspace's metadata")?;
    serde_json::from_str(&output.stdout).context("cargo metadata printed something that is not JSON")
}
