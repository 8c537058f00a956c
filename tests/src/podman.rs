//! A container engine of the lab's own: Podman 5, which runs a DaemonSet as a node would.
//!
//! Podman and all it needs lie in a private tree, which is the root of everything here. Images and containers are kept on
//! a tmpfs of the namespace, and the containers' network is the namespace's. They are in one PID namespace, whose first
//! process dies with this one: then the kernel kills the rest.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MsFlags, mount};

use crate::{Namespace, Process, programs};

/// Where files are handed over, as Podman sees it.
const WORK: &str = "/work";

/// Longer than any command of Podman takes; one that hangs is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// No cgroups: what is made of them would outlive us, and a guard needs none.
const CONTAINERS: &str = r#"
[containers]
cgroups = "disabled"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
tmp_dir = "/run/libpod"
"#;

const STORAGE: &str = r#"
[storage]
driver = "vfs"
graphroot = "/work/storage"
runroot = "/run/storage"
"#;

/// Makes the tree the root of a mount namespace, as no change of one process's root would do: a command that joins a
/// container begins at the root of its mount namespace. Then it waits, and reaps what is left to it.
const ENTER: &str = "cd \"$1\" && mount -t proc proc proc && mkdir tmp/outside && pivot_root . tmp/outside && \
                     exec /usr/bin/catatonit -P";

/// An engine in a namespace, at most one in each. Dropping it kills its containers.
#[derive(Debug)]
pub struct Podman {
    namespace: Namespace,
    root: PathBuf,
    /// Has a PID namespace made, and holds it.
    keeper: Process,
}

impl Podman {
    /// Makes an engine that has no image and no container yet.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let root = programs::podman_root()?;
        namespace.run(|| lay_out(&root))?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"]);
        command.arg(&root);
        let podman = Self {
            namespace: namespace.clone(),
            root,
            keeper: namespace.spawn(command)?,
        };
        podman.write("containers.conf", CONTAINERS)?;
        podman.write("storage.conf", STORAGE)?;
        let deadline = Instant::now() + PATIENCE;
        while !podman.inside("work/storage.conf").exists() {
            let said = || podman.keeper.last_words();
            ensure!(
                podman.keeper.ended().is_none(),
                "Podman's root cannot be entered: {}",
                said()
            );
            ensure!(Instant::now() < deadline, "Podman's root is not entered: {}", said());
            sleep(Duration::from_millis(5));
        }
        Ok(podman)
    }

    /// Makes an image of a Containerfile that wants one file, `dnsguard`.
    pub fn build(&self, tag: &str, containerfile: &Path, agent: &Path) -> Result<()> {
        let context = self.root.join("work/context");
        self.namespace.run(|| -> Result<()> {
            fs::create_dir_all(&context)?;
            fs::copy(containerfile, context.join("Containerfile"))?;
            let to = context.join("dnsguard");
            fs::copy(agent, to).with_context(|| format!("take {}", agent.display()))?;
            Ok(())
        })?;
        let version = format!("VERSION={}", tag.rsplit(':').next().unwrap_or_default());
        let arguments = [
            "build",
            "--isolation",
            "chroot",
            "--build-arg",
            &version,
            "--tag",
            tag,
            "/work/context",
        ];
        self.say(&arguments).map(drop)
    }

    /// Saves an image; the path is Podman's, see [`Self::take`].
    pub fn save(&self, tag: &str) -> Result<PathBuf> {
        let path = Path::new(WORK).join("image.tar");
        self.say(&["save", "--output", &path.to_string_lossy(), tag])?;
        Ok(path)
    }

    /// Copies a file out of Podman's root.
    pub fn take(&self, from: &Path, to: &Path) -> Result<()> {
        let from = self.root.join(from.strip_prefix("/").unwrap_or(from));
        let bytes = self.namespace.run(|| fs::read(&from));
        let bytes = bytes.with_context(|| format!("read {}", from.display()))?;
        fs::write(to, bytes).with_context(|| format!("write {}", to.display()))
    }

    /// Writes a file below Podman's work directory, making directories as needed, and returns its path there.
    pub fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.root.join("work").join(name);
        self.namespace
            .run(|| {
                fs::create_dir_all(path.parent().unwrap_or(&path))?;
                fs::write(&path, text)
            })
            .with_context(|| format!("write {}", path.display()))?;
        Ok(format!("{WORK}/{name}"))
    }

    /// Runs a command of Podman to its end and returns what it prints.
    pub fn say(&self, arguments: &[&str]) -> Result<String> {
        self.run("podman", arguments)
    }

    /// Runs another program that lies beside Podman, such as `kustomize`.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let process = self.spawn(program, arguments)?;
        let status = process.wait(PATIENCE)?;
        if !status.success() {
            bail!("{program} {}: {status}: {}", arguments.join(" "), process.last_words());
        }
        Ok(process.output())
    }

    /// Starts such a program.
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> Result<Process> {
        let namespaces = format!("/proc/{}/ns", self.keeper.pid());
        let mut command = Command::new("nsenter");
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", WORK)
            .env("CONTAINERS_CONF", "/work/containers.conf")
            .env("CONTAINERS_STORAGE_CONF", "/work/storage.conf")
            .arg(format!("--pid={namespaces}/pid_for_children"))
            .arg(format!("--mount={namespaces}/mnt"))
            .arg(program)
            .args(arguments);
        self.namespace.spawn(command)
    }

    /// What `/proc/PID/FILE` says of a process, by the number that Podman knows it by.
    pub fn proc(&self, pid: &str, file: &str) -> Result<String> {
        let path = self.inside(&format!("proc/{pid}/{file}"));
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// The inode of the PID namespace of all its containers, as in `pid:[4026532000]`.
    pub fn pid_namespace(&self) -> Result<PathBuf> {
        Ok(fs::read_link(format!(
            "/proc/{}/ns/pid_for_children",
            self.keeper.pid()
        ))?)
    }

    /// A path below Podman's root, seen from outside.
    fn inside(&self, path: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.keeper.pid().to_string())
            .join("root")
            .join(path)
    }
}

/// Makes Podman's tree a root that this namespace's programs can change to.
fn lay_out(root: &Path) -> Result<()> {
    let bind = |from: &Path, to: &Path| {
        mount(
            Some(from),
            to,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .with_context(|| format!("bind {}", to.display()))
    };
    let fresh = |kind: &str, to: &str, options: &str| {
        let to = root.join(to);
        mount(Some(kind), &to, Some(kind), MsFlags::empty(), Some(options))
            .with_context(|| format!("mount a {kind} on {}", to.display()))
    };
    // A container's root is changed by pivot_root(2), which wants a mount to begin with.
    bind(root, root)?;
    for directory in ["sys", "dev"] {
        bind(&Path::new("/").join(directory), &root.join(directory))?;
    }
    for directory in ["run", "tmp", "var/tmp"] {
        fresh("tmpfs", directory, "mode=755")?;
    }
    fresh("tmpfs", "work", "size=1g,mode=755")?;
    // The runtime wants to see one, though it makes nothing there.
    fresh("cgroup2", "sys/fs/cgroup", "")
}
