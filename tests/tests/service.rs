//! What a service manager hears of the agent: a socket of ours stands for systemd's.

use std::{
    os::unix::net::UnixDatagram,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use guard_tests::{Namespace, guard};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const SOCKET: &str = "/run/notify";
/// A debug build verifies its programs within this on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The end that listens.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn new(namespace: &Namespace) -> Result<Self> {
        let socket = namespace.run(|| UnixDatagram::bind(SOCKET))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket })
    }

    /// The next message, line by line.
    fn hear(&self) -> Result<Vec<String>> {
        let mut buffer = [0; 4_096];
        let length = self.socket.recv(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The next message of this state whose status has these words in it.
    fn hear_of(&self, state: &str, says: &str) -> Result<Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        while Instant::now() < deadline {
            let lines = self.hear()?;
            let status = lines.iter().find_map(|line| line.strip_prefix("STATUS="));
            if lines.iter().any(|line| line == state) && status.unwrap_or_default().contains(says) {
                return Ok(lines);
            }
            heard.push(lines);
        }
        bail!("no {state} with '{says}' within {PATIENCE:?}: {heard:?}")
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_service_manager_hears_of_every_step_and_of_nothing_from_an_agent_that_hangs() -> Result<()> {
    let namespace = Namespace::new()?;
    let manager = Manager::new(&namespace)?;
    let config = namespace.file("dnsguard.toml", "")?;
    let mut command = Command::new(guard::binary()?);
    command.args(["run", "--config"]).arg(&config);
    command.env("NOTIFY_SOCKET", SOCKET).env("WATCHDOG_USEC", "1000000");
    let agent = namespace.spawn(command)?;
    let pid = Pid::from_raw(i32::try_from(agent.pid())?);

    manager.hear_of("READY=1", "guarding lo: observe mode")?;
    ensure!(agent.log().contains("guarding lo"), "it was ready by then");

    // It is alive as long as it works, and not when it does not.
    for _ in 0..3 {
        assert_eq!(manager.hear()?, ["WATCHDOG=1"]);
    }
    kill(pid, Signal::SIGSTOP)?;
    manager.socket.set_read_timeout(Some(Duration::from_millis(1_500)))?;
    // What it had said before is still on its way.
    while manager.hear().is_ok() {}
    kill(pid, Signal::SIGCONT)?;
    manager.socket.set_read_timeout(Some(PATIENCE))?;
    assert_eq!(manager.hear()?, ["WATCHDOG=1"]);

    // A reload that works, and one that does not.
    for (text, says) in [("mode = 'enforce'\n", "enforce mode"), ("mode = 7\n", "was not loaded")] {
        namespace.run(|| std::fs::write(&config, text))?;
        kill(pid, Signal::SIGHUP)?;
        // The file that has changed may be noticed before the signal is: then there are two reloads.
        let reloading = manager.hear_of("RELOADING=1", "")?;
        ensure!(
            reloading.iter().any(|line| line.starts_with("MONOTONIC_USEC=")),
            "{reloading:?}"
        );
        manager.hear_of("READY=1", says)?;
    }

    kill(pid, Signal::SIGTERM)?;
    manager.hear_of("STOPPING=1", "taking the guard out")?;
    ensure!(agent.wait(PATIENCE)?.success(), "{}", agent.last_words());
    Ok(())
}
