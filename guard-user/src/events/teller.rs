//! Where everything that is told goes: to the operator's output, and to those who look on.

use std::time::SystemTime;

use super::{Event, Output, feed::Feed, pods};
use crate::pods::Names;

/// Tells events.
#[derive(Debug)]
pub(crate) struct Teller {
    output: Output,
    feed: Feed,
    names: Names,
}

impl Teller {
    /// To both of these, with the pods named that `names` knows.
    pub(crate) const fn new(output: Output, feed: Feed, names: Names) -> Self {
        Self { output, feed, names }
    }

    /// Tells an event. Never blocks, never fails.
    pub(crate) fn tell(&mut self, event: &Event) {
        let now = SystemTime::now();
        let event = pods::named(event, &self.names);
        self.output.tell(&event, now);
        self.feed.tell(&event, now);
    }

    /// Tells some.
    pub(crate) fn tell_all(&mut self, events: &[Event]) {
        for event in events {
            self.tell(event);
        }
    }

    /// Those who look on.
    pub(crate) const fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Where pods are looked up.
    pub(crate) const fn names(&self) -> &Names {
        &self.names
    }

    /// Lines that a slow or absent reader of the output has cost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.output.lost()
    }

    /// Waits a second at most until the last lines are out.
    pub(crate) fn finish(self) {
        self.output.finish();
    }
}
