//! Whether the guard is there: somebody asks for the name that it holds, again and again.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::Duration,
};

use anyhow::Result;

use super::{monotonic, worker::Worker};
use crate::{
    Namespace,
    frame::HELD,
    question::{Question, is_answer, random_id, response},
};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(50);
/// For an answer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(2);

/// What one look has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The guard answered that it holds the name.
    Held,
    /// The name was answered: nobody held it.
    Passed,
    /// Somebody else's error.
    Failed,
    /// Nothing.
    Nothing,
}

/// One look, by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Before the query was sent.
    pub began: Duration,
    /// After the answer was there.
    pub ended: Duration,
    /// What it was.
    pub seen: Seen,
}

/// Looks until it is told to stop.
#[derive(Debug)]
pub struct Watch(Worker<Vec<Sample>>);

impl Watch {
    /// Asks `server` this question.
    pub fn start(namespace: &Namespace, server: SocketAddr, question: &Question) -> Result<Self> {
        let (namespace, question) = (namespace.clone(), question.clone());
        let looks = move |over: &AtomicBool| {
            let mut samples = Vec::new();
            while !over.load(Ordering::Relaxed) {
                samples.push(look(&namespace, server, &question)?);
                sleep(INTERVAL);
            }
            Ok(samples)
        };
        Worker::start("watch", looks).map(Self)
    }

    /// Looks no more.
    pub fn stop(self) -> Result<Vec<Sample>> {
        self.0.stop()
    }
}

/// Looks once, from a socket of its own.
pub(super) fn look(namespace: &Namespace, server: SocketAddr, question: &Question) -> Result<Sample> {
    let socket = namespace.udp(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let id = random_id();
    let query = question.query(id)?;
    let began = monotonic()?;
    socket.send(&query)?;
    let mut buffer = [0; 4096];
    let seen = match socket.recv(&mut buffer) {
        Ok(length) => told(&buffer[..length], id),
        Err(_) => Seen::Nothing,
    };
    Ok(Sample {
        began,
        ended: monotonic()?,
        seen,
    })
}

fn told(bytes: &[u8], id: u16) -> Seen {
    // The guard says who it is; a resolver's SERVFAIL does not.
    let reason = HELD.1.as_bytes();
    if bytes.windows(reason.len()).any(|window| window == reason) {
        return Seen::Held;
    }
    match response(bytes, id) {
        Some(message) if is_answer(message.metadata.response_code) => Seen::Passed,
        Some(_) => Seen::Failed,
        None => Seen::Nothing,
    }
}
