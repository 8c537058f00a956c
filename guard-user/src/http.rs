//! The HTTP endpoint: `/metrics`, `/top`, `/livez`, `/readyz`.
//!
//! A connection carries one request and has ten seconds for it, and there are 64 of them at most: whoever connects can
//! cost the agent neither memory nor attention.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, X_CONTENT_TYPE_OPTIONS},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time,
};
use tracing::{debug, warn};

use crate::{
    metrics::{Format, Metrics},
    view::View,
};

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

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Why there is no endpoint.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {}; set [metrics] listen, or \"\" to switch it off", plain(.source))]
pub(crate) struct HttpError {
    address: SocketAddr,
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

/// The endpoint, listening.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
}

/// What the endpoint shows.
#[derive(Debug)]
struct Pages {
    metrics: Metrics,
    ready: watch::Receiver<bool>,
}

impl Server {
    /// Listens on this address.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, HttpError> {
        let failed = |source| HttpError { address, source };
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

    /// Serves until `stop` is there, then lets the open connections end. `/readyz` says what `ready` says.
    pub(crate) async fn serve(self, metrics: Metrics, ready: watch::Receiver<bool>, stop: impl Future<Output = ()>) {
        let pages = Arc::new(Pages { metrics, ready });
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < self.limits.connections => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(connection(stream, Arc::clone(&pages), self.limits));
                    }
                    Err(error) => {
                        warn!("cannot accept a connection for the metrics: {error}; trying again");
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

async fn connection(stream: TcpStream, pages: Arc<Pages>, limits: Limits) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = pages.respond(request.method(), request.uri().path(), request.headers());
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
        Ok(Err(error)) => debug!("a scrape ended early: {error}"),
        Err(_) => debug!("a scrape took too long"),
    }
}

impl Pages {
    fn respond(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        if !matches!(path, "/metrics" | "/top" | "/livez" | "/readyz") {
            return page(
                StatusCode::NOT_FOUND,
                PLAIN,
                "not found; there are /metrics, /top, /livez and /readyz\n",
            );
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = page(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET or HEAD\n");
            response
                .headers_mut()
                .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/metrics" => {
                let format = negotiate(headers);
                match self.metrics.render(format) {
                    Ok(exposition) => page(StatusCode::OK, format.content_type(), exposition),
                    Err(_) => page(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "cannot write the metrics\n"),
                }
            }
            "/top" => {
                let snapshot = self.metrics.snapshot();
                page(StatusCode::OK, JSON, View::of(&snapshot, &snapshot.history).json())
            }
            "/readyz" if !*self.ready.borrow() => page(
                StatusCode::SERVICE_UNAVAILABLE,
                PLAIN,
                "not ready: programs are not attached\n",
            ),
            _ => page(StatusCode::OK, PLAIN, "ok\n"),
        }
    }
}

fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let value = hyper::header::HeaderValue::from_static;
    response.headers_mut().insert(CONTENT_TYPE, value(content_type));
    response.headers_mut().insert(CACHE_CONTROL, value("no-store"));
    // Names in it may be made to look like a page.
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, value("nosniff"));
    response
}

/// The format that the client likes best (RFC 9110 section 12.5.1); text if it does not care.
fn negotiate(headers: &HeaderMap) -> Format {
    let (mut open_metrics, mut text) = (0.0_f32, None);
    for range in headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
    {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts
            .find_map(|part| part.strip_prefix("q="))
            .map_or(1.0, |quality| quality.parse().unwrap_or(0.0));
        match media_type.as_str() {
            "application/openmetrics-text" => open_metrics = open_metrics.max(quality),
            "text/plain" => text = Some(quality.max(text.unwrap_or(0.0))),
            _ => {}
        }
    }
    if open_metrics > 0.0 && open_metrics >= text.unwrap_or(0.0) {
        Format::OpenMetrics
    } else {
        Format::Text
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use hyper::header::HeaderValue;
    use tokio::{
        sync::oneshot,
        task::{self, JoinHandle},
    };

    use super::*;
    use crate::{snapshot::Snapshot, top};

    fn pages(ready: bool) -> Pages {
        Pages {
            metrics: Metrics::new(Snapshot::default),
            ready: watch::channel(ready).1,
        }
    }

    fn status(pages: &Pages, method: Method, path: &str) -> u16 {
        pages.respond(&method, path, &HeaderMap::new()).status().as_u16()
    }

    fn accepting(values: &[&str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT, HeaderValue::from_str(value).unwrap());
        }
        negotiate(&headers)
    }

    #[test]
    fn paths_and_methods_have_their_status() {
        let pages = pages(true);
        for path in ["/metrics", "/top", "/livez", "/readyz"] {
            assert_eq!(status(&pages, Method::GET, path), 200, "{path}");
            assert_eq!(status(&pages, Method::HEAD, path), 200, "{path}");
            assert_eq!(status(&pages, Method::POST, path), 405, "{path}");
        }
        assert_eq!(status(&pages, Method::GET, "/"), 404);
        assert_eq!(status(&pages, Method::POST, "/metrics/"), 404);
        assert_eq!(
            pages.respond(&Method::PUT, "/livez", &HeaderMap::new()).headers()[ALLOW],
            "GET, HEAD"
        );
    }

    #[test]
    fn an_agent_that_is_not_ready_is_alive() {
        let pages = pages(false);
        assert_eq!(status(&pages, Method::GET, "/readyz"), 503);
        assert_eq!(status(&pages, Method::GET, "/livez"), 200);
    }

    #[test]
    fn the_format_is_the_one_the_scraper_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;\
                          q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(accepting(&[prometheus]), Format::OpenMetrics);
        assert_eq!(
            accepting(&["text/plain; q=0.2", "Application/OpenMetrics-Text"]),
            Format::OpenMetrics
        );
        assert_eq!(accepting(&["text/plain;version=0.0.4"]), Format::Text);
        assert_eq!(
            accepting(&["text/plain, application/openmetrics-text;q=0.1"]),
            Format::Text
        );
        assert_eq!(accepting(&["application/openmetrics-text;q=0"]), Format::Text);
        assert_eq!(accepting(&["*/*"]), Format::Text);
        assert_eq!(accepting(&[]), Format::Text);
    }

    async fn bind() -> Server {
        Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap()
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
            tokio::spawn(server.serve(Metrics::new(Snapshot::default), ready, stopped)),
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
    async fn the_command_reads_what_the_endpoint_serves() {
        let server = bind().await;
        let url = format!("http://{}", server.address());
        let (stop, server) = start(server);
        let shown = task::spawn_blocking(move || top::top(&url, top::Format::Json))
            .await
            .unwrap();
        let shown = shown.unwrap();
        assert!(shown.starts_with("{\"schema\":1,"), "{shown}");
        stop.send(()).unwrap();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_is_explained() {
        let server = bind().await;
        let error = Server::bind(server.address()).await.unwrap_err();
        let expected = "address in use; set [metrics] listen, or \"\" to switch it off";
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
