//! What there is to tell of storms: budgets that are over, and clients that walk their search list.

use std::net::IpAddr;

use serde::{Serialize, Serializer};

use crate::pods::Pod;

/// A budget, or a rule of hygiene, sheds queries: or would, in observe mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct OverBudget {
    /// Its name.
    pub(crate) budget: String,
    /// The interface; none if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    /// The pod that it leads to, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_pod: Option<Pod>,
    /// Packets per second; a rule has none.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "short")]
    pub(crate) limit: Option<f64>,
    /// Packets shed since this storm began.
    pub(crate) shed: u64,
    /// Packets shed per second, since this was last told of this storm.
    pub(crate) shed_per_second: u64,
    /// Packets that came, per second, since then.
    pub(crate) offered_per_second: u64,
    /// `observe` or `enforce`: in observe mode nothing is shed, and the numbers are what would have been.
    pub(crate) mode: &'static str,
    /// The zones that were asked for, of what was shed.
    pub(crate) zones: Vec<ZoneShare>,
    /// The clients that asked.
    pub(crate) clients: Vec<ClientShare>,
    /// The names that were asked for most.
    pub(crate) names: Vec<NameShare>,
    /// In a sentence.
    pub(crate) reason: String,
}

/// The share that a zone has.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct ZoneShare {
    /// The zone, in presentation form.
    pub(crate) zone: String,
    /// 0 to 1.
    pub(crate) share: f64,
    /// By how much it can be off.
    pub(crate) error: f64,
}

/// The share that a client has.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct ClientShare {
    /// The address.
    pub(crate) client: String,
    /// The pod that has the address, if one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Pod>,
    /// 0 to 1.
    pub(crate) share: f64,
    /// By how much it can be off.
    pub(crate) error: f64,
}

/// The share that a name has.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct NameShare {
    /// The name, in presentation form.
    pub(crate) name: String,
    /// The QTYPE.
    #[serde(rename = "type")]
    pub(crate) qtype: String,
    /// 0 to 1.
    pub(crate) share: f64,
    /// By how much it can be off.
    pub(crate) error: f64,
}

/// A budget has not shed anything for a while.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct WithinBudget {
    /// Its name.
    pub(crate) budget: String,
    /// The interface; none if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    /// Packets shed since the storm began.
    pub(crate) shed: u64,
    /// Seconds from the first packet shed to the last.
    pub(crate) seconds: u64,
    /// In a sentence.
    pub(crate) reason: String,
}

/// A client wastes queries on its search list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SearchWalk {
    /// Who.
    pub(crate) client: IpAddr,
    /// The pod that has the address, if one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Pod>,
    /// Queries that were followed by another step, at least.
    pub(crate) wasted: u64,
    /// All its queries in that time.
    pub(crate) queries: u64,
    /// What was appended in vain, in presentation form.
    pub(crate) suffixes: Vec<String>,
    /// A name that was meant, in presentation form.
    pub(crate) example: String,
    /// In a sentence, with the fix.
    pub(crate) reason: String,
}

/// A limit, without decimals if it has none.
fn short<S: Serializer>(limit: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match limit {
        Some(limit) if limit.fract() == 0.0 && (0.0..=1e15).contains(limit) => serializer.serialize_u64(*limit as u64),
        limit => limit.serialize(serializer),
    }
}
