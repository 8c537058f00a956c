//! A terminal in a namespace, with somebody in front of it: tmux.
//!
//! Its server stays in the foreground: like every other child it dies with the thread that spawned it, and what runs in
//! it gets a hangup.

use std::{
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{Namespace, Process, programs};

/// How often the screen is read while waiting.
const POLL: Duration = Duration::from_millis(50);
/// How long the server may take to be there.
const START: Duration = Duration::from_secs(10);

/// A terminal with one command in it. Dropping it hangs up.
#[derive(Debug)]
pub struct Terminal {
    namespace: Namespace,
    socket: PathBuf,
    /// Held for its life.
    _server: Process,
}

impl Terminal {
    /// Opens a terminal of this size and runs a line of shell in it. It stays open when that has ended.
    pub fn open(namespace: &Namespace, columns: u16, lines: u16, command: &str) -> Result<Self> {
        let socket = namespace.file("tmux", "")?;
        let mut server = programs::locate("tmux")?.command();
        server
            .env("LC_ALL", "C.UTF-8")
            .env_remove("TMUX")
            .env_remove("NO_COLOR");
        server.arg("-S").arg(&socket).args(["-f", "/dev/null", "-D"]);
        let terminal = Self {
            namespace: namespace.clone(),
            socket,
            _server: namespace.spawn(server)?,
        };
        let deadline = Instant::now() + START;
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let command = format!("{command}; exec cat");
        while let Err(error) = terminal.tmux(&["new-session", "-d", "-x", &columns, "-y", &lines, &command]) {
            ensure!(Instant::now() < deadline, "tmux does not start: {error:#}");
            sleep(POLL);
        }
        Ok(terminal)
    }

    /// Types keys, as tmux names them: `Tab`, `C-c`, `Down`, or letters.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// Makes the window this large.
    pub fn resize(&self, columns: u16, lines: u16) -> Result<()> {
        let (columns, lines) = (columns.to_string(), lines.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &lines]).map(drop)
    }

    /// What it shows, without colours.
    pub fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// What it shows, with escape sequences for colours and letters in bold.
    pub fn painted_screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Whether a program has the screen for itself, and what was there before will come back.
    pub fn is_taken(&self) -> Result<bool> {
        Ok(self.tmux(&["display-message", "-p", "#{alternate_on}"])?.trim() == "1")
    }

    /// The process of the shell.
    pub fn pid(&self) -> Result<i32> {
        let pid = self.tmux(&["display-message", "-p", "#{pane_pid}"])?;
        pid.trim().parse().context("tmux names no process")
    }

    /// Waits until what it shows is as wanted, and returns it.
    pub fn wait(&self, timeout: Duration, what: &str, is_wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            let screen = self.screen()?;
            if is_wanted(&screen) {
                return Ok(screen);
            }
            ensure!(Instant::now() < deadline, "not within {timeout:?}: {what}\n{screen}");
            sleep(POLL);
        }
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let mut command = programs::locate("tmux")?.command();
        command.env("LC_ALL", "C.UTF-8").env_remove("TMUX");
        // A server of its own making would outlive us.
        command.args(["-N", "-u", "-S"]).arg(&self.socket).args(arguments);
        let done = self.namespace.run(|| command.output())?;
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(done.status.success(), "tmux {}: {}", arguments.join(" "), why.trim());
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}
