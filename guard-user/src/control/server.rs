//! The agent's side of the control socket.
//!
//! There are 32 connections at most, and each carries one request and has ten seconds for it, unless it follows events.
//! What can be read off the snapshot never reaches the agent; what changes something is done by the agent, one after the
//! other.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited, channel::Channel, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, sync::broadcast::error::RecvError, task::JoinSet, time};
use tracing::{debug, warn};

use super::{
    api::{Change, Failure, LoopList, PolicyView, SCHEMA, Which},
    ask::{Answer, Deed, Line, Refusal},
    filter::Filter,
    socket::{Peer, Socket},
    status::Status,
};
use crate::{
    descriptors::explain,
    events::feed::{self, Feed, Onlooker},
    http::JSON,
    metrics::{Format, Metrics},
    question::Question,
    view::View,
};

/// Connections at once.
const CONNECTIONS: usize = 32;
/// For the head of a request.
const HEAD: Duration = Duration::from_secs(5);
/// For everything but following events.
const REQUEST: Duration = Duration::from_secs(10);
/// Bytes of a request's body.
const MOST_BODY: usize = 64 * 1_024;
/// For the connections that are open when the agent stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// A follower hears something at least this often, so that one who is gone is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

const LINES: &str = "application/jsonl";

type Body = BoxBody<Bytes, Infallible>;

/// What is served.
#[derive(Debug)]
pub(crate) struct Server {
    socket: Socket,
    rooms: Arc<Rooms>,
}

/// Where answers come from.
#[derive(Debug)]
pub(crate) struct Rooms {
    metrics: Metrics,
    feed: Feed,
    agent: Line,
}

impl Server {
    /// Will serve on this socket.
    pub(crate) fn new(socket: Socket, metrics: Metrics, feed: Feed, agent: Line) -> Self {
        let rooms = Arc::new(Rooms::new(metrics, feed, agent));
        Self { socket, rooms }
    }

    /// Serves until `stop` is there, then lets the open connections end and removes the socket.
    pub(crate) async fn serve(self, stop: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        // Told once: it can go on for long.
        let mut is_failing = false;
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => {}
                accepted = self.socket.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok(stream) => {
                        is_failing = false;
                        let peer = self.socket.admit(&stream);
                        connections.spawn(connection(stream, Arc::clone(&self.rooms), peer));
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut is_failing, true) {
                            warn!("cannot accept a connection for a command: {}; trying again", explain(&error));
                        }
                        time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        let ended = async { while connections.join_next().await.is_some() {} };
        // Followers are cut off when the set is dropped.
        let _ = time::timeout(STOP_TIMEOUT, ended).await;
    }
}

/// Carries one request of `peer`, who may give commands or may not.
pub(crate) async fn connection(stream: UnixStream, rooms: Arc<Rooms>, peer: Result<Peer, Peer>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let rooms = Arc::clone(&rooms);
        async move {
            let response = match peer {
                Ok(peer) => time::timeout(REQUEST, rooms.respond(request, peer)).await,
                Err(stranger) => Ok(failure(
                    StatusCode::FORBIDDEN,
                    format!(
                        "uid {} may not give commands; use sudo, or a member of [control] group",
                        stranger.uid
                    ),
                )),
            };
            let late = |_| {
                failure(
                    StatusCode::GATEWAY_TIMEOUT,
                    "the agent has not answered in time; see its log",
                )
            };
            Ok::<_, Infallible>(response.unwrap_or_else(late))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_buf_size(64 * 1_024)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        debug!("a command's connection ended early: {error}");
    }
}

impl Rooms {
    /// What only looks is answered from metrics and feed; the rest is the agent's.
    pub(crate) const fn new(metrics: Metrics, feed: Feed, agent: Line) -> Self {
        Self { metrics, feed, agent }
    }

    async fn respond(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default();
        match (&head.method, head.uri.path()) {
            (&Method::GET, "/v1/status") => json(&Status::of(&self.metrics.snapshot())),
            (&Method::GET, "/v1/top") => {
                let snapshot = self.metrics.snapshot();
                json(&View::of(&snapshot))
            }
            (&Method::GET, "/v1/loops") => json(&LoopList::of(&self.metrics.snapshot())),
            (&Method::GET, "/v1/policy") => json(&PolicyView::of(&self.metrics.snapshot())),
            (&Method::GET, "/v1/metrics") => match self.metrics.render(Format::Text) {
                Ok(text) => response(StatusCode::OK, Format::Text.content_type(), full(text)),
                Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "cannot write the metrics"),
            },
            (&Method::GET, "/v1/explain") => match question(query) {
                Ok(question) => answer(self.agent.explain(question).await),
                Err(error) => failure(StatusCode::BAD_REQUEST, error),
            },
            (&Method::GET, "/v1/events") => match Wish::read(query) {
                Ok(wish) => self.events(wish),
                Err(error) => failure(StatusCode::BAD_REQUEST, error),
            },
            (&Method::POST, path) => self.carry_out(path, body, peer).await,
            _ => not_found(),
        }
    }

    async fn carry_out(&self, path: &str, body: Incoming, peer: Peer) -> Response<Body> {
        let deed = match path {
            "/v1/loops/release" => read::<Which>(body).await.map(Deed::Release),
            "/v1/loops/allow" => read::<Which>(body).await.map(Deed::Allow),
            "/v1/loops/disallow" => read::<Which>(body).await.map(Deed::Disallow),
            "/v1/policy/set" => read::<Change>(body).await.map(Deed::Set),
            "/v1/policy/reset" => read::<Change>(body).await.map(Deed::Reset),
            "/v1/reload" => Ok(Deed::Reload),
            _ => return not_found(),
        };
        match deed {
            Ok(deed) => answer(self.agent.carry_out(deed, peer).await),
            Err(error) => failure(StatusCode::BAD_REQUEST, error),
        }
    }

    /// Lines: what has happened, and, to who follows, what happens from now on.
    fn events(&self, wish: Wish) -> Response<Body> {
        let onlooker = self.feed.watch(wish.last, wish.queries);
        if !wish.follow {
            let wanted = onlooker.backlog.iter().filter(|line| wish.filter.takes(line));
            let lines: String = wanted.map(|line| format!("{line}\n")).collect();
            return response(StatusCode::OK, LINES, full(lines));
        }
        let (sender, body) = Channel::<Bytes, Infallible>::new(64);
        tokio::spawn(follow(onlooker, wish.filter, sender));
        response(StatusCode::OK, LINES, body.boxed())
    }
}

