//! Numbers in the environment, for runs that are longer or heavier than the usual one, or lighter.

use std::env;

use anyhow::{Context as _, Result};

/// The number that the variable has, or else the usual one.
pub fn knob(name: &str, usual: u64) -> Result<u64> {
    let text = env::var(name).ok();
    let number = text.map(|text| text.parse().with_context(|| format!("{name}={text} is no number")));
    number.transpose().map(|number| number.unwrap_or(usual))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_set_is_as_usual_and_what_is_no_number_is_an_error() {
        assert_eq!(knob("DNSGUARD_NOBODY_SETS_THIS", 7).unwrap(), 7);
        // It is set wherever tests are run.
        let error = knob("CARGO_MANIFEST_DIR", 7).unwrap_err();
        assert!(error.to_string().starts_with("CARGO_MANIFEST_DIR=/"), "{error}");
    }
}
