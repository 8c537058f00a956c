//! Forwarders and clients, reduced to what the wire shows of them, and a guard between them, in simulated time.
//!
//! ```text
//! nodes -> network (wire, clock) -> guard (frames) -> tally
//! ```
//!
//! The guard sees real frames: what comes out is parsed, keyed, judged and marked as in the kernel. [`guard`] says who can
//! be one, [`nodes`] who talks, [`network`] how it gets across; [`accuracy`] runs millions of loads and loops that people
//! have.

#![forbid(unsafe_code)]

pub mod accuracy;
pub mod frame;
pub mod guard;
pub mod name;
pub mod network;
pub mod nodes;
pub mod packet;
pub mod random;

pub use guard::{Guard, Native};
pub use network::{Network, Tally};
pub use packet::{Kind, Packet, Socket, at};

/// Nanoseconds in a microsecond.
pub const US: u64 = 1_000;
/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000 * US;
/// Nanoseconds in a second.
pub const S: u64 = 1_000 * MS;
