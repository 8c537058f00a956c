//! The agent's only `unsafe`.
#![expect(
    unsafe_code,
    reason = "what the safe interfaces of the kernel do not cover is gathered here"
)]

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

/// Lets tokio wait for a ring buffer.
///
/// # Errors
///
/// What `epoll_ctl` says.
pub(crate) fn wait_for(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring buffer owns its descriptor, returns the same one whenever it is asked, and closes it only when
    // it is dropped, which is after `AsyncFd` has deregistered it.
    unsafe { AsyncFd::register(ring) }.map_err(io::Error::from)
}
