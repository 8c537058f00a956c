//! A limit on the memory of one process: a cgroup of its own.

use std::{fs, path::PathBuf, process, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, bail};

/// What our cgroups are called; the number of this process follows.
const NAME: &str = "dnsguard-lab-";
/// For the kernel to let go of a process that is dead.
const TRIES: usize = 100;

/// A cgroup with one process. Dropping it removes it, once the process is gone.
///
/// Pages that the process has already stay with the cgroup they were charged to; what it takes from now on counts here.
#[derive(Debug)]
pub struct MemoryLimit {
    folder: PathBuf,
}

impl MemoryLimit {
    /// Lets a process take so many more bytes; the kernel kills it when it wants more. Works with cgroup v2 and v1.
    pub fn put(pid: u32, bytes: u64) -> Result<Self> {
        let (parent, file) = hierarchy()?;
        // What a killed run has left is empty, and goes.
        for entry in fs::read_dir(&parent)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(NAME) {
                drop(fs::remove_dir(entry.path()));
            }
        }
        let folder = parent.join(format!("{NAME}{}", process::id()));
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let limit = Self { folder };
        limit.write(file, bytes)?;
        limit.write("cgroup.procs", pid.into())?;
        Ok(limit)
    }

    fn write(&self, file: &str, number: u64) -> Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, number.to_string()).with_context(|| format!("write {number} to {}", path.display()))
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        for _ in 0..TRIES {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            sleep(Duration::from_millis(10));
        }
    }
}

/// Where this process's own cgroup is, and the file that limits memory below it.
fn hierarchy() -> Result<(PathBuf, &'static str)> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let of = |wanted: &str| {
        let fields = own.lines().map(|line| line.splitn(3, ':'));
        let mut fields = fields.filter_map(|mut fields| Some((fields.nth(1)?, fields.next()?)));
        fields
            .find(|(controllers, _)| controllers.split(',').any(|one| one == wanted))
            .map(|(_, path)| path)
    };
    if let Some(path) = of("memory") {
        let folder = PathBuf::from(format!("/sys/fs/cgroup/memory{path}"));
        return Ok((folder, "memory.limit_in_bytes"));
    }
    let folder = PathBuf::from(format!("/sys/fs/cgroup{}", of("").unwrap_or("/")));
    // The root, or one that hands its controllers on, can have one below it that limits.
    let with_memory = folder.ancestors().find(|folder| {
        fs::read_to_string(folder.join("cgroup.subtree_control")).is_ok_and(|text| text.contains("memory"))
    });
    match with_memory {
        Some(folder) => Ok((folder.to_owned(), "memory.max")),
        None => {
            bail!("no cgroup limits memory here: neither cgroup v1's memory nor a v2 with +memory for its children")
        }
    }
}
