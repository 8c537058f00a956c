//! The end of an error message: the one thing to do next.
//!
//! A message reads what failed, on what, why; and the reader who skips all that still finds the command at its end.

use std::fmt::Display;

use anyhow::{Result, anyhow};

pub(crate) trait Advice<T> {
    /// Puts the next step behind what failed and why, as a command.
    fn or_next(self, command: impl Display) -> Result<T>;
}

impl<T> Advice<T> for Result<T> {
    fn or_next(self, command: impl Display) -> Self {
        self.map_err(|error| anyhow!("{error:#}; next: {command}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_stands_behind_the_reason() {
        let error = Err::<(), _>(anyhow!("why").context("what")).or_next("cargo xtask setup");
        assert_eq!(error.unwrap_err().to_string(), "what: why; next: cargo xtask setup");
    }
}
