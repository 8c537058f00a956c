//! What of the lab can still be seen from outside: nothing, once its values are dropped.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

/// The children of this process that still exist, zombies included, as pids.
pub fn children() -> Vec<u32> {
    let ours = std::process::id();
    entries(Path::new("/proc"))
        .filter_map(|path| {
            let pid = path.file_name()?.to_str()?.parse().ok()?;
            let stat = fs::read_to_string(path.join("stat")).ok()?;
            // After the name in parentheses come the state and the parent's pid.
            let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            (parent == ours).then_some(pid)
        })
        .collect()
}

/// Whatever keeps the network namespace with this inode number alive: threads, open files and mounts, as paths.
pub fn holders(inode: u64) -> Vec<PathBuf> {
    let name = format!("net:[{inode}]");
    let mut found = Vec::new();
    for process in entries(Path::new("/proc")) {
        let threads = entries(&process.join("task")).map(|task| task.join("ns/net"));
        let files = entries(&process.join("fd"));
        found.extend(
            threads
                .chain(files)
                .filter(|path| fs::read_link(path).is_ok_and(|target| target.as_os_str() == name.as_str())),
        );
        let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
        if mounts.contains(&name) {
            found.push(process.join("mountinfo"));
        }
    }
    found
}

/// Waits until nothing keeps any of these namespaces alive: threads end a moment after the handle that kept them.
///
/// # Errors
///
/// What still does after 5 s.
pub fn nobody_holds(inodes: &[u64]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let left: Vec<_> = inodes.iter().flat_map(|&inode| holders(inode)).collect();
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the namespace is still held by {left:?}");
        sleep(Duration::from_millis(20));
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
}
