//! One line of progress for each step, and one for what came of it.
//!
//! At a terminal the line of a running step shows its seconds; elsewhere it is printed once. All of it goes to stderr.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
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

/// How much of a step is done, for as long as it is known how much there is.
#[derive(Clone)]
pub(crate) struct Done {
    count: Arc<AtomicU64>,
    of: u64,
}

impl Done {
    /// Nothing yet, of so much.
    pub(crate) fn nothing(of: u64) -> Self {
        Self {
            count: Arc::default(),
            of,
        }
    }

    /// Another bit of it.
    pub(crate) fn add(&self, more: u64) {
        self.count.fetch_add(more, Ordering::Relaxed);
    }

    fn percent(&self) -> u64 {
        (self.count.load(Ordering::Relaxed) * 100 / self.of.max(1)).min(100)
    }
}

impl Progress {
    pub(crate) fn start(what: impl Into<String>) -> Self {
        Self::begin(what.into(), None)
    }

    /// One that shows how much of it is done as well.
    pub(crate) fn counted(what: impl Into<String>, done: &Done) -> Self {
        Self::begin(what.into(), Some(done.clone()))
    }

    fn begin(what: String, done: Option<Done>) -> Self {
        if io::stderr().is_terminal() {
            return Self {
                spinner: Spinner::start(what, done),
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
    fn start(what: String, done: Option<Done>) -> Option<Self> {
        let (stop, stopped) = mpsc::channel();
        let start = Instant::now();
        let turn = move || {
            for frame in FRAMES.iter().cycle() {
                let percent = done.as_ref().map(|done| format!(" {} %,", done.percent()));
                let percent = percent.unwrap_or_default();
                eprint!("{CLEAR} {frame} {what}{percent} {} s", start.elapsed().as_secs());
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
