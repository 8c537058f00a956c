//! A soak: everything at once, for as long as one likes, and the sums at the end.
//!
//! Two nodes, each with a guard. One agent is left alive, its policy changes ten times a second and its interfaces come
//! and go: what leaks, leaks there. The other one is killed every half minute, or stopped, and started again: what a
//! restart loses, is lost there. Between them and the outside lie wires at which nftables counts what is sent and what
//! arrives, on both sides of the hooks; every half minute the traffic rests, and then all counts have to agree.
//!
//! `node` is what is built, `traffic`, `loops`, `churn`, `policy` and `restarts` are what goes on there, `count` and
//! `exposition` say what was counted by nftables and by the guard, `balance` compares them, `footprint` says what an agent
//! takes, and `finding` what is to hold at the end.

mod balance;
mod churn;
mod count;
mod exposition;
mod finding;
mod footprint;
mod loops;
mod node;
mod pace;
mod policy;
mod restarts;
mod run;
mod sample;
mod traffic;

pub use finding::{Finding, Limits};
pub use node::PROGRAMS;
pub use run::{Outcome, Soak, run};
pub use sample::{Done, Sample};
