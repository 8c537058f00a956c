//! The command's side of the control socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{net::UnixStream, time};

use super::api::{Failure, SCHEMA};
use crate::exit;

/// For the agent to answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// Nobody is there.
    #[error("no agent answers at {socket}: {}; is dnsguard running, and is this its [control] socket?", plain(.source))]
    Nobody { socket: String, source: io::Error },
    /// The socket is there, and not for us.
    #[error("not permitted to use {0}; use sudo, or become a member of [control] group")]
    NotPermitted(String),
    /// The agent knows who is there, and he may not give commands.
    #[error("{0}")]
    Forbidden(String),
    /// The agent says no.
    #[error("{0}")]
    Refused(String),
    /// What was asked for makes no sense to the agent.
    #[error("{0}")]
    Bad(String),
    /// Somebody answers, but not as an agent does.
    #[error("what answers at {socket} is not an agent of this version: {what}")]
    Stranger { socket: String, what: String },
}

impl ClientError {
    /// The exit code of a command that ends with it.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Nobody { .. } => exit::NOBODY,
            Self::NotPermitted(_) | Self::Forbidden(_) => exit::NOT_PERMITTED,
            Self::Bad(_) => exit::BAD_USAGE,
            Self::Refused(_) | Self::Stranger { .. } => exit::FAILED,
        }
    }
}

/// What the system says, without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// The way to the agent of this host.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// By this socket.
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Asks for something.
    ///
    /// # Errors
    ///
    /// Nobody answers, or it is refused.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let text = self.text(path)?;
        self.parse(&text)
    }

    /// Asks for a text.
    ///
    /// # Errors
    ///
    /// As above.
    pub(crate) fn text(&self, path: &str) -> Result<String, ClientError> {
        self.block_on(self.exchange(Method::GET, path, String::new()))
    }

    /// Has something done.
    ///
    /// # Errors
    ///
    /// As above.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        // Strings and numbers: nothing in it can fail.
        let body = serde_json::to_string(body).unwrap_or_default();
        let text = self.block_on(self.exchange(Method::POST, path, body))?;
        self.parse(&text)
    }

    /// Asks for lines, and hands each to `take` as it comes, until that returns false or the agent ends.
    ///
    /// # Errors
    ///
    /// As above.
    pub(crate) fn lines(&self, path: &str, mut take: impl FnMut(&str) -> bool) -> Result<(), ClientError> {
        self.block_on(async {
            let mut response = self.send(Method::GET, path, String::new()).await?;
            let mut rest = Vec::new();
            while let Some(frame) = response.frame().await {
                let Ok(frame) = frame else { break };
                let Ok(data) = frame.into_data() else { continue };
                rest.extend_from_slice(&data);
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let line = String::from_utf8_lossy(&line);
                    let line = line.trim_end();
                    if !line.is_empty() && !take(line) {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }

    /// What there is to say where lines end that should not.
    pub(crate) fn ended(&self) -> ClientError {
        self.nobody(io::Error::new(io::ErrorKind::ConnectionAborted, "it has ended"))
    }

    fn block_on<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|source| self.nobody(source))?.block_on(work)
    }

    async fn exchange(&self, method: Method, path: &str, body: String) -> Result<String, ClientError> {
        let work = async {
            let response = self.send(method, path, body).await?;
            let body = response.collect().await.map_err(|error| self.stranger(error))?;
            Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
        };
        let late = |_| self.nobody(io::ErrorKind::TimedOut.into());
        time::timeout(TIMEOUT, work).await.map_err(late)?
    }

    /// Sends a request. What the agent refuses is an error.
    async fn send(&self, method: Method, path: &str, body: String) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            if source.kind() == io::ErrorKind::PermissionDenied {
                ClientError::NotPermitted(self.shown())
            } else {
                self.nobody(source)
            }
        })?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.stranger(error))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "dnsguard")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.stranger(error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.stranger(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response
            .collect()
            .await
            .map_err(|error| self.stranger(error))?
            .to_bytes();
        let failure: Failure =
            serde_json::from_slice(&body).map_err(|_| self.stranger(format!("its status is {status}")))?;
        Err(match status.as_u16() {
            400 => ClientError::Bad(failure.error),
            403 => ClientError::Forbidden(failure.error),
            _ => ClientError::Refused(failure.error),
        })
    }

    fn parse<T: DeserializeOwned>(&self, text: &str) -> Result<T, ClientError> {
        #[derive(serde::Deserialize)]
        struct Versioned {
            schema: u32,
        }
        let found: Versioned = serde_json::from_str(text).map_err(|error| self.stranger(error))?;
        if found.schema != SCHEMA {
            let what = format!("its schema is {}, and {SCHEMA} is read here", found.schema);
            return Err(self.stranger(what));
        }
        serde_json::from_str(text).map_err(|error| self.stranger(error))
    }

    fn shown(&self) -> String {
        self.socket.display().to_string()
    }

    fn nobody(&self, source: io::Error) -> ClientError {
        ClientError::Nobody {
            socket: self.shown(),
            source,
        }
    }

    fn stranger(&self, what: impl ToString) -> ClientError {
        ClientError::Stranger {
            socket: self.shown(),
            what: what.to_string(),
        }
    }
}
