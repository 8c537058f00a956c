//! Whom the probe asks: the host's resolvers or the ones it is given, without those that it is told to leave alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

use nix::net::if_::if_nametoindex;

use crate::{config::Cidr, host};

/// Where DNS servers listen unless one is told otherwise.
pub(super) const PORT: u16 = 53;
/// How many of resolv.conf's nameservers are used (`MAXNS` of resolv.conf(5)).
const MAX_NAMESERVERS: usize = 3;

/// The servers, and what was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Servers {
    /// Each once, in the order given.
    pub(super) asked: Vec<SocketAddr>,
    /// Each with the reason.
    pub(super) skipped: Vec<Skipped>,
}

/// A server that is sent nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Skipped {
    pub(super) server: String,
    pub(super) reason: &'static str,
}

/// Reads `ADDR`, `ADDR:PORT` or `[ADDR]:PORT`; IPv6 addresses on a link have their interface behind a `%`. The error
/// says what is allowed.
pub(crate) fn server(text: &str) -> Result<SocketAddr, String> {
    let allowed = || "an address with or without a port, such as 127.0.0.1, 127.0.0.1:8600 or [::1]:53".to_owned();
    let read = text.parse().ok();
    let read = read.or_else(|| text.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, PORT)));
    let address = read.or_else(|| on_a_link(text)).ok_or_else(allowed)?;
    (address.port() != 0).then_some(address).ok_or_else(allowed)
}

/// `fe80::1%eth0`, or `[fe80::1%eth0]:53`.
fn on_a_link(text: &str) -> Option<SocketAddr> {
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:")?,
        None => (text, ""),
    };
    let port = if port.is_empty() { PORT } else { port.parse().ok()? };
    let (address, device) = address.split_once('%')?;
    let scope = if_nametoindex(device).ok().or_else(|| device.parse().ok())?;
    Some(SocketAddrV6::new(address.parse().ok()?, port, 0, scope).into())
}

impl Servers {
    /// The ones that are given, else the nameservers of a resolv.conf(5), without those in `except`.
    pub(super) fn choose(given: &[SocketAddr], resolv_conf: &str, except: &[Cidr]) -> Self {
        let mut servers = Self {
            asked: Vec::new(),
            skipped: Vec::new(),
        };
        if given.is_empty() {
            let mut lines = host::nameserver_lines(resolv_conf).take(MAX_NAMESERVERS).peekable();
            if lines.peek().is_none() {
                // Whom the C library asks then (resolv.conf(5)).
                servers.add(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT), except);
            }
            for line in lines {
                match server(line).ok().filter(|_| !line.starts_with('[')) {
                    Some(address) => servers.add(SocketAddr::new(address.ip(), PORT).with_scope_of(address), except),
                    None => servers.skip(line.escape_debug().to_string(), "not an address"),
                }
            }
        }
        given.iter().for_each(|address| servers.add(*address, except));
        servers
    }

    fn add(&mut self, address: SocketAddr, except: &[Cidr]) {
        let host = Cidr::host(address.ip());
        if except.iter().any(|range| range.contains(&host)) {
            self.skip(address.to_string(), "excepted");
        } else if !self.asked.contains(&address) {
            self.asked.push(address);
        }
    }

    fn skip(&mut self, server: String, reason: &'static str) {
        let skipped = Skipped { server, reason };
        if !self.skipped.contains(&skipped) {
            self.skipped.push(skipped);
        }
    }
}

/// An address on a link is none without its link.
trait WithScope {
    fn with_scope_of(self, other: SocketAddr) -> Self;
}

impl WithScope for SocketAddr {
    fn with_scope_of(mut self, other: SocketAddr) -> Self {
        if let (Self::V6(v6), Self::V6(other)) = (&mut self, other) {
            v6.set_scope_id(other.scope_id());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(given: &[&str], resolv_conf: &str, except: &[&str]) -> (Vec<String>, Vec<String>) {
        let given: Vec<_> = given.iter().map(|text| server(text).unwrap()).collect();
        let except: Vec<_> = except.iter().map(|text| Cidr::or_address(text).unwrap()).collect();
        let servers = Servers::choose(&given, resolv_conf, &except);
        let skipped = servers.skipped.iter().map(|s| format!("{} {}", s.server, s.reason));
        (
            servers.asked.iter().map(ToString::to_string).collect(),
            skipped.collect(),
        )
    }

    #[test]
    fn a_server_is_an_address_with_or_without_a_port() {
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1:53"),
            ("127.0.0.1:8600", "127.0.0.1:8600"),
            ("::1", "[::1]:53"),
            ("[fd00::1]:5353", "[fd00::1]:5353"),
            ("fe80::1%lo", "[fe80::1%1]:53"),
            ("[fe80::1%1]:54", "[fe80::1%1]:54"),
        ] {
            assert_eq!(server(text).map(|address| address.to_string()), Ok(address.to_owned()));
        }
        for bad in [
            "",
            "localhost",
            "127.0.0.1:",
            "127.0.0.1:0",
            "127.0.0.1:65536",
            "fe80::1%no-such",
            "[::1]",
        ] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_servers_the_hosts_own_are_asked() {
        let text = "nameserver 10.0.0.2\nnameserver ::1\nnameserver 10.0.0.2\nnameserver 10.0.0.4\n";
        assert_eq!(chosen(&[], text, &[]).0, ["10.0.0.2:53", "[::1]:53"]);
        assert_eq!(chosen(&[], "search example.com\n", &[]).0, ["127.0.0.1:53"]);
        assert_eq!(chosen(&["10.0.0.9", "10.0.0.9:53"], text, &[]).0, ["10.0.0.9:53"]);
        let (asked, skipped) = chosen(&[], "nameserver dns.example\n", &[]);
        assert!(asked.is_empty());
        assert_eq!(skipped, ["dns.example not an address"]);
    }

    #[test]
    fn an_excepted_address_is_left_out_however_it_is_written() {
        let text = "nameserver 169.254.169.253\nnameserver ::ffff:10.0.0.2\nnameserver 10.1.0.2\n";
        let (asked, skipped) = chosen(&[], text, &["169.254.0.0/16", "10.0.0.2"]);
        assert_eq!(asked, ["10.1.0.2:53"]);
        assert_eq!(
            skipped,
            ["169.254.169.253:53 excepted", "[::ffff:10.0.0.2]:53 excepted"]
        );
        assert_eq!(chosen(&["[::1]:54"], "", &["::1"]).1, ["[::1]:54 excepted"]);
        assert!(chosen(&[], "", &["127.0.0.0/8"]).0.is_empty());
    }
}
