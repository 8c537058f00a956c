//! The page for a browser on this host: what the guard sees and did, live, without any asset from elsewhere.
//!
//! `/data` is the [`View`] as JSON; `page.js` asks for it once a second and draws it. A browser carries requests of
//! other sites: what they cannot do is read an answer, as long as no name of theirs leads here. So the Host has to be
//! one that only this host has.

use std::{fmt, net::IpAddr};

use hyper::{
    Method, StatusCode,
    header::{CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY},
};

use crate::{
    http::{Answer, JSON, PLAIN, Site, page, refuse_method},
    snapshot::Snapshot,
    view::View,
};

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Nothing but the page's own parts, and nobody else may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page.
pub(crate) struct Page {
    source: Box<dyn Fn() -> Snapshot + Send + Sync>,
}

impl Page {
    /// A page that shows what `source` returns each time.
    pub(crate) fn new(source: impl Fn() -> Snapshot + Send + Sync + 'static) -> Self {
        Self {
            source: Box::new(source),
        }
    }

    fn part(&self, path: &str) -> Answer {
        match path {
            "/" => page(StatusCode::OK, "text/html; charset=utf-8", HTML),
            "/page.css" => page(StatusCode::OK, "text/css; charset=utf-8", STYLE),
            "/page.js" => page(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT),
            "/data" => {
                let snapshot = (self.source)();
                page(StatusCode::OK, JSON, View::of(&snapshot).json())
            }
            _ => page(StatusCode::NOT_FOUND, PLAIN, "not found; there is /\n"),
        }
    }
}

impl Site for Page {
    fn respond(&self, method: &Method, path: &str, headers: &HeaderMap) -> Answer {
        let mut response = if !is_of_this_host(headers) {
            let text = "not for this host; ask for http://localhost, http://127.0.0.1 or http://[::1]\n";
            page(StatusCode::MISDIRECTED_REQUEST, PLAIN, text)
        } else if let Some(refusal) = refuse_method(method) {
            refusal
        } else {
            self.part(path)
        };
        for (name, value) in [
            (CONTENT_SECURITY_POLICY, POLICY),
            (REFERRER_POLICY, "no-referrer"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Page")
    }
}

/// Whether the one Host of a request is `localhost` or an address of the loopback interface, with any port. A name
/// elsewhere in the DNS can be made to lead here (DNS rebinding); an address cannot.
fn is_of_this_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(host) = host.to_str() else { return false };
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => host,
    };
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match literal {
        Some(literal) => literal.parse().ok().filter(IpAddr::is_ipv6),
        None => host.parse().ok().filter(IpAddr::is_ipv4),
    };
    host.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use hyper::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};

    use super::*;
    use crate::view::tests::snapshot;

    fn ask(method: &Method, path: &str, hosts: &[&str]) -> Answer {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        Page::new(snapshot).respond(method, path, &headers)
    }

    #[test]
    fn every_part_is_there_as_what_it_is() {
        for (path, media_type) in [
            ("/", "text/html; charset=utf-8"),
            ("/page.css", "text/css; charset=utf-8"),
            ("/page.js", "text/javascript; charset=utf-8"),
            ("/data", "application/json"),
        ] {
            let response = ask(&Method::GET, path, &["localhost:9534"]);
            assert_eq!(
                (
                    response.status().as_u16(),
                    response.headers()[CONTENT_TYPE].to_str().unwrap()
                ),
                (200, media_type)
            );
        }
        for path in ["/page.html", "/metrics", "/data/", "//"] {
            assert_eq!(ask(&Method::GET, path, &["localhost"]).status(), 404, "{path}");
        }
    }

    #[test]
    fn only_names_that_lead_to_this_host_alone_get_an_answer() {
        for host in [
            "localhost",
            "LocalHost:80",
            "127.0.0.1",
            "127.0.0.1:9534",
            "127.1.2.3:1",
            "[::1]",
            "[::1]:9534",
        ] {
            assert_eq!(ask(&Method::GET, "/data", &[host]).status(), 200, "{host}");
        }
        for hosts in [
            &[][..],
            &[""],
            &["evil.example"],
            &["localhost.evil.example:9534"],
            &["127.0.0.1.evil.example"],
            &["localhost@evil.example"],
            &["10.0.0.1:9534"],
            &["169.254.169.254"],
            &["0.0.0.0:9534"],
            &["[::]:9534"],
            &["[::ffff:10.0.0.1]"],
            &["[127.0.0.1]"],
            &["localhost:9534:1"],
            &["localhost:x"],
            &["localhost", "evil.example"],
            &["localh\u{f6}st"],
        ] {
            for path in ["/", "/data", "/page.js"] {
                let response = ask(&Method::GET, path, hosts);
                assert_eq!(response.status(), 421, "{hosts:?}");
                assert_eq!(response.headers()[CONTENT_TYPE], PLAIN);
            }
        }
    }

    #[test]
    fn whatever_is_answered_is_shut_to_other_sites() {
        for (path, host) in [
            ("/", "localhost"),
            ("/data", "localhost"),
            ("/x", "localhost"),
            ("/", "evil.example"),
        ] {
            let response = ask(&Method::GET, path, &[host]);
            let headers = response.headers();
            let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
            for part in [
                "default-src 'none'",
                "script-src 'self';",
                "frame-ancestors 'none'",
                "form-action 'none'",
            ] {
                assert!(policy.contains(part), "{policy}");
            }
            assert!(
                !policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"),
                "{policy}"
            );
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(headers[REFERRER_POLICY], "no-referrer");
            assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
            assert!(!headers.contains_key("access-control-allow-origin"));
        }
    }

    #[test]
    fn nothing_can_be_sent_to_it() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let response = ask(&method, "/", &["localhost"]);
            assert_eq!(
                (response.status().as_u16(), &response.headers()[ALLOW]),
                (405, &HeaderValue::from_static("GET, HEAD"))
            );
        }
        assert_eq!(ask(&Method::HEAD, "/", &["localhost"]).status(), 200);
    }

    #[test]
    fn names_are_only_ever_set_as_text() {
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "eval(",
        ] {
            assert!(!SCRIPT.contains(way), "{way}");
        }
        // The policy would refuse them, and the page would look broken.
        for inline in [" style=", " onclick=", "<style", "javascript:", "http://", "https://"] {
            assert!(!HTML.contains(inline), "{inline}");
        }
    }
}
