//! The machine that this runs on.

use std::fs;

use anyhow::{Context as _, Result};

/// Release of the running kernel.
pub(crate) fn kernel() -> Result<String> {
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's release from /proc")?;
    Ok(release.trim().to_owned())
}
