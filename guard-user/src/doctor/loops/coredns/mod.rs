//! CoreDNS: the server blocks of a Corefile, and whom their `forward` names.
//!
//! Every port is a resolver of its own; on one port the block whose zone is closest answers.

mod corefile;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use self::corefile::{Block, Corefile, Line};
use super::{
    node::{Action, Place, Reading, Zone, server},
    resolv_conf,
};
use crate::doctor::roots::Roots;

/// Where packages and images put it.
const USUAL: [&str; 2] = ["/etc/coredns/Corefile", "/Corefile"];
/// Plugins that answer for the zones behind their name, or for those of their block.
const ANSWERING: [&str; 6] = ["kubernetes", "file", "auto", "secondary", "etcd", "route53"];

/// Reads what a CoreDNS with these arguments, in this directory, reads: one resolver a port.
pub(super) fn read(roots: &Roots, arguments: &[String], directory: Option<&Path>) -> Vec<Reading> {
    let flag = |wanted: &str| {
        let mut words = arguments.iter().map(|word| word.trim_start_matches('-'));
        words.find_map(|word| {
            let (flag, value) = word.split_once('=').unwrap_or((word, ""));
            (flag == wanted).then(|| value.to_owned())
        })
    };
    let following = |wanted: &str| {
        let at = arguments
            .iter()
            .position(|word| word.trim_start_matches('-') == wanted)?;
        arguments.get(at + 1).cloned()
    };
    let value = |wanted: &str| {
        flag(wanted)
            .filter(|value| !value.is_empty())
            .or_else(|| following(wanted))
    };
    let port = value("dns.port")
        .or_else(|| value("p"))
        .and_then(|port| port.parse().ok());
    let beside = directory.map(|directory| directory.join("Corefile"));
    let path = match value("conf") {
        Some(path) => Some(directory.unwrap_or_else(|| Path::new("/")).join(path)),
        None => beside
            .into_iter()
            .chain(USUAL.map(PathBuf::from))
            .find(|path| roots.exists(path)),
    };
    let Some(path) = path else {
        return Vec::new();
    };
    let mut file = Corefile::new(roots);
    let lines = file.lines(&path);
    let blocks = file.blocks(&lines, 0);
    let mut readings: BTreeMap<u16, Reading> = BTreeMap::new();
    for block in &blocks {
        file.block(block, port.unwrap_or(53), &mut readings);
    }
    let mut readings: Vec<_> = readings.into_values().collect();
    if readings.is_empty() {
        readings.push(Reading::default());
    }
    readings[0].gaps.append(&mut file.gaps.gaps);
    readings
}

