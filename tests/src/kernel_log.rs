//! What the kernel says of itself, and nobody wants to read.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
};

use anyhow::{Context as _, Result};

/// What such a line has.
const BAD: [&str; 5] = ["WARNING:", "BUG:", "kernel BUG", "Oops", "KASAN"];
/// What a line has of somebody who waits for longer than the kernel likes.
const LATE: [&str; 4] = ["stall", "hung task", "blocked for more than", "soft lockup"];

/// The log from its end on.
#[derive(Debug)]
pub(crate) struct KernelLog(File);

impl KernelLog {
    /// Skips what was said until now.
    pub(crate) fn from_now_on() -> Result<Self> {
        let log = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg");
        let mut log = log.context("open /dev/kmsg")?;
        log.seek(SeekFrom::End(0)).context("skip /dev/kmsg to its end")?;
        Ok(Self(log))
    }

    /// The bad lines since the last time.
    pub(crate) fn bad(&mut self) -> Result<Vec<String>> {
        let mut record = [0; 8_192];
        let mut bad = Vec::new();
        loop {
            match self.0.read(&mut record) {
                // One record at a time: `level,number,time,flags;text`.
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    let text = text.split_once(';').map_or(&*text, |(_, text)| text).trim();
                    if is_bad(text) {
                        bad.push(text.to_owned());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(bad),
                // Lines were overwritten before they were read; the next read goes on behind them.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) => return Err(error).context("read /dev/kmsg"),
            }
        }
    }
}

/// Whether a line of it is bad.
pub fn is_bad(text: &str) -> bool {
    is_late(text) || BAD.iter().any(|word| text.contains(word))
}

/// Whether all that it says is that somebody waits: an emulated machine is as slow as that by itself.
pub fn is_late(text: &str) -> bool {
    LATE.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_told_from_a_link_that_comes_up() {
        assert!(is_bad("WARNING: CPU: 1 PID: 77 at kernel/bpf/core.c:1"));
        assert!(is_bad("rcu: INFO: rcu_sched self-detected stall on CPU"));
        assert!(!is_bad("in0: link becomes ready"));
        assert!(is_late("watchdog: BUG: soft lockup - CPU#0 stuck for 26s!"));
        assert!(!is_late(
            "BUG: kernel NULL pointer dereference, address: 0000000000000008"
        ));
    }
}
