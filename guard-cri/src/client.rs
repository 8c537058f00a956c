//! Calls of one request and one response each (gRPC over HTTP/2, `doc/PROTOCOL-HTTP2.md` of grpc/grpc).

use std::{io, path::Path};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::UnixStream, task::JoinHandle};

/// The service and its version.
const SERVICE: &str = "runtime.v1.RuntimeService";

/// The most bytes of a response: what the kubelet takes as well (`maxMsgSize` of pkg/kubelet/cri/remote).
const MAX_RESPONSE: usize = 16 << 20;

/// Bytes in front of a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A connection to a runtime. It needs a tokio runtime to live in, and ends with its owner.
#[derive(Debug)]
pub struct Client {
    sender: http2::SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
}

/// Why a call has no response.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The runtime does not want to: a code of gRPC, and its own words.
    #[error("{method}: the runtime answers with code {code}: {message}")]
    Refused {
        /// The method that was called.
        method: &'static str,
        /// `google.rpc.Code`.
        code: u32,
        /// Cut to one line of 200 characters.
        message: String,
    },
    /// The connection does not work.
    #[error("{method}: {source}")]
    Broken {
        /// The method that was called.
        method: &'static str,
        /// Why.
        source: hyper::Error,
    },
    /// What comes is no gRPC, or not this interface.
    #[error("{method}: {reason}")]
    Strange {
        /// The method that was called.
        method: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Client {
    /// Connects to a runtime's socket. Whoever calls it limits how long it may take.
    ///
    /// # Errors
    ///
    /// What the socket says, or that nobody there speaks HTTP/2.
    pub async fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let handshake = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(io::Error::other)?;
        let connection = tokio::spawn(async move {
            // Whoever calls next hears of it.
            let _ = connection.await;
        });
        Ok(Self { sender, connection })
    }

    /// Sends a request and waits for the response. Whoever calls it limits how long it may take.
    ///
    /// # Errors
    ///
    /// [`CallError`]; after [`CallError::Refused`] the connection is still good.
    pub async fn call<Q: Message, R: Message + Default>(
        &mut self,
        method: &'static str,
        request: &Q,
    ) -> Result<R, CallError> {
        let broken = |source| CallError::Broken { method, source };
        let strange = |reason: &str| CallError::Strange {
            method,
            reason: reason.to_owned(),
        };
        let request = Request::post(format!("http://localhost/{SERVICE}/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(framed(request)))
            .map_err(|error| strange(&error.to_string()))?;
        self.sender.ready().await.map_err(broken)?;
        let response = self.sender.send_request(request).await.map_err(broken)?;
        if response.status() != StatusCode::OK {
            return Err(strange(&format!("HTTP status {}", response.status())));
        }
        // A response without a message may have its trailers in front.
        check(method, response.headers())?;
        let (body, trailers) = whole(response.into_body(), method).await?;
        check(method, &trailers)?;
        let message = match body.split_at_checked(PREFIX) {
            Some((&[0, ref length @ ..], message)) if length == (message.len() as u32).to_be_bytes() => message,
            _ => return Err(strange("the response is not one whole message")),
        };
        R::decode(message).map_err(|error| strange(&format!("the response cannot be read: {error}")))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A message with its prefix.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = Vec::with_capacity(PREFIX + length);
    framed.push(0);
    framed.extend((length as u32).to_be_bytes());
    framed.extend(message.encode_to_vec());
    framed.into()
}

/// The body to its end, and what came behind it.
async fn whole(mut body: Incoming, method: &'static str) -> Result<(Vec<u8>, HeaderMap), CallError> {
    let (mut bytes, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| CallError::Broken { method, source })?;
        match frame.into_data() {
            Ok(data) if bytes.len() + data.len() <= PREFIX + MAX_RESPONSE => bytes.extend_from_slice(&data),
            Ok(_) => {
                return Err(CallError::Strange {
                    method,
                    reason: format!("the response has more than {MAX_RESPONSE} bytes"),
                });
            }
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok((bytes, trailers))
}

/// Whether the runtime says that it went wrong.
fn check(method: &'static str, headers: &HeaderMap) -> Result<(), CallError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(status) = text("grpc-status") else {
        return Ok(());
    };
    match status.parse() {
        Ok(0) => Ok(()),
        Ok(code) => {
            let message = text("grpc-message").unwrap_or_default();
            let is_plain = |letter: &char| !letter.is_control();
            Err(CallError::Refused {
                method,
                code,
                message: message.chars().filter(is_plain).take(200).collect(),
            })
        }
        Err(_) => Err(CallError::Strange {
            method,
            reason: "its grpc-status is no number".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
