//! What agents of other versions left: it is taken out once this one has attached, or it is a reason not to start.
//!
//! Two versions that are attached at once would both judge each packet, each with tables of its own.

use std::path::Path;

use aya::maps::MapData;
use guard_common::abi;
use nix::time::{ClockId, clock_gettime};
use tracing::warn;

use super::{
    DatapathError,
    ownership::Ours,
    pins::{PinError, Pins, files, is_link, remove_folders, remove_link, remove_maps},
};
use crate::{attachment::Attachment, sys};

/// What was taken over from an agent before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Takeover {
    /// The version of its maps; of several the oldest.
    pub(crate) abi: u32,
    /// Links whose programs were replaced in place, or that were detached because nobody wants them any more.
    pub(crate) links: usize,
}

/// Refuses to start beside a newer version that still has its say. Once its lease is over, everything passes it, and it
/// can be taken out.
pub(super) fn refuse_newer(pins: &Pins) -> Result<(), DatapathError> {
    for (version, folder) in pins.versions() {
        if version <= abi::VERSION || files(&folder.join("links")).is_empty() {
            continue;
        }
        if let Some(holds) = lease(&folder.join("maps")) {
            return Err(DatapathError::Newer {
                path: folder.display().to_string(),
                version,
                holds,
            });
        }
    }
    Ok(())
}

/// Takes out what other versions left, but for the filters that ours are in the place of. Nothing of somebody else's is
/// touched.
pub(super) fn remove_others(pins: &Pins, attachments: &[Attachment], ours: &Ours) -> Result<(), PinError> {
    for (version, folder) in pins.versions() {
        if version == abi::VERSION {
            continue;
        }
        let mut foreign = 0;
        for link in files(&folder.join("links")) {
            if is_link(&link) && ours.runs(&link) {
                remove_link(&link, pins.is_in_use(&link, attachments));
            } else {
                warn!("{} is not dnsguard's: it stays", link.display());
                foreign += 1;
            }
        }
        remove_maps(&folder)?;
        if foreign == 0 {
            remove_folders(&folder)?;
        }
    }
    Ok(())
}

/// What is left of the lease in the maps of some version, in words; `None` once it is over. What cannot be read holds.
fn lease(maps: &Path) -> Option<String> {
    let read = MapData::from_pin(maps.join(abi::CONTROL)).ok();
    let Some(until_ns) = read.and_then(|control| sys::first_word(&control).ok()) else {
        return Some("for a time that cannot be read".to_owned());
    };
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
    let now_ns = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
    (until_ns > now_ns).then(|| format!("for {} s more", (until_ns - now_ns).div_ceil(1_000_000_000)))
}
