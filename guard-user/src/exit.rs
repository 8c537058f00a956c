//! Exit codes. They mean the same for every command, and stay what they are.

/// Done, and all is well.
pub(crate) const DONE: u8 = 0;
/// It failed: the message says what, on what, and what to do next.
pub(crate) const FAILED: u8 = 1;
/// Bad usage or bad configuration; clap's own.
pub(crate) const BAD_USAGE: u8 = 2;
/// It found what it looks for: a loop, a held key, something that needs attention.
pub(crate) const FOUND: u8 = 3;
/// Nobody answered: no agent, or no server.
pub(crate) const NOBODY: u8 = 4;
/// Not permitted.
pub(crate) const NOT_PERMITTED: u8 = 5;
