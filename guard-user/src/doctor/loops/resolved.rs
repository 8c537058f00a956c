//! systemd-resolved: resolved.conf(5), its drop-ins, and the servers that it has from the network.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    node::{Action, Place, Reading, Zone, server},
    resolv_conf,
};
use crate::doctor::roots::Roots;

/// The main file, the first that is there.
const MAIN: [&str; 4] = [
    "/etc/systemd/resolved.conf",
    "/run/systemd/resolved.conf",
    "/usr/local/lib/systemd/resolved.conf",
    "/usr/lib/systemd/resolved.conf",
];
/// Where drop-ins lie; of two with one name the first counts.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/resolved.conf.d",
    "/run/systemd/resolved.conf.d",
    "/usr/local/lib/systemd/resolved.conf.d",
    "/usr/lib/systemd/resolved.conf.d",
];
/// The servers that it uses, those of all links too, as it writes them itself.
const UPSTREAMS: &str = "/run/systemd/resolve/resolv.conf";
/// Where its stubs listen.
const STUBS: [[u8; 4]; 2] = [[127, 0, 0, 53], [127, 0, 0, 54]];

/// Reads what systemd-resolved reads.
pub(super) fn read(roots: &Roots) -> Reading {
    let mut reading = Reading::default();
    let mut servers: Vec<(SocketAddr, Place)> = Vec::new();
    let mut domains: Vec<Zone> = Vec::new();
    let mut has_stub = true;
    for path in files(roots) {
        let text = match roots.read(&path) {
            Ok(text) => text,
            Err(error) => {
                reading.gap(Place::whole(path), error.to_string());
                continue;
            }
        };
        for (index, line) in text.lines().enumerate() {
            let place = Place::line(&path, index + 1);
            let Some((key, value)) = line.trim().split_once('=') else {
                continue;
            };
            match key.trim() {
                // An empty value forgets what came before.
                "DNS" if value.trim().is_empty() => servers.clear(),
                "DNS" => {
                    for word in value.split_whitespace() {
                        // A server may have a TLS name behind a #, and an interface behind a %.
                        match server(word.split('#').next().unwrap_or_default(), 53) {
                            Some(address) => servers.push((address, place.clone())),
                            None => reading.gap(place.clone(), format!("the server {word} is no address")),
                        }
                    }
                }
                "Domains" if value.trim().is_empty() => domains.clear(),
                "Domains" => domains.extend(
                    value
                        .split_whitespace()
                        .map(|word| Zone::new(word.trim_start_matches('~'))),
                ),
                "DNSStubListener" => has_stub = !matches!(value.trim(), "no" | "false" | "0" | "off"),
                "DNSStubListenerExtra" => {
                    let plain = value.trim().trim_start_matches("udp:").trim_start_matches("tcp:");
                    reading.listens.extend(server(plain, 53));
                }
                _ => {}
            }
        }
    }
    if has_stub {
        reading.listens.extend(STUBS.map(|ip| SocketAddr::from((ip, 53))));
    }
    let upstreams = roots.read(UPSTREAMS).unwrap_or_default();
    let upstreams = resolv_conf::nameservers(Path::new(UPSTREAMS), &upstreams);
    let others = upstreams
        .into_iter()
        .filter(|(address, _)| !servers.iter().any(|(known, _)| known == address));
    for (address, place) in others.collect::<Vec<_>>() {
        reading.forward(Zone::root(), address, place);
    }
    for (address, place) in servers {
        // A domain of the global servers goes to them alone; everything else goes to them as well.
        for zone in domains.iter().filter(|zone| !zone.is_root()) {
            reading.forward(zone.clone(), address, place.clone());
        }
        reading.rule(Zone::root(), Action::Forward(vec![address]), place);
    }
    reading
}

/// The files in the order in which they count.
fn files(roots: &Roots) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = MAIN
        .iter()
        .map(PathBuf::from)
        .find(|path| roots.exists(path))
        .into_iter()
        .collect();
    let mut drop_ins: Vec<PathBuf> = Vec::new();
    for folder in FOLDERS {
        for path in roots.list(folder).unwrap_or_default() {
            let is_known = drop_ins.iter().any(|known| known.file_name() == path.file_name());
            if path.extension().is_some_and(|ending| ending == "conf") && !is_known {
                drop_ins.push(path);
            }
        }
    }
    drop_ins.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    files.append(&mut drop_ins);
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::loops::testing::{Tree, told};

    #[test]
    fn global_servers_get_their_domains_and_the_rest() {
        let tree = Tree::new(&[
            ("etc/systemd/resolved.conf", "[Resolve]\n#DNS=10.9.9.9\nDNS=10.0.0.9\n"),
            (
                "etc/systemd/resolved.conf.d/consul.conf",
                "[Resolve]\nDNS=\nDNS=127.0.0.1:8600 10.0.0.3#dns.example\nDomains=~consul\n",
            ),
            (
                "run/systemd/resolve/resolv.conf",
                "nameserver 127.0.0.1\nnameserver 10.0.0.2\n",
            ),
            (
                "usr/lib/systemd/resolved.conf.d/consul.conf",
                "[Resolve]\nDNS=10.8.8.8\n",
            ),
        ]);
        let reading = read(&tree.roots());
        let expected = [
            ". -> 127.0.0.1:53 (/run/systemd/resolve/resolv.conf:1)",
            ". -> 10.0.0.2:53 (/run/systemd/resolve/resolv.conf:2)",
            "consul. -> 127.0.0.1:8600 (/etc/systemd/resolved.conf.d/consul.conf:3)",
            ". -> 127.0.0.1:8600 (/etc/systemd/resolved.conf.d/consul.conf:3)",
            "consul. -> 10.0.0.3:53 (/etc/systemd/resolved.conf.d/consul.conf:3)",
            ". -> 10.0.0.3:53 (/etc/systemd/resolved.conf.d/consul.conf:3)",
        ];
        assert_eq!(told(&reading), expected);
        assert_eq!(
            reading.listens,
            ["127.0.0.53:53".parse().unwrap(), "127.0.0.54:53".parse().unwrap()]
        );
    }

    #[test]
    fn a_stub_that_is_off_does_not_listen() {
        let tree = Tree::new(&[(
            "usr/lib/systemd/resolved.conf",
            "[Resolve]\nDNSStubListener=no\nDNSStubListenerExtra=udp:10.0.0.1:53\nDNS=dns.example\n",
        )]);
        let reading = read(&tree.roots());
        assert_eq!(reading.listens, ["10.0.0.1:53".parse().unwrap()]);
        assert_eq!(reading.gaps.len(), 1, "{:?}", reading.gaps);
    }
}
