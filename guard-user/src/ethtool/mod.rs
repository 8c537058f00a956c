//! Statistics that only a driver has, as `ethtool -S` shows them.
//!
//! They are on the older of ethtool's two interfaces alone, the ioctl (include/uapi/linux/ethtool.h); netlink has the
//! standard ones. Reading takes no capability.

mod settings;

use std::{
    collections::HashMap,
    io,
    os::{fd::AsFd as _, unix::net::UnixDatagram},
};

use nix::errno::Errno;

pub(crate) use self::settings::Channels;
use crate::sys::EthtoolMemory;

/// The questions, each a number at the beginning of its structure.
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;

/// The set of strings that names the statistics.
const ETH_SS_STATS: u32 = 1;
/// Bytes of a string in a set, filled up with zeroes.
const ETH_GSTRING_LEN: usize = 32;
/// `struct ethtool_gstrings`: question, set, length.
const STRINGS_HEADER: usize = 12;
/// `struct ethtool_stats`: question, length.
const STATS_HEADER: usize = 8;
/// Statistics whose names have room in the memory.
const MOST: usize = (EthtoolMemory::SIZE - STRINGS_HEADER) / ETH_GSTRING_LEN;

/// Where in `struct ethtool_drvinfo` the name of the driver is, and its bytes.
const DRIVER: (usize, usize) = (4, 32);
/// Where in `struct ethtool_drvinfo` the number of statistics is.
const N_STATS: usize = 180;

/// Reads the statistics of drivers in one network namespace.
#[derive(Debug)]
pub(crate) struct Statistics {
    /// Says which network namespace; the ioctl needs a socket, and takes one of any kind.
    socket: UnixDatagram,
    memory: EthtoolMemory,
    /// By interface. Names are asked for once: they are four times the size of the values.
    known: HashMap<String, Known>,
}

/// What stays the same from one reading to the next, most of the time.
#[derive(Debug)]
struct Known {
    driver: String,
    names: Vec<String>,
}

/// The statistics of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading<'n> {
    /// The driver; `None` where none gives its name, as for `lo`.
    pub(crate) driver: Option<&'n str>,
    /// What the values are called; as many as there are values.
    pub(crate) names: &'n [String],
    /// In the driver's order.
    pub(crate) values: Vec<u64>,
}

impl Reading<'_> {
    /// The value of this name, if the driver has it.
    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        let index = self.names.iter().position(|known| known == name)?;
        self.values.get(index).copied()
    }
}

impl Statistics {
    /// Reads in the network namespace of the thread that calls this, wherever it is used later.
    ///
    /// # Errors
    ///
    /// What the kernel says to a socket and 1 MiB of address space.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: UnixDatagram::unbound()?,
            memory: EthtoolMemory::new()?,
            known: HashMap::new(),
        })
    }

    /// Reads all statistics of an interface; an interface whose driver has none is read as such.
    ///
    /// Takes the lock of the kernel's network configuration, and many a driver asks its device: this can block for
    /// seconds, and belongs on a thread that may.
    ///
    /// # Errors
    ///
    /// What the kernel or the driver says; also if the driver changed the number of its statistics in between.
    pub(crate) fn read(&mut self, device: &str) -> io::Result<Reading<'_>> {
        let Some((driver, count)) = self.driver(device)? else {
            return Ok(Reading::default());
        };
        let known = self.known.get(device);
        if known.is_none_or(|known| known.driver != driver || known.names.len() != count) {
            let names = self.names(device, count)?;
            self.known.insert(device.to_owned(), Known { driver, names });
        }
        let values = self.values(device, count)?;
        Ok(self.known.get(device).map_or_else(Reading::default, |known| Reading {
            driver: Some(&known.driver),
            names: &known.names,
            values,
        }))
    }

    /// The driver, and how many statistics it has now.
    fn driver(&mut self, device: &str) -> io::Result<Option<(String, usize)>> {
        self.write(&[ETHTOOL_GDRVINFO]);
        match self.memory.ask(self.socket.as_fd(), device) {
            Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => return Ok(None),
            result => result?,
        }
        let (start, length) = DRIVER;
        let driver = text(&self.memory.bytes()[start..start + length]);
        let count = self.number(N_STATS);
        if count > MOST {
            let message = format!("the driver {driver} has {count} statistics; at most {MOST} are read");
            return Err(io::Error::other(message));
        }
        Ok(Some((driver, count)))
    }

    fn names(&mut self, device: &str, count: usize) -> io::Result<Vec<String>> {
        let names = self.list::<STRINGS_HEADER>(&[ETHTOOL_GSTRINGS, ETH_SS_STATS], device, count)?;
        Ok(names.chunks_exact(ETH_GSTRING_LEN).take(count).map(text).collect())
    }

    fn values(&mut self, device: &str, count: usize) -> io::Result<Vec<u64>> {
        let values = self.list::<STATS_HEADER>(&[ETHTOOL_GSTATS], device, count)?;
        let (values, _) = values.as_chunks();
        Ok(values.iter().take(count).copied().map(u64::from_ne_bytes).collect())
    }

    /// Asks for a list of `count` entries; the length is what its header ends with. A kernel that compares it with the
    /// driver's answers 0 where they differ, an older one the driver's own.
    fn list<const HEADER: usize>(&mut self, question: &[u32], device: &str, count: usize) -> io::Result<&[u8]> {
        if count > 0 {
            let length = u32::try_from(count).map_err(io::Error::other)?;
            self.write(&[question, &[length]].concat());
            self.memory.ask(self.socket.as_fd(), device)?;
            if self.number(HEADER - 4) != count {
                return Err(io::Error::other(
                    "the number of statistics changed while they were read",
                ));
            }
        }
        Ok(&self.memory.bytes()[HEADER..])
    }

    fn write(&mut self, question: &[u32]) {
        let (places, _) = self.memory.bytes_mut().as_chunks_mut();
        for (place, number) in places.iter_mut().zip(question) {
            *place = number.to_ne_bytes();
        }
    }

    fn number(&self, at: usize) -> usize {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.memory.bytes()[at..at + 4]);
        u32::from_ne_bytes(bytes) as usize
    }
}

