//! Whose a socket of this host is, as `/proc` tells.
//!
//! `/proc/net/udp` has the sockets of this network with their inodes; `/proc/PID/fd` has the inodes of a process, where
//! one may look: for root, and for one's own.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its name, in printable ASCII.
    pub(crate) name: String,
}

/// A UDP or TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    /// Its own address.
    pub(crate) local: SocketAddr,
    /// Whether it hears one peer only.
    pub(crate) connected: bool,
    /// Its number in `/proc/PID/fd`.
    pub(crate) inode: u64,
}

/// The processes of this host that have UDP sockets of this network.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    processes: BTreeMap<u32, String>,
}

/// A socket and the processes that have it; several after a fork.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owned {
    /// Of several sockets with one address (`SO_REUSEPORT`), the first.
    pub(crate) inode: Option<u64>,
    pub(crate) processes: Vec<Process>,
}

impl Owners {
    /// Looks through all processes.
    pub(crate) fn read() -> Self {
        let inodes: HashSet<u64> = sockets().map(|socket| socket.inode).collect();
        let having = pids().filter(|pid| descriptors(*pid).any(|inode| inodes.contains(&inode)));
        Self {
            processes: having.map(|pid| (pid, name(pid))).collect(),
        }
    }

    /// The socket that hears what is sent to this address of the host.
    pub(crate) fn listener(&self, address: SocketAddr) -> Owned {
        self.owned(address, |socket| !socket.connected)
    }

    /// The socket that sent something from this address of the host, if it is still open.
    pub(crate) fn sender(&self, address: SocketAddr) -> Owned {
        self.owned(address, |_| true)
    }

    fn owned(&self, address: SocketAddr, fits: impl Fn(&Socket) -> bool) -> Owned {
        let here: Vec<_> = sockets()
            .filter(|socket| socket.local.port() == address.port() && fits(socket))
            .collect();
        let exact: Vec<_> = here.iter().filter(|socket| socket.local.ip() == address.ip()).collect();
        let any = here.iter().filter(|socket| socket.local.ip().is_unspecified());
        // An address of its own goes before a wildcard.
        let inodes: Vec<u64> = if exact.is_empty() {
            any.map(|socket| socket.inode).collect()
        } else {
            exact.into_iter().map(|socket| socket.inode).collect()
        };
        if inodes.is_empty() {
            return Owned::default();
        }
        let having = self
            .processes
            .iter()
            .filter(|(pid, _)| descriptors(**pid).any(|inode| inodes.contains(&inode)));
        Owned {
            inode: inodes.iter().min().copied(),
            processes: having
                .map(|(pid, name)| Process {
                    pid: *pid,
                    name: name.clone(),
                })
                .collect(),
        }
    }
}

/// The numbers of all processes.
pub(crate) fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The number of a namespace; `None` where one may not look.
pub(crate) fn namespace(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|namespace| namespace.ino())
}

/// The inodes of the sockets of a process; none where one may not look.
pub(crate) fn descriptors(pid: u32) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        inode.parse().ok()
    })
}

/// The name of a process. Whoever runs one chooses it: nothing in it may reach a terminal as it is.
pub(crate) fn name(pid: u32) -> String {
    let name = fs::read(Path::new("/proc").join(pid.to_string()).join("comm")).unwrap_or_default();
    let printable = |byte: &u8| {
        if byte.is_ascii_graphic() {
            char::from(*byte)
        } else {
            '?'
        }
    };
    name.trim_ascii_end().iter().map(printable).collect()
}

fn sockets() -> impl Iterator<Item = Socket> {
    // /proc/net is the network of the process's first thread; this one's is what counts.
    tables(Path::new("/proc/thread-self/net"), ["udp", "udp6"]).into_iter()
}

/// The sockets of these tables of a network: `udp`, `udp6`, `tcp`, `tcp6`. None where one may not look.
pub(crate) fn tables<const N: usize>(network: &Path, names: [&str; N]) -> Vec<Socket> {
    let tables = names.map(|table| fs::read_to_string(network.join(table)));
    let tables = tables.iter().flatten();
    tables
        .flat_map(|table| table.lines().skip(1).filter_map(socket))
        .collect()
}

/// One line of the table: number, local and remote address, state, queues, timers, retransmits, user, timeout, inode.
fn socket(line: &str) -> Option<Socket> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let local = address(words.next()?)?;
    let remote = address(words.next()?)?;
    Some(Socket {
        local,
        connected: remote.port() != 0,
        inode: words.nth(6)?.parse().ok()?,
    })
}

/// Words of 32 bits in the machine's order, in hexadecimal, a colon, the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let octets: [u8; 16] = words.as_flattened().try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, process};

    use super::*;

    #[test]
    fn a_line_of_the_table_is_read() {
        let line = " 1234: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4242 2 \
                    0000000000000000 0";
        let expected = Socket {
            local: "127.0.0.1:53".parse().unwrap(),
            connected: false,
            inode: 4242,
        };
        assert_eq!(socket(line), Some(expected));
        let six = "00000000000000000000000001000000:2198";
        assert_eq!(address(six), Some("[::1]:8600".parse().unwrap()));
        let mapped = "0000000000000000FFFF00000100007F:0035";
        assert_eq!(address(mapped), Some("127.0.0.1:53".parse().unwrap()));
        for bad in ["", "sl", "0100007F", "0100007F:", "xx:0035", "é:0035"] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_socket_of_this_process_is_told_as_its_own() {
        let (exact, any) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("0.0.0.0:0").unwrap(),
        );
        let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect(exact.local_addr().unwrap()).unwrap();
        let owners = Owners::read();
        let at = |socket: &UdpSocket| SocketAddr::new([127, 0, 0, 1].into(), socket.local_addr().unwrap().port());
        for socket in [&exact, &any] {
            let owned = owners.listener(at(socket));
            assert!(owned.inode.is_some());
            assert!(
                owned.processes.iter().any(|process| process.pid == process::id()),
                "{owned:?}"
            );
        }
        assert_eq!(owners.listener(at(&connected)), Owned::default());
        assert!(!owners.sender(at(&connected)).processes.is_empty());
    }
}
