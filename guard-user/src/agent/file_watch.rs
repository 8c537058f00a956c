//! Has the configuration file changed?
//!
//! It is looked at once a second, through all links: a Kubernetes ConfigMap changes by a link that is put in the place of
//! another. A file that is being written is left alone until it has stayed the same for one look.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

/// What tells a file from another, and from what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

/// The file that is watched, if there is one.
#[derive(Debug)]
pub(crate) struct FileWatch {
    path: Option<PathBuf>,
    /// The one that was loaded last.
    loaded: Option<Print>,
    /// The one that was there at the last look.
    seen: Option<Print>,
}

impl FileWatch {
    /// Watches a file that is about to be loaded.
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        let mut watch = Self {
            path,
            loaded: None,
            seen: None,
        };
        watch.is_loaded();
        watch
    }

    /// The file is about to be loaded as it is now.
    pub(crate) fn is_loaded(&mut self) {
        self.loaded = self.print();
        self.seen = self.loaded;
    }

    /// Whether there is another file than the one that was loaded, and it is whole. To be called about once a second.
    pub(crate) fn has_changed(&mut self) -> bool {
        let print = self.print();
        let is_calm = print == std::mem::replace(&mut self.seen, print);
        // One that is gone for a moment is being replaced.
        is_calm && print.is_some() && print != self.loaded
    }

    fn print(&self) -> Option<Print> {
        let found = fs::metadata(self.path.as_ref()?).ok()?;
        Some(Print {
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_that_is_being_written_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dnsguard.toml");
        fs::write(&path, "a").unwrap();
        let mut watch = FileWatch::new(Some(path.clone()));
        assert!(!watch.has_changed());
        fs::write(&path, "ab").unwrap();
        assert!(!watch.has_changed(), "it may not be whole");
        fs::write(&path, "abc").unwrap();
        assert!(!watch.has_changed());
        assert!(watch.has_changed());
        watch.is_loaded();
        assert!(!watch.has_changed());
    }

    #[test]
    fn a_configmap_changes_by_a_link_to_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["..v1", "..v2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("dnsguard.toml"), "same length").unwrap();
        }
        symlink("..v1", at("..data")).unwrap();
        symlink("..data/dnsguard.toml", at("dnsguard.toml")).unwrap();
        let mut watch = FileWatch::new(Some(at("dnsguard.toml")));
        symlink("..v2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert!(!watch.has_changed());
        assert!(watch.has_changed());
    }

    #[test]
    fn a_file_that_is_gone_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dnsguard.toml");
        fs::write(&path, "a").unwrap();
        let mut watch = FileWatch::new(Some(path.clone()));
        fs::remove_file(&path).unwrap();
        assert!(!watch.has_changed() && !watch.has_changed());
        assert!(!FileWatch::new(None).has_changed());
    }
}