type Sender = http_body_util::channel::Sender<Bytes, Infallible>;

async fn follow(mut onlooker: Onlooker, filter: Filter, mut sender: Sender) {
    let mut heartbeat = time::interval(HEARTBEAT);
    for line in std::mem::take(&mut onlooker.backlog) {
        if filter.takes(&line) && send(&mut sender, &line).await.is_err() {
            return;
        }
    }
    loop {
        let received = tokio::select! {
            received = onlooker.events.recv() => received,
            received = next_query(&mut onlooker.queries) => received,
            _ = heartbeat.tick() => {
                // An empty line: whoever is gone is found out.
                if send(&mut sender, "").await.is_err() {
                    return;
                }
                continue;
            }
        };
        let sent = match received {
            Ok(line) if filter.takes(&line) => send(&mut sender, &line).await,
            Ok(_) => Ok(()),
            Err(RecvError::Lagged(count)) => send(&mut sender, &lost(count)).await,
            Err(RecvError::Closed) => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn next_query(queries: &mut Option<feed::Queries>) -> Result<feed::Line, RecvError> {
    match queries {
        Some(queries) => queries.lines.recv().await,
        None => std::future::pending().await,
    }
}

async fn send(sender: &mut Sender, line: &str) -> Result<(), ()> {
    let sent = sender.send_data(Bytes::from(format!("{line}\n"))).await;
    sent.map_err(drop)
}

fn lost(count: u64) -> String {
    serde_json::json!({
        "schema": SCHEMA, "event": "lost", "count": count,
        "reason": format!("{count} lines were not sent: whoever reads them is too slow"),
    })
    .to_string()
}

/// Which events and queries are asked for.
#[derive(Debug, Default)]
struct Wish {
    last: usize,
    follow: bool,
    queries: bool,
    filter: Filter,
}

impl Wish {
    fn read(query: &str) -> Result<Self, String> {
        let mut wish = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "last" => {
                    let number = value.parse();
                    wish.last = number.map_err(|_| format!("last is '{}'; allowed: a number", value.escape_debug()))?;
                }
                "follow" => wish.follow = value == "1",
                "queries" => wish.queries = value == "1",
                _ if wish.filter.add(&key, &value)? => {}
                _ => {
                    return Err(format!(
                        "unknown parameter '{}'; allowed: last, follow, queries, event, name, type, client, device, pod, \
                         verdict",
                        key.escape_debug()
                    ));
                }
            }
        }
        Ok(wish)
    }
}

fn question(query: &str) -> Result<Question, String> {
    let (mut name, mut qtype) = (None, None);
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "name" => name = Some(value),
            "type" => qtype = Some(value),
            _ => {
                return Err(format!(
                    "unknown parameter '{}'; allowed: name, type",
                    key.escape_debug()
                ));
            }
        }
    }
    let name = name.ok_or("parameter 'name' is missing")?;
    Question::new(&name, qtype.as_deref().unwrap_or("A"))
}

async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, String> {
    let body = Limited::new(body, MOST_BODY).collect().await;
    let bytes = body
        .map_err(|error| format!("cannot read the request: {error}"))?
        .to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| format!("the request is not the JSON of this version: {error}"))
}

fn answer<T: Serialize>(answer: Answer<T>) -> Response<Body> {
    match answer {
        Ok(value) => json(&value),
        Err(Refusal::Bad(error)) => failure(StatusCode::BAD_REQUEST, error),
        Err(Refusal::Missing(error)) => failure(StatusCode::NOT_FOUND, error),
        Err(Refusal::Failed(error)) => failure(StatusCode::CONFLICT, error),
    }
}

fn not_found() -> Response<Body> {
    failure(
        StatusCode::NOT_FOUND,
        "there is no such request in version 1; agent and command may be of different versions",
    )
}

fn failure(status: StatusCode, error: impl Into<String>) -> Response<Body> {
    // Strings and numbers: nothing in it can fail.
    let text = serde_json::to_string(&Failure::new(error)).unwrap_or_default();
    response(status, JSON, full(text))
}

fn json(value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_string(value).unwrap_or_default();
    response(StatusCode::OK, JSON, full(text))
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
