//! The name server behind the resolvers: a small UDP responder of our own, so that it can be slow or dead on demand.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;
use hickory_proto::op::ResponseCode;

use crate::{Namespace, question::respond};

/// The address every name has here (RFC 5737, documentation).
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// How often the responder looks whether it should end.
const TICK: Duration = Duration::from_millis(50);

/// What an upstream does with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Answers every A query with [`ADDRESS`], TTL 0, and everything else with NODATA, after a delay.
    Answers(Duration),
    /// Says NXDOMAIN to everything.
    KnowsNothing,
    /// Takes queries and says nothing.
    Dead,
}

/// A responder thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Starts a responder on `address`, UDP only.
    pub fn start(namespace: &Namespace, address: SocketAddr, manner: Manner) -> Result<Self> {
        let socket = namespace.udp(address)?;
        let seen = Arc::new(AtomicU64::new(0));
        let end = Arc::new(AtomicBool::new(false));
        let thread = {
            let (seen, end) = (Arc::clone(&seen), Arc::clone(&end));
            thread::Builder::new()
                .name("upstream".into())
                .spawn(move || serve(&socket, manner, &seen, &end))?
        };
        Ok(Self {
            address,
            seen,
            end,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Packets it has received.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has no state that a panic of it could spoil here.
            drop(thread.join());
        }
    }
}

fn serve(socket: &UdpSocket, manner: Manner, seen: &AtomicU64, end: &AtomicBool) {
    let mut buffer = [0; 4096];
    let mut due: VecDeque<(Instant, SocketAddr, Vec<u8>)> = VecDeque::new();
    while !end.load(Ordering::Relaxed) {
        let wait = due
            .front()
            .map_or(TICK, |(at, ..)| at.saturating_duration_since(Instant::now()));
        // Zero would mean to wait for ever.
        let wait = wait.clamp(Duration::from_micros(100), TICK);
        let received = socket
            .set_read_timeout(Some(wait))
            .and_then(|()| socket.recv_from(&mut buffer));
        match received {
            Ok((length, client)) => {
                seen.fetch_add(1, Ordering::Relaxed);
                let (delay, rcode) = match manner {
                    Manner::Answers(delay) => (delay, ResponseCode::NoError),
                    Manner::KnowsNothing => (Duration::ZERO, ResponseCode::NXDomain),
                    Manner::Dead => continue,
                };
                if let Some(answer) = respond(&buffer[..length], rcode, ADDRESS) {
                    due.push_back((Instant::now() + delay, client, answer));
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            // An ICMP from a client that has gone.
            Err(_) => {}
        }
        while due.front().is_some_and(|(at, ..)| *at <= Instant::now()) {
            if let Some((_, client, answer)) = due.pop_front() {
                drop(socket.send_to(&answer, client));
            }
        }
    }
}
