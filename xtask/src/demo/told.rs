//! What the guard told: its events, as far as the demo goes by them.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The guard's events so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Told {
    /// Version of the agent.
    pub(crate) version: String,
    /// Where and how it is attached: `tc-ingress by tcx`.
    pub(crate) hooks: Vec<String>,
    /// Trips of the query that loops.
    pub(crate) trips: Vec<Trip>,
    /// Trips of anything else, in a sentence each.
    pub(crate) false_trips: Vec<String>,
}

/// A breaker that opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Trip {
    /// Queries that went round and got through before it.
    pub(crate) recirculated: u64,
    /// From the first query that went round, in ms.
    pub(crate) cut_ms: u64,
    /// What spoke for the loop.
    pub(crate) evidence: String,
    /// In a sentence.
    pub(crate) reason: String,
}

impl Told {
    pub(crate) fn from_events(events: &[Value], question: &str) -> Result<Self> {
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let mut told = Self::default();
        for event in events {
            match event["event"].as_str() {
                Some("ready") => told.version = text(event, "version"),
                Some("attach") => {
                    let hook = format!("{} by {}", text(event, "hook"), text(event, "method"));
                    told.hooks.push(hook);
                }
                Some("trip") if format!("{} {}", text(event, "type"), text(event, "name")) == question => {
                    let number = |field| {
                        let missing = || format!("a trip without `{field}`: {event}");
                        event[field].as_u64().with_context(missing)
                    };
                    told.trips.push(Trip {
                        recirculated: number("recirculated")?,
                        cut_ms: number("cut_ms")?,
                        evidence: text(event, "evidence"),
                        reason: text(event, "reason"),
                    });
                }
                Some("trip") => told.false_trips.push(text(event, "reason")),
                _ => {}
            }
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_trip_counts_for_the_query_that_loops_only() {
        let trip = |name: &str| {
            json!({"event": "trip", "name": name, "type": "A", "recirculated": 11, "cut_ms": 0,
                "evidence": "pace", "reason": format!("{name} went round")})
        };
        let events = [
            json!({"event": "attach", "hook": "tc-ingress", "method": "tcx"}),
            json!({"event": "ready", "version": "0.1.0"}),
            trip("x.consul."),
            trip("q7.example."),
        ];
        let told = Told::from_events(&events, "A x.consul.").unwrap();
        assert_eq!(told.version, "0.1.0");
        assert_eq!(told.hooks, ["tc-ingress by tcx"]);
        assert_eq!((told.trips.len(), told.trips[0].recirculated), (1, 11));
        assert_eq!(told.false_trips, ["q7.example. went round"]);

        let error = Told::from_events(&[json!({"event": "trip", "name": "x.", "type": "A"})], "A x.").unwrap_err();
        assert!(error.to_string().contains("`recirculated`"), "{error}");
    }
}
