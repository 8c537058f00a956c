//! `dnsguard reload`: the agent reads its file again.

use super::{Outcome, Remote, have_done};

/// Examples for the help.
pub(crate) const EXAMPLES: &str = "\
Example:
  dnsguard check-config /etc/dnsguard/dnsguard.toml && dnsguard reload

All or nothing: a file that is wrong leaves the policy of before in force, and the message says where it is wrong. SIGHUP \
does the same, and so does a file that has changed, within some two seconds.";

/// `dnsguard reload`
pub(crate) fn reload(remote: &Remote) -> Outcome {
    let (text, code) = have_done(remote, "/v1/reload", &serde_json::json!({}))?;
    let nothing = "the configuration was loaded again; nothing is different\n";
    Ok((if text.is_empty() { nothing.to_owned() } else { text }, code))
}
