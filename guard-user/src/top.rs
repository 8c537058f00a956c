//! `dnsguard top`: who asks most and what for, once, as a table or as JSON.
//!
//! The agent serves it at `/top` beside its metrics; both sides of that are here.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use thiserror::Error;

use crate::{
    print::harmless,
    view::{Rate, SCHEMA, View},
};

/// For the agent to connect, and to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a response that are read at most.
const MAX_RESPONSE: u64 = 4 << 20;

/// Why there is nothing to show.
#[derive(Debug, Error)]
pub(crate) enum TopError {
    /// The address is none.
    #[error("{0} is not an address such as http://127.0.0.1:9533")]
    Url(String),
    /// Nobody answers.
    #[error("no agent answers at {url}: {source}; is dnsguard running, and is this where [metrics] listen points?")]
    Silent { url: String, source: io::Error },
    /// Somebody answers, but not as an agent does.
    #[error("what answers at {url} is not an agent of this version: {what}")]
    Stranger { url: String, what: String },
}

/// Whether a table or JSON is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// One JSON object with a versioned schema.
    Json,
}

/// Asks the agent at this address and returns what to print.
pub(crate) fn top(url: &str, format: Format) -> Result<String, TopError> {
    let page = fetch(url)?;
    Ok(match format {
        Format::Table => page.to_string(),
        Format::Json => page.json() + "\n",
    })
}

fn fetch(url: &str) -> Result<View, TopError> {
    let bad_url = || TopError::Url(url.to_owned());
    let authority = url.strip_prefix("http://").ok_or_else(bad_url)?.trim_end_matches('/');
    if authority.contains(|letter: char| letter == '/' || !letter.is_ascii_graphic()) {
        return Err(bad_url());
    }
    let addresses: Vec<_> = authority.to_socket_addrs().map_err(|_| bad_url())?.collect();
    let silent = |source| TopError::Silent {
        url: url.to_owned(),
        source,
    };
    let stranger = |what: &str| TopError::Stranger {
        url: url.to_owned(),
        what: what.to_owned(),
    };
    let response = request(&addresses, authority).map_err(silent)?;
    let (head, body) = response
        .split_once("\r\n\r\n")
        .ok_or_else(|| stranger("it does not speak HTTP"))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        let status: String = status.chars().filter(char::is_ascii_digit).collect();
        return Err(stranger(&format!("its status is {status}")));
    }
    let page: View = serde_json::from_str(body).map_err(|error| stranger(&error.to_string()))?;
    if page.schema != SCHEMA {
        return Err(stranger(&format!(
            "its schema is {}, and {SCHEMA} is read here",
            page.schema
        )));
    }
    Ok(page)
}

/// One exchange, as HTTP/1.0 so that the body ends where the connection does.
fn request(addresses: &[SocketAddr], host: &str) -> io::Result<String> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(address, TIMEOUT) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                // In one piece: who answers may do so after the first, and hang up.
                let request = format!("GET /top HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n\r\n");
                stream.write_all(request.as_bytes())?;
                let mut response = Vec::new();
                stream.take(MAX_RESPONSE).read_to_end(&mut response)?;
                return Ok(String::from_utf8_lossy(&response).into_owned());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The table.
impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:.0} queries/s in the last 10 s or so; +- is by how much a number can be off",
            self.queries_per_second
        )?;
        let zones = self.zones.iter().map(|row| (row.zone.clone(), row.rate));
        section(f, "ZONE", zones.collect())?;
        let clients = self.clients.iter().map(|row| (row.client.clone(), row.rate));
        section(f, "CLIENT", clients.collect())?;
        let keys = self.keys.iter();
        let keys = keys.map(|row| (format!("{} {}", row.name, row.qtype), row.rate));
        section(f, "NAME AND TYPE", keys.collect())?;
        if !self.budgets.is_empty() {
            writeln!(f, "\n{:>12} {:>14} {:>14}  BUDGET", "LIMIT/S", "WITHIN", "OVER")?;
        }
        for row in &self.budgets {
            let (limit, name) = (row.limit_packets_per_second, harmless(&row.budget));
            writeln!(f, "{limit:>12} {:>14} {:>14}  {name}", row.within, row.over)?;
        }
        if !self.links.is_empty() {
            writeln!(f, "\n{:>12} {:>14}  LINK-LOCAL BUDGET OF", "LIMIT/S", "PEAK/S")?;
        }
        for row in &self.links {
            let (limit, name) = (row.limit_packets_per_second, harmless(&row.device));
            writeln!(f, "{limit:>12} {:>14.0}  {name}", row.peak_packets_per_second)?;
        }
        Ok(())
    }
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, rows: Vec<(String, Rate)>) -> fmt::Result {
    writeln!(
        f,
        "\n{:>12} {:>8} {:>7} {:>7}  {title}",
        "QUERIES/S", "+-", "SHARE", "+-"
    )?;
    if rows.is_empty() {
        writeln!(f, "{:>12}  none stands out", "-")?;
    }
    for (name, rate) in rows {
        writeln!(
            f,
            "{:>12.1} {:>8.1} {:>5.1} % {:>5.1} %  {}",
            rate.queries_per_second,
            rate.error_per_second,
            rate.share * 100.0,
            rate.share_error * 100.0,
            harmless(&name)
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;
    use crate::view::tests::view;

    /// Answers one request with these bytes; returns where.
    fn serve(response: String) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            assert!(request.starts_with(b"GET /top HTTP/1.0\r\n"));
            stream.write_all(response.as_bytes()).unwrap();
        });
        url
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{body}")
    }

    #[test]
    fn the_table_has_a_section_for_each() {
        let table = top(&serve(ok(&view().json())), Format::Table).unwrap();
        let lines: Vec<_> = table
            .lines()
            .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
            .collect();
        for expected in [
            &["QUERIES/S", "+-", "SHARE", "+-", "ZONE"][..],
            &["4600.1", "12.2", "92.0", "%", "1.0", "%", "104.in-addr.arpa."],
            &["4600.1", "12.2", "92.0", "%", "1.0", "%", "10.9.0.66"],
            &["4600.1", "12.2", "92.0", "%", "1.0", "%", "x.consul.", "A"],
            &["200", "170", "37", "per", "client"],
            &["900", "875", "eth0"],
        ] {
            assert!(
                lines.iter().any(|line| line == expected),
                "{expected:?} is not in\n{table}"
            );
        }
        let calm = View {
            schema: SCHEMA,
            ..View::default()
        }
        .to_string();
        assert!(calm.contains("none stands out") && !calm.contains("BUDGET"), "{calm}");
    }

    #[test]
    fn json_is_what_the_agent_said() {
        let page = view().json();
        assert_eq!(top(&serve(ok(&page)), Format::Json).unwrap(), page + "\n");
    }

    #[test]
    fn whoever_answers_cannot_steer_the_terminal() {
        let mut view = view();
        view.zones[0].zone = "\u{1b}[2J\u{202e}\u{e9}\n".to_owned();
        let page = view.json();
        for format in [Format::Table, Format::Json] {
            let shown = top(&serve(ok(&page)), format).unwrap();
            assert!(!shown.contains('\u{1b}'), "{shown:?}");
        }
        let table = top(&serve(ok(&page)), Format::Table).unwrap();
        assert!(table.contains("\\u{1b}[2J\\u{202e}\\u{e9}\\u{a}\n"), "{table}");
    }

    #[test]
    fn nobody_there_is_said_with_what_to_do() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = top(&url, Format::Table).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("no agent answers at {url}: ")) && error.contains("is dnsguard running"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_agent_is_refused() {
        for (response, why) in [
            ("SSH-2.0-x\r\n".to_owned(), "it does not speak HTTP"),
            (
                "HTTP/1.1 404 \u{1b}[2J\r\n\r\nnot found".to_owned(),
                "its status is 404",
            ),
            (ok("{}"), "missing field `schema`"),
            (
                ok(&View {
                    schema: SCHEMA,
                    ..View::default()
                }
                .json()
                .replace("\"schema\":1", "\"schema\":2")),
                "its schema is 2, and 1 is read here",
            ),
        ] {
            let error = top(&serve(response), Format::Json).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        for url in [
            "127.0.0.1:9533",
            "https://127.0.0.1",
            "http://",
            "http://127.0.0.1:9533/metrics",
            "http://a b:1",
        ] {
            let error = top(url, Format::Table).unwrap_err().to_string();
            assert!(
                error.contains("is not an address such as http://127.0.0.1:9533"),
                "{url}: {error}"
            );
        }
    }
}
