//! Files, read from below a directory: the host's own, a container's, or a test's.
//!
//! Symbolic links are followed by hand, so that an absolute one in a container stays in it.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

/// Bytes of a file that are read; no configuration is longer.
const MOST: u64 = 4 << 20;
/// Symbolic links on the way to a file, as in the kernel (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

/// Where `/` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Roots(PathBuf);

impl Roots {
    /// The host's own.
    pub(super) fn host() -> Self {
        Self::below("/")
    }

    /// Below a directory.
    pub(super) fn below(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// Reads a file whole; what is no UTF-8 in it is replaced.
    ///
    /// # Errors
    ///
    /// What the kernel says; also for what is no plain file, which could wait for a writer.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(path)?).into_owned())
    }

    /// Reads a file whole.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub(super) fn bytes(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let place = self.place(path.as_ref())?;
        if !fs::metadata(&place)?.is_file() {
            return Err(io::Error::other("it is no plain file"));
        }
        let mut bytes = Vec::new();
        File::open(place)?.take(MOST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The number that a file of `/proc` or `/sys` holds.
    ///
    /// # Errors
    ///
    /// As [`Self::read`]; also for what is no number.
    pub(super) fn number(&self, path: impl AsRef<Path>) -> io::Result<u64> {
        let text = self.read(path)?;
        text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// Whether there is such a file.
    pub(super) fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.place(path.as_ref()).is_ok_and(|place| place.exists())
    }

    /// The files of a directory, by name; those that begin with a dot are left out.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn list(&self, folder: impl AsRef<Path>) -> io::Result<Vec<PathBuf>> {
        let folder = folder.as_ref();
        let entries = fs::read_dir(self.place(folder)?)?;
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut names: Vec<_> = names
            .filter(|name| !name.as_encoded_bytes().starts_with(b"."))
            .collect();
        names.sort();
        Ok(names.iter().map(|name| folder.join(name)).collect())
    }

    /// The files that fit a path whose last part may have `*` in it.
    ///
    /// # Errors
    ///
    /// What the kernel says of the directory.
    pub(super) fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let name = pattern.file_name().unwrap_or_default().to_string_lossy();
        if !name.contains('*') {
            return Ok(vec![pattern.to_owned()]);
        }
        let folder = pattern.parent().unwrap_or_else(|| Path::new("/"));
        let fits = |path: &PathBuf| {
            let found = path.file_name().unwrap_or_default().to_string_lossy();
            fits(&name, &found)
        };
        Ok(self.list(folder)?.into_iter().filter(fits).collect())
    }

    /// Where a file is for this process.
    fn place(&self, path: &Path) -> io::Result<PathBuf> {
        if self.0 == Path::new("/") {
            return Ok(path.to_owned());
        }
        let mut left: VecDeque<OsString> = parts(path).collect();
        let mut links = 0;
        let mut place = self.0.clone();
        while let Some(part) = left.pop_front() {
            if part == ".." {
                if place != self.0 {
                    place.pop();
                }
                continue;
            }
            let next = place.join(&part);
            match fs::read_link(&next) {
                Ok(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(io::Error::other("too many symbolic links"));
                    }
                    if target.is_absolute() {
                        place.clone_from(&self.0);
                    }
                    for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                        left.push_front(part);
                    }
                }
                Err(_) => place = next,
            }
        }
        Ok(place)
    }
}

/// The names in a path, and `..` where it goes up.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

/// Whether a name fits a pattern in which `*` stands for anything.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(rest) = name.strip_prefix(head) else {
        return false;
    };
    rest.char_indices()
        .map(|(at, _)| at)
        .chain([rest.len()])
        .any(|at| fits(tail, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_in_a_container_stays_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let inside = |path: &str| folder.path().join(path);
        fs::create_dir_all(inside("run/systemd/resolve")).unwrap();
        fs::create_dir(inside("etc")).unwrap();
        fs::write(inside("run/systemd/resolve/stub"), "nameserver 127.0.0.53\n").unwrap();
        symlink("/run/systemd/resolve/stub", inside("etc/absolute")).unwrap();
        symlink("../../../../run/systemd/resolve/stub", inside("etc/relative")).unwrap();
        symlink("/etc/round", inside("etc/round")).unwrap();
        let roots = Roots::below(folder.path());
        for path in ["/etc/absolute", "/etc/relative", "/etc/../run/systemd/resolve/stub"] {
            assert_eq!(roots.read(path).unwrap(), "nameserver 127.0.0.53\n", "{path}");
        }
        assert!(roots.read("/etc/round").is_err());
        assert!(roots.read("/etc").is_err(), "a directory is no file");
        assert!(!roots.exists("/etc/passwd"));
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a", "a", true),
            ("a", "ab", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn files_are_listed_by_name_without_hidden_ones() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.conf", "a.conf", ".hidden.conf", "c.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let roots = Roots::below(folder.path());
        let found = roots.glob(Path::new("/*.conf")).unwrap();
        assert_eq!(found, [Path::new("/a.conf"), Path::new("/b.conf")]);
        assert_eq!(roots.glob(Path::new("/none.conf")).unwrap(), [Path::new("/none.conf")]);
        assert!(roots.glob(Path::new("/none/*.conf")).is_err());
    }
}
