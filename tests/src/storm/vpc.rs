//! The services behind the policer: a resolver, instance metadata, and time.
//!
//! The resolver is quick, not complete: it looks at the first question only, and writes its answers by hand.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use tokio::{runtime, sync::Notify, task::JoinSet};

use super::{
    imds,
    network::{METADATA, RESOLVER, RESOLVER_LINK_LOCAL, TIME, dns},
    ntp,
};
use crate::{Namespace, upstream::ADDRESS};

/// Bytes of queries that may wait while this machine does something else: nothing is lost here.
const BUFFER: usize = 8 << 20;

/// The services, running until this is dropped.
#[derive(Debug)]
pub(super) struct Vpc {
    end: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Vpc {
    pub(super) fn start(aws: &Namespace) -> Result<Self> {
        let resolvers = [udp(aws, dns(RESOLVER))?, udp(aws, dns(RESOLVER_LINK_LOCAL))?];
        let time = udp(aws, (TIME, ntp::PORT).into())?;
        let metadata = aws
            .run(|| TcpListener::bind((METADATA, imds::PORT)))
            .context("bind the metadata service")?;
        metadata.set_nonblocking(true)?;
        let end = Arc::new(Notify::new());
        let over = Arc::clone(&end);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let serve = move || {
            runtime.block_on(async {
                let mut services = JoinSet::new();
                for resolver in resolvers {
                    services.spawn(respond(resolver, answer));
                }
                services.spawn(respond(time, ntp::answer));
                services.spawn(imds::serve(metadata));
                tokio::select! {
                    () = over.notified() => {}
                    // None of them ends by itself.
                    _ = services.join_next() => {}
                }
            });
        };
        let thread = thread::Builder::new().name("vpc".into()).spawn(serve)?;
        Ok(Self {
            end,
            thread: Some(thread),
        })
    }
}

impl Drop for Vpc {
    fn drop(&mut self) {
        self.end.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has no state that a panic of it could spoil here.
            drop(thread.join());
        }
    }
}

fn udp(namespace: &Namespace, address: SocketAddr) -> Result<UdpSocket> {
    let socket = namespace.udp(address)?;
    setsockopt(&socket, RcvBufForce, &BUFFER).with_context(|| format!("a buffer for {address}"))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Answers each datagram with what `answer` makes of it, if anything.
async fn respond(socket: UdpSocket, answer: fn(&[u8]) -> Option<Vec<u8>>) -> Result<()> {
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let mut buffer = [0; 4096];
    loop {
        // An error is the ICMP of a client that has gone.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if let Some(answer) = answer(&buffer[..length]) {
            drop(socket.send_to(&answer, client).await);
        }
    }
}

const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const RCODE_NXDOMAIN: u8 = 3;

/// [`ADDRESS`] with a TTL of 0 for A, NXDOMAIN for PTR, NODATA for the rest; with an OPT record if the query has one.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut end = HEADER;
    loop {
        match usize::from(*query.get(end)?) {
            0 => break,
            label => end += 1 + label,
        }
    }
    // The root, type and class.
    end += 5;
    let question = query.get(HEADER..end)?;
    let kind = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    let rcode = if kind == TYPE_PTR { RCODE_NXDOMAIN } else { 0 };
    let (found, edns) = (kind == TYPE_A, query[11] != 0);

    let mut message = Vec::with_capacity(end + 32);
    // ID; QR, the opcode and RD; RA and the RCODE; then the counts of the four sections (RFC 1035 section 4.1.1).
    message.extend_from_slice(&query[..2]);
    message.extend_from_slice(&[query[2] | 0x80, 0x80 | rcode]);
    message.extend_from_slice(&[0, 1, 0, u8::from(found), 0, 0, 0, u8::from(edns)]);
    message.extend_from_slice(question);
    if found {
        // A pointer to the question's name, type A, class IN, TTL 0, four bytes.
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        message.extend_from_slice(&ADDRESS.octets());
    }
    if edns {
        // The root, type 41, 1,232 bytes, no extended RCODE or flags, no options (RFC 6891 section 6.1.2).
        message.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use hickory_proto::{op::ResponseCode, rr::RData};

    use super::*;
    use crate::question::{Question, RecordType, response};

    #[test]
    fn an_answer_is_one_that_a_library_reads() {
        for (kind, rcode, answers) in [
            (RecordType::A, ResponseCode::NoError, 1),
            (RecordType::AAAA, ResponseCode::NoError, 0),
            (RecordType::PTR, ResponseCode::NXDomain, 0),
        ] {
            let question = Question::new("q1.good.example.", kind).unwrap();
            let bytes = answer(&question.query(7).unwrap()).unwrap();
            let message = response(&bytes, 7).unwrap();
            assert_eq!(message.metadata.response_code, rcode, "{kind}");
            assert_eq!(message.queries[0].name(), &question.name);
            assert_eq!(message.answers.len(), answers);
            assert!(message.edns.is_some());
            if let Some(record) = message.answers.first() {
                assert_eq!((record.ttl, &record.data), (0, &RData::A(ADDRESS.into())));
            }
        }
    }

    #[test]
    fn half_a_query_gets_no_answer() {
        let query = Question::new("q1.good.example.", RecordType::A)
            .unwrap()
            .query(7)
            .unwrap();
        for length in 0..HEADER + "q1.good.example.".len() + 4 {
            assert_eq!(answer(&query[..length]), None, "{length} bytes");
        }
    }
}
