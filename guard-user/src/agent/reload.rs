//! Another configuration in the place of the one in force: all of it, or nothing.
//!
//! A thread reads the file and looks at the host, which takes as long as they like; then the agent switches the policy
//! between two packets. Counts, open breakers and storms go on.

use std::collections::BTreeMap;

use tokio::task::JoinHandle;

use crate::{
    config::Config,
    control::socket::Peer,
    device::Device,
    facts::Facts,
    host_policy::HostPolicy,
    interfaces,
    settings::{Loaded, Settings},
};

/// What asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// SIGHUP.
    Signal,
    /// The file has changed.
    File,
    /// Somebody, by a command.
    Command(Peer),
}

impl Trigger {
    /// Its word in events.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::File => "file",
            Self::Command(_) => "command",
        }
    }

    /// Who it was, if it was a command.
    pub(super) fn by(&self) -> Option<String> {
        match self {
            Self::Command(peer) => Some(peer.words()),
            Self::Signal | Self::File => None,
        }
    }
}

/// A configuration that fits the host.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) loaded: Loaded,
    pub(super) facts: Facts,
    /// The interfaces that it chooses.
    pub(super) devices: Vec<Device>,
}

/// Begins to read the settings and to look at the host; `current` is in force. The end is a configuration that can be, or
/// what is wrong, in words.
pub(super) fn prepare(
    settings: Settings,
    current: Config,
    devices: Vec<Device>,
) -> JoinHandle<Result<Prepared, String>> {
    tokio::task::spawn_blocking(move || {
        let loaded = settings.load().map_err(|error| error.to_string())?;
        let fixed = current.fixed_differences(&loaded.config);
        if !fixed.is_empty() {
            return Err(format!(
                "{} cannot change while the agent runs; restart it: the policy stays in force meanwhile",
                fixed.join(", ")
            ));
        }
        let selection = &loaded.config.attach.selection;
        let devices = if *selection == current.attach.selection {
            devices
        } else {
            interfaces::choose(selection).map_err(|error| format!("{error:#}"))?
        };
        let facts = HostPolicy::look_with(&loaded.config, &devices).map_err(|error| format!("{error:#}"))?;
        Ok(Prepared { loaded, facts, devices })
    })
}

/// What is different in a configuration, one each: `breaker.hold_ms: 1000 -> 2000`, or a budget that came or went.
pub(super) fn changes(before: &Config, after: &Config) -> Vec<String> {
    let settings = before.settings().into_iter().zip(after.settings());
    let settings = settings.filter(|(old, new)| old != new);
    let mut changes: Vec<_> = settings
        .map(|((key, old), (_, new))| format!("{key}: {old} -> {new}"))
        .collect();
    let (old, new) = (limits(before), limits(after));
    for (name, limit) in &old {
        match new.get(name) {
            Some(other) if other == limit => {}
            Some(other) => changes.push(format!("{name}: {limit} -> {other}")),
            None => changes.push(format!("{name}: {limit} -> gone")),
        }
    }
    let added = new.iter().filter(|(name, _)| !old.contains_key(*name));
    changes.extend(added.map(|(name, limit)| format!("{name}: new, {limit}")));
    if changes.is_empty() && before != after {
        changes.push("filters of budgets or ranges of hygiene".to_owned());
    }
    changes
}

/// What each budget and the rules of hygiene say, by their names.
fn limits(config: &Config) -> BTreeMap<String, String> {
    let split = |limit: String| match limit.split_once(": ") {
        Some((name, says)) => (name.to_owned(), says.to_owned()),
        None => (limit, String::new()),
    };
    config.limits().map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse("dnsguard.toml", text).unwrap()
    }

    #[test]
    fn changes_are_told_by_their_keys_and_budgets_by_their_sentences() {
        let before = config("[[budget]]\nname = 'b'\nscope = 'all'\nlimit = 10\n");
        let after = config("mode = 'enforce'\n[[budget]]\nname = 'b'\nscope = 'all'\nlimit = 20\n");
        let changes = changes(&before, &after);
        let expected = [
            "mode: \"observe\" -> \"enforce\"",
            "budget b: all, in, 10/s with 10 at once, drop, 1 row -> all, in, 20/s with 20 at once, drop, 1 row",
        ];
        assert_eq!(changes, expected);
    }

    #[test]
    fn the_same_configuration_has_no_changes_and_a_filter_is_one() {
        let text = "[[budget]]\nname = 'b'\nscope = 'all'\nlimit = 10\n";
        assert!(changes(&config(text), &config(text)).is_empty());
        let filtered = format!("{text}types = ['A']\n");
        assert_eq!(changes(&config(text), &config(&filtered)).len(), 1);
    }
}
