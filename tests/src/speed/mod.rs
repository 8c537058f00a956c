//! What a packet costs: programs run over packets by the kernel itself, many times, as it counts.
//!
//! The kernel runs a program again and again over the same bytes, so a [`Feeder`] goes first: it draws which name is
//! asked for, and mends what the last run did to the packet. What it takes itself is measured with a program behind it
//! that does nothing, and taken off.

mod feeder;

pub use feeder::{Feed, Feeder, LETTERS, alone, empty};
