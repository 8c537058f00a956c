//! The door in userspace: a packet goes in, and what the kernel would have done with it comes out.
//!
//! The judge is that of `guard-common`, as the kernel object has it; the tables are of the same size, and the clock is
//! the caller's. What `guard-ebpf` does at a hook, `door` does here, step by step:
//!
//! ```text
//! frame -> door (ports) -> reading (message, case) -> judge, budgets on the tables -> remedy -> the frame, changed or not
//! ```
//!
//! It is for whoever has packets and no kernel to put them through: a capture, a simulated network, a comparison with
//! the kernel object itself.

#![forbid(unsafe_code)]

mod budgets;
mod door;
mod marking;
mod outcome;
mod reading;
mod samples;
mod tables;

pub use door::{Door, Fate, News, Way};
