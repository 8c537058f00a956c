//! A Debian that is booted: systemd is the first process of a PID namespace, as in a container.
//!
//! systemd needs a control group of its own. An empty one would outlive a test that is killed, so a process waits for the
//! test's end, whatever that is, and removes it.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Debian, good, say};
use crate::{Namespace, Process, guard::Said};

/// A boot takes less than a second.
const BOOT: Duration = Duration::from_secs(30);

/// Goes into the control group (2), which the namespace does not show otherwise, and starts the rest in namespaces of its
/// own.
const START: &str = "\
    mkdir /run/debian/groups && mount -t cgroup2 cgroup2 /run/debian/groups && \
    echo $$ > \"/run/debian/groups/$2/cgroup.procs\" && \
    exec unshare --pid --fork --mount --ipc --uts --cgroup --kill-child sh -e -c \"$3\" init \"$1\"";

/// The first process: gives the tree (1) what belongs to its namespaces, leaves the old root, and becomes systemd. The
/// kernel's settings are not its: they are those of the host.
const INIT: &str = "\
    mount -t proc proc \"$1/proc\"; \
    mount --bind \"$1/proc/sys\" \"$1/proc/sys\"; \
    mount -o remount,bind,ro \"$1/proc/sys\"; \
    mount -t cgroup2 cgroup2 \"$1/sys/fs/cgroup\"; \
    cd \"$1\"; mkdir -p old; pivot_root . old; umount -l /old; rmdir /old; \
    exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /sbin/init";

/// Removes a control group (1) and those in it once standard input ends, when the last process has left them.
const REMOVE: &str = "\
    trap '' INT TERM HUP; cat > /dev/null; \
    for try in $(seq 100); do \
        find \"$1\" -depth -type d -exec rmdir {} + 2> /dev/null; [ -d \"$1\" ] || exit 0; sleep 0.1; \
    done";

/// Units that would look after what is the host's, or that nobody here needs.
const MASKED: [&str; 17] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "modprobe@.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
];

/// A booted Debian. Dropping it kills all of it.
#[derive(Debug)]
pub struct Machine {
    namespace: Namespace,
    first: u32,
    _process: Process,
    _group: Group,
}

impl Debian {
    /// Boots it, and waits until all that is to run runs.
    pub fn boot(&self) -> Result<Machine> {
        let units = self.path("/etc/systemd/system");
        self.namespace.run(|| -> Result<()> {
            for unit in MASKED {
                std::os::unix::fs::symlink("/dev/null", units.join(unit))?;
            }
            Ok(())
        })?;
        let group = Group::new()?;
        let mut command = Command::new("sh");
        command
            .args(["-c", START, "start"])
            .arg(self.root())
            .arg(&group.name)
            .arg(INIT);
        let process = self.namespace.spawn(command)?;
        let machine = Machine {
            namespace: self.namespace.clone(),
            first: first_process(&process)?,
            _process: process,
            _group: group,
        };
        machine.wait("multi-user.target", "active", BOOT)?;
        Ok(machine)
    }
}

impl Machine {
    /// Runs a line of shell in it.
    pub fn say(&self, line: &str) -> Result<Said> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first.to_string(), "--all", "--root", "--wd"]);
        say(&self.namespace, command, line)
    }

    /// The same; whatever has another exit code than 0 is an error.
    pub fn run(&self, line: &str) -> Result<String> {
        good(line, self.say(line)?)
    }

    /// Waits until a unit is in a state, such as `active`.
    pub fn wait(&self, unit: &str, state: &str, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let said = self.say(&format!("systemctl is-active {unit}"))?;
            if said.out.trim() == state {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let why = self.say(&format!(
                    "systemctl --no-pager status {unit}; journalctl --no-pager -n 40"
                ))?;
                bail!(
                    "{unit} is {}{} and not {state}:\n{}",
                    said.out.trim(),
                    said.err.trim(),
                    why.out
                );
            }
            sleep(Duration::from_millis(50));
        }
    }
}

/// The child of `unshare` that has become the first process.
fn first_process(unshare: &Process) -> Result<u32> {
    let pid = unshare.pid();
    let deadline = Instant::now() + BOOT;
    loop {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let child = children.split_whitespace().next().and_then(|child| child.parse().ok());
        // Until then it is still on its way there.
        let is_there =
            |child: &u32| fs::read_link(format!("/proc/{child}/exe")).is_ok_and(|exe| exe.ends_with("systemd"));
        if let Some(child) = child.filter(is_there) {
            return Ok(child);
        }
        if unshare.ended().is_some() || Instant::now() >= deadline {
            bail!("systemd did not start:\n{}", unshare.last_words());
        }
        sleep(Duration::from_millis(10));
    }
}

/// A control group of one machine. Dropping it has it removed, and waits for that.
#[derive(Debug)]
struct Group {
    name: String,
    remover: Child,
}

impl Group {
    fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mount = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(2) == Some(&"cgroup2"))
            .context("systemd needs control groups, version 2: mount -t cgroup2 cgroup2 /sys/fs/cgroup")?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("dnsguard-lab-{}-{number}", std::process::id());
        let path = Path::new(mount[1]).join(&name);
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        // It holds the end of a pipe whose other end is ours alone.
        let remover = Command::new("sh")
            .args(["-c", REMOVE, "remove"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let remover = remover.inspect_err(|_| drop(fs::remove_dir(&path)))?;
        ensure!(remover.stdin.is_some(), "the pipe is ours");
        Ok(Self { name, remover })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        // It ends by itself.
        drop(self.remover.wait());
    }
}
