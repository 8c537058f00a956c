//! A DNS client that asks like the usual stub resolvers do.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Result;
use hickory_proto::op::{Message, ResponseCode};
use tokio::{net::UdpSocket, runtime, time::timeout_at};

use crate::{
    Namespace,
    question::{Question, is_answer, random_id, response},
};

/// What a try leaves the same for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same socket and DNS ID: dig's and glibc's way, a retransmit on the wire.
    Same,
    /// A new socket and a new DNS ID each time: a new query on the wire.
    Fresh,
}

/// What one client got for its question.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The last response, if any came: an answer, or the error of the last try.
    pub message: Option<Message>,
    /// How many queries were sent, at least 1.
    pub tries: u32,
    /// From the first query to the response, or to the end of the last try.
    pub waited: Duration,
}

impl Reply {
    /// The response code, if any response came.
    pub fn rcode(&self) -> Option<ResponseCode> {
        self.message.as_ref().map(|message| message.metadata.response_code)
    }

    /// Whether the name was answered: NOERROR or NXDOMAIN.
    pub fn answered(&self) -> bool {
        self.rcode().is_some_and(is_answer)
    }
}

/// Asks `server` as dig does: up to `tries` queries from one socket with one ID, `timeout` each.
///
/// Like dig, it takes the first response, error or not, for the last word.
pub fn ask(
    namespace: &Namespace,
    server: SocketAddr,
    question: &Question,
    tries: u32,
    timeout: Duration,
) -> Result<Reply> {
    inside(namespace, exchange(server, question, tries, timeout, Retry::Same))?
}

/// Runs a future to its end in the namespace: every socket it makes belongs there.
pub(crate) fn inside<T: Send>(namespace: &Namespace, work: impl Future<Output = T> + Send) -> Result<T> {
    namespace.run(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(work))
    })
}

/// One client's question with its tries.
pub(crate) async fn exchange(
    server: SocketAddr,
    question: &Question,
    tries: u32,
    timeout: Duration,
    retry: Retry,
) -> Result<Reply> {
    exchange_from(any(server), server, question, tries, timeout, retry).await
}

/// The same, from an address of its own.
pub(crate) async fn exchange_from(
    source: IpAddr,
    server: SocketAddr,
    question: &Question,
    tries: u32,
    timeout: Duration,
    retry: Retry,
) -> Result<Reply> {
    let start = Instant::now();
    let nothing = |tries: u32| Reply {
        message: None,
        tries: tries.max(1),
        waited: start.elapsed(),
    };
    let Some(mut socket) = connect(source, server).await? else {
        return Ok(nothing(0));
    };
    let mut id = random_id();
    let mut query = question.query(id)?;
    for number in 1..=tries.max(1) {
        if number > 1 && retry == Retry::Fresh {
            let Some(fresh) = connect(source, server).await? else {
                return Ok(nothing(number - 1));
            };
            socket = fresh;
            id = random_id();
            query = question.query(id)?;
        }
        let deadline = tokio::time::Instant::now() + timeout;
        // An error here is the ICMP that an earlier try got: this one may find the server back.
        drop(socket.send(&query).await);
        if let Ok(message) = timeout_at(deadline, receive(&socket, id)).await {
            return Ok(Reply {
                message: Some(message),
                tries: number,
                waited: start.elapsed(),
            });
        }
    }
    Ok(nothing(tries))
}

/// The kernel's choice of an address, of the server's family.
fn any(server: SocketAddr) -> IpAddr {
    match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A new socket with a port of its own that hears `server` only; None if no port is left. A loop of programs that take a
/// port for each query takes them all, and then a client of the same host gets nothing.
async fn connect(source: IpAddr, server: SocketAddr) -> Result<Option<UdpSocket>> {
    let socket = match UdpSocket::bind((source, 0)).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(None),
        socket => socket?,
    };
    socket.connect(server).await?;
    Ok(Some(socket))
}

/// The next response with this ID; whatever else comes is not for us.
pub(crate) async fn receive(socket: &UdpSocket, id: u16) -> Message {
    let mut buffer = [0; 4096];
    loop {
        // ECONNREFUSED from an ICMP: the server is not there yet, or not any more.
        let Ok(length) = socket.recv(&mut buffer).await else {
            continue;
        };
        if let Some(message) = response(&buffer[..length], id) {
            return message;
        }
    }
}
