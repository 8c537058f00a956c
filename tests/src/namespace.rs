//! A network of its own: an unnamed network and mount namespace.
//!
//! **Invariant: a namespace lives exactly as long as its handles.** It has no name under `/run/netns`. One
//! thread, the keeper, holds it and spawns every child in it (a child's parent-death signal fires when the
//! *thread* that spawned it dies). When the last [`Namespace`] is dropped, or this process is killed, the keeper
//! goes, its children are killed, and the kernel frees devices, pins and files.
//!
//! Inside, `/sys` shows this network, `/sys/fs/bpf` is empty, `/run` is a fresh tmpfs, and `lo` is up.

use std::{
    fs::{self, File},
    net::{SocketAddr, UdpSocket},
    os::unix::fs::MetadataExt as _,
    panic::resume_unwind,
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::gettid,
};

use crate::{process::Process, programs, sys};

/// Where configurations and logs lie, on the namespace's own tmpfs.
const FILES: &str = "/run/lab";

/// Enough for a consul that holds every ephemeral port, small enough for programs that close all they could have.
const OPEN_FILES: u64 = 65_536;

/// A handle on a network and mount namespace; clones share it.
#[derive(Clone, Debug)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    jobs: mpsc::Sender<Job>,
    keeper: PathBuf,
    net: File,
    mnt: File,
    files: AtomicU64,
}

type Job = Box<dyn FnOnce() + Send>;

