//! A runtime that hangs, refuses, lies, goes away and comes back.

use std::{
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
};

use guard_cri::message::{PodSandbox, PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxStatus};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::UnixListener, task::JoinHandle};

use super::*;

/// In place of an address: it never says.
const STUCK: &str = "stuck";

/// What it says of each pod: its name for it, the pod's name, and its address; none where it refuses to say.
type Pods = Vec<(&'static str, &'static str, Option<&'static str>)>;

/// What it was asked, and what it has.
#[derive(Clone, Default)]
struct Script {
    pods: Arc<Mutex<Pods>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn set(&self, pods: Pods) {
        *self.pods.lock().unwrap() = pods;
    }

    /// The statuses it was asked for since the last call.
    fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.sort();
        asked
    }

    /// Serves it.
    fn listen(&self, socket: &Path) -> JoinHandle<()> {
        let listener = UnixListener::bind(socket).unwrap();
        let script = self.clone();
        tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let script = script.clone();
                let answer = move |request| script.clone().answer(request);
                let serving = http2::Builder::new(TokioExecutor::new());
                let serving = serving.serve_connection(TokioIo::new(stream), service_fn(answer));
                connections.spawn(async move { drop(serving.await) });
            }
        })
    }

    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let pods = self.pods.lock().unwrap().clone();
        let message = match method.as_str() {
            ListPodSandboxRequest::METHOD => Some(list(&pods)),
            _ => {
                let asked = PodSandboxStatusRequest::decode(&body[5..]).unwrap();
                let id = String::from_utf8(asked.pod_sandbox_id).unwrap();
                self.asked.lock().unwrap().push(id.clone());
                let found = pods.iter().find(|(known, ..)| *known == id);
                if found.is_some_and(|(.., address)| *address == Some(STUCK)) {
                    std::future::pending::<()>().await;
                }
                found.and_then(|(.., address)| *address).map(status)
            }
        };
        let code = if message.is_some() { "0" } else { "5" };
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())]);
        let framed = message.map_or_else(Vec::new, |message| {
            [&[0], &(message.len() as u32).to_be_bytes()[..], &message].concat()
        });
        let body = Full::new(Bytes::from(framed)).with_trailers(async { Some(Ok(trailers)) });
        Ok(Response::new(body))
    }
}

fn list(pods: &Pods) -> Vec<u8> {
    let items = pods.iter().map(|(id, name, _)| PodSandbox {
        id: id.as_bytes().to_vec(),
        metadata: Some(PodSandboxMetadata {
            name: name.as_bytes().to_vec(),
            uid: Vec::new(),
            namespace: b"shop".to_vec(),
        }),
        state: 0,
    });
    ListPodSandboxResponse { items: items.collect() }.encode_to_vec()
}

fn status(address: &str) -> Vec<u8> {
    let status = PodSandboxStatus {
        network: Some(PodSandboxNetworkStatus {
            ip: address.to_owned(),
            additional_ips: Vec::new(),
        }),
        ..PodSandboxStatus::default()
    };
    PodSandboxStatusResponse {
        status: Some(status),
        info: HashMap::new(),
    }
    .encode_to_vec()
}

async fn names(runtime: &mut Runtime) -> Result<Vec<String>, RuntimeError> {
    let sandboxes = runtime.sandboxes().await?;
    let mut names: Vec<_> = sandboxes.map(|sandbox| sandbox.pod.name().to_owned()).collect();
    names.sort();
    Ok(names)
}

fn block_on(work: impl Future<Output = ()>) {
    let inside = tokio::runtime::Builder::new_current_thread().enable_all().build();
    inside.unwrap().block_on(work);
}

#[test]
fn what_is_known_of_a_pod_is_not_asked_for_again() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("cri.sock");
        let script = Script::default();
        let _serving = script.listen(&socket);
        let mut runtime = Runtime::new(vec![socket]);
        script.set(vec![("1", "a", Some("10.0.0.1")), ("2", "b", Some("10.0.0.2"))]);
        assert_eq!(names(&mut runtime).await.unwrap(), ["a", "b"]);
        assert_eq!(script.asked(), ["1", "2"]);
        // One goes, one comes with its address; the network of another is on its way.
        script.set(vec![
            ("2", "b", None),
            ("3", "c", Some("10.0.0.1")),
            ("4", "d", Some("")),
        ]);
        assert_eq!(names(&mut runtime).await.unwrap(), ["b", "c"]);
        assert_eq!(script.asked(), ["3", "4"]);
        script.set(vec![("2", "b", None), ("3", "c", None), ("4", "d", Some("10.0.0.4"))]);
        assert_eq!(names(&mut runtime).await.unwrap(), ["b", "c", "d"]);
        assert_eq!(script.asked(), ["4"]);
    });
}

#[test]
fn one_pod_that_cannot_be_told_costs_nobody_else() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("cri.sock");
        let script = Script::default();
        let _serving = script.listen(&socket);
        let mut runtime = Runtime::new(vec![socket]);
        script.set(vec![
            ("1", "gone", None),
            ("2", "b", Some("10.0.0.2")),
            ("3", "\u{1b}[2J", Some("10.0.0.3")),
        ]);
        assert_eq!(names(&mut runtime).await.unwrap(), ["b"]);
        assert_eq!(script.asked(), ["1", "2"]);
    });
}

#[test]
fn one_pod_that_is_stuck_costs_the_others_nothing_but_time() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("cri.sock");
        let script = Script::default();
        let _serving = script.listen(&socket);
        let mut runtime = Runtime::new(vec![socket]);
        script.set(vec![
            ("1", "a", Some("10.0.0.1")),
            ("2", "b", Some(STUCK)),
            ("3", "c", Some("10.0.0.3")),
        ]);
        // In whatever order: it is the last one from the second time on.
        names(&mut runtime).await.unwrap();
        assert_eq!(names(&mut runtime).await.unwrap(), ["a", "c"]);
    });
}

#[test]
fn a_runtime_that_was_started_again_is_asked_again_and_keeps_its_pods() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let (absent, socket) = (directory.path().join("none.sock"), directory.path().join("cri.sock"));
        let script = Script::default();
        script.set(vec![("1", "a", Some("10.0.0.1"))]);
        // The first that is there is taken.
        let mut runtime = Runtime::new(vec![absent.clone(), socket.clone()]);
        let serving = script.listen(&socket);
        assert_eq!(names(&mut runtime).await.unwrap(), ["a"]);
        serving.abort();
        let _ = serving.await;
        let error = names(&mut runtime).await.unwrap_err();
        assert!(
            matches!(error, RuntimeError::Call(CallError::Broken { .. })),
            "{error:?}"
        );
        let error = names(&mut runtime).await.unwrap_err().to_string();
        let tried = format!("at {}, {}: Connection refused", absent.display(), socket.display());
        assert!(error.contains(&tried) && error.contains("[pods] socket"), "{error}");
        std::fs::remove_file(&socket).unwrap();
        let _serving = script.listen(&socket);
        script.asked();
        assert_eq!(names(&mut runtime).await.unwrap(), ["a"]);
        assert_eq!(script.asked(), [""; 0]);
    });
}

#[test]
fn a_runtime_that_hangs_is_left_after_a_while() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("cri.sock");
        // It takes connections, as the kernel does for it, and says nothing.
        let _listener = UnixListener::bind(&socket).unwrap();
        let mut runtime = Runtime::new(vec![socket]);
        let error = names(&mut runtime).await.unwrap_err();
        assert!(matches!(error, RuntimeError::Silent { .. }), "{error:?}");
    });
}
