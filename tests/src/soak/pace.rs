//! When everybody works, and when everybody rests.

use std::{
    sync::{
        Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Error, Result};

/// How soon a thread that waits hears that it is over.
const TICK: Duration = Duration::from_millis(50);

/// What the threads of one node share to keep in step.
#[derive(Debug, Default)]
pub(super) struct Pace {
    over: AtomicBool,
    gate: RwLock<()>,
    trouble: Mutex<Option<Error>>,
}

impl Pace {
    /// For something that sends packets, and has to have ended when the packets are compared.
    pub(super) fn work(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody works for as long as this is held.
    pub(super) fn rest(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, unless it is over before; says whether it goes on.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while !self.is_over() && Instant::now() < end {
            sleep(TICK.min(end.saturating_duration_since(Instant::now())));
        }
        !self.is_over()
    }

    /// Whether all are to end.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// All are to end.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Does something over and over until all are to end; a failure ends all.
    pub(super) fn repeat(&self, what: &str, mut work: impl FnMut() -> Result<()>) {
        while !self.is_over() {
            if let Err(error) = work() {
                self.fail(error.context(what.to_owned()));
            }
        }
    }

    /// Something failed: all are to end, and the first failure is kept.
    pub(super) fn fail(&self, error: Error) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.get_or_insert(error);
        self.end();
    }

    /// What failed first, if anything did.
    pub(super) fn trouble(&self) -> Option<Error> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