/// What stands before the first zero.
fn text(bytes: &[u8]) -> String {
    let length = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[cfg(test)]
mod tests {
    use std::{process::Command, thread};

    use nix::{
        net::if_::if_nametoindex,
        sched::{CloneFlags, unshare},
    };

    use super::*;

    /// Runs `work` in an empty network, which goes with the thread; tells if nobody may make one.
    pub(super) fn in_a_network(work: fn()) {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not run: needs root for a network namespace");
            return;
        }
        let inside = move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            work();
        };
        thread::spawn(inside).join().unwrap();
    }

    pub(super) fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        assert!(status.unwrap().success(), "ip {arguments}");
    }

    #[test]
    fn an_interface_without_driver_statistics_is_read_as_such() {
        let mut statistics = Statistics::open().unwrap();
        assert_eq!(statistics.read("lo").unwrap(), Reading::default());
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let mut statistics = Statistics::open().unwrap();
        for device in ["nosuchdevice", "a-name-too-long-for-the-kernel"] {
            let error = statistics.read(device).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::ENODEV as i32), "{device}");
        }
    }

    #[test]
    fn a_veth_pair_says_who_the_peer_is() {
        in_a_network(|| {
            ip("link add here type veth peer name there");
            let mut statistics = Statistics::open().unwrap();
            for (device, peer) in [("here", "there"), ("there", "here")] {
                let reading = statistics.read(device).unwrap();
                assert_eq!(reading.driver, Some("veth"));
                assert_eq!(reading.names.len(), reading.values.len());
                let peer = if_nametoindex(peer).unwrap();
                assert_eq!(reading.get("peer_ifindex"), Some(u64::from(peer)));
                assert_eq!(reading.get("rx_queue_0_xdp_packets"), Some(0), "{:?}", reading.names);
                assert_eq!(reading.get("linklocal_allowance_exceeded"), None);
            }
        });
    }

    #[test]
    fn names_follow_the_number_of_queues() {
        in_a_network(|| {
            ip("link add here numrxqueues 1 type veth peer name there numrxqueues 1");
            let mut statistics = Statistics::open().unwrap();
            assert_eq!(statistics.read("here").unwrap().get("rx_queue_3_xdp_packets"), None);
            ip("link del here");
            ip("link add here numrxqueues 4 type veth peer name there numrxqueues 4");
            let reading = statistics.read("here").unwrap();
            assert_eq!(reading.get("rx_queue_3_xdp_packets"), Some(0), "{:?}", reading.names);
            assert_eq!(reading.names.len(), reading.values.len());
        });
    }

    #[test]
    fn more_statistics_than_have_room_overwrite_nothing() {
        in_a_network(|| {
            ip("link add here numrxqueues 4096 numtxqueues 4096 type veth peer name there");
            let mut statistics = Statistics::open().unwrap();
            let refused = statistics.read("here").map(|reading| reading.names.len());
            let error = refused.unwrap_err().to_string();
            assert!(
                error.starts_with("the driver veth has ") && error.contains(" at most "),
                "{error}"
            );
            // A kernel that is not told how many would write them all.
            statistics.write(&[ETHTOOL_GSTRINGS, ETH_SS_STATS, 0]);
            let asked = statistics.memory.ask(statistics.socket.as_fd(), "here");
            assert_eq!(asked.unwrap_err().raw_os_error(), Some(Errno::EFAULT as i32));
        });
    }

    #[test]
    fn a_namespace_is_the_one_of_the_thread_that_opened() {
        in_a_network(|| {
            ip("link add here type veth peer name there");
            let mut statistics = Statistics::open().unwrap();
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            assert_eq!(statistics.read("here").unwrap().driver, Some("veth"));
            assert!(Statistics::open().unwrap().read("here").is_err());
        });
    }
}
