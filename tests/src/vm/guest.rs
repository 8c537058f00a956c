//! What `vm-init` and whoever boots it agree on.

/// A line for each module that is loaded, in this order: where its file lies.
pub const MODULES: &str = "/guest/modules";

/// A line for each program that is run, one after the other: its path and its arguments, separated by blanks.
pub const COMMANDS: &str = "/guest/commands";

/// A line for each variable of their environment, `NAME=value`.
pub const ENVIRONMENT: &str = "/guest/environment";

/// The serial line to which the programs write.
pub const OUTPUT: &str = "/dev/ttyS1";

/// The serial line to which `vm-init` writes: a line with [`EXIT`] for each program, or one with [`FAILED`].
pub const REPORT: &str = "/dev/ttyS2";

/// What stands before the exit code of a program.
pub const EXIT: &str = "exit ";

/// What stands before the reason why not all programs were run.
pub const FAILED: &str = "failed: ";
