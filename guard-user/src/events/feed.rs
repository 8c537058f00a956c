//! Events and sampled queries for whoever looks on, as JSON lines.
//!
//! The last events are kept, so that one who comes late sees what has happened. A reader that is too slow loses lines and
//! is told how many; nobody waits for him.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use serde::Serialize;
use tokio::sync::broadcast;

use super::{Event, SCHEMA, date};
use crate::pods::Pod;

/// Events that are kept.
pub(crate) const KEPT: usize = 1_024;
/// Lines that wait for a slow reader.
const QUEUE: usize = 4_096;

/// A line, without its newline.
pub(crate) type Line = Arc<str>;

/// Where events and queries are shown.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    kept: Arc<Mutex<VecDeque<Line>>>,
    lines: broadcast::Sender<Line>,
    queries: broadcast::Sender<Line>,
    watchers: Arc<AtomicUsize>,
}

/// Somebody who looks on.
#[derive(Debug)]
pub(crate) struct Onlooker {
    /// What has happened before, the oldest first.
    pub(crate) backlog: Vec<Line>,
    /// Events from now on.
    pub(crate) events: broadcast::Receiver<Line>,
    /// Queries from now on.
    pub(crate) queries: Option<Queries>,
}

/// Sampled queries; the agent shows them as long as somebody wants them.
#[derive(Debug)]
pub(crate) struct Queries {
    /// One line each.
    pub(crate) lines: broadcast::Receiver<Line>,
    watchers: Arc<AtomicUsize>,
}

/// A sampled query.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Query {
    /// Who asks.
    pub(crate) client: IpAddr,
    /// The pod that has the address, if one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Pod>,
    /// Who is asked.
    pub(crate) server: IpAddr,
    /// The pod that has that address, if one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_pod: Option<Pod>,
    /// The name, in presentation form.
    pub(crate) name: String,
    /// The QTYPE.
    #[serde(rename = "type")]
    pub(crate) qtype: String,
    /// Name of the interface.
    pub(crate) device: String,
    /// The pod that it leads to, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_pod: Option<Pod>,
    /// `in` or `out`.
    pub(crate) direction: &'static str,
    /// What became of it.
    pub(crate) verdict: &'static str,
    /// Why, where it did not simply pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<&'static str>,
    /// Queries that it stands for.
    pub(crate) weight: u32,
}

impl Feed {
    /// With nothing to show so far.
    pub(crate) fn new() -> Self {
        Self {
            kept: Arc::default(),
            lines: broadcast::Sender::new(QUEUE),
            queries: broadcast::Sender::new(QUEUE),
            watchers: Arc::default(),
        }
    }

    /// Shows an event that was told at `now`.
    pub(crate) fn tell(&self, event: &Event, now: SystemTime) {
        let line: Line = event.json(now).into();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&line));
        // With the lock held: whoever comes now has it either from before or from now on. Without a reader it is kept only.
        let _ = self.lines.send(line);
    }

    /// Whether somebody wants to see queries.
    pub(crate) fn wants_queries(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    /// Shows a query.
    pub(crate) fn show(&self, query: &Query, now: SystemTime) {
        #[derive(Serialize)]
        struct Shown<'a> {
            schema: u32,
            event: &'static str,
            time: String,
            #[serde(flatten)]
            query: &'a Query,
        }
        let shown = Shown {
            schema: SCHEMA,
            event: "query",
            time: date::rfc3339(now),
            query,
        };
        // Strings and numbers: nothing in it can fail.
        let line = serde_json::to_string(&shown).unwrap_or_default();
        let _ = self.queries.send(line.into());
    }

    /// Somebody looks on: at the last events up to so many, at those from now on, and at queries if he wants to.
    pub(crate) fn watch(&self, last: usize, queries: bool) -> Onlooker {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = kept.len().saturating_sub(last);
        Onlooker {
            backlog: kept.iter().skip(skipped).cloned().collect(),
            events: self.lines.subscribe(),
            queries: queries.then(|| {
                self.watchers.fetch_add(1, Ordering::Relaxed);
                Queries {
                    lines: self.queries.subscribe(),
                    watchers: Arc::clone(&self.watchers),
                }
            }),
        }
    }
}

impl Drop for Queries {
    fn drop(&mut self) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn who_comes_late_sees_the_last_events_and_none_twice() {
        let feed = Feed::new();
        for count in 0..KEPT as u64 + 10 {
            feed.tell(&Event::lost(count), UNIX_EPOCH);
        }
        let mut onlooker = feed.watch(3, false);
        let shown: Vec<_> = onlooker.backlog.iter().map(|line| line.contains("\"lost\"")).collect();
        assert_eq!(shown, [true; 3]);
        assert!(onlooker.backlog[2].contains(&format!("\"count\":{}", KEPT + 9)));
        assert!(onlooker.events.try_recv().is_err());
        feed.tell(&Event::lost(7), UNIX_EPOCH);
        assert!(onlooker.events.try_recv().unwrap().contains("\"count\":7"));
        assert_eq!(feed.watch(usize::MAX, false).backlog.len(), KEPT);
    }

    #[test]
    fn queries_are_shown_while_somebody_wants_them() {
        let feed = Feed::new();
        assert!(!feed.wants_queries());
        let mut onlooker = feed.watch(0, true);
        assert!(feed.wants_queries());
        let query = Query {
            client: [10, 0, 0, 7].into(),
            pod: None,
            server: [10, 0, 0, 2].into(),
            server_pod: None,
            name: "x.consul.".to_owned(),
            qtype: "A".to_owned(),
            device: "lo".to_owned(),
            device_pod: None,
            direction: "in",
            verdict: "pass",
            why: None,
            weight: 4,
        };
        feed.show(&query, UNIX_EPOCH);
        let line = onlooker.queries.as_mut().unwrap().lines.try_recv().unwrap();
        let expected = "{\"schema\":1,\"event\":\"query\",\"time\":\"1970-01-01T00:00:00.000Z\",\"client\":\"10.0.0.7\",\
                        \"server\":\"10.0.0.2\",\"name\":\"x.consul.\",\"type\":\"A\",\"device\":\"lo\",\"direction\":\"in\",\
                        \"verdict\":\"pass\",\"weight\":4}";
        assert_eq!(&*line, expected);
        drop(onlooker);
        assert!(!feed.wants_queries());
    }
}
