//! What is pinned, where, and who may remove it.
//!
//! ```text
//! <pin_dir>/v<ABI>/maps/<NAME>                        the maps
//! <pin_dir>/v<ABI>/links/<ifindex>-<hook>-<method>    a link; for clsact, which has none, the program
//! ```
//!
//! The BPF file system refuses names with dots, so interfaces go by their index.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use guard_common::abi;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use tracing::warn;

use super::clsact;
use crate::attachment::{Attachment, Hook, Method};

/// Why the pin directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PinError {
    #[error("{0} is not on a BPF file system; mount one: mount -t bpf bpf /sys/fs/bpf")]
    NotBpffs(String),
    #[error(
        "cannot create {path}: {source}; it takes root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON and a --pin-dir of one's own"
    )]
    Create { path: String, source: io::Error },
    #[error("cannot lock {path}: {source}")]
    Lock { path: String, source: io::Error },
    #[error("cannot remove {path}: {source}")]
    Remove { path: String, source: io::Error },
}

/// The pin directory of this version of the ABI.
#[derive(Debug)]
pub(super) struct Pins {
    root: PathBuf,
    versioned: PathBuf,
}

impl Pins {
    /// Creates the directories, for root only.
    pub(super) fn create(root: &Path) -> Result<Self, PinError> {
        let pins = Self {
            root: root.to_owned(),
            versioned: root.join(format!("v{}", abi::VERSION)),
        };
        if !is_on_bpffs(root).unwrap_or(false) {
            return Err(PinError::NotBpffs(root.display().to_string()));
        }
        for folder in [pins.versioned.join("maps"), pins.links()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(|source| PinError::Create {
                    path: folder.display().to_string(),
                    source,
                })?;
        }
        Ok(pins)
    }

    /// Takes the lock that keeps a second agent away. `None` if there is one.
    pub(super) fn lock(&self) -> Result<Option<File>, PinError> {
        let failed = |source| PinError::Lock {
            path: self.root.display().to_string(),
            source,
        };
        let folder = File::open(&self.root).map_err(failed)?;
        match folder.try_lock() {
            Ok(()) => Ok(Some(folder)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.versioned.join("maps").join(name)
    }

    fn links(&self) -> PathBuf {
        self.versioned.join("links")
    }

    pub(super) fn link(&self, ifindex: u32, hook: Hook, method: Method) -> PathBuf {
        self.links()
            .join(format!("{ifindex}-{}-{}", hook.word(), method.word()))
    }

    /// Detaches what is pinned for interfaces or methods that are no longer ours.
    pub(super) fn remove_strangers(&self, attachments: &[Attachment]) {
        let ours: Vec<_> = attachments
            .iter()
            .map(|one| self.link(one.ifindex, one.hook, one.method))
            .collect();
        for path in files(&self.links()) {
            if !ours.contains(&path) {
                remove_link(&path);
            }
        }
    }

    /// Detaches these.
    pub(super) fn remove_links(&self, attachments: &[Attachment]) {
        for one in attachments {
            remove_link(&self.link(one.ifindex, one.hook, one.method));
        }
    }

    /// Whether anything is attached, by this agent or by one before it.
    pub(super) fn has_links(&self) -> bool {
        !files(&self.links()).is_empty()
    }

    /// Removes the directories as far as they are empty.
    pub(super) fn remove_empty(&self) {
        for folder in [
            self.versioned.join("maps"),
            self.links(),
            self.versioned.clone(),
            self.root.clone(),
        ] {
            let _ = fs::remove_dir(folder);
        }
    }

    /// Detaches everything and removes the directories.
    pub(super) fn remove(&self) -> Result<(), PinError> {
        remove_all(&self.root).map(drop)
    }
}

/// Whether a pin directory is on a BPF file system, or would be if it were created.
///
/// # Errors
///
/// What `statfs` says of the nearest directory that is there.
pub(crate) fn is_on_bpffs(root: &Path) -> io::Result<bool> {
    let nearest = root.ancestors().find(|path| path.exists());
    let found = statfs(nearest.unwrap_or_else(|| Path::new("/")))?;
    Ok(found.filesystem_type() == BPF_FS_MAGIC)
}

/// The interfaces for which some version has pinned something below `root`, by index.
///
/// # Errors
///
/// What the kernel says to whoever may not look; a directory that is not there has no pins.
pub(crate) fn guarded(root: &Path) -> io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for version in entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_version(path))
    {
        for link in files(&version.join("links")) {
            let name = link.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            found.extend(name.split('-').next().and_then(|ifindex| ifindex.parse::<u32>().ok()));
        }
    }
    Ok(found)
}

/// Detaches everything that any version has pinned below `root`, and removes the pins; tells how many there were. It
/// needs no agent.
pub(crate) fn remove_all(root: &Path) -> Result<usize, PinError> {
    let mut removed = 0;
    if !root.exists() {
        return Ok(removed);
    }
    is_bpffs(root)?;
    for version in files(root).into_iter().filter(|path| is_version(path)) {
        for link in files(&version.join("links")) {
            remove_link(&link);
            removed += 1;
        }
        for map in files(&version.join("maps")) {
            remove(&map, |path| fs::remove_file(path))?;
            removed += 1;
        }
        for folder in [version.join("links"), version.join("maps"), version.clone()] {
            remove(&folder, |path| fs::remove_dir(path))?;
        }
    }
    // What else lies in it is not ours; then it stays.
    let _ = fs::remove_dir(root);
    Ok(removed)
}

/// Whether this is the directory of some version of the ABI, and not somebody else's.
fn is_version(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let number = name.strip_prefix('v').unwrap_or_default();
    !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
}

fn is_bpffs(path: &Path) -> Result<(), PinError> {
    match statfs(path) {
        Ok(found) if found.filesystem_type() == BPF_FS_MAGIC => Ok(()),
        _ => Err(PinError::NotBpffs(path.display().to_string())),
    }
}

fn remove(path: &Path, how: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), PinError> {
    match how(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(PinError::Remove {
            path: path.display().to_string(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Ends one attachment: the last reference to a link is its pin, and a clsact filter is deleted by what its pin's name
/// says.
fn remove_link(path: &Path) {
    if let Some((ifindex, hook)) = clsact_of(path) {
        clsact::delete(ifindex, hook);
    }
    if let Err(error) = fs::remove_file(path) {
        warn!("cannot remove {}: {error}", path.display());
    }
}

fn clsact_of(path: &Path) -> Option<(u32, Hook)> {
    let name = path.file_name()?.to_str()?.strip_suffix("-clsact")?;
    let (ifindex, hook) = name.split_once('-')?;
    let hook = if hook == Hook::TcEgress.word() {
        Hook::TcEgress
    } else {
        Hook::TcIngress
    };
    Some((ifindex.parse().ok()?, hook))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clsact_pin_says_where_its_filter_is() {
        let of = |name: &str| clsact_of(&Path::new("/sys/fs/bpf/dnsguard/v1/links").join(name));
        assert_eq!(of("12-tc-egress-clsact"), Some((12, Hook::TcEgress)));
        assert_eq!(of("3-tc-ingress-clsact"), Some((3, Hook::TcIngress)));
        assert_eq!(of("3-tc-ingress-tcx"), None);
        assert_eq!(of("x-clsact"), None);
    }

    #[test]
    fn a_pin_directory_elsewhere_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let error = Pins::create(&folder.path().join("dnsguard")).unwrap_err();
        assert!(error.to_string().contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
