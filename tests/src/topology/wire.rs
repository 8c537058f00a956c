//! What lies between the hops of a loop.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Result;

use crate::{Namespace, veth};

/// The name of the veth on both sides.
const VETH: &str = "veth0";

/// Loopback, or a veth between two namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// `lo`, all hops in one namespace.
    Loopback,
    /// A veth with IPv4; the last hop is in a namespace of its own.
    VethV4,
    /// A veth with IPv6; the last hop is in a namespace of its own.
    VethV6,
}

impl Wire {
    /// The interface it is, on every side.
    pub fn device(self) -> &'static str {
        match self {
            Self::Loopback => "lo",
            Self::VethV4 | Self::VethV6 => VETH,
        }
    }

    /// The address with this number, 1 to 8. Over a veth all belong to the first namespace but number 2.
    pub(super) fn address(self, number: u8) -> IpAddr {
        match self {
            Self::Loopback => Ipv4Addr::new(127, 0, 0, number).into(),
            Self::VethV4 => Ipv4Addr::new(10, 53, 0, number).into(),
            Self::VethV6 => Ipv6Addr::new(0xfd53, 0, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }

    /// Makes the namespaces, one or two, with addresses 1, 2, 3 and 4.
    pub(super) fn lay(self) -> Result<Vec<Namespace>> {
        let here = Namespace::new()?;
        if self == Self::Loopback {
            // 127.0.0.0/8 is all there.
            return Ok(vec![here]);
        }
        let there = Namespace::new()?;
        let length = if self == Self::VethV4 { 24 } else { 64 };
        let text = |number| format!("{}/{length}", self.address(number));
        veth::veth(&here, &there, VETH, &[(&text(1), &text(2))])?;
        for number in [3, 4] {
            veth::add(&here, VETH, &text(number))?;
        }
        Ok(vec![here, there])
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Loopback => "lo",
            Self::VethV4 => "a veth (IPv4)",
            Self::VethV6 => "a veth (IPv6)",
        })
    }
}
