//! resolv.conf(5): whom programs ask that have no servers of their own.

use std::{net::SocketAddr, path::Path};

use super::node::{Action, Place, Reading, Zone, server};
use crate::{doctor::roots::Roots, host::nameserver_lines};

/// Where it is unless somebody says otherwise.
pub(super) const USUAL: &str = "/etc/resolv.conf";

/// Its nameservers, each with its line.
pub(super) fn nameservers(path: &Path, text: &str) -> Vec<(SocketAddr, Place)> {
    let lines = text.lines().enumerate();
    let servers = lines.filter_map(|(index, line)| {
        let address = server(nameserver_lines(line).next()?, 53)?;
        Some((address, Place::line(path, index + 1)))
    });
    servers.collect()
}

/// Notes that everything is sent to the nameservers of a file, or that it cannot be read.
pub(super) fn forward_to(roots: &Roots, path: &Path, zone: &Zone, reading: &mut Reading) {
    match roots.read(path) {
        Ok(text) => {
            for (address, place) in nameservers(path, &text) {
                reading.rule(zone.clone(), Action::Forward(vec![address]), place);
            }
        }
        Err(error) => reading.gap(Place::whole(path), error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nameserver_has_its_line() {
        let text = "search a\nnameserver 127.0.0.53\n# nameserver 10.0.0.1\nnameserver fe80::1%eth0\n";
        let found = nameservers(Path::new(USUAL), text);
        let found: Vec<_> = found
            .iter()
            .map(|(address, place)| format!("{address} {place}"))
            .collect();
        assert_eq!(
            found,
            ["127.0.0.53:53 /etc/resolv.conf:2", "[fe80::1]:53 /etc/resolv.conf:4"]
        );
    }
}
