//! How far a replay is, on standard error, for whoever waits before a terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

/// How often it is shown.
const PERIOD: Duration = Duration::from_millis(200);
/// Packets between two looks at the clock.
const PACKETS: u64 = 8_192;
/// Back to the first column, and everything behind it deleted (ECMA-48).
const CLEAR: &str = "\r\x1b[K";

/// The line that is shown.
#[derive(Debug)]
pub(super) struct Progress {
    start: Instant,
    shown: Option<Instant>,
    /// Whether there is anybody to see it.
    is_wanted: bool,
    /// Bytes of the capture, if that is known.
    total: Option<u64>,
}

impl Progress {
    pub(super) fn new(total: Option<u64>) -> Self {
        Self {
            start: Instant::now(),
            shown: None,
            is_wanted: io::stderr().is_terminal(),
            total: total.filter(|total| *total > 0),
        }
    }

    /// So many packets and bytes were read.
    pub(super) fn at(&mut self, packets: u64, bytes: u64) {
        if !self.is_wanted || !packets.is_multiple_of(PACKETS) {
            return;
        }
        let now = Instant::now();
        if now.duration_since(self.shown.unwrap_or(self.start)) < PERIOD {
            return;
        }
        self.shown = Some(now);
        let share = self
            .total
            .map(|total| format!("{} %, ", bytes.min(total) * 100 / total));
        let rate = rate(packets, now.duration_since(self.start));
        show(&format!(
            "{CLEAR}{}{packets} packets, {rate}",
            share.unwrap_or_default()
        ));
    }

    /// Takes the line away, before something else is written to the terminal.
    pub(super) fn clear(&mut self) {
        if self.shown.is_some() && self.is_wanted {
            show(CLEAR);
        }
    }

    /// Says how fast it went.
    pub(super) fn end(mut self, packets: u64) {
        self.clear();
        if self.is_wanted {
            let elapsed = self.start.elapsed();
            let rate = rate(packets, elapsed);
            show(&format!(
                "{packets} packets judged in {:.1} s, {rate}\n",
                elapsed.as_secs_f64()
            ));
        }
    }
}

fn rate(packets: u64, elapsed: Duration) -> String {
    format!("{:.0} packets/s", packets as f64 / elapsed.as_secs_f64().max(1e-6))
}

/// It does not matter if nobody sees it.
fn show(text: &str) {
    let mut out = io::stderr().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}
