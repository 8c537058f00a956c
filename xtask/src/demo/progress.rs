//! One line of progress for each step, and one for what came of it.
//!
//! At a terminal the line of a running step shows its seconds; elsewhere it is printed once. All of it goes to stderr.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::step;

const FRAMES: [char; 4] = ['|', '/', '-', '\\'];
const FRAME: Duration = Duration::from_millis(120);

/// Back to the start of the line, and nothing left on it.
const CLEAR: &str = "\r\x1b[K";

/// A step that is running.
pub(crate) struct Progress {
    spinner: Option<Spinner>,
}

impl Progress {
    pub(crate) fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        if io::stderr().is_terminal() {
            return Self {
                spinner: Spinner::start(what),
            };
        }
        step::note(&what);
        Self { spinner: None }
    }

    /// Ends the step with what came of it. A step that is dropped without this has failed, and the error will say why.
    pub(crate) fn done(self, result: &str) {
        drop(self.spinner);
        eprintln!("   {result}");
    }
}

/// A thread that turns something until it is told to stop.
struct Spinner {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Spinner {
    /// None if there is no thread to be had: the demo goes on without.
    fn start(what: String) -> Option<Self> {
        let (stop, stopped) = mpsc::channel();
        let start = Instant::now();
        let turn = move || {
            for frame in FRAMES.iter().cycle() {
                eprint!("{CLEAR} {frame} {what} {} s", start.elapsed().as_secs());
                // A lost frame is no reason to stop.
                let _ = io::stderr().flush();
                if stopped.recv_timeout(FRAME) == Err(RecvTimeoutError::Disconnected) {
                    break;
                }
            }
            eprint!("{CLEAR}");
            step::note(&what);
        };
        let thread = thread::Builder::new().name("spinner".into()).spawn(turn).ok()?;
        Some(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has no state that a panic of it could spoil here.
            drop(thread.join());
        }
    }
}
