//! What a snapshot says, in the form of the API.

use super::api::{AllowedRow, LoopList, PolicyView, SCHEMA, SettingRow};
use crate::{
    config::mode_word,
    name,
    settings::Origin,
    snapshot::{Allowed, Setting, SettingsShown, Snapshot},
};

impl AllowedRow {
    fn of(allowed: &Allowed, at_ns: u64) -> Self {
        let left = |until_ns: u64| until_ns.saturating_sub(at_ns) / 1_000_000_000;
        Self {
            name: allowed.question.name(),
            qtype: name::qtype(allowed.question.qtype()).into_owned(),
            from: if allowed.by_hand { "by hand" } else { "configuration" }.to_owned(),
            seconds_left: allowed.until_ns.map(left),
        }
    }
}

impl LoopList {
    /// The open breakers and the allowed keys.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let allowed = snapshot.allowed.iter();
        Self {
            schema: SCHEMA,
            mode: mode_word(snapshot.mode).to_owned(),
            loops: snapshot.loop_rows().collect(),
            allowed: allowed.map(|allowed| AllowedRow::of(allowed, snapshot.at_ns)).collect(),
        }
    }
}

impl PolicyView {
    /// The configuration in force.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let SettingsShown {
            file,
            rows,
            limits,
            by_hand,
        } = &snapshot.settings;
        let row = |setting: &Setting| SettingRow {
            key: setting.key.clone(),
            value: setting.value.clone(),
            from: setting.from.to_owned(),
        };
        Self {
            schema: SCHEMA,
            policy_generation: snapshot.policy_generation,
            file: file.clone(),
            settings: rows.iter().map(row).collect(),
            limits: limits.clone(),
            by_hand: by_hand.iter().map(row).collect(),
        }
    }
}

impl SettingsShown {
    /// The keys that are set by hand.
    pub(crate) fn set_by_hand(&self) -> Vec<String> {
        let rows = self.rows.iter().chain(&self.by_hand);
        rows.filter(|row| row.from == Origin::Hand.word())
            .map(|row| row.key.clone())
            .collect()
    }
}
