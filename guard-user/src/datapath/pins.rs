//! What is pinned, where, and who may remove it.
//!
//! ```text
//! <pin_dir>/v<ABI>/maps/<NAME>                        the maps
//! <pin_dir>/v<ABI>/links/<ifindex>-<hook>-<method>    a link; for clsact, which has none, the program
//! <pin_dir>/v<ABI>/programs/<NAME>-<number>           the programs, as the proof that what runs them is ours
//! ```
//!
//! What does not have such a place and name is somebody else's, and is left alone. The BPF file system refuses names
//! with dots, so interfaces go by their index.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use guard_common::abi;
use nix::{
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};
use tracing::warn;

use super::{clsact, ownership::Ours};
use crate::{
    attachment::{Attachment, Hook, Method},
    sys,
};

/// Why the pin directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PinError {
    #[error("{0} is not on a BPF file system; mount one: mount -t bpf bpf /sys/fs/bpf")]
    NotBpffs(String),
    #[error(
        "cannot create {path}: {source}; it takes root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON and a --pin-dir of one's own"
    )]
    Create { path: String, source: io::Error },
    #[error("another dnsguard has {0} by now; stop one of the two")]
    Taken(String),
    #[error("cannot lock {path}: {source}")]
    Lock { path: String, source: io::Error },
    #[error("cannot remove {path}: {source}")]
    Remove { path: String, source: io::Error },
}

/// The directories of a version.
const FOLDERS: [&str; 3] = ["links", "programs", "maps"];

