//! Somebody who works beside a test until he is told to stop, or until nobody wants to know any more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};

/// A thread that is told when it is over, and what it has found.
#[derive(Debug)]
pub(super) struct Worker<T> {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<T>>>,
}

impl<T: Send + 'static> Worker<T> {
    /// Begins; `work` looks now and then whether it is over.
    pub(super) fn start(name: &str, work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&told))?;
        Ok(Self {
            over,
            thread: Some(thread),
        })
    }

    /// Waits for the end of the work; returns what came of it.
    pub(super) fn stop(mut self) -> Result<T> {
        self.over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it is stopped once")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whoever wants to know what came of it calls `stop`.
            drop(thread.join());
        }
    }
}
