//! A machine of its own, with another kernel: a stock Debian kernel in QEMU, and in it what is carried there.
//!
//! **Invariant: a run ends.** It has a deadline, QEMU dies with the thread that started it, and how it ended is known:
//! the programs said so, the kernel panicked, or time was up.
//!
//! The guest has no disk and no network. Its first process is `vm-init` ([`mod@guest`] is what both sides know of each
//! other), all files lie in the archive that the kernel unpacks at its start.

mod emulator;
pub mod guest;
mod image;
mod kernel;

pub use self::{
    emulator::{Ending, Machine, Run},
    image::Image,
    kernel::Kernel,
};

/// The programs that the host needs for it, as [`crate::programs::provide`] takes them.
pub const PROGRAMS: [&str; 3] = [emulator::QEMU, "xz", "zstd"];
