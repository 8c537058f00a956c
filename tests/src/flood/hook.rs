//! Where in the receive path a program looks at packets.

use std::{
    fmt, io,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;

use super::site::DEVICE;
use crate::{
    bench::Gate,
    sys::{self, Place},
};

/// Where the guard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Where it goes by itself: TC, on a veth.
    Auto,
    /// XDP in the driver.
    Driver,
    /// XDP in the generic receive path.
    Generic,
}

impl fmt::Display for Hook {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Auto => "TC",
            Self::Driver => "driver XDP",
            Self::Generic => "generic XDP",
        })
    }
}

impl Hook {
    /// The value of `attach.xdp` in the guard's configuration.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Driver => "driver",
            Self::Generic => "generic",
        }
    }

    /// Has the program that `load` makes for this gate where the guard's would be, for as long as the descriptor is open.
    /// Called in the server's network.
    pub(super) fn occupy(self, load: impl FnOnce(Gate) -> io::Result<OwnedFd>) -> Result<OwnedFd> {
        let (gate, place) = match self {
            Self::Auto => (Gate::TcIn, Place::Tcx),
            Self::Driver => (Gate::Xdp, Place::XdpDriver),
            Self::Generic => (Gate::Xdp, Place::XdpGeneric),
        };
        let program = load(gate).context("load a program")?;
        let device = if_nametoindex(DEVICE)?;
        sys::attach(program.as_fd(), device, place).with_context(|| format!("attach a program to {DEVICE}"))
    }
}
