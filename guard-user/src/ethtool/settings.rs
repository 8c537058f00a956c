//! What stands behind `ethtool -i`, `-l` and `-k`: the driver's version, its queues, and its offloads.

use std::{collections::BTreeMap, io, os::fd::AsFd as _};

use nix::errno::Errno;

use super::{DRIVER, ETH_GSTRING_LEN, ETHTOOL_GDRVINFO, ETHTOOL_GSTRINGS, STRINGS_HEADER, Statistics, text};

/// The questions beside those of statistics.
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// The set of strings that names the offloads.
const ETH_SS_FEATURES: u32 = 4;
/// `struct ethtool_gfeatures`: question, number of blocks of 32 features.
const FEATURES_HEADER: usize = 8;
/// `struct ethtool_get_features_block`: available, requested, active, never changed.
const FEATURES_BLOCK: usize = 16;
/// Where in a block the active ones are.
const ACTIVE: usize = 8;
/// Blocks that are asked for; the kernel fills as many as it has.
const BLOCKS: u32 = 8;
/// Where in `struct ethtool_drvinfo` the driver's version is, and its bytes.
const VERSION: (usize, usize) = (36, 32);

/// The driver of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Driver {
    /// Its name.
    pub(crate) name: String,
    /// Its version; that of the kernel for those that come with it.
    pub(crate) version: String,
}

/// The queues of an interface (`struct ethtool_channels`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Channels {
    /// The most that it can have: for receiving, for sending, for both.
    pub(crate) max_rx: u32,
    pub(crate) max_tx: u32,
    pub(crate) max_combined: u32,
    /// Those that it has.
    pub(crate) rx: u32,
    pub(crate) tx: u32,
    pub(crate) combined: u32,
}

impl Statistics {
    /// The driver of an interface; `None` where none gives its name.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn driver_of(&mut self, device: &str) -> io::Result<Option<Driver>> {
        if !self.asked(&[ETHTOOL_GDRVINFO], device)? {
            return Ok(None);
        }
        let of = |(start, length): (usize, usize)| text(&self.memory.bytes()[start..start + length]);
        Ok(Some(Driver {
            name: of(DRIVER),
            version: of(VERSION),
        }))
    }

    /// The queues of an interface; `None` where its driver does not tell.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn channels(&mut self, device: &str) -> io::Result<Option<Channels>> {
        if !self.asked(&[ETHTOOL_GCHANNELS], device)? {
            return Ok(None);
        }
        // Behind the question: the most of receiving, sending, other, both; then what there is of each.
        let number = |index: usize| u32::try_from(self.number(4 * index)).map_err(io::Error::other);
        Ok(Some(Channels {
            max_rx: number(1)?,
            max_tx: number(2)?,
            max_combined: number(4)?,
            rx: number(5)?,
            tx: number(6)?,
            combined: number(8)?,
        }))
    }

    /// Which offloads are on, by the kernel's names, such as `rx-lro`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn offloads(&mut self, device: &str) -> io::Result<BTreeMap<String, bool>> {
        // The kernel writes as many names as it has, and says how many.
        if !self.asked(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, 0], device)? {
            return Ok(BTreeMap::new());
        }
        let count = self.number(STRINGS_HEADER - 4);
        let names = &self.memory.bytes()[STRINGS_HEADER..];
        let names: Vec<_> = names.chunks_exact(ETH_GSTRING_LEN).take(count).map(text).collect();
        if !self.asked(&[ETHTOOL_GFEATURES, BLOCKS], device)? {
            return Ok(BTreeMap::new());
        }
        let known = self.number(4) * 32;
        let is_on = |index: usize| {
            let word = self.number(FEATURES_HEADER + index / 32 * FEATURES_BLOCK + ACTIVE);
            word >> (index % 32) & 1 == 1
        };
        let named = names.into_iter().enumerate().take(known);
        Ok(named.map(|(index, name)| (name, is_on(index))).collect())
    }

    /// Whether the driver answers this question.
    fn asked(&mut self, question: &[u32], device: &str) -> io::Result<bool> {
        self.write(question);
        match self.memory.ask(self.socket.as_fd(), device) {
            Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => Ok(false),
            result => result.map(|()| true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{in_a_network, ip},
        *,
    };

    #[test]
    fn loopback_has_no_driver_and_no_queues() {
        let mut statistics = Statistics::open().unwrap();
        assert_eq!(statistics.driver_of("lo").unwrap(), None);
        assert_eq!(statistics.channels("lo").unwrap(), None);
        let offloads = statistics.offloads("lo").unwrap();
        assert_eq!(
            (offloads.get("loopback"), offloads.get("rx-lro")),
            (Some(&true), Some(&false))
        );
    }

    #[test]
    fn a_veth_tells_its_queues_and_its_offloads() {
        in_a_network(|| {
            ip("link add here numrxqueues 4 numtxqueues 2 type veth peer name there");
            let mut statistics = Statistics::open().unwrap();
            assert_eq!(statistics.driver_of("here").unwrap().unwrap().name, "veth");
            let channels = statistics.channels("here").unwrap().unwrap();
            assert_eq!((channels.max_rx, channels.max_tx, channels.max_combined), (4, 2, 0));
            let gro = |statistics: &mut Statistics| statistics.offloads("here").unwrap()["rx-gro"];
            let before = gro(&mut statistics);
            let wanted = if before { "off" } else { "on" };
            let arguments = ["-K", "here", "gro", wanted];
            match std::process::Command::new("ethtool").args(arguments).status() {
                Ok(status) => {
                    assert!(status.success());
                    assert_ne!(gro(&mut statistics), before);
                }
                Err(error) => eprintln!("not changed: ethtool is not here ({error})"),
            }
        });
    }
}
