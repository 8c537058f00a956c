//! A real containerd with real pods: sandboxes made through the CRI, networks by the CNI plugins of Debian.
//!
//! It runs in a PID namespace of its own, whose first process dies with the test: shims and containers, which belong to
//! nobody else, go with it. Containers have no cgroup, because a cgroup would outlive a test that is killed. That is why
//! crun runs them: it can do without.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use guard_cri::{
    Client,
    message::{
        ListPodSandboxRequest, NamespaceMode, NamespaceOption, PodSandboxStatusRequest, PodSandboxStatusResponse,
    },
};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid as ProcessId,
};
use prost::Message;

use crate::{Namespace, Process, programs::locate};

/// Where it listens: its own default, in the `/run` of the lab.
pub const SOCKET: &str = "/run/containerd/containerd.sock";

/// The bridge that its pods are on.
pub const BRIDGE: &str = "cni0";
/// The node's address on the bridge.
pub const NODE: &str = "10.88.0.1";

/// All that belongs to it, on the tmpfs of the lab.
const HOME: &str = "/run/lab/containerd";

/// The image of the one container that each pod has.
const IMAGE: &str = "lab.example/pause:1";

/// It starts within a second; a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the container does.
const PAUSE: &str = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n";

/// A bridge with two addresses for pods: the third pod gets that of one that went away.
const NETWORK: &str = r#"{"cniVersion": "0.4.0", "name": "lab", "plugins": [{"type": "bridge", "bridge": "cni0",
    "isGateway": true, "ipam": {"type": "host-local", "dataDir": "/run/lab/containerd/ipam", "ranges": [[
    {"subnet": "10.88.0.0/24", "rangeStart": "10.88.0.2", "rangeEnd": "10.88.0.3", "gateway": "10.88.0.1"}]]}}]}"#;

/// What the first process of its PID namespace does. The plugins keep what they did below `/var/lib`; crun looks for
/// control groups and takes none. A shell reaps whoever is left to it.
const INIT: &str = "mount -t tmpfs tmpfs /var/lib && mount -t tmpfs tmpfs /sys/fs/cgroup && echo ready &&
    while :; do sleep 1; done";

/// A running containerd. Dropping it kills it and every pod.
#[derive(Debug)]
pub struct Containerd {
    namespace: Namespace,
    /// The first process of the PID namespace, as seen from here.
    init: u32,
    daemon: Option<Process>,
    _keeper: Process,
}

/// A pod. It runs until [`Containerd::remove`].
#[derive(Debug)]
pub struct Pod {
    id: Vec<u8>,
    /// Its address; none if it has the node's network.
    pub address: Option<IpAddr>,
    /// The network namespace, as the runtime mounted it.
    netns: PathBuf,
    /// The interface of the node that leads to it, if it has one.
    pub device: String,
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxConfig {
    #[prost(message, optional, tag = "2")]
    security_context: Option<SecurityContext>,
}

#[derive(Clone, PartialEq, Message)]
struct SecurityContext {
    #[prost(message, optional, tag = "1")]
    namespace_options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxId {
    #[prost(bytes = "vec", tag = "1")]
    pod_sandbox_id: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

impl Containerd {
    /// Starts it, without a pod, and waits until it answers.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let home = Path::new(HOME);
        let crun = locate("crun")?;
        let libraries = crun.command();
        let libraries = libraries.get_envs().find(|(name, _)| *name == "LD_LIBRARY_PATH");
        let libraries = libraries.and_then(|(_, value)| value).unwrap_or_default();
        let plugins = locate("host-local")?
            .path()
            .parent()
            .map(Path::to_owned)
            .unwrap_or_default();
        let runtime = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH={} exec {} --cgroup-manager=disabled \"$@\"\n",
            libraries.display(),
            crun.path().display()
        );
        namespace.run(|| -> Result<()> {
            fs::create_dir_all(home.join("net.d"))?;
            fs::write(home.join("net.d/10-lab.conflist"), NETWORK)?;
            fs::write(home.join("config.toml"), configuration(&plugins))?;
            fs::write(home.join("crun"), runtime)?;
            fs::set_permissions(home.join("crun"), fs::Permissions::from_mode(0o755))?;
            image(home)
        })?;

        let mut keeper = locate("unshare")?.command();
        keeper.args(["--pid", "--mount", "--fork", "--kill-child=KILL", "--mount-proc"]);
        keeper.args(["sh", "-c", INIT]);
        let keeper = namespace.spawn(keeper)?;
        wait_for("a PID namespace", || {
            ensure!(keeper.ended().is_none(), "unshare: {}", keeper.last_words());
            Ok(keeper.output().contains("ready").then_some(()))
        })?;
        let mut containerd = Self {
            namespace: namespace.clone(),
            init: only_child(keeper.pid())?,
            daemon: None,
            _keeper: keeper,
        };
        containerd.start_again()?;
        let mut import = containerd.inside("ctr")?;
        import.args(["--address", SOCKET, "--namespace", "k8s.io", "images", "import"]);
        import.arg(home.join("image.tar"));
        let import = namespace.spawn(import)?;
        let status = import.wait(PATIENCE)?;
        ensure!(status.success(), "ctr images import:\n{}", import.last_words());
        Ok(containerd)
    }

