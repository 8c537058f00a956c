//! tcpdump, recording what passes an interface, without losing any of it.

use std::{
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{Namespace, Process, programs};

/// KiB of the kernel's buffer: a second of the fastest loop.
const BUFFER: &str = "65536";
/// How long it takes to begin, at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running tcpdump.
#[derive(Debug)]
pub struct Tcpdump {
    process: Process,
    file: PathBuf,
}

/// What it recorded.
#[derive(Debug)]
pub struct Recording {
    /// The capture, visible inside the namespace only.
    pub file: PathBuf,
    /// Packets in it.
    pub packets: u64,
}

impl Tcpdump {
    /// Begins to record what passes `device`; when this returns, nothing is missed any more. `arguments` may say more.
    pub fn start(namespace: &Namespace, device: &str, arguments: &[&str]) -> Result<Self> {
        let file = namespace.file("tcpdump.pcap", "")?;
        let mut command = programs::locate("tcpdump")?.command();
        command.args(["-i", device, "-n", "-s", "0", "-U", "-B", BUFFER]);
        // It would change its user, and then not die with us.
        command.args(["-Z", "root", "--time-stamp-precision=nano"]);
        command.arg("-w").arg(&file).args(arguments);
        let process = namespace.spawn(command)?;
        let deadline = Instant::now() + PATIENCE;
        while !process.log().contains("listening on") {
            if Instant::now() > deadline || process.ended().is_some() {
                bail!("tcpdump does not record:\n{}", process.last_words());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(Self { process, file })
    }

    /// Ends it; it has to have seen every packet.
    pub fn stop(self) -> Result<Recording> {
        self.process.stop()?;
        let log = self.process.log();
        let count = |what: &str| -> Result<u64> {
            let line = log.lines().find(|line| line.ends_with(what));
            let count = line.and_then(|line| line.split(' ').next()?.parse().ok());
            count.with_context(|| format!("tcpdump does not say how many were {what}:\n{log}"))
        };
        ensure!(count("dropped by kernel")? == 0, "tcpdump lost packets:\n{log}");
        Ok(Recording {
            file: self.file,
            packets: count("captured")?,
        })
    }
}

impl Recording {
    /// The capture.
    pub fn path(&self) -> &Path {
        &self.file
    }
}