/// Where the pins are that were made at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// Where they were made.
    There,
    /// In a file system that is not mounted there any more.
    OutOfReach,
    /// Nowhere: somebody has removed them, as `dnsguard detach --all` does.
    Removed,
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
        for folder in FOLDERS.map(|folder| pins.versioned.join(folder)) {
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

    /// Where the pins are, of which this is the locked directory.
    pub(super) fn whereabouts(&self, lock: &File) -> Whereabouts {
        let Ok(locked) = lock.metadata() else {
            return Whereabouts::There;
        };
        // What one may not look at is not gone.
        let is_gone = |found: &io::Result<fs::Metadata>| {
            let error = found.as_ref().err();
            error.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        let nearest = self.root.ancestors().map(fs::metadata).find(|found| !is_gone(found));
        match nearest {
            Some(Ok(found)) if found.dev() != locked.dev() => Whereabouts::OutOfReach,
            Some(Ok(found)) if found.ino() != locked.ino() => Whereabouts::Removed,
            Some(Ok(_)) if !self.versioned.try_exists().unwrap_or(true) => Whereabouts::Removed,
            _ => Whereabouts::There,
        }
    }

    /// Pins everything anew that is pinned in the locked directory, which can no longer be reached by its path; returns
    /// the lock on the new one.
    pub(super) fn move_from(&self, lock: &File) -> Result<File, PinError> {
        let pins = Self::create(&self.root)?;
        let new = pins
            .lock()?
            .ok_or_else(|| PinError::Taken(self.root.display().to_string()))?;
        // The one way that is left into a file system that is mounted nowhere.
        let old = PathBuf::from(format!("/proc/self/fd/{}", lock.as_raw_fd()));
        let version = self.versioned.file_name().unwrap_or_default();
        for folder in FOLDERS {
            for from in files(&old.join(version).join(folder)) {
                let to = self.versioned.join(folder).join(from.file_name().unwrap_or_default());
                // An attempt before this one got so far.
                if to.exists() {
                    continue;
                }
                sys::pin_again(&from, &to).map_err(|source| PinError::Create {
                    path: to.display().to_string(),
                    source,
                })?;
            }
        }
        Ok(new)
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

    /// Where a program is pinned that has this number.
    pub(super) fn program(&self, name: &str, program_id: u32) -> PathBuf {
        self.versioned.join("programs").join(format!("{name}-{program_id}"))
    }

    /// A link that an agent before this one has pinned under this name, of this version or, if there is none, of the
    /// latest other one.
    pub(super) fn standing(&self, link: &Path) -> Option<PathBuf> {
        if link.exists() {
            return Some(link.to_owned());
        }
        let name = link.file_name()?;
        let others = self.versions().into_iter().rev();
        others
            .map(|(_, folder)| folder.join("links").join(name))
            .find(|path| path.exists())
    }

    /// The directories of all versions that have pins, the oldest first.
    pub(super) fn versions(&self) -> Vec<(u32, PathBuf)> {
        versions(&self.root)
    }

    /// Links that are pinned, of every version.
    pub(super) fn link_count(&self) -> usize {
        let links = self.versions().into_iter().map(|(_, folder)| folder.join("links"));
        links.map(|links| files(&links).len()).sum()
    }

    /// Detaches what is pinned for interfaces or methods that are no longer ours to guard, and forgets the programs that
    /// nothing runs any more.
    pub(super) fn remove_strangers(&self, attachments: &[Attachment], ours: &Ours, programs: &[u32]) {
        for path in files(&self.links()) {
            if self.is_in_use(&path, attachments) {
                continue;
            }
            if is_link(&path) && ours.runs(&path) {
                remove_link(&path, false);
            } else {
                warn!("{} is not dnsguard's: it stays", path.display());
            }
        }
        for path in files(&self.versioned.join("programs")) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let number = name.rsplit_once('-').and_then(|(_, number)| number.parse().ok());
            if number.is_some_and(|number| !programs.contains(&number)) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Detaches these.
    pub(super) fn remove_links(&self, attachments: &[Attachment]) {
        for one in attachments {
            remove_link(&self.link(one.ifindex, one.hook, one.method), false);
        }
    }

    /// Removes the pin of an attachment that is no more.
    pub(super) fn forget_link(&self, one: &Attachment) {
        // Somebody may have removed it as well.
        let _ = fs::remove_file(self.link(one.ifindex, one.hook, one.method));
    }

    /// Whether the place that a pin's name stands for, in whatever version, is one where we are attached.
    pub(super) fn is_in_use(&self, pin: &Path, attachments: &[Attachment]) -> bool {
        let names = attachments
            .iter()
            .map(|one| self.link(one.ifindex, one.hook, one.method));
        names.into_iter().any(|link| link.file_name() == pin.file_name())
    }

    /// Whether anything is attached, by this agent or by one before it, of whatever version.
    pub(super) fn has_links(&self) -> bool {
        self.link_count() > 0
    }

    /// Removes the directories as far as they are empty.
    pub(super) fn remove_empty(&self) {
        for folder in FOLDERS.map(|folder| self.versioned.join(folder)) {
            let _ = fs::remove_dir(folder);
        }
        let _ = fs::remove_dir(&self.versioned);
        let _ = fs::remove_dir(&self.root);
    }

    /// Detaches everything that is ours and removes the directories.
    pub(super) fn remove(&self, ours: &Ours) -> Result<(), PinError> {
        self.remove_strangers(&[], ours, &[]);
        remove_maps(&self.versioned)?;
        self.remove_empty();
        Ok(())
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
    match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => drop(entries?),
    }
    for (_, version) in versions(root) {
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
    for (_, version) in versions(root) {
        for link in files(&version.join("links")).into_iter().filter(|link| is_link(link)) {
            remove_link(&link, false);
            removed += 1;
        }
        removed += remove_maps(&version)?;
        remove_folders(&version)?;
    }
    // What else lies in it is not ours; then it stays. So it does if it was made for another user, who may not make it
    // again.
    if fs::metadata(root).is_ok_and(|root| root.uid() == geteuid().as_raw()) {
        let _ = fs::remove_dir(root);
    }
    Ok(removed)
}

/// Removes the pins of a version's maps, and those of its programs; tells how many maps there were.
pub(super) fn remove_maps(version: &Path) -> Result<usize, PinError> {
    let pins = |folder: &str| files(&version.join(folder)).into_iter();
    for program in pins("programs") {
        remove(&program, |path| fs::remove_file(path))?;
    }
    let mut removed = 0;
    for map in pins("maps") {
        remove(&map, |path| fs::remove_file(path))?;
        removed += 1;
    }
    Ok(removed)
}

/// Removes the directories of a version.
pub(super) fn remove_folders(version: &Path) -> Result<(), PinError> {
    for folder in FOLDERS.map(|folder| version.join(folder)) {
        remove(&folder, |path| fs::remove_dir(path))?;
    }
    remove(version, |path| fs::remove_dir(path))
}

/// The directories of all versions below `root`, the oldest first.
fn versions(root: &Path) -> Vec<(u32, PathBuf)> {
    let entries = files(root).into_iter();
    let mut found: Vec<_> = entries.filter_map(|path| Some((version_of(&path)?, path))).collect();
    found.sort();
    found
}

/// The version of the ABI that this is the directory of; `None` for somebody else's.
fn version_of(path: &Path) -> Option<u32> {
    let number = path.file_name()?.to_str()?.strip_prefix('v')?;
    number
        .bytes()
        .all(|digit| digit.is_ascii_digit())
        .then(|| number.parse().ok())?
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
/// says; but not the filter that another program of ours is in by now.
pub(super) fn remove_link(path: &Path, is_replaced: bool) {
    if let Some((ifindex, hook)) = clsact_of(path).filter(|_| !is_replaced) {
        clsact::delete(ifindex, hook);
    }
    if let Err(error) = fs::remove_file(path) {
        warn!("cannot remove {}: {error}", path.display());
    }
}

/// Whether a pin is named as ours are: `<ifindex>-<hook>-<method>`.
pub(super) fn is_link(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((ifindex, place)) = name.split_once('-') else {
        return false;
    };
    let hooks = [Hook::Xdp, Hook::TcIngress, Hook::TcEgress];
    let methods = [Method::Driver, Method::Generic, Method::Tcx, Method::Clsact];
    let is_place = |hook: &Hook| {
        let method = place.strip_prefix(hook.word()).and_then(|rest| rest.strip_prefix('-'));
        methods.iter().any(|known| Some(known.word()) == method)
    };
    ifindex.parse::<u32>().is_ok() && hooks.iter().any(is_place)
}

/// Whether a pin is that of a clsact filter's program.
pub(super) fn is_clsact(path: &Path) -> bool {
    clsact_of(path).is_some()
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

/// What lies in a directory; nothing, if there is none.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
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
    fn a_name_that_is_not_laid_out_like_ours_is_somebody_elses() {
        let is_ours = |name: &str| is_link(&Path::new("/sys/fs/bpf/dnsguard/v1/links").join(name));
        for ours in [
            "12-tc-egress-clsact",
            "3-tc-ingress-tcx",
            "2-xdp-driver",
            "2-xdp-generic",
        ] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in ["x-tc-egress-tcx", "3-tc-ingress", "3-xdp-tcx-", "mine", "3-lsm-tcx"] {
            assert!(!is_ours(other), "{other}");
        }
        let version = |name: &str| version_of(&Path::new("/sys/fs/bpf/dnsguard").join(name));
        let found = ["v3", "v12", "v", "v3x", "x3", "v-1", "v99999999999"].map(version);
        assert_eq!(found, [Some(3), Some(12), None, None, None, None, None]);
    }

    #[test]
    fn a_pin_directory_elsewhere_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let error = Pins::create(&folder.path().join("dnsguard")).unwrap_err();
        assert!(error.to_string().contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