    /// Starts it after [`Self::kill`]; the pods of before are there.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = self.inside("containerd")?;
        command.arg("--config").arg(Path::new(HOME).join("config.toml"));
        let directory = locate("containerd")?
            .path()
            .parent()
            .map(Path::to_owned)
            .unwrap_or_default();
        // It looks for its shim there.
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", directory.display()));
        let daemon = self.daemon.insert(self.namespace.spawn(command)?);
        wait_for("containerd", || {
            ensure!(daemon.ended().is_none(), "containerd: {}", daemon.last_words());
            // It refuses while it reads what was before.
            let pods: Result<Nothing> = call(&self.namespace, ListPodSandboxRequest::METHOD, &Nothing {});
            Ok(pods.ok().map(drop))
        })
    }

    /// Stops its process where it stands: it keeps its socket and answers nobody.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Kills it (SIGKILL). Its pods go on.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        if let Some(daemon) = self.daemon.take() {
            // nsenter stops with what it runs.
            kill(process_id(daemon.pid())?, Signal::SIGCONT)?;
            daemon.wait(PATIENCE)?;
        }
        Ok(())
    }

    /// Makes a pod in a network of its own, or in the node's.
    pub fn run(&self, namespace: &str, name: &str, network: NamespaceMode) -> Result<Pod> {
        let request = RunPodSandboxRequest {
            config: Some(PodSandboxConfig {
                metadata: Some(Metadata {
                    name: name.to_owned(),
                    uid: format!("uid-of-{name}"),
                    namespace: namespace.to_owned(),
                }),
                // crun takes none where the pod has the node's.
                hostname: if network == NamespaceMode::Node { "" } else { name }.to_owned(),
                linux: Some(LinuxConfig {
                    security_context: Some(SecurityContext {
                        namespace_options: Some(NamespaceOption {
                            network: network as i32,
                        }),
                    }),
                }),
            }),
        };
        let made: PodSandboxId = self.call("RunPodSandbox", &request)?;
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: made.pod_sandbox_id.clone(),
            verbose: true,
        };
        let said: PodSandboxStatusResponse = self.call(PodSandboxStatusRequest::METHOD, &request)?;
        let network = said.status.and_then(|status| status.network).unwrap_or_default();
        let info: serde_json::Value = serde_json::from_str(said.info.get("info").context("no info")?)?;
        let spaces = info["runtimeSpec"]["linux"]["namespaces"].as_array();
        let netns = spaces.into_iter().flatten().find(|space| space["type"] == "network");
        let links = info["cniResult"]["Interfaces"].as_object();
        let device = links
            .into_iter()
            .flat_map(|links| links.keys())
            .find(|name| name.starts_with("veth"));
        Ok(Pod {
            id: made.pod_sandbox_id,
            address: network.ip.parse().ok(),
            netns: netns
                .and_then(|netns| netns["path"].as_str())
                .unwrap_or_default()
                .into(),
            device: device.cloned().unwrap_or_default(),
        })
    }

    /// Ends a pod; its address is free.
    pub fn remove(&self, pod: Pod) -> Result<()> {
        let request = PodSandboxId { pod_sandbox_id: pod.id };
        let _: Nothing = self.call("StopPodSandbox", &request)?;
        let _: Nothing = self.call("RemovePodSandbox", &request)?;
        Ok(())
    }

    /// A UDP socket of a pod.
    pub fn udp(&self, pod: &Pod) -> Result<UdpSocket> {
        let inside = pod.netns.strip_prefix("/var").context("a pod without a network")?;
        let inside = inside.strip_prefix("/").unwrap_or(inside);
        // The runtime mounted it where only its own processes see it.
        let path = PathBuf::from(format!("/proc/{}/root", self.init)).join(inside);
        let netns = fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
        thread::scope(|scope| {
            let bound = scope.spawn(|| {
                setns(&netns, CloneFlags::CLONE_NEWNET)?;
                Ok(UdpSocket::bind(SocketAddr::from(([0; 4], 0)))?)
            });
            bound.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn call<R: Message + Default>(&self, method: &'static str, request: &impl Message) -> Result<R> {
        call(&self.namespace, method, request).map_err(|error| match &self.daemon {
            Some(daemon) => error.context(daemon.last_words()),
            None => error,
        })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let daemon = self.daemon.as_ref().context("containerd does not run")?;
        kill(process_id(only_child(daemon.pid())?)?, signal).context("containerd")
    }

    /// A command that runs a program in its PID namespace.
    fn inside(&self, program: &str) -> Result<Command> {
        let (nsenter, program) = (locate("nsenter")?, locate(program)?);
        let mut command = nsenter.command();
        command.args(["--target", &self.init.to_string(), "--pid", "--mount", "--"]);
        command.arg(program.path());
        if let Some((name, Some(value))) = program.command().get_envs().next() {
            command.env(name, value);
        }
        Ok(command)
    }
}

fn call<R: Message + Default>(namespace: &Namespace, method: &'static str, request: &impl Message) -> Result<R> {
    // The socket is there for those who are inside.
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let call = async {
                let mut client = Client::connect(Path::new(SOCKET)).await?;
                Ok(client.call(method, request).await?)
            };
            tokio::time::timeout(PATIENCE, call).await?
        })
    })
}

