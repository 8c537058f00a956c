//! What goes over the control socket, version 1: the JSON of requests and responses.
//!
//! | request | response |
//! |---|---|
//! | `GET /v1/status` | [`Status`](super::status::Status) |
//! | `GET /v1/top` | [`View`](crate::view::View) |
//! | `GET /v1/loops` | [`LoopList`] |
//! | `GET /v1/explain?name=NAME&type=TYPE` | [`Explanation`] |
//! | `GET /v1/policy` | [`PolicyView`] |
//! | `GET /v1/events?last=N&follow=1&queries=1&...` | lines, each an event of the agent or a sampled query |
//! | `GET /v1/metrics` | the metrics, as text |
//! | `POST /v1/loops/release`, `/v1/loops/allow`, `/v1/loops/disallow` | [`Done`] |
//! | `POST /v1/policy/set`, `/v1/policy/reset`, `/v1/reload` | [`Done`] |
//!
//! Whatever fails is a [`Failure`], with a status above 399.

use serde::{Deserialize, Serialize};

use crate::view::LoopRow;

/// Goes up with every change that breaks a reader.
pub(crate) const SCHEMA: u32 = 1;

/// Why a request was not carried out.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
    /// In a sentence, with what to do.
    pub(crate) error: String,
}

/// What a command has done.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Done {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
    /// In sentences.
    pub(crate) done: Vec<String>,
    /// The policy in force now.
    pub(crate) policy_generation: u32,
}

/// The open breakers and the allowed keys.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct LoopList {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
    /// `observe` or `enforce`.
    pub(crate) mode: String,
    /// The breakers that hold most first.
    pub(crate) loops: Vec<LoopRow>,
    /// What is only watched.
    pub(crate) allowed: Vec<AllowedRow>,
}

/// A name and type that are only watched.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct AllowedRow {
    /// The name, in presentation form.
    pub(crate) name: String,
    /// The QTYPE.
    #[serde(rename = "type")]
    pub(crate) qtype: String,
    /// `configuration` or `by hand`.
    pub(crate) from: String,
    /// Seconds until it ends by itself; absent where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds_left: Option<u64>,
}

/// Which breakers are meant: one key, all types of a name, or all.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Which {
    /// The name.
    pub(crate) name: Option<String>,
    /// The type; none means all types that have an open breaker.
    #[serde(rename = "type")]
    pub(crate) qtype: Option<String>,
    /// All open breakers.
    #[serde(default)]
    pub(crate) all: bool,
    /// Of `allow`: seconds after which it ends by itself.
    pub(crate) seconds: Option<u64>,
}

/// A key of the configuration, and what it is set to.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    /// As TOML writes it; none, in a reset, means all.
    pub(crate) key: Option<String>,
    /// As TOML writes it.
    pub(crate) value: Option<String>,
    /// Only say whether it would be right.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct PolicyView {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
    /// Counts the policies.
    pub(crate) policy_generation: u32,
    /// The file, if there is one.
    pub(crate) file: Option<String>,
    /// All keys but those of budgets and hygiene.
    pub(crate) settings: Vec<SettingRow>,
    /// Budgets and rules of hygiene, a sentence each.
    pub(crate) limits: Vec<String>,
    /// What was set by hand and is no key of the list above: keys of budgets and hygiene.
    pub(crate) by_hand: Vec<SettingRow>,
}

/// A key of the configuration.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct SettingRow {
    /// As it stands in the file.
    pub(crate) key: String,
    /// As TOML writes it.
    pub(crate) value: String,
    /// `default`, `file`, `flag` or `by hand`.
    pub(crate) from: String,
}

/// What the guard thinks of a key, and why.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Explanation {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
    /// The name, in presentation form.
    pub(crate) name: String,
    /// The QTYPE.
    #[serde(rename = "type")]
    pub(crate) qtype: String,
    /// The key, in 16 hexadecimal digits.
    pub(crate) key: String,
    /// `observe` or `enforce`.
    pub(crate) mode: String,
    /// What becomes of the next query: `pass`, `test`, `held`, or, where it is only watched, `would_hold`.
    pub(crate) verdict: String,
    /// The same in a sentence.
    pub(crate) summary: String,
    /// What the kernel remembers of it; absent where that is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<StateView>,
    /// Its open breaker, as `loops list` shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) breaker: Option<LoopRow>,
    /// Why, rule by rule.
    pub(crate) reasons: Vec<String>,
    /// Budgets that its queries are charged to.
    pub(crate) budgets: Vec<String>,
    /// What would change it, with the commands.
    pub(crate) remedies: Vec<String>,
}

/// What the kernel remembers of a key.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct StateView {
    /// `closed`, `suspect`, `open` or `test`.
    pub(crate) phase: String,
    /// Hops that nobody has answered.
    pub(crate) hops: u16,
    /// Those among them that went to a server which already had the question.
    pub(crate) recirculated: u8,
    /// What spoke for a loop last.
    pub(crate) evidence: String,
    /// The scores by which it is told: pace, echo (identity and direction), ladder.
    pub(crate) scores: Scores,
    /// Bits of proof that marks have brought so far.
    pub(crate) bits: u8,
    /// How often the hold was doubled.
    pub(crate) level: u8,
    /// Queries held in this hold.
    pub(crate) held: u32,
    /// Milliseconds since the last query or answer.
    pub(crate) idle_ms: u64,
    /// Milliseconds until the hold or the test is over.
    pub(crate) hold_left_ms: u64,
    /// Ports of the servers that it went to, in the order in which they were first seen.
    pub(crate) server_ports: Vec<u16>,
}

/// Scores, and where they trip.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Scores {
    /// The same 5-tuple and ID, faster than any client retries.
    pub(crate) pace: u8,
    /// IDs and addresses that come back.
    pub(crate) echo: u8,
    /// Servers that take turns.
    pub(crate) ladder: u8,
    /// The score that is taken for a loop.
    pub(crate) trip: u8,
}

impl Failure {
    /// With this sentence.
    pub(crate) fn new(error: impl Into<String>) -> Self {
        Self {
            schema: SCHEMA,
            error: error.into(),
        }
    }
}
