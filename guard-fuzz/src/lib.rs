//! Hostile bytes for everything that reads bytes of others, and independent libraries that say what it should have read.
//!
//! ```text
//! random -> draw (frames, messages, requests, files; as they come, and spoiled) -> case: bytes
//!                                                                                    |
//!           target: reads them with the guard's code and with somebody else's  <-----'
//!                       |
//!                       '-> the class the case falls into, or what is wrong with it -> smaller -> a file
//! ```
//!
//! A case is bytes and nothing else, so that a file replays it and `cargo fuzz` can make up its own (`fuzz/`). A class is
//! a sentence: where the guard and a library may disagree, the class says so, and whatever falls into none is wrong.

#![forbid(unsafe_code)]

mod draw;
pub mod driver;
mod independent;
mod script;
pub mod target;

pub use driver::Verdict;
