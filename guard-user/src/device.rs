//! What the kernel says of an interface, read from `/sys/class/net`.

use std::{fs, io, path::PathBuf};

/// ARPHRD_ETHER and ARPHRD_LOOPBACK (include/uapi/linux/if_arp.h): the link types whose frames begin with an Ethernet
/// header.
const ETHERNET_TYPES: [u32; 2] = [1, 772];

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
}

/// Why an interface cannot be guarded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("there is no interface {0}; `ip -brief link` lists those there are")]
    Missing(String),
    #[error("interface {0} carries no Ethernet frames (link type {1}), which is all that is read; leave it out")]
    NotEthernet(String, u32),
    #[error("cannot read {path}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
}

/// All the interfaces that cannot be guarded.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub(crate) struct DeviceErrors(Vec<DeviceError>);

impl Device {
    /// Looks all of these up; fails with every one that cannot be guarded, in one line.
    pub(crate) fn find_all(names: &[String]) -> Result<Vec<Self>, DeviceErrors> {
        let mut devices = Vec::new();
        let mut errors = Vec::new();
        for name in names {
            match Self::find(name) {
                Ok(device) => devices.push(device),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Ok(devices)
        } else {
            Err(DeviceErrors(errors))
        }
    }

    /// Looks an interface up by its name.
    fn find(name: &str) -> Result<Self, DeviceError> {
        let folder = PathBuf::from("/sys/class/net").join(name);
        if !folder.exists() {
            return Err(DeviceError::Missing(name.to_owned()));
        }
        let number = |file: &str| {
            let path = folder.join(file);
            let unreadable = |source| DeviceError::Unreadable {
                path: path.clone(),
                source,
            };
            let text = fs::read_to_string(&path).map_err(unreadable)?;
            text.trim()
                .parse()
                .map_err(|_| unreadable(io::ErrorKind::InvalidData.into()))
        };
        let link_type = number("type")?;
        if !ETHERNET_TYPES.contains(&link_type) {
            return Err(DeviceError::NotEthernet(name.to_owned(), link_type));
        }
        Ok(Self {
            name: name.to_owned(),
            ifindex: number("ifindex")?,
            physical: folder.join("device").exists(),
            loopback: link_type == ETHERNET_TYPES[1],
        })
    }
}
