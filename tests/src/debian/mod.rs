//! A Debian of its own: what debootstrap makes, with a real dpkg, and with systemd as its first process if it is booted.
//!
//! **Invariant: it lives in a [`Namespace`] and goes with it.** What is written to it lies on the namespace's own tmpfs, over
//! a tree that is made once and kept in the lab's cache.

mod bootstrap;
mod lintian;
mod machine;

use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::{DirBuilderExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};

use crate::{Namespace, guard::Said};

pub use self::{lintian::lintian, machine::Machine};

/// Where it is in its namespace.
const PLACE: &str = "/run/debian";
/// Longer than any command takes: one that hangs is a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// The devices that every program expects.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// A root file system that can be written to.
#[derive(Debug)]
pub struct Debian {
    namespace: Namespace,
}

impl Debian {
    /// One in a namespace that there is already, whose network it shares.
    ///
    /// The first time it downloads some 60 MB from the mirrors that this system uses.
    pub fn new(namespace: &Namespace) -> Result<Self> {
        let tree = bootstrap::tree()?;
        let lower = tree.to_str().context("the cache has an odd name")?.to_owned();
        Self::over(namespace, &lower)
    }

    /// One over these trees, the topmost first, separated by colons.
    fn over(namespace: &Namespace, lower: &str) -> Result<Self> {
        let debian = Self {
            namespace: namespace.clone(),
        };
        namespace
            .run(|| debian.mount(lower))
            .with_context(|| format!("put a Debian on {PLACE}"))?;
        Ok(debian)
    }

    fn mount(&self, lower: &str) -> Result<()> {
        let none = None::<&str>;
        let make = |path: &Path| fs::create_dir_all(path).with_context(|| format!("make {}", path.display()));
        let fresh = |kind: &str, target: &Path, options: &str| {
            make(target)?;
            mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options))
                .with_context(|| format!("mount a {kind} on {}", target.display()))
        };
        let place = Path::new(PLACE);
        fresh("tmpfs", place, "mode=755")?;
        let [upper, work, root] = ["upper", "work", "root"].map(|name| place.join(name));
        for folder in [&upper, &work] {
            make(folder)?;
        }
        let options = format!(
            "lowerdir={lower},upperdir={},workdir={}",
            upper.display(),
            work.display()
        );
        fresh("overlay", &root, &options)?;
        fresh("proc", &root.join("proc"), "")?;
        fresh("sysfs", &root.join("sys"), "")?;
        fresh("bpf", &root.join("sys/fs/bpf"), "mode=700")?;
        fresh("tmpfs", &root.join("run"), "mode=755")?;
        fresh("tmpfs", &root.join("dev"), "mode=755")?;
        for device in DEVICES {
            let (ours, target) = (Path::new("/dev").join(device), root.join("dev").join(device));
            File::create(&target)?;
            mount(Some(&ours), &target, none, MsFlags::MS_BIND, none)?;
        }
        // Whatever it says there, nobody reads.
        let console = root.join("dev/console");
        File::create(&console)?;
        mount(Some("/dev/null"), &console, none, MsFlags::MS_BIND, none)?;
        DirBuilder::new().mode(0o1777).create(root.join("dev/shm"))?;
        fresh("devpts", &root.join("dev/pts"), "newinstance,ptmxmode=0666,mode=620")?;
        symlink("pts/ptmx", root.join("dev/ptmx"))?;
        symlink("/proc/self/fd", root.join("dev/fd"))?;
        Ok(())
    }

    /// Where it is, seen from its namespace.
    pub fn root(&self) -> PathBuf {
        Path::new(PLACE).join("root")
    }

    /// Copies a file into it, to an absolute path.
    pub fn put(&self, file: &Path, to: &str) -> Result<()> {
        let to = self.path(to);
        self.namespace
            .run(|| fs::copy(file, &to))
            .with_context(|| format!("copy {} to {}", file.display(), to.display()))?;
        Ok(())
    }

    /// What is in a file of it.
    pub fn read(&self, path: &str) -> Result<String> {
        let path = self.path(path);
        self.namespace
            .run(|| fs::read_to_string(&path))
            .with_context(|| format!("read {}", path.display()))
    }

    /// Gives a file of it this text.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        self.namespace
            .run(|| fs::write(&path, text))
            .with_context(|| format!("write {}", path.display()))
    }

    /// Runs a line of shell in it; nothing of it is booted.
    pub fn say(&self, line: &str) -> Result<Said> {
        let mut command = Command::new("chroot");
        command.arg(self.root());
        say(&self.namespace, command, line)
    }

    /// The same; whatever has another exit code than 0 is an error.
    pub fn run(&self, line: &str) -> Result<String> {
        good(line, self.say(line)?)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }
}

/// Runs a line of shell by a command that goes where it is to run.
fn say(namespace: &Namespace, mut there: Command, line: &str) -> Result<Said> {
    there
        .args(["/usr/bin/env", "-i", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"])
        .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "/bin/sh", "-c", line]);
    let process = namespace.spawn(there)?;
    let status = process.wait(PATIENCE)?;
    Ok(Said {
        code: status.code(),
        out: process.output(),
        err: process.log(),
    })
}

fn good(line: &str, said: Said) -> Result<String> {
    ensure!(
        said.code == Some(0),
        "{line} ended with {:?}:\n{}{}",
        said.code,
        said.out,
        said.err
    );
    Ok(said.out)
}
