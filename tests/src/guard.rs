//! The guard under test: the agent's own binary, run in a namespace as an operator would.

use std::{
    env, fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{Namespace, Process, http, wait};

/// Where the agent serves its metrics, inside its namespace.
const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 9533);

/// Longer than any command takes: one that hangs is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the event file is read while waiting.
const POLL: Duration = Duration::from_millis(10);

/// How often the metrics are read while waiting.
const COUNTER_POLL: Duration = Duration::from_millis(100);

/// Where agents pin what they have in the kernel, if its maps are of this version.
pub fn pins(version: u32) -> PathBuf {
    PathBuf::from(format!("/sys/fs/bpf/dnsguard/v{version}"))
}

/// Waits until the kernel has let go of what an agent gave up: of a link it does so a moment after the last pin and the
/// last descriptor are gone. `what` is what would be left.
pub fn wait_freed(what: &str, is_free: impl FnMut() -> Result<bool>) -> Result<()> {
    wait(&format!("the end of this: {what}"), PATIENCE, is_free).map(drop)
}

/// What the guard may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Looks and tells.
    Observe,
    /// Acts.
    #[default]
    Enforce,
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        })
    }
}

/// How a guard is run.
#[derive(Clone, Debug, Default)]
pub struct GuardOptions {
    /// `--mode`
    pub mode: Mode,
    /// `--interface`, one for each.
    pub interfaces: Vec<String>,
    /// What its configuration file holds; may be empty.
    pub extra_toml: String,
}

impl GuardOptions {
    /// Enforces on these interfaces, with the configuration's defaults.
    pub fn enforce(interfaces: &[&str]) -> Self {
        let interfaces = interfaces.iter().map(|&name| name.to_owned()).collect();
        Self {
            mode: Mode::Enforce,
            interfaces,
            extra_toml: String::new(),
        }
    }
}

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub struct Guard {
    namespace: Namespace,
    config: PathBuf,
    process: Process,
}

/// What a command said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub out: String,
    /// And to standard error.
    pub err: String,
}

impl Said {
    /// Standard output as JSON, where the exit code is the expected one.
    pub fn json(&self, code: i32) -> Result<Value> {
        ensure!(
            self.code == Some(code),
            "{:?} is not {code}:\n{}{}",
            self.code,
            self.out,
            self.err
        );
        serde_json::from_str(&self.out).with_context(|| format!("not JSON: {}", self.out))
    }
}

impl Guard {
    /// Starts the agent; it is ready when [`Self::wait_ready`] says so.
    ///
    /// The binary is `$DNSGUARD_BIN`, else the `dnsguard` beside the running test or xtask in the target directory.
    pub fn start(namespace: &Namespace, options: &GuardOptions) -> Result<Self> {
        Self::start_from(&binary()?, namespace, options)
    }

    /// The same with another binary.
    pub fn start_from(binary: &Path, namespace: &Namespace, options: &GuardOptions) -> Result<Self> {
        let config = namespace.file("dnsguard.toml", &options.extra_toml)?;
        let mut command = std::process::Command::new(binary);
        command.arg("run").arg("--config").arg(&config);
        command.arg("--mode").arg(options.mode.to_string());
        for interface in &options.interfaces {
            command.arg("--interface").arg(interface);
        }
        command.args(["--events", "jsonl"]);
        let process = namespace.spawn(command)?;
        Ok(Self {
            namespace: namespace.clone(),
            config,
            process,
        })
    }

    /// Its configuration file, as its namespace sees it.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Gives its configuration file another text, in one step: a new file is put in its place.
    pub fn rewrite(&self, text: &str) -> Result<()> {
        let new = self.namespace.file("dnsguard.toml", text)?;
        self.namespace.run(|| fs::rename(&new, &self.config))?;
        Ok(())
    }

    /// Runs a command of its own binary beside it, such as `["status", "-o", "json"]`, and waits for its end.
    pub fn say(&self, arguments: &[&str]) -> Result<Said> {
        let mut command = std::process::Command::new(binary()?);
        command.args(arguments);
        self.say_by(command)
    }

    /// The same with a command that was put together elsewhere.
    pub fn say_by(&self, command: std::process::Command) -> Result<Said> {
        let process = self.namespace.spawn(command)?;
        let status = process.wait(PATIENCE)?;
        Ok(Said {
            code: status.code(),
            out: process.output(),
            err: process.log(),
        })
    }

