//! When the guard told which zone and which client the storm is.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::Value;

use super::{network::SWEEPER, sweep::SWEPT};
use crate::guard::Guard;

/// How often its events are read.
const POLL: Duration = Duration::from_millis(20);

/// The guard's first word about the storm.
#[derive(Clone, Debug)]
pub struct Named {
    /// From the sweep's first query.
    pub after: Duration,
    /// The zone it named: the sweep's, or one below it.
    pub zone: String,
    /// The client it named: the sweep's address.
    pub client: String,
    /// The whole `over_budget` event.
    pub event: Value,
}

/// Waits for an event that names both, until it is over.
pub(super) fn watch(guard: &Guard, start: Instant, over: &AtomicBool) -> Result<Option<Named>> {
    loop {
        // Looked at first: what was told by then counts.
        let last = over.load(Ordering::Relaxed);
        let events = guard.events_of("over_budget")?;
        if let Some((zone, client, event)) = events.into_iter().find_map(culprit) {
            return Ok(Some(Named {
                after: start.elapsed(),
                zone,
                client,
                event,
            }));
        }
        if last {
            return Ok(None);
        }
        sleep(POLL);
    }
}

/// The zone and the client of the sweep, if the event has both.
fn culprit(event: Value) -> Option<(String, String, Value)> {
    let below = format!(".{SWEPT}");
    let zone = find(&event, "zones", "zone", |zone| zone == SWEPT || zone.ends_with(&below))?;
    let sweeper = SWEEPER.to_string();
    let client = find(&event, "clients", "client", |client| client == sweeper)?;
    Some((zone, client, event))
}

fn find(event: &Value, list: &str, field: &str, is_it: impl Fn(&str) -> bool) -> Option<String> {
    let entries = event[list].as_array()?.iter();
    entries
        .filter_map(|entry| entry[field].as_str())
        .find(|text| is_it(text))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_the_zone_and_the_client_have_to_be_named() {
        let event = |zone: &str, client: &str| {
            json!({"event": "over_budget", "zones": [{"zone": "good.example."}, {"zone": zone}],
                "clients": [{"client": client}]})
        };
        for (zone, client, named) in [
            ("104.in-addr.arpa.", "10.60.50.250", true),
            ("16.104.in-addr.arpa.", "10.60.50.250", true),
            ("in-addr.arpa.", "10.60.50.250", false),
            ("4.in-addr.arpa.", "10.60.50.250", false),
            ("104.in-addr.arpa.", "10.60.50.1", false),
        ] {
            assert_eq!(culprit(event(zone, client)).is_some(), named, "{zone} {client}");
        }
        assert!(culprit(json!({"event": "over_budget"})).is_none());
    }
}
