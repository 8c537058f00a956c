//! The sources of the kernel object, and one hash of them all.
//!
//! The committed object is as old as its sources or it is wrong, and anybody can tell which without a bpf toolchain:
//! hash the sources again and compare with what the manifest recorded.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// The crates that are compiled into the object.
const CRATES: [&str; 2] = ["guard-common", "guard-ebpf"];

/// The hash of everything the object is made from, but for the compiler.
pub(crate) fn sha256(root: &Path) -> Result<String> {
    let mut files = BTreeMap::new();
    for name in CRATES {
        for file in ["Cargo.toml", "build.rs"].map(|file| root.join(name).join(file)) {
            if file.is_file() {
                files.insert(relative(root, &file)?, read(&file)?);
            }
        }
        collect(root, &root.join(name).join("src"), &mut files)?;
    }
    let lock = root.join("Cargo.lock");
    let text = fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    for (name, entry) in locked(&text) {
        files.insert(format!("Cargo.lock#{name}"), entry.into());
    }
    Ok(digest(&files))
}

/// Lower-case hex, as sha256sum prints it.
pub(crate) fn sha256_of(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn digest(files: &BTreeMap<String, Vec<u8>>) -> String {
    let mut hash = Sha256::new();
    for (path, content) in files {
        hash.update(path.as_bytes());
        hash.update([0]);
        hash.update(content);
    }
    format!("{:x}", hash.finalize())
}

/// The lock file's entries of the crates that put code into the object. The other entries change without a trace in
/// it.
fn locked(lock: &str) -> impl Iterator<Item = (&str, &str)> {
    let entries = lock.split("[[package]]\n").skip(1).map(str::trim_end);
    entries.filter_map(|entry| {
        let name = entry
            .lines()
            .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))?;
        (name == "network-types" || name.starts_with("aya-ebpf")).then_some((name, entry))
    })
}

/// All files below a folder, except hidden ones, which editors leave, and tests, which leave no trace in the object.
fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let list = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in list {
        let path: PathBuf = entry
            .with_context(|| format!("cannot list {}", folder.display()))?
            .path();
        let hidden_or_test =
            |name: &OsStr| name.as_encoded_bytes().starts_with(b".") || name == "tests" || name == "tests.rs";
        if path.file_name().is_some_and(hidden_or_test) {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files)?;
        } else {
            files.insert(relative(root, &path)?, read(&path)?);
        }
    }
    Ok(())
}

fn relative(root: &Path, path: &Path) -> Result<String> {
    match path.strip_prefix(root).ok().and_then(Path::to_str) {
        Some(relative) => Ok(relative.to_owned()),
        None => bail!("{} is no plain name below {}", path.display(), root.display()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"anyhow\"\nversion = \"1.0.0\"\n\n[[package]]\n\
        name = \"aya-ebpf\"\nversion = \"0.2.1\"\n\n[[package]]\nname = \"network-types\"\nversion = \"0.2.0\"\n";

    /// A workspace in a folder of its own, gone when dropped.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let tree = Self(std::env::temp_dir().join(format!("xtask-sources-{}-{name}", std::process::id())));
            for name in CRATES {
                tree.write(&format!("{name}/Cargo.toml"), name);
                tree.write(&format!("{name}/src/lib.rs"), "//! code");
            }
            tree.write("Cargo.lock", LOCK);
            tree
        }

        fn write(&self, path: &str, content: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn hash(&self) -> String {
            sha256(&self.0).unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_hash_does_not_depend_on_where_the_tree_lies() {
        assert_eq!(Tree::new("here").hash(), Tree::new("there").hash());
    }

    #[test]
    fn each_source_and_each_name_changes_the_hash() {
        let tree = Tree::new("changes");
        let mut seen = vec![tree.hash()];
        for (path, content) in [
            ("guard-common/src/lib.rs", "//! other code"),
            ("guard-common/src/deep/down.rs", ""),
            ("guard-ebpf/Cargo.toml", "other"),
            ("guard-ebpf/build.rs", "fn main() {}"),
            ("Cargo.lock", &LOCK.replace("0.2.1", "0.2.2")),
        ] {
            tree.write(path, content);
            let hash = tree.hash();
            assert!(!seen.contains(&hash), "{path} does not count");
            seen.push(hash);
        }
    }

    #[test]
    fn what_is_not_compiled_into_the_object_does_not_change_the_hash() {
        let tree = Tree::new("others");
        let before = tree.hash();
        tree.write("Cargo.lock", &LOCK.replace("1.0.0", "1.0.1"));
        tree.write("guard-common/src/.lib.rs.swp", "an editor's");
        tree.write("guard-user/src/main.rs", "fn main() {}");
        tree.write("guard-common/src/judge/tests.rs", "a test");
        tree.write("guard-common/src/judge/tests/world.rs", "a test's");
        assert_eq!(tree.hash(), before);
    }

    #[test]
    fn path_and_content_are_told_apart() {
        let one = digest(&BTreeMap::from([("a".to_owned(), b"bc".to_vec())]));
        let other = digest(&BTreeMap::from([("ab".to_owned(), b"c".to_vec())]));
        assert_ne!(one, other);
        assert_eq!(one, sha256_of(b"a\0bc"));
    }
}
