//! Budgets: limits in packets per second over a scope.
//!
//! A limit per name never fires on a storm of distinct names, so a budget stands on what such a storm has in common: a
//! destination, a client prefix, a zone, an interface. Each is a token bucket ([`Bucket`]) that all CPUs share; there
//! is no part of the rate for each CPU.
//!
//! ```text
//! rate     how fast a bucket fills, how much it holds
//! share    a count that decays: who takes how much of it
//! meter    the bounded table of buckets and shares, in which the heavy ones stay
//! row      which packets a budget counts, and which of its buckets they are charged to
//! link     one bucket for all packets to link-local services, and who goes first when it runs short
//! ```

mod link;
mod meter;
mod rate;
mod row;
mod share;
#[cfg(test)]
mod tests;

pub use link::{LinkBudget, LinkRules, MAX_LINKS, MAX_SERVICES, Service, exceeds_share, share_tags, sheds};
pub use meter::{Meter, MeterLine, SLOTS};
pub use rate::{Bucket, Rate};
pub use row::{Filters, MAX_DEVICES, MAX_TYPES, Row, Scope, Subject, ZONES};
pub use share::Share;