impl Corefile<'_> {
    fn block(&mut self, block: &Block, usual_port: u16, readings: &mut BTreeMap<u16, Reading>) {
        let lines = self.imported(&block.lines, 0);
        let mut addresses: Vec<IpAddr> = Vec::new();
        let top = top_lines(&lines);
        for (_, line) in &top {
            if line.words[0] == "bind" {
                let read = line.words[1..].iter().filter_map(|word| word.parse::<IpAddr>().ok());
                addresses.extend(read);
            }
        }
        if addresses.is_empty() {
            addresses.push(Ipv4Addr::UNSPECIFIED.into());
            addresses.push(Ipv6Addr::UNSPECIFIED.into());
        }
        for key in &block.keys {
            let Some((zone, port)) = key_of(key, usual_port) else {
                continue;
            };
            let reading = readings.entry(port).or_default();
            for ip in &addresses {
                let listen = SocketAddr::new(*ip, port);
                if !reading.listens.contains(&listen) {
                    reading.listens.push(listen);
                }
            }
            let place = block
                .lines
                .first()
                .map_or_else(|| Place::whole(""), |line| line.place.clone());
            // Whatever no `forward` takes is answered, if with REFUSED.
            if !top
                .iter()
                .any(|(_, line)| line.words[0] == "forward" && covers(&line.words, &zone))
            {
                reading.rule(zone.clone(), Action::Answer, place);
            }
            for (at, line) in &top {
                match line.words[0].as_str() {
                    "forward" => self.forward(line, &lines[at + 1..], &zone, reading),
                    plugin if ANSWERING.contains(&plugin) => {
                        let named = line.words[1..].iter().filter(|word| *word != "{");
                        let named = named.skip(usize::from(plugin == "file"));
                        let zones = named.filter_map(|word| Some(key_of(word, 0)?.0));
                        for inner in zones.filter(|inner| zone.contains(inner)) {
                            reading.rule(inner, Action::Answer, line.place.clone());
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// `forward FROM TO...`, and `except` in its block.
    fn forward(&mut self, line: &Line, behind: &[Line], zone: &Zone, reading: &mut Reading) {
        let words: Vec<_> = line.words.iter().filter(|word| *word != "{").collect();
        let Some(from) = words.get(1).and_then(|word| Some(key_of(word, 0)?.0)) else {
            return;
        };
        // The block's zone bounds what arrives at its plugins.
        let from = if from.contains(zone) { zone.clone() } else { from };
        if !zone.contains(&from) {
            return;
        }
        if line.words.last().is_some_and(|word| word == "{") {
            let inner = behind.iter().take_while(|line| line.words[0] != "}");
            for except in inner.filter(|line| line.words[0] == "except") {
                for word in &except.words[1..] {
                    if let Some((zone, _)) = key_of(word, 0) {
                        reading.rule(zone, Action::Answer, except.place.clone());
                    }
                }
            }
        }
        for to in &words[2..] {
            let plain = to.strip_prefix("dns://").unwrap_or(to);
            if let Some(address) = server(plain, 53) {
                reading.forward(from.clone(), address, line.place.clone());
            } else if plain.starts_with('/') {
                resolv_conf::forward_to(self.roots, Path::new(plain), &from, reading);
            } else if !plain.contains("://") {
                reading.gap(line.place.clone(), format!("the upstream {to} is no address"));
            }
            // Upstreams with a transport of their own, such as tls://, are no resolvers of this host's.
        }
    }
}

/// The lines of a block that begin a plugin, with their indices.
fn top_lines(lines: &[Line]) -> Vec<(usize, &Line)> {
    let mut depth = 0_usize;
    let mut top = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if line.words[0] == "}" {
            depth = depth.saturating_sub(1);
            continue;
        }
        if depth == 0 {
            top.push((index, line));
        }
        if line.words.last().is_some_and(|word| word == "{") {
            depth += 1;
        }
    }
    top
}

/// Whether a `forward` takes everything in a zone.
fn covers(words: &[String], zone: &Zone) -> bool {
    let from = words.get(1).and_then(|word| key_of(word, 0));
    from.is_some_and(|(from, _)| from.contains(zone))
}

/// A key of a server block, `[dns://]ZONE[:PORT]`, where a zone may be a range of addresses. `None` for other transports.
fn key_of(key: &str, usual_port: u16) -> Option<(Zone, u16)> {
    let key = key.strip_prefix("dns://").unwrap_or(key);
    if key.contains("://") {
        return None;
    }
    let (zone, port) = match key.rsplit_once(':') {
        Some((zone, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) && !zone.contains(':') => {
            (zone, port.parse().unwrap_or(usual_port))
        }
        _ => (key, usual_port),
    };
    let range = zone.split_once('/').and_then(|(network, length)| {
        let length = length.parse().ok()?;
        Some(Zone::reverse(network.parse().ok()?, length))
    });
    Some((range.unwrap_or_else(|| Zone::new(zone)), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::loops::testing::{Tree, told};

    const KUBERNETES: &str = "\
.:53 {
    errors
    health {
       lameduck 5s
    }
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
       except corp.example
    }
    loop
}
";

    fn at(files: &[(&str, &str)]) -> Vec<Reading> {
        let tree = Tree::new(files);
        read(
            &tree.roots(),
            &["-conf".to_owned(), "/etc/coredns/Corefile".to_owned()],
            None,
        )
    }

    #[test]
    fn the_corefile_of_a_cluster_forwards_to_the_nodes_resolv_conf() {
        let readings = at(&[
            ("etc/coredns/Corefile", KUBERNETES),
            ("etc/resolv.conf", "nameserver 127.0.0.53\n"),
        ]);
        assert_eq!(readings.len(), 1);
        let expected = [
            "cluster.local. answered (/etc/coredns/Corefile:6)",
            "in-addr.arpa. answered (/etc/coredns/Corefile:6)",
            "ip6.arpa. answered (/etc/coredns/Corefile:6)",
            "corp.example. answered (/etc/coredns/Corefile:12)",
            ". -> 127.0.0.53:53 (/etc/resolv.conf:1)",
        ];
        assert_eq!(told(&readings[0]), expected);
        assert_eq!(
            readings[0].listens,
            ["0.0.0.0:53".parse().unwrap(), "[::]:53".parse().unwrap()]
        );
    }

    #[test]
    fn every_port_is_a_resolver_and_every_block_a_zone() {
        let text = "(up) {\n  forward . 10.0.0.2 dns://10.0.0.3:5353 tls://1.1.1.1\n}\n\
                    consul.local:53, 10.0.0.0/8 {\n  bind 127.0.0.1\n  forward . 127.0.0.1:8600\n}\n\
                    . {\n  bind 127.0.0.1\n  import up\n}\n.:1053 {\n  whoami\n}\ntls://.:853 {\n  forward . 127.0.0.1\n}\n";
        let readings = at(&[("etc/coredns/Corefile", text)]);
        assert_eq!(readings.len(), 2);
        let expected = [
            "consul.local. -> 127.0.0.1:8600 (/etc/coredns/Corefile:6)",
            "10.in-addr.arpa. -> 127.0.0.1:8600 (/etc/coredns/Corefile:6)",
            ". -> 10.0.0.2:53 (/etc/coredns/Corefile:2)",
            ". -> 10.0.0.3:5353 (/etc/coredns/Corefile:2)",
        ];
        assert_eq!(told(&readings[0]), expected);
        assert_eq!(readings[0].listens, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(told(&readings[1]), [". answered (/etc/coredns/Corefile:13)"]);
    }

    #[test]
    fn imported_files_are_read_and_missing_ones_named() {
        let readings = at(&[
            (
                "etc/coredns/Corefile",
                "import custom/*.server\n. {\n  import /none/*\n  forward example.com 10.0.0.2\n}\n",
            ),
            ("etc/coredns/custom/a.server", "lan {\n  forward . 192.168.0.1\n}\n"),
        ]);
        let expected = [
            "lan. -> 192.168.0.1:53 (/etc/coredns/custom/a.server:2)",
            ". answered (/etc/coredns/Corefile:3)",
            "example.com. -> 10.0.0.2:53 (/etc/coredns/Corefile:4)",
        ];
        assert_eq!(told(&readings[0]), expected);
        assert_eq!(readings[0].gaps.len(), 1, "{:?}", readings[0].gaps);
        assert!(at(&[])[0].gaps[0].why.contains("No such file"));
        assert_eq!(
            at(&[("etc/coredns/Corefile", ". {\n errors\n")])[0].gaps[0].why,
            "a block is not closed"
        );
    }
}
