//! The flood itself.

use std::{
    fs, io,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::unistd::{Pid, gettid};

use super::{cpu, program::Program};
use crate::{Namespace, names::Names, process, sys};

/// Frames for one system call: it lasts some seconds, and is interrupted before.
const FRAMES: u32 = 1 << 26;

/// What a flood is made of.
#[derive(Clone, Debug)]
pub struct Flooding {
    /// The packet.
    pub frame: Vec<u8>,
    /// The names that it asks for, if there are several. Its UDP checksum has to be 0 then: nobody mends it.
    pub names: Option<Names>,
    /// Where in the frame the DNS ID lies, if each of several names is asked for with another one.
    pub id_at: Option<usize>,
}

impl Flooding {
    /// The same packet again and again.
    pub fn same(frame: Vec<u8>) -> Self {
        Self {
            frame,
            names: None,
            id_at: None,
        }
    }
}

/// How fast a flood is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So many packets in a second, evenly, 1 to 1,000,000,000.
    PerSecond(u32),
    /// As many as one core makes.
    Full,
}

/// What a flood has sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Packets handed to the device; those that the other side has no room for are among them.
    pub packets: u64,
    /// Since it began.
    pub elapsed: Duration,
}

/// A flood that goes on until it is stopped or dropped.
#[derive(Debug)]
pub struct Stream {
    program: Arc<Program>,
    over: Arc<AtomicBool>,
    worker: Pid,
    thread: Option<JoinHandle<Result<()>>>,
    began: Instant,
}

impl Stream {
    /// Sends packets out of a device again and again.
    ///
    /// The device on the other side has to take frames: GRO is on there, or an XDP program attached.
    pub fn start(namespace: &Namespace, device: &str, flooding: Flooding, pace: Pace) -> Result<Self> {
        let path = format!("/sys/class/net/{device}/ifindex");
        let index = namespace
            .run(|| fs::read_to_string(&path))
            .with_context(|| format!("read {path}"))?;
        let interval_ns = match pace {
            Pace::PerSecond(rate) => i32::try_from(1_000_000_000 / rate.max(1))?,
            Pace::Full => 0,
        };
        let program =
            Program::load(index.trim().parse()?, interval_ns, &flooding).context("load the flood's program")?;
        let program = Arc::new(program);
        let over = Arc::new(AtomicBool::new(false));
        sys::allow_interrupts().context("set a signal handler")?;

        let (ready, worker) = mpsc::sync_channel(1);
        let work = {
            let (namespace, program, over) = (namespace.clone(), Arc::clone(&program), Arc::clone(&over));
            move || {
                namespace.run(|| {
                    cpu::pin(0, cpu::SENDER)?;
                    ready.send(gettid()).context("nobody waits for the flood")?;
                    while !over.load(Ordering::Relaxed) {
                        match sys::run_live(program.descriptor.as_fd(), &flooding.frame, FRAMES) {
                            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                            _ => {}
                        }
                    }
                    Ok(())
                })
            }
        };
        let thread = thread::Builder::new().name("flood".into()).spawn(work)?;
        let worker = worker.recv().context("the flood does not start")?;
        Ok(Self {
            program,
            over,
            worker,
            thread: Some(thread),
            began: Instant::now(),
        })
    }

    /// What it has sent so far.
    pub fn sent(&self) -> Result<Sent> {
        Ok(Sent {
            packets: self.program.sent().context("read what the flood has sent")?,
            elapsed: self.began.elapsed(),
        })
    }

    /// Processor time that it has had so far, in seconds, to 1/100. It never rests: what it lacks, others had.
    pub fn processor_seconds(&self) -> Result<f64> {
        process::cpu_seconds(self.worker.as_raw().unsigned_abs())
    }

    /// Ends it, and says what it sent in all.
    pub fn stop(mut self) -> Result<Sent> {
        self.end()?;
        self.sent()
    }

    fn end(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.over.store(true, Ordering::Relaxed);
        // Once may be a moment too early, before the system call.
        while !thread.is_finished() {
            sys::interrupt(self.worker);
            sleep(Duration::from_millis(1));
        }
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // An error has no one to go to: whoever wants it calls `stop`.
        drop(self.end());
    }
}
