//! Root rights: the ones this process has, or those that sudo gives it.
//!
//! Only two things need them, installing packages and running the kernel tests. Everything else, all building above all,
//! stays the person's own, so that no file in `target` belongs to root.

use std::{
    fs,
    io::{self, IsTerminal as _},
    os::unix::fs::MetadataExt as _,
    process::Command,
};

use crate::step;

/// How a command comes to run as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    Already,
    BySudo,
}

impl Root {
    /// None: neither root, nor a sudo that needs no password, nor somebody at a terminal who could type it.
    pub(crate) fn find() -> Option<Self> {
        // The owner of /proc/self is the effective user.
        if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            return Some(Self::Already);
        }
        step::find_program("sudo")?;
        let silent = step::quiet(Command::new("sudo").args(["-n", "true"])).is_ok();
        (silent || io::stdin().is_terminal()).then_some(Self::BySudo)
    }

    pub(crate) fn command(self, program: &str) -> Command {
        match self {
            Self::Already => Command::new(program),
            Self::BySudo => {
                let mut command = Command::new("sudo");
                command.arg(program);
                command
            }
        }
    }
}
