//! unbound.conf(5): forward zones and stub zones, and where it listens.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use super::node::{Action, Place, Reading, Zone};
use crate::doctor::roots::Roots;

/// The configuration of an unbound that is not told otherwise.
const USUAL: &str = "/etc/unbound/unbound.conf";

/// Where in the file we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Clause {
    #[default]
    Server,
    /// A forward zone or a stub zone.
    Zone,
    Other,
}

#[derive(Debug, Default)]
struct State {
    reading: Reading,
    clause: Clause,
    zone: Option<Zone>,
    port: Option<u16>,
    interfaces: Vec<String>,
    /// Whether it may send queries to loopback.
    asks_localhost: bool,
    targets: Vec<(Zone, SocketAddr, Place)>,
    /// The files that are being read, each included by the one before.
    open: Vec<PathBuf>,
}

/// Reads what an unbound with these arguments reads.
pub(super) fn read(roots: &Roots, arguments: &[String]) -> Reading {
    let at = arguments.iter().position(|word| word == "-c");
    let joined = arguments
        .iter()
        .find_map(|word| word.strip_prefix("-c").filter(|path| !path.is_empty()));
    let path = at.and_then(|at| arguments.get(at + 1)).map(String::as_str).or(joined);
    let mut state = State::default();
    state.file(roots, Path::new(path.unwrap_or(USUAL)));
    state.finish()
}

impl State {
    fn file(&mut self, roots: &Roots, path: &Path) {
        if self.open.iter().any(|open| open == path) {
            self.reading.gap(Place::whole(path), "it includes itself");
            return;
        }
        self.open.push(path.to_owned());
        match roots.read(path) {
            Ok(text) => {
                for (index, line) in text.lines().enumerate() {
                    self.line(roots, line, &Place::line(path, index + 1));
                }
            }
            Err(error) => self.reading.gap(Place::whole(path), error.to_string()),
        }
        self.open.pop();
    }

    fn line(&mut self, roots: &Roots, line: &str, place: &Place) {
        // A comment begins a line or stands behind a blank; the # of a TLS name does not.
        let line = line.trim();
        if line.starts_with('#') {
            return;
        }
        let line = line.split_once(" #").map_or(line, |(line, _)| line).trim();
        let Some((key, value)) = line.split_once(':') else {
            return;
        };
        let is_clause = value.trim().is_empty();
        let value = value.trim().trim_matches('"');
        match (key.trim(), &self.clause) {
            ("include" | "include-toplevel", _) => self.include(roots, value, place),
            (clause, _) if is_clause => {
                self.zone = None;
                self.clause = match clause {
                    "server" => Clause::Server,
                    "forward-zone" | "stub-zone" => Clause::Zone,
                    _ => Clause::Other,
                };
            }
            ("name", Clause::Zone) => self.zone = Some(Zone::new(value)),
            ("forward-addr" | "stub-addr", Clause::Zone) => match (address(value), &self.zone) {
                (Some(address), Some(zone)) => self.targets.push((zone.clone(), address, place.clone())),
                (Some(_), None) => self
                    .reading
                    .gap(place.clone(), "the zone has its name behind its servers"),
                (None, _) => self
                    .reading
                    .gap(place.clone(), format!("the server {value} is no address")),
            },
            ("forward-host" | "stub-host", Clause::Zone) => {
                self.reading.gap(
                    place.clone(),
                    format!("the server {value} is a name, and names are not looked up"),
                );
            }
            ("interface" | "ip-address", Clause::Server) => self.interfaces.push(value.to_owned()),
            ("port", Clause::Server) => self.port = value.parse().ok(),
            ("do-not-query-localhost", Clause::Server) => self.asks_localhost = value == "no",
            ("local-zone", Clause::Server) => {
                let mut words = value.split_whitespace().map(|word| word.trim_matches('"'));
                let zone = Zone::new(words.next().unwrap_or_default());
                // The other kinds go on to the forward zones, if only for what they do not have.
                if matches!(
                    words.next(),
                    Some("static" | "deny" | "refuse" | "redirect" | "always_nxdomain" | "always_refuse")
                ) {
                    self.reading.rule(zone, Action::Answer, place.clone());
                }
            }
            _ => {}
        }
    }

    fn include(&mut self, roots: &Roots, value: &str, place: &Place) {
        match roots.glob(Path::new(value)) {
            Ok(files) => files.iter().for_each(|file| self.file(roots, file)),
            // Debian includes a directory that may be empty, or not there.
            Err(error) => self.reading.gap(place.clone(), format!("{value}: {error}")),
        }
    }

