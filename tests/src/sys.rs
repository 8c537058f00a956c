//! The one place with `unsafe`: tying a child's life to ours.

#![expect(
    unsafe_code,
    reason = "std runs code between fork and exec only through an unsafe hook"
)]

use std::{io, os::unix::process::CommandExt as _, process::Command};

use nix::{
    sys::{prctl, signal::Signal},
    unistd::{getpid, getppid},
};

/// Has the kernel kill the child as soon as the *thread* that spawns it is gone.
///
/// The kernel forgets this when the child changes its user or group (`commit_creds`), so every program is
/// started in a way that it keeps both.
pub(crate) fn die_with_spawner(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure runs in the forked child and only calls prctl(2) and getppid(2), which are
    // async-signal-safe, and allocates nothing: `ErrorKind` and an errno fit into `io::Error` as they are.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the line above; then nobody is left to deliver the signal.
            if getppid() == parent {
                Ok(())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        });
    }
}
