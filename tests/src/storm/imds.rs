//! Instance metadata: a token first, then what is asked for with it (IMDSv2).

use std::{
    io,
    net::TcpListener,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{network::METADATA, tally::Lookup};

/// The port it is asked at.
pub(super) const PORT: u16 = 80;

/// How long a client waits for token and answer together: what AWS's SDKs give one attempt.
const PATIENCE: Duration = Duration::from_secs(1);

const TOKEN: &str = "dG9rZW4tb2YtdGhlLWxhYg==";
const INSTANCE: &str = "i-0123456789abcdef0";

/// The server's side; never ends.
pub(super) async fn serve(listener: TcpListener) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A client that goes away ends its connection, and nothing else.
        tokio::spawn(async move { drop(converse(stream).await) });
    }
}

/// Answers requests without a body until the client has no more.
async fn converse(mut stream: TcpStream) -> io::Result<()> {
    while let Some(head) = read_head(&mut stream).await? {
        let (status, body) = match head.lines().next() {
            Some("PUT /latest/api/token HTTP/1.1") => ("200 OK", TOKEN),
            Some("GET /latest/meta-data/instance-id HTTP/1.1") if head.contains(TOKEN) => ("200 OK", INSTANCE),
            Some("GET /latest/meta-data/instance-id HTTP/1.1") => ("401 Unauthorized", ""),
            _ => ("404 Not Found", ""),
        };
        let length = body.len();
        let response = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(response.as_bytes()).await?;
    }
    Ok(())
}

/// The client's side: token and instance ID over one connection.
pub(super) async fn fetch() -> Lookup {
    let start = Instant::now();
    let fetched = async {
        let mut stream = TcpStream::connect((METADATA, PORT)).await?;
        let token = request(
            &mut stream,
            "PUT /latest/api/token",
            "aws-ec2-metadata-token-ttl-seconds: 60",
        )
        .await?;
        let header = format!("aws-ec2-metadata-token: {token}");
        let instance = request(&mut stream, "GET /latest/meta-data/instance-id", &header).await?;
        ensure!(instance == INSTANCE, "another instance: {instance}");
        Ok(())
    };
    let answered = timeout(PATIENCE, fetched).await.is_ok_and(|fetched| fetched.is_ok());
    Lookup::single(answered.then(|| start.elapsed()))
}

async fn request(stream: &mut TcpStream, line: &str, header: &str) -> Result<String> {
    let request = format!("{line} HTTP/1.1\r\nHost: {METADATA}\r\n{header}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let head = read_head(stream).await?.context("the connection ended")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .context("a response without a length")?;
    let mut body = vec![0; length.parse()?];
    stream.read_exact(&mut body).await?;
    Ok(String::from_utf8(body)?)
}

/// Everything up to the empty line; none if the other side has nothing more to say. A body stays in the stream.
async fn read_head(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && head.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}
