//! An interface that can be guarded, and what the guard has to know of it.

use std::path::Path;

use crate::netlink::Link;

/// ARPHRD_ETHER and ARPHRD_LOOPBACK (include/uapi/linux/if_arp.h): the link types whose frames begin with an Ethernet
/// header.
const ETHERNET: u16 = 1;
const LOOPBACK: u16 = 772;

/// An interface that can be guarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// Its name.
    pub(crate) name: String,
    /// Its index.
    pub(crate) ifindex: u32,
    /// Whether there is hardware behind it.
    pub(crate) physical: bool,
    /// Whether it is the loopback interface.
    pub(crate) loopback: bool,
    /// Whether it leads out of this host, to where link-local services are, or the operator named it.
    pub(crate) outward: bool,
}

/// Why an interface cannot be guarded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("there is no interface {0}; `ip -brief link` lists those there are")]
    Missing(String),
    #[error("interface {0} carries no Ethernet frames (link type {1}), which is all that is read; leave it out")]
    NotEthernet(String, u16),
}

/// All the interfaces that cannot be guarded.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub(crate) struct DeviceErrors(pub(crate) Vec<DeviceError>);

impl Device {
    /// An interface as the kernel lists it.
    ///
    /// # Errors
    ///
    /// It carries no Ethernet frames.
    pub(crate) fn of(link: &Link, outward: bool) -> Result<Self, DeviceError> {
        if !matches!(link.link_type, ETHERNET | LOOPBACK) {
            return Err(DeviceError::NotEthernet(link.name.clone(), link.link_type));
        }
        Ok(Self {
            name: link.name.clone(),
            ifindex: link.ifindex,
            physical: Self::is_physical(link),
            loopback: link.link_type == LOOPBACK,
            outward: outward && link.link_type != LOOPBACK,
        })
    }

    /// The interface of this name, of those that the kernel lists.
    ///
    /// # Errors
    ///
    /// There is none, or it carries no Ethernet frames.
    pub(crate) fn named(name: &str, links: &[Link]) -> Result<Self, DeviceError> {
        match links.iter().find(|link| link.name == name) {
            Some(link) => Self::of(link, false),
            None => Err(DeviceError::Missing(name.to_owned())),
        }
    }

    /// Whether there is hardware behind an interface.
    pub(crate) fn is_physical(link: &Link) -> bool {
        // What software makes has a kind; of the rest, such as tunnels of old, sysfs knows.
        link.kind.is_empty() && Path::new("/sys/class/net").join(&link.name).join("device").exists()
    }
}
