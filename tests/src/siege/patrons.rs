//! Clients who do nothing wrong: every query of theirs has one try, and a long time to be answered.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use hickory_proto::op::{Message, MessageType, OpCode};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use super::worker::Worker;
use crate::{
    Namespace, Report,
    client::Reply,
    question::{Question, RecordType},
};

/// Answers that wait for us: more than are ever asked for.
const ROOM: usize = 8 << 20;
/// For an answer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clients that ask at a steady rate until they are told to stop.
///
/// They share a socket, so that no answer finds none, and each has an ID and a name of its own.
#[derive(Debug)]
pub struct Patrons(Worker<Report>);

impl Patrons {
    /// Asks `server` from inside `namespace`, `qps` times a second, for A records; a `*` in `name` is another label each
    /// time.
    pub fn start(namespace: &Namespace, server: SocketAddr, name: &str, qps: u64) -> Result<Self> {
        let socket = namespace.udp(SocketAddr::new(IpAddr::from(Ipv4Addr::UNSPECIFIED), 0))?;
        setsockopt(&socket, RcvBufForce, &ROOM).context("make room for answers")?;
        namespace.run(|| socket.connect(server))?;
        let (name, interval) = (name.to_owned(), Duration::from_secs_f64(1.0 / qps.max(1) as f64));
        Worker::start("patrons", move |over| ask(&socket, &name, interval, over)).map(Self)
    }

    /// Asks no more; waits until the last query is answered or lost.
    pub fn stop(self) -> Result<Report> {
        self.0.stop()
    }
}

fn ask(socket: &UdpSocket, name: &str, interval: Duration, over: &AtomicBool) -> Result<Report> {
    let mut waiting = BTreeMap::new();
    let mut replies = Vec::new();
    let began = Instant::now();
    let mut ended = None;
    for number in 0_u32.. {
        let due = began + interval * number;
        if over.load(Ordering::Relaxed) {
            ended = Some(Instant::now());
            break;
        }
        hear(socket, due, &mut waiting, &mut replies)?;
        let question = Question::new(&name.replace('*', &format!("p{number}")), RecordType::A)?;
        let id = number as u16;
        match socket.send(&question.query(id)?) {
            Ok(_) => {}
            // What an earlier query got: this one may not be sent for it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                socket.send(&question.query(id)?)?;
            }
            // The wire is down, or gone. Nobody has been asked, and so nobody has lost anything.
            Err(_) => continue,
        }
        // A query that still waits when its ID comes again is lost.
        if let Some(sent) = waiting.insert(id, Instant::now()) {
            replies.push(nothing(sent));
        }
    }
    let last = ended.unwrap_or(began) + PATIENCE;
    while !waiting.is_empty() && Instant::now() < last {
        hear(
            socket,
            (Instant::now() + Duration::from_millis(20)).min(last),
            &mut waiting,
            &mut replies,
        )?;
    }
    replies.extend(waiting.into_values().map(nothing));
    Ok(Report::of(&replies))
}

/// Takes answers until it is time.
fn hear(
    socket: &UdpSocket,
    until: Instant,
    waiting: &mut BTreeMap<u16, Instant>,
    replies: &mut Vec<Reply>,
) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        socket.set_read_timeout(Some(left))?;
        // A timeout; or an ICMP, and then its query stays without an answer.
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let Ok(message) = Message::from_vec(&buffer[..length]) else {
            continue;
        };
        if message.metadata.message_type != MessageType::Response {
            continue;
        }
        if let Some(sent) = waiting.remove(&message.metadata.id) {
            // Its records are not kept: there may be millions.
            let mut head = Message::response(message.metadata.id, OpCode::Query);
            head.metadata.response_code = message.metadata.response_code;
            replies.push(Reply {
                message: Some(head),
                tries: 1,
                waited: sent.elapsed(),
            });
        }
    }
}

fn nothing(sent: Instant) -> Reply {
    Reply {
        message: None,
        tries: 1,
        waited: sent.elapsed(),
    }
}