impl Namespace {
    /// Makes an empty network with `lo` up (127.0.0.0/8, ::1).
    ///
    /// Needs root, and `ip` from iproute2.
    pub fn new() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("needs root for network namespaces: run cargo xtask test with sudo");
        }
        raise_open_files()?;
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (made, report) = mpsc::sync_channel(1);
        thread::Builder::new().name("namespace".into()).spawn(move || {
            let entered = enter_new();
            let good = entered.is_ok();
            // A `new` that no longer listens has nothing to learn either.
            drop(made.send(entered));
            if good {
                inbox.into_iter().for_each(|job| job());
            }
        })?;
        let keeper = report.recv().context("the keeper thread died")??;
        let open = |kind| {
            let path = keeper.join("ns").join(kind);
            File::open(&path).with_context(|| format!("open {}", path.display()))
        };
        let namespace = Self {
            inner: Arc::new(Inner {
                jobs,
                net: open("net")?,
                mnt: open("mnt")?,
                keeper,
                files: AtomicU64::new(0),
            }),
        };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs `work` on a thread inside and hands back what it returns; a panic in it goes on here.
    ///
    /// Sockets and file descriptors made inside keep belonging to the namespace wherever they are used. Start
    /// programs with [`Self::spawn`] only: a child of this short-lived thread would not be tied to anything.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    // setns(CLONE_NEWNS) is refused while root and working directory are shared with other threads.
                    unshare(CloneFlags::CLONE_FS)
                        .and_then(|()| setns(&self.inner.net, CloneFlags::CLONE_NEWNET))
                        .and_then(|()| setns(&self.inner.mnt, CloneFlags::CLONE_NEWNS))
                        .expect("who made a namespace may enter it while it is held open");
                    work()
                })
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// The same as another user, who has no groups and no capabilities.
    pub fn run_as<T: Send>(&self, user: u32, work: impl FnOnce() -> T + Send) -> T {
        self.run(|| {
            sys::become_user(user).expect("root may become anybody");
            work()
        })
    }

    /// Starts a program inside; its output goes to files, see [`Process::log`].
    ///
    /// The program must keep its user and group, else the kernel forgets that it has to die with us.
    pub fn spawn(&self, mut command: Command) -> Result<Process> {
        let name = Path::new(command.get_program())
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let stdout = self.path(&format!("{name}.out"));
        let stderr = stdout.with_extension("err");
        let (done, report) = mpsc::sync_channel(1);
        let (out, err) = (stdout.clone(), stderr.clone());
        let job = move || {
            let child = (|| -> Result<_> {
                command
                    .stdin(Stdio::null())
                    .stdout(File::create(&out)?)
                    .stderr(File::create(&err)?);
                sys::die_with_spawner(&mut command);
                Ok(command.spawn()?)
            })();
            drop(done.send(child));
        };
        self.inner
            .jobs
            .send(Box::new(job))
            .ok()
            .context("the keeper thread is gone")?;
        let child = report
            .recv()
            .context("the keeper thread died")?
            .with_context(|| format!("start {name}"))?;
        Ok(Process::new(self.clone(), name, child, stdout, stderr))
    }

    /// A UDP socket of this network.
    pub fn udp(&self, bind: SocketAddr) -> Result<UdpSocket> {
        self.run(|| UdpSocket::bind(bind))
            .with_context(|| format!("bind {bind}"))
    }

    /// Packets received so far on `device`. Every packet on `lo` is counted once.
    pub fn packets(&self, device: &str) -> Result<u64> {
        // /proc/net is the network of the process's first thread, not of this one.
        let table = self.run(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        table
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim() == device)
            .and_then(|(_, counters)| counters.split_whitespace().nth(1)?.parse().ok())
            .with_context(|| format!("no device {device}"))
    }

    /// Writes `text` to a new file inside, visible only there, and returns its path.
    pub fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        self.run(|| fs::write(&path, text))
            .with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Puts a text of its own in the place of a file in `/etc`, such as `/etc/resolv.conf`, for every program inside.
    pub fn cover(&self, name: &str, text: &str) -> Result<()> {
        let (ours, target) = (self.file(name, text)?, Path::new("/etc").join(name));
        self.run(|| -> Result<()> {
            if let Some(place) = dangling(&target) {
                fs::create_dir_all(place.parent().context("a file has a directory")?)?;
                File::create(place)?;
            }
            mount(Some(&ours), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        })
        .with_context(|| format!("cover {}", target.display()))
    }

    /// Runs `ip` with `arguments`, separated by blanks, and waits for it.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        self.tool("ip", arguments).map(drop)
    }

    /// Runs a program that ends by itself, with `arguments` separated by blanks, and returns what it prints.
    pub fn tool(&self, program: &str, arguments: &str) -> Result<String> {
        let mut command = programs::locate(program)?.command();
        command.args(arguments.split_whitespace());
        let done = self.run(|| command.output())?;
        if !done.status.success() {
            let why = String::from_utf8_lossy(&done.stderr);
            bail!("{program} {arguments}: {}", why.trim());
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// The inode number of the network namespace, as in `net:[4026532000]`.
    pub fn inode(&self) -> Result<u64> {
        Ok(self.inner.net.metadata()?.ino())
    }

    /// The network namespace as a path, for programs that take one.
    pub fn net_path(&self) -> PathBuf {
        self.inner.keeper.join("ns/net")
    }

    /// A path that no file of this namespace has had yet.
    fn path(&self, name: &str) -> PathBuf {
        let number = self.inner.files.fetch_add(1, Ordering::Relaxed);
        Path::new(FILES).join(format!("{number}-{name}"))
    }
}

/// Moves the calling thread into new namespaces and returns its directory under `/proc`.
fn enter_new() -> Result<PathBuf> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("make a network and a mount namespace (needs root)")?;
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).context("make all mounts private")?;
    let fresh = |kind: &str, target: &str, options: &str| {
        mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options))
            .with_context(|| format!("mount a {kind} on {target}"))
    };
    // The old /sys shows the devices of the network it was mounted in.
    fresh("sysfs", "/sys", "")?;
    fresh("bpf", "/sys/fs/bpf", "mode=700")?;
    fresh("tmpfs", "/run", "size=512m,mode=755")?;
    fs::create_dir(FILES).with_context(|| format!("make {FILES}"))?;
    Ok(PathBuf::from(format!(
        "/proc/{}/task/{}",
        nix::unistd::getpid(),
        gettid()
    )))
}

/// Where a link in `/etc` points to, if that is in `/run`: systemd-resolved keeps its `resolv.conf` there, and a fresh
/// `/run` does not have it.
fn dangling(link: &Path) -> Option<PathBuf> {
    let target = fs::read_link(link).ok().filter(|_| !link.exists())?;
    let names = target.components().filter(|part| matches!(part, Component::Normal(_)));
    let place = Path::new("/").join(names.collect::<PathBuf>());
    place.starts_with("/run").then_some(place)
}

/// Lifts the soft limit on open files, which children inherit: 1,024 is less than one herd of clients.
fn raise_open_files() -> Result<(), Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(OPEN_FILES);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    Ok(())
}