    fn finish(mut self) -> Reading {
        // What no zone takes it asks authoritative servers for.
        self.reading
            .rule(Zone::root(), Action::Answer, Place::whole("its own recursion"));
        for (zone, address, place) in self.targets {
            if address.ip().is_loopback() && !self.asks_localhost {
                let why = format!(
                    "{address} is never asked: do-not-query-localhost is yes unless it is set; queries for {zone} fail"
                );
                self.reading.gap(place, why);
            } else {
                self.reading
                    .rules
                    .retain(|rule| !(rule.zone == zone && zone.is_root() && rule.action == Action::Answer));
                self.reading.forward(zone, address, place);
            }
        }
        if self.interfaces.is_empty() {
            self.interfaces = vec!["127.0.0.1".to_owned(), "::1".to_owned()];
        }
        let port = self.port.unwrap_or(53);
        for interface in &self.interfaces {
            let (ip, port) = match interface.split_once('@') {
                Some((ip, own)) => (ip, own.parse().unwrap_or(port)),
                None => (interface.as_str(), port),
            };
            self.reading
                .listens
                .extend(ip.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, port)));
        }
        self.reading
    }
}

/// `ADDR@PORT#TLS-NAME`
fn address(text: &str) -> Option<SocketAddr> {
    let plain = text.split('#').next()?.trim();
    let (ip, port) = plain.split_once('@').unwrap_or((plain, "53"));
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::loops::testing::{Tree, told};

    #[test]
    fn zones_are_read_with_their_servers_and_lines() {
        let tree = Tree::new(&[(
            "etc/unbound/unbound.conf",
            "server:\n  username: \"\"\n  interface: 0.0.0.0@5353\n  interface: ::1\n  do-not-query-localhost: no # consul\n  \
             local-zone: \"lan.\" static\n  local-zone: \"10.in-addr.arpa.\" nodefault\nforward-zone:\n  name: \"consul.\"\n  \
             forward-addr: 127.0.0.1@8600\nforward-zone:\n  name: .\n  forward-addr: 1.1.1.1@853#one.example\n  \
             forward-addr: 10.0.0.2\nremote-control:\n  control-enable: yes\n",
        )]);
        let reading = read(&tree.roots(), &[]);
        let expected = [
            "lan. answered (/etc/unbound/unbound.conf:6)",
            "consul. -> 127.0.0.1:8600 (/etc/unbound/unbound.conf:10)",
            ". -> 1.1.1.1:853 (/etc/unbound/unbound.conf:13)",
            ". -> 10.0.0.2:53 (/etc/unbound/unbound.conf:14)",
        ];
        assert_eq!(told(&reading), expected);
        assert_eq!(
            reading.listens,
            ["0.0.0.0:5353".parse().unwrap(), "[::1]:53".parse().unwrap()]
        );
        assert!(reading.gaps.is_empty(), "{:?}", reading.gaps);
    }

    #[test]
    fn loopback_is_not_asked_unless_it_may_be() {
        let tree = Tree::new(&[
            (
                "etc/unbound/unbound.conf",
                "include: \"/etc/unbound/unbound.conf.d/*.conf\"\ninclude: /none/*.conf\n",
            ),
            (
                "etc/unbound/unbound.conf.d/consul.conf",
                "stub-zone:\n  name: consul\n  stub-addr: 127.0.0.1@8600\n  stub-host: ns.example\n",
            ),
        ]);
        let reading = read(&tree.roots(), &["-d".to_owned()]);
        assert_eq!(told(&reading), [". answered (its own recursion)"]);
        let told: Vec<_> = reading
            .gaps
            .iter()
            .map(|gap| format!("{}: {}", gap.place, gap.why))
            .collect();
        assert!(
            told[0].contains("consul.conf:4: the server ns.example is a name"),
            "{told:?}"
        );
        assert!(
            told[1].contains("unbound.conf:2: /none/*.conf: No such file"),
            "{told:?}"
        );
        assert!(
            told[2].contains("consul.conf:3: 127.0.0.1:8600 is never asked"),
            "{told:?}"
        );
    }

    #[test]
    fn the_command_line_names_the_file() {
        let tree = Tree::new(&[("run/u.conf", "forward-zone:\n name: a\n forward-addr: 10.0.0.9\n")]);
        for arguments in [&["-d", "-c", "/run/u.conf"][..], &["-c/run/u.conf"]] {
            let arguments: Vec<_> = arguments.iter().map(|word| (*word).to_owned()).collect();
            assert!(told(&read(&tree.roots(), &arguments)).contains(&"a. -> 10.0.0.9:53 (/run/u.conf:3)".to_owned()));
        }
    }
}