fn configuration(plugins: &Path) -> String {
    format!(
        "version = 2\n\
         root = \"{HOME}/root\"\n\
         state = \"{HOME}/state\"\n\
         disabled_plugins = [\"io.containerd.internal.v1.opt\", \"io.containerd.snapshotter.v1.aufs\", \
         \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.devmapper\", \
         \"io.containerd.snapshotter.v1.zfs\"]\n\
         [grpc]\naddress = \"{SOCKET}\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\n\
         disable_apparmor = true\ndisable_cgroup = true\nrestrict_oom_score_adj = true\n\
         sandbox_image = \"{IMAGE}\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
         bin_dir = \"{}\"\nconf_dir = \"{HOME}/net.d\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndefault_runtime_name = \"lab\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.lab]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.lab.options]\nBinaryName = \"{HOME}/crun\"\n",
        plugins.display()
    )
}

/// An image with one static program, as an archive that `docker save` could have made.
fn image(home: &Path) -> Result<()> {
    let work = home.join("image");
    fs::create_dir_all(work.join("files"))?;
    fs::write(work.join("pause.c"), PAUSE)?;
    let run = |program: &str, arguments: &[&str]| -> Result<String> {
        let done = Command::new(program).args(arguments).current_dir(&work).output();
        let done = done.with_context(|| format!("run {program}"))?;
        ensure!(
            done.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    };
    run("cc", &["-static", "-o", "files/pause", "pause.c"])?;
    run("tar", &["-C", "files", "-cf", "layer.tar", "pause"])?;
    let digest = run("sha256sum", &["layer.tar"])?;
    let digest = digest.split(' ').next().unwrap_or_default();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    fs::write(work.join("config.json"), config.to_string())?;
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    fs::write(work.join("manifest.json"), manifest.to_string())?;
    run(
        "tar",
        &["-cf", "../image.tar", "manifest.json", "config.json", "layer.tar"],
    )
    .map(drop)
}

fn process_id(pid: u32) -> Result<ProcessId> {
    Ok(ProcessId::from_raw(i32::try_from(pid)?))
}

/// The one child that a process has.
fn only_child(pid: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let mut children = children.split_whitespace();
    let child = children.next().with_context(|| format!("{pid} has no child"))?;
    ensure!(children.next().is_none(), "{pid} has several children");
    Ok(child.parse()?)
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("{what} is not there within {PATIENCE:?}");
        }
        sleep(Duration::from_millis(20));
    }
}
