//! Where everything that is told goes: to the operator's output, and to those who look on.

use std::time::SystemTime;

use super::{Event, Output, feed::Feed};

/// Tells events.
#[derive(Debug)]
pub(crate) struct Teller {
    output: Output,
    feed: Feed,
}

impl Teller {
    /// To both of these.
    pub(crate) const fn new(output: Output, feed: Feed) -> Self {
        Self { output, feed }
    }

    /// Tells an event. Never blocks, never fails.
    pub(crate) fn tell(&mut self, event: &Event) {
        let now = SystemTime::now();
        self.output.tell(event, now);
        self.feed.tell(event, now);
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

    /// Lines that a slow or absent reader of the output has cost so far.
    pub(crate) const fn lost(&self) -> u64 {
        self.output.lost()
    }

    /// Waits a second at most until the last lines are out.
    pub(crate) fn finish(self) {
        self.output.finish();
    }
}
