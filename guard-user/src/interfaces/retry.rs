//! When a hook that could not be attached is tried again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::attachment::Hook;

/// Until the second attempt; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);
/// The longest time between two attempts: what has to go first may go at any moment.
pub(super) const LONGEST: Duration = Duration::from_secs(10);
/// The same where the kernel refuses the program: it takes work to verify, and the answer will hardly be another one.
pub(super) const LONGEST_REFUSED: Duration = Duration::from_secs(60);

/// The hooks that failed, by interface index.
#[derive(Debug, Default)]
pub(super) struct Retries(BTreeMap<(u32, &'static str), Retry>);

#[derive(Debug)]
struct Retry {
    delay: Duration,
    due: Instant,
    /// Why, when it was last told.
    reason: String,
}

impl Retries {
    /// Whether a hook may be tried now.
    pub(super) fn is_due(&self, ifindex: u32, hook: Hook, now: Instant) -> bool {
        self.0.get(&(ifindex, hook.word())).is_none_or(|retry| retry.due <= now)
    }

    /// Notes a failure; returns the time until the next attempt, `longest` at most, and whether the reason is news.
    pub(super) fn failed(
        &mut self,
        ifindex: u32,
        hook: Hook,
        reason: &str,
        longest: Duration,
        now: Instant,
    ) -> (Duration, bool) {
        let before = self.0.remove(&(ifindex, hook.word()));
        let delay = before.as_ref().map_or(FIRST, |retry| (retry.delay * 2).min(longest));
        let is_news = before.is_none_or(|retry| retry.reason != reason);
        let retry = Retry {
            delay,
            due: now + delay,
            reason: reason.to_owned(),
        };
        self.0.insert((ifindex, hook.word()), retry);
        (delay, is_news)
    }

    /// Forgets a hook that is attached.
    pub(super) fn succeeded(&mut self, ifindex: u32, hook: Hook) {
        self.0.remove(&(ifindex, hook.word()));
    }

    /// Forgets an interface.
    pub(super) fn forget(&mut self, ifindex: u32) {
        self.0.retain(|(known, _), _| *known != ifindex);
    }

    /// When the next attempt is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|retry| retry.due).min()
    }

    /// Hooks that are waiting for an attempt.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_become_rare_and_the_same_reason_is_no_news() {
        let start = Instant::now();
        let mut retries = Retries::default();
        assert!(retries.is_due(7, Hook::TcIngress, start) && retries.next().is_none());
        assert_eq!(retries.failed(7, Hook::TcIngress, "a", LONGEST, start), (FIRST, true));
        assert!(!retries.is_due(7, Hook::TcIngress, start) && retries.is_due(7, Hook::TcEgress, start));
        assert!(retries.is_due(7, Hook::TcIngress, start + FIRST));
        assert_eq!(
            retries.failed(7, Hook::TcIngress, "a", LONGEST, start),
            (FIRST * 2, false)
        );
        assert_eq!(
            retries.failed(7, Hook::TcIngress, "b", LONGEST, start),
            (FIRST * 4, true)
        );
        let longest = (0..10)
            .map(|_| retries.failed(7, Hook::TcIngress, "b", LONGEST, start).0)
            .last();
        assert_eq!(longest, Some(LONGEST));
        assert_eq!(
            retries.failed(7, Hook::TcIngress, "b", LONGEST_REFUSED, start).0,
            LONGEST * 2
        );
        retries.forget(7);
        assert_eq!((retries.len(), retries.next()), (0, None));
        retries.failed(7, Hook::TcIngress, "a", LONGEST, start);
        retries.succeeded(7, Hook::TcIngress);
        assert_eq!(retries.len(), 0);
    }
}
