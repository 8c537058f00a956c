//! What the metrics are at: `/metrics`, `/livez`, `/readyz`.

use hyper::{
    Method, StatusCode,
    header::{ACCEPT, HeaderMap},
};
use tokio::sync::watch;

use super::{Answer, PLAIN, Site, page, refuse_method};
use crate::metrics::{Format, Metrics};

/// All of it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    metrics: Metrics,
    ready: watch::Receiver<bool>,
}

impl Endpoint {
    /// Shows these metrics; `/readyz` says what `ready` says.
    pub(crate) const fn new(metrics: Metrics, ready: watch::Receiver<bool>) -> Self {
        Self { metrics, ready }
    }
}

impl Site for Endpoint {
    fn respond(&self, method: &Method, path: &str, headers: &HeaderMap) -> Answer {
        if !matches!(path, "/metrics" | "/livez" | "/readyz") {
            return page(
                StatusCode::NOT_FOUND,
                PLAIN,
                "not found; there are /metrics, /livez and /readyz\n",
            );
        }
        if let Some(refusal) = refuse_method(method) {
            return refusal;
        }
        match path {
            "/metrics" => {
                let format = negotiate(headers);
                match self.metrics.render(format) {
                    Ok(exposition) => page(StatusCode::OK, format.content_type(), exposition),
                    Err(_) => page(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "cannot write the metrics\n"),
                }
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
    use hyper::header::{ALLOW, HeaderValue};

    use super::*;
    use crate::snapshot::Snapshot;

    fn pages(ready: bool) -> Endpoint {
        Endpoint {
            metrics: Metrics::new(Snapshot::default),
            ready: watch::channel(ready).1,
        }
    }

    fn status(pages: &Endpoint, method: Method, path: &str) -> u16 {
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
        for path in ["/metrics", "/livez", "/readyz"] {
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
}
