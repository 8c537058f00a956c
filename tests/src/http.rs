//! Just enough HTTP to ask a program on the same host, without a client library.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::Namespace;

/// Nobody on loopback needs longer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends one HTTP/1.0 request from inside and returns the body; any status but 200 is an error.
///
/// HTTP/1.0, because then the body simply ends where the connection does.
pub(crate) fn request(
    namespace: &Namespace,
    server: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> Result<String> {
    let text = namespace.run(|| -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {server}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })?;
    let (head, body) = text.split_once("\r\n\r\n").context("an HTTP response without a body")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(
        status.split(' ').nth(1) == Some("200"),
        "{method} {path}: {status}: {body}"
    );
    Ok(body.to_owned())
}
