//! The HTTP endpoints: a server for whatever answers requests, and the one that the metrics are at.
//!
//! A connection carries one request and has ten seconds for it, and there are 64 of them at most: whoever connects can
//! cost the agent neither memory nor attention.

mod endpoint;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, X_CONTENT_TYPE_OPTIONS},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time,
};
use tracing::{debug, warn};

pub(crate) use self::endpoint::Endpoint;
use crate::descriptors::explain;

/// What connections can cost at most.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections at once.
    connections: usize,
    /// For the head of a request.
    head: Duration,
    /// For a connection, from its first byte to its last.
    connection: Duration,
}

const LIMITS: Limits = Limits {
    connections: 64,
    head: Duration::from_secs(5),
    connection: Duration::from_secs(10),
};
/// For the connections that are open when the agent stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failure to accept, which is most likely a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Media type of a text.
pub(crate) const PLAIN: &str = "text/plain; charset=utf-8";
/// Media type of JSON.
pub(crate) const JSON: &str = "application/json";

/// What a request gets.
pub(crate) type Answer = Response<Full<Bytes>>;

/// What answers requests. It reads nothing of them but their heads.
pub(crate) trait Site: Send + Sync + 'static {
    /// The answer to a request.
    fn respond(&self, method: &Method, path: &str, headers: &HeaderMap) -> Answer;
}

/// Why there is no endpoint.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {}; set [{section}] listen, or \"\" to switch it off", plain(.source))]
pub(crate) struct HttpError {
    address: SocketAddr,
    /// Of the configuration.
    section: &'static str,
    source: io::Error,
}

fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this host does not have the address".to_owned(),
        io::ErrorKind::PermissionDenied => "not permitted".to_owned(),
        _ => error.to_string(),
    }
}

/// A server, listening.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
}

impl Server {
    /// Listens on this address, which is that of a section of the configuration.
    pub(crate) async fn bind(address: SocketAddr, section: &'static str) -> Result<Self, HttpError> {
        let failed = |source| HttpError {
            address,
            section,
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            limits: LIMITS,
        })
    }

    /// The address it listens on; the port is not 0.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is there, then lets the open connections end.
    pub(crate) async fn serve(self, site: impl Site, stop: impl Future<Output = ()>) {
        let site = Arc::new(site);
        let mut connections = JoinSet::new();
        // Told once: it can go on for long.
        let mut is_failing = false;
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < self.limits.connections => match accepted {
                    Ok((stream, _)) => {
                        is_failing = false;
                        connections.spawn(connection(stream, Arc::clone(&site), self.limits));
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut is_failing, true) {
                            warn!("cannot accept a connection at {}: {}; trying again", self.address, explain(&error));
                        }
                        time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        let ended = async { while connections.join_next().await.is_some() {} };
        // What is still open after that is cut off when the set is dropped.
        let _ = time::timeout(STOP_TIMEOUT, ended).await;
    }
}

async fn connection(stream: TcpStream, site: Arc<impl Site>, limits: Limits) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = site.respond(request.method(), request.uri().path(), request.headers());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .keep_alive(false)
        .max_buf_size(16 * 1_024)
        .serve_connection(TokioIo::new(stream), service);
    match time::timeout(limits.connection, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("a connection ended early: {error}"),
        Err(_) => debug!("a connection took too long"),
    }
}

/// A page that is not kept and is what its media type says.
pub(crate) fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let value = HeaderValue::from_static;
    response.headers_mut().insert(CONTENT_TYPE, value(content_type));
    response.headers_mut().insert(CACHE_CONTROL, value("no-store"));
    // Names in it may be made to look like a page.
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, value("nosniff"));
    response
}

/// What a method gets that is neither GET nor HEAD; `None` for those two.
pub(crate) fn refuse_method(method: &Method) -> Option<Answer> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let mut response = page(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET or HEAD\n");
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    Some(response)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use tokio::{
        sync::{oneshot, watch},
        task::{self, JoinHandle},
    };

    use super::*;
    use crate::{metrics::Metrics, snapshot::Snapshot};

    async fn bind() -> Server {
        Server::bind(([127, 0, 0, 1], 0).into(), "metrics").await.unwrap()
    }

    /// Starts a server; returns what stops it.
    fn start(server: Server) -> (oneshot::Sender<()>, JoinHandle<()>) {
        let (stop, stopped) = oneshot::channel::<()>();
        let (_, ready) = watch::channel(true);
        let stopped = async move {
            let _ = stopped.await;
        };
        (
            stop,
            tokio::spawn(server.serve(Endpoint::new(Metrics::new(Snapshot::default), ready), stopped)),
        )
    }

    async fn exchange(address: SocketAddr, request: &'static str) -> String {
        let client = move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).unwrap();
            response
        };
        task::spawn_blocking(client).await.unwrap()
    }

    #[tokio::test]
    async fn a_scrape_over_the_wire() {
        let server = bind().await;
        let address = server.address();
        let (stop, server) = start(server);
        let response = exchange(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(
            response.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            "{response}"
        );
        assert!(response.contains("\ndnsguard_loops_active 0\n"), "{response}");
        let head = exchange(address, "HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
        stop.send(()).unwrap();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_is_explained() {
        let server = bind().await;
        let error = Server::bind(server.address(), "page").await.unwrap_err();
        let expected = "address in use; set [page] listen, or \"\" to switch it off";
        assert_eq!(
            error.to_string(),
            format!("cannot listen on {}: {expected}", server.address())
        );
    }

    #[tokio::test]
    async fn who_says_nothing_makes_way_for_who_does() {
        let limits = Limits {
            connections: 1,
            head: Duration::from_millis(20),
            ..LIMITS
        };
        let server = Server { limits, ..bind().await };
        let address = server.address();
        let (stop, server) = start(server);
        let _silent = TcpStream::connect(address).await.unwrap();
        let response = exchange(address, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(response.ends_with("ok\n"), "{response}");
        stop.send(()).unwrap();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn stopping_waits_for_nobody_who_is_silent() {
        let server = bind().await;
        let address = server.address();
        let (stop, server) = start(server);
        let _silent = TcpStream::connect(address).await.unwrap();
        stop.send(()).unwrap();
        server.await.unwrap();
    }
}
