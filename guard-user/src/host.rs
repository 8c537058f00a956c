//! What this host calls its own: addresses, and the nameservers it asks.

use std::{fs, io, net::IpAddr};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

/// Where nameservers and search lists are written: what programs read, and what systemd-resolved keeps behind
/// 127.0.0.53.
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// The addresses of this host's interfaces, and its nameservers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    addresses: Vec<Address>,
    nameservers: Vec<IpAddr>,
}

/// One address of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Name of the interface.
    pub(crate) device: String,
    /// The address.
    pub(crate) ip: IpAddr,
    /// Bits that it shares with the interface's network.
    pub(crate) prefix_length: u8,
}

impl Host {
    /// Reads both, in the network namespace of the thread that calls this.
    ///
    /// # Errors
    ///
    /// What the kernel says to a list of addresses. A file of nameservers that cannot be read has none.
    pub(crate) fn read() -> io::Result<Self> {
        let nameservers = resolv_confs().flat_map(|text| nameservers(&text)).collect();
        Ok(Self::new(addresses()?, nameservers))
    }

    /// A host with these.
    pub(crate) const fn new(addresses: Vec<Address>, nameservers: Vec<IpAddr>) -> Self {
        Self { addresses, nameservers }
    }

    /// Every address that the host has, loopback and link-local ones too.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|address| address.ip)
    }

    /// The addresses of one interface.
    pub(crate) fn addresses_of(&self, device: &str) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(move |address| address.device == device)
    }

    /// The names of the interfaces that have this address.
    pub(crate) fn named(&self, ip: IpAddr) -> impl Iterator<Item = &str> {
        let having = self.addresses.iter().filter(move |address| address.ip == ip);
        having.map(|address| address.device.as_str())
    }

    /// Whether the host asks this nameserver.
    pub(crate) fn asks(&self, nameserver: IpAddr) -> bool {
        self.nameservers.contains(&nameserver)
    }
}

/// The file that every program of the host reads; empty if it cannot be read.
pub(crate) fn resolv_conf() -> String {
    fs::read_to_string(RESOLV_CONF[0]).unwrap_or_default()
}

/// The files of resolv.conf(5) that can be read.
pub(crate) fn resolv_confs() -> impl Iterator<Item = String> {
    RESOLV_CONF.iter().filter_map(|path| fs::read_to_string(path).ok())
}

fn addresses() -> io::Result<Vec<Address>> {
    let entries = getifaddrs()?;
    Ok(entries
        .filter_map(|entry| {
            let ip = ip(&entry.address?)?;
            let mask = entry.netmask.as_ref().and_then(self::ip);
            Some(Address {
                // An IPv4 address comes with its label, "eth0:1"; the name of an interface has no colon.
                device: entry.interface_name.split(':').next()?.to_owned(),
                ip,
                prefix_length: match (mask, ip) {
                    (Some(IpAddr::V4(mask)), _) => u32::from(mask).leading_ones() as u8,
                    (Some(IpAddr::V6(mask)), _) => u128::from(mask).leading_ones() as u8,
                    (None, IpAddr::V4(_)) => 32,
                    (None, IpAddr::V6(_)) => 128,
                },
            })
        })
        .collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// The nameservers of a resolv.conf(5). One with a zone ("fe80::1%eth0") is on the link, and left out.
fn nameservers(text: &str) -> Vec<IpAddr> {
    nameserver_lines(text).filter_map(|value| value.parse().ok()).collect()
}

/// What the `nameserver` lines of a resolv.conf(5) say.
pub(crate) fn nameserver_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|keyword| *keyword == "nameserver")?;
        words.next()
    })
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, process::Command, thread};

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn nameservers_are_read_as_the_resolver_reads_them() {
        let text = "# nameserver 10.0.0.1\nsearch example.com\n  nameserver\t10.0.0.2 # comment\nnameserver fd00:ec2::253\n\
                    nameserver fe80::1%eth0\nnameserver\nnameserver example.com\nnameservers 10.0.0.3\n";
        let expected: [IpAddr; 2] = ["10.0.0.2".parse().unwrap(), "fd00:ec2::253".parse().unwrap()];
        assert_eq!(nameservers(text), expected);
    }

    #[test]
    fn the_host_owns_the_address_it_talks_to_itself_with() {
        let host = Host::read().unwrap();
        assert!(
            host.addresses().any(|ip| ip == IpAddr::V4(Ipv4Addr::LOCALHOST)),
            "{host:?}"
        );
    }

    #[test]
    fn addresses_have_their_interface_and_prefix_length() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not run: needs root for a network namespace");
            return;
        }
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            for arguments in [
                "link add here type veth peer name there",
                "address add 10.0.17.5/20 dev here",
                "address add 10.0.17.6/32 dev here label here:1",
                "-6 address add fd00:1::5/64 dev here nodad",
                "address add 192.0.2.1 peer 192.0.2.2/30 dev there",
            ] {
                let status = Command::new("ip").args(arguments.split(' ')).status();
                assert!(status.unwrap().success(), "ip {arguments}");
            }
            Host::read().unwrap()
        };
        let host = thread::spawn(inside).join().unwrap();
        let of = |device| {
            let addresses = host
                .addresses_of(device)
                .map(|a| format!("{}/{}", a.ip, a.prefix_length));
            addresses.collect::<Vec<_>>()
        };
        assert_eq!(of("here"), ["10.0.17.5/20", "10.0.17.6/32", "fd00:1::5/64"]);
        assert_eq!(of("there"), ["192.0.2.1/30"]);
        assert_eq!(of("her"), [""; 0]);
    }
}
