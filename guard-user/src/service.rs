//! What the service manager hears of the agent (sd_notify(3)). Where none listens, nothing is said.

use std::{
    env,
    time::{Duration, Instant},
};

use sd_notify::NotifyState;
use tracing::debug;

/// Packets are judged; what is going on, in one line.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// Another configuration is on its way: the agent is ready again with the next [`ready`].
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!("the service manager is not told of the reload: {error}"),
    }
}

/// The agent is about to end, and what becomes of the guard, in one line.
pub(crate) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
}

/// Signs of life, which the service manager ends a hung agent for the lack of.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// Half of the time after which the agent is taken for hung.
    period: Option<Duration>,
    last: Option<Instant>,
}

impl Watchdog {
    /// As the service manager wants it of this process; it may want none.
    pub(crate) fn new() -> Self {
        Self {
            period: sd_notify::watchdog_enabled().map(|limit| limit / 2),
            last: None,
        }
    }

    /// Says that the agent is alive, if it is time to. To be called more often than twice in the period.
    pub(crate) fn beat(&mut self) {
        if self.is_due(Instant::now()) {
            tell(&[NotifyState::Watchdog]);
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = match (self.period, self.last) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(period), Some(last)) => now.saturating_duration_since(last) >= period,
        };
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    if let Err(error) = sd_notify::notify(states) {
        debug!("the service manager cannot be told: {error}");
    }
}

/// A newline would end the field.
fn one_line(status: &str) -> String {
    status.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_is_due_at_once_and_then_once_in_each_half_of_the_limit() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut watchdog = Watchdog {
            period: Some(Duration::from_millis(500)),
            last: None,
        };
        let due = [0, 250, 500, 750, 1_001, 1_499, 1_501].map(|ms| watchdog.is_due(at(ms)));
        assert_eq!(due, [true, false, true, false, true, false, true]);
        let mut unwanted = Watchdog {
            period: None,
            last: None,
        };
        assert!(!unwanted.is_due(start));
    }

    #[test]
    fn a_status_is_one_line() {
        assert_eq!(one_line("cannot:\n  line 1\n"), "cannot: line 1");
    }
}