    /// Waits until it is attached everywhere and its policy holds.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        self.wait_event("ready", timeout).map(drop)
    }

    /// Every event so far, in order.
    pub fn events(&self) -> Result<Vec<Value>> {
        let output = self.process.output();
        // The last line may be half written.
        let whole = output.rfind('\n').map_or("", |end| &output[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not an event: {line}")))
            .collect()
    }

    /// Every event of one kind so far, such as `trip`, in order.
    pub fn events_of(&self, kind: &str) -> Result<Vec<Value>> {
        let mut events = self.events()?;
        events.retain(|event| event["event"] == kind);
        Ok(events)
    }

    /// The first event of a kind, now or within `timeout`.
    pub fn wait_event(&self, kind: &str, timeout: Duration) -> Result<Value> {
        let deadline = Instant::now() + timeout;
        loop {
            // Looked at first: what it said before it ended counts.
            let ended = self.process.ended();
            if let Some(event) = self.events_of(kind)?.into_iter().next() {
                return Ok(event);
            }
            if let Some(status) = ended {
                bail!(
                    "dnsguard ended ({status}) without a {kind}:\n{}",
                    self.process.last_words()
                );
            }
            if Instant::now() >= deadline {
                bail!("no {kind} within {timeout:?}:\n{}", self.process.last_words());
            }
            sleep(POLL);
        }
    }

    /// Its metrics, as Prometheus reads them.
    pub fn metrics(&self) -> Result<String> {
        self.page("/metrics")
    }

    /// What its endpoint says under a path; any status but 200 is an error.
    pub fn page(&self, path: &str) -> Result<String> {
        page(&self.namespace, path)
    }

    /// The sum over all series of a metric that have every one of these labels, such as `reason="loop"`.
    ///
    /// The agent reads the kernel's counters once a second.
    pub fn counter(&self, name: &str, labels: &[&str]) -> Result<u64> {
        let mut sum = 0.0;
        for line in self.metrics()?.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').context("a series without a value")?;
            let family = series.split('{').next().unwrap_or_default();
            if family == name && labels.iter().all(|label| series.contains(label)) {
                sum += value.parse::<f64>()?;
            }
        }
        Ok(sum as u64)
    }

    /// Waits until [`Self::counter`] is at least `expected`, and returns it.
    pub fn wait_counter(&self, name: &str, labels: &[&str], expected: u64, timeout: Duration) -> Result<u64> {
        let deadline = Instant::now() + timeout;
        loop {
            let count = self.counter(name, labels)?;
            if count >= expected {
                return Ok(count);
            }
            ensure!(
                Instant::now() < deadline,
                "{name} {labels:?} is {count} and not {expected} after {timeout:?}:\n{}",
                self.metrics()?
            );
            sleep(COUNTER_POLL);
        }
    }

    /// The running agent.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it with SIGTERM and waits; it has to end well.
    pub fn stop(&self) -> Result<()> {
        let status = self.process.stop()?;
        ensure!(
            status.success(),
            "dnsguard ended with {status}:\n{}",
            self.process.last_words()
        );
        Ok(())
    }

    /// Kills it with SIGKILL: it cannot clean up.
    pub fn kill9(&self) {
        self.process.kill();
    }
}

/// What the endpoint of an agent in this namespace says under a path; any status but 200 is an error.
pub fn page(namespace: &Namespace, path: &str) -> Result<String> {
    http::request(namespace, SocketAddr::from(METRICS), "GET", path, "")
}

/// The agent's binary: `$DNSGUARD_BIN`, else the `dnsguard` beside the running test or xtask.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("DNSGUARD_BIN") {
        return Ok(path.into());
    }
    // A test is target/debug/deps/name-hash, xtask is target/debug/xtask.
    let here = env::current_exe().context("find the running test")?;
    here.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("dnsguard"))
        .find(|path| path.is_file())
        .context("needs dnsguard: run cargo xtask test, or cargo build --package guard-user")
}

/// The statically linked agent: `$DNSGUARD_STATIC`, else where `cargo xtask test` puts it.
pub fn static_binary() -> Result<PathBuf> {
    let path = match env::var_os("DNSGUARD_STATIC") {
        Some(path) => path.into(),
        None => {
            let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
            target.join("image/debug/dnsguard")
        }
    };
    ensure!(path.is_file(), "needs {}: run cargo xtask test", path.display());
    Ok(path)
}
