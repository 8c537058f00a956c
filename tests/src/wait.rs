//! Waiting for what comes by itself.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

/// How often it is looked for.
const POLL: Duration = Duration::from_millis(10);

/// Waits until it is so, and tells how long that took. An error if it is not within this time, or cannot be told.
pub fn wait(what: &str, within: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let began = Instant::now();
    while !is_so()? {
        ensure!(began.elapsed() < within, "not within {within:?}: {what}");
        sleep(POLL);
    }
    Ok(began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_at_once_and_gives_up_in_time() {
        assert!(wait("now", Duration::ZERO, || Ok(true)).is_ok());
        let error = wait("never", Duration::from_millis(1), || Ok(false)).unwrap_err();
        assert_eq!(error.to_string(), "not within 1ms: never");
    }
}
