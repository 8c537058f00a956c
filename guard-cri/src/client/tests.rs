//! The client against servers that do as they please.

use std::{convert::Infallible, time::Duration};

use hyper::{Response, body::Incoming, server::conn::http2, service::service_fn};
use tokio::{net::UnixListener, time::timeout};

use super::*;
use crate::message::{
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxMetadata, PodSandboxStatusRequest,
    PodSandboxStatusResponse,
};

/// What a server sends.
#[derive(Clone, Default)]
struct Said {
    status: u16,
    /// `grpc-status` and `grpc-message`, in front of the body or behind it.
    headers: Vec<(&'static str, &'static str)>,
    trailers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

impl Said {
    fn good(body: Vec<u8>) -> Self {
        Self {
            status: 200,
            trailers: vec![("grpc-status", "0")],
            body,
            ..Self::default()
        }
    }
}

/// Asks a server that says this for its pods.
fn list(said: Said) -> Result<ListPodSandboxResponse, CallError> {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cri.sock");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = move |request: Request<Incoming>| {
                let said = said.clone();
                async move {
                    assert_eq!(request.uri().path(), "/runtime.v1.RuntimeService/ListPodSandbox");
                    assert_eq!(request.headers()["content-type"], "application/grpc");
                    let mut response = Response::builder().status(said.status);
                    for (name, value) in said.headers {
                        response = response.header(name, value);
                    }
                    let trailers = said.trailers.into_iter();
                    let trailers = trailers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
                    let trailers: HeaderMap = trailers.collect();
                    let body = Full::new(Bytes::from(said.body));
                    let body = body.with_trailers(async move { Some(Ok::<_, Infallible>(trailers)) });
                    Ok::<_, Infallible>(response.body(body).unwrap())
                }
            };
            let serving = http2::Builder::new(TokioExecutor::new());
            let _ = serving.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
        let mut client = Client::connect(&socket).await.unwrap();
        let request = ListPodSandboxRequest::ready();
        let call = client.call(ListPodSandboxRequest::METHOD, &request);
        timeout(Duration::from_secs(20), call)
            .await
            .expect("an answer or an error")
    })
}

fn pods(number: usize) -> ListPodSandboxResponse {
    let pod = |number: usize| PodSandbox {
        id: format!("id{number}").into(),
        metadata: Some(PodSandboxMetadata {
            name: vec![0xff; 200],
            uid: b"uid".to_vec(),
            namespace: b"default".to_vec(),
        }),
        state: 0,
    };
    ListPodSandboxResponse {
        items: (0..number).map(pod).collect(),
    }
}

#[test]
fn a_list_of_any_length_is_read_and_a_name_that_is_no_utf8_spoils_nothing() {
    for number in [0, 1, 5_000] {
        let listed = list(Said::good(framed(&pods(number)).to_vec())).unwrap();
        assert_eq!(listed, pods(number));
    }
}

#[test]
fn what_the_runtime_refuses_is_told_in_its_own_words() {
    for in_front in [false, true] {
        let status = vec![
            ("grpc-status", "12"),
            ("grpc-message", "unknown service runtime.v1.RuntimeService"),
        ];
        let mut said = Said {
            status: 200,
            ..Said::default()
        };
        *(if in_front {
            &mut said.headers
        } else {
            &mut said.trailers
        }) = status;
        let error = list(said).unwrap_err();
        assert!(matches!(error, CallError::Refused { code: 12, .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "ListPodSandbox: the runtime answers with code 12: unknown service runtime.v1.RuntimeService"
        );
    }
}

#[test]
fn what_is_no_response_is_an_error() {
    let whole = framed(&pods(2)).to_vec();
    let compressed = [&[1], &whole[1..]].concat();
    let longer = [whole.clone(), vec![0]].concat();
    let strange = [
        ("nothing", Vec::new()),
        ("half a prefix", vec![0, 0, 0]),
        ("half a message", whole[..whole.len() - 1].to_vec()),
        ("more than a message", longer),
        ("a compressed one", compressed),
        ("not a message", framed(&Raw(vec![0xff; 40])).to_vec()),
    ];
    for (what, body) in strange {
        let error = list(Said::good(body)).unwrap_err();
        assert!(matches!(error, CallError::Strange { .. }), "{what}: {error:?}");
    }
    let error = list(Said {
        status: 404,
        ..Said::default()
    });
    assert_eq!(
        error.unwrap_err().to_string(),
        "ListPodSandbox: HTTP status 404 Not Found"
    );
}

#[test]
fn a_response_that_never_ends_is_cut() {
    let error = list(Said::good(vec![0; PREFIX + MAX_RESPONSE + 1])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ListPodSandbox: the response has more than 16777216 bytes"
    );
}

#[test]
fn a_socket_that_nobody_listens_on_is_an_error_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let error = runtime
        .block_on(Client::connect(&directory.path().join("none.sock")))
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

/// What containerd 1.6.20 sent for a pod with its own network, and for one with the node's.
#[test]
fn a_real_status_is_read() {
    let bytes = include_bytes!("../../recorded/containerd-1.6.20-pod.bin");
    let said = PodSandboxStatusResponse::decode(&bytes[..]).unwrap();
    let status = said.status.unwrap();
    assert_eq!(status.network.as_ref().unwrap().ip, "10.88.0.2");
    assert!(!status.is_on_host_network() && said.info["info"].contains("\"cniResult\""));
    let bytes = include_bytes!("../../recorded/containerd-1.6.20-host-network.bin");
    let said = PodSandboxStatusResponse::decode(&bytes[..]).unwrap();
    assert!(said.status.unwrap().is_on_host_network());
}

#[test]
fn requests_are_those_of_the_interface() {
    // filter { state { state: READY } }: a default is left out, its message is not.
    assert_eq!(ListPodSandboxRequest::ready().encode_to_vec(), [0x0a, 2, 0x12, 0]);
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: b"x".to_vec(),
        verbose: true,
    };
    assert_eq!(request.encode_to_vec(), [0x0a, 1, b'x', 0x10, 1]);
}

/// Bytes as they are.
#[derive(Clone, Debug, Default)]
struct Raw(Vec<u8>);

impl Message for Raw {
    fn encode_raw(&self, buffer: &mut impl prost::bytes::BufMut) {
        buffer.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        _: u32,
        _: prost::encoding::WireType,
        _: &mut impl prost::bytes::Buf,
        _: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {}
}
