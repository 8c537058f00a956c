//! dnsmasq(8): `dnsmasq.conf`, what it includes, and the command line, whose long options are the same words.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{
    node::{Action, Place, Reading, Zone},
    resolv_conf,
};
use crate::doctor::roots::{Roots, fits};

/// The configuration of a dnsmasq that is not told otherwise.
const USUAL: &str = "/etc/dnsmasq.conf";

/// Short options that matter, and their long words.
const SHORT: [(char, &str); 8] = [
    ('C', "conf-file"),
    ('7', "conf-dir"),
    ('S', "server"),
    ('R', "no-resolv"),
    ('r', "resolv-file"),
    ('p', "port"),
    ('a', "listen-address"),
    ('A', "address"),
];
/// Long options that matter and take a value, which may be the next word.
const LONG: [&str; 10] = [
    "conf-file",
    "conf-dir",
    "servers-file",
    "server",
    "local",
    "rev-server",
    "address",
    "port",
    "listen-address",
    "resolv-file",
];
/// Short options that take a value, which is skipped.
const SHORT_WITH_VALUE: &str = "mclsitugxTHQIBFGOMXVUjPJWY24680";

/// What is gathered over all files.
#[derive(Debug)]
struct State<'r> {
    roots: &'r Roots,
    reading: Reading,
    port: u16,
    addresses: Vec<IpAddr>,
    resolv_files: Vec<PathBuf>,
    no_resolv: bool,
    /// The files that are being read, each included by the one before.
    open: Vec<PathBuf>,
}

/// Reads what a dnsmasq with these arguments reads; `None` as arguments is one that is only installed.
pub(super) fn read(roots: &Roots, arguments: &[String]) -> Reading {
    let mut state = State {
        roots,
        reading: Reading::default(),
        port: 53,
        addresses: Vec::new(),
        resolv_files: Vec::new(),
        no_resolv: false,
        open: Vec::new(),
    };
    let options = options(arguments);
    if !options.iter().any(|(word, _)| word == "conf-file") && roots.exists(USUAL) {
        state.file(Path::new(USUAL));
    }
    let place = Place::whole("its command line");
    for (word, value) in &options {
        state.option(word, value, &place);
    }
    state.finish()
}

/// The command line as pairs of long words and values.
fn options(arguments: &[String]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if let Some(long) = word.strip_prefix("--") {
            let (word, mut value) = long.split_once('=').unwrap_or((long, ""));
            if value.is_empty() && LONG.contains(&word) && !long.ends_with('=') {
                value = words.next().map_or("", String::as_str);
            }
            found.push((word.to_owned(), value.to_owned()));
        } else if let Some(short) = word.strip_prefix('-').and_then(|rest| rest.chars().next()) {
            let rest = &word[1 + short.len_utf8()..];
            let known = SHORT.iter().find(|(letter, _)| *letter == short);
            let takes_value = known.is_some_and(|(letter, _)| *letter != 'R') || SHORT_WITH_VALUE.contains(short);
            let value = if takes_value && rest.is_empty() {
                words.next().cloned().unwrap_or_default()
            } else {
                rest.to_owned()
            };
            found.extend(known.map(|(_, long)| ((*long).to_owned(), value)));
        }
    }
    found
}

impl State<'_> {
    fn file(&mut self, path: &Path) {
        if self.open.iter().any(|open| open == path) {
            self.reading.gap(Place::whole(path), "it includes itself");
            return;
        }
        self.open.push(path.to_owned());
        match self.roots.read(path) {
            Ok(text) => {
                for (index, line) in text.lines().enumerate() {
                    let line = line.trim();
                    // A comment begins a line, or stands behind a blank.
                    let line = line.split(" #").next().unwrap_or_default().trim();
                    if line.is_empty() || line.starts_with('#') {
                        continue;
                    }
                    let (word, value) = line.split_once('=').unwrap_or((line, ""));
                    self.option(word.trim(), value.trim(), &Place::line(path, index + 1));
                }
            }
            Err(error) => self.reading.gap(Place::whole(path), error.to_string()),
        }
        self.open.pop();
    }

    fn option(&mut self, word: &str, value: &str, place: &Place) {
        match word {
            "server" | "local" => self.server(value, place),
            "rev-server" => self.reverse(value, place),
            "address" => {
                for zone in zones(value).0 {
                    self.reading.rule(zone, Action::Answer, place.clone());
                }
            }
            "auth-zone" => {
                let zone = Zone::new(value.split(',').next().unwrap_or_default());
                self.reading.rule(zone, Action::Answer, place.clone());
            }
            "bogus-priv" => {
                for (network, length) in [([10, 0, 0, 0], 8), ([192, 168, 0, 0], 16), ([169, 254, 0, 0], 16)] {
                    let zone = Zone::reverse(IpAddr::from(network), length);
                    self.reading.rule(zone, Action::Answer, place.clone());
                }
            }
            "port" => match value.parse() {
                Ok(port) => self.port = port,
                Err(_) => self.reading.gap(place.clone(), "the port is no number"),
            },
            "listen-address" => {
                let read = value
                    .split(',')
                    .filter_map(|address| address.trim().parse::<IpAddr>().ok());
                self.addresses.extend(read);
            }
            "no-resolv" => self.no_resolv = true,
            "resolv-file" => self.resolv_files.push(value.into()),
            "conf-file" | "servers-file" if !value.is_empty() => self.file(Path::new(value)),
            "conf-dir" => self.folder(value, place),
            "enable-dbus" => self
                .reading
                .gap(place.clone(), "servers can be set over D-Bus, which is not read"),
            _ => {}
        }
    }

    /// `server=/zone/zone/ADDR#PORT@INTERFACE`, with less and less of it.
    fn server(&mut self, value: &str, place: &Place) {
        let (mut zones, target) = zones(value);
        if zones.is_empty() {
            zones.push(Zone::root());
        }
        if target == "#" {
            // As everything else goes.
            self.reading
                .gap(place.clone(), "a domain for the standard servers (#) is not followed");
            return;
        }
        let action = if target.is_empty() {
            Some(Action::Answer)
        } else {
            address(target).map(|address| Action::Forward(vec![address]))
        };
        match action {
            Some(action) => {
                for zone in zones {
                    self.reading.rule(zone, action.clone(), place.clone());
                }
            }
            None => self
                .reading
                .gap(place.clone(), "the server is no address, and names are not looked up"),
        }
    }

    /// `rev-server=10.0.0.0/8,ADDR#PORT`
    fn reverse(&mut self, value: &str, place: &Place) {
        let read = value.split_once(',').and_then(|(range, target)| {
            let (network, length) = range.split_once('/').unwrap_or((range, "32"));
            let zone = Zone::reverse(network.parse().ok()?, length.parse().ok()?);
            Some((zone, address(target)?))
        });
        match read {
            Some((zone, target)) => self.reading.forward(zone, target, place.clone()),
            None => self.reading.gap(place.clone(), "this rev-server is not understood"),
        }
    }

    /// `conf-dir=DIR`, then endings to leave out, or patterns with a star to take.
    fn folder(&mut self, value: &str, place: &Place) {
        let mut parts = value.split(',');
        let folder = parts.next().unwrap_or_default();
        let (taken, left): (Vec<_>, Vec<_>) = parts.partition(|part| part.contains('*'));
        match self.roots.list(folder) {
            Ok(files) => {
                for file in files {
                    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    let is_backup = name.ends_with('~') || name.starts_with('#') && name.ends_with('#');
                    let is_taken = taken.is_empty() || taken.iter().any(|pattern| fits(pattern, &name));
                    let is_left = left.iter().any(|ending| name.ends_with(ending));
                    if is_taken && !is_left && !is_backup {
                        self.file(&file);
                    }
                }
            }
            Err(error) => self.reading.gap(place.clone(), format!("{folder}: {error}")),
        }
    }

    fn finish(mut self) -> Reading {
        if !self.no_resolv {
            if self.resolv_files.is_empty() {
                self.resolv_files.push(resolv_conf::USUAL.into());
            }
            for file in &self.resolv_files {
                resolv_conf::forward_to(self.roots, file, &Zone::root(), &mut self.reading);
            }
        }
        if self.addresses.is_empty() {
            self.addresses.push(Ipv4Addr::UNSPECIFIED.into());
        }
        // Port 0 switches its DNS off.
        if self.port != 0 {
            let port = self.port;
            let listens = self.addresses.iter().map(|ip| SocketAddr::new(*ip, port));
            self.reading.listens = listens.collect();
        }
        self.reading
    }
}

/// The domains between slashes, and what is behind them.
fn zones(value: &str) -> (Vec<Zone>, &str) {
    let Some(rest) = value.strip_prefix('/') else {
        return (Vec::new(), value);
    };
    let (zones, target) = rest.rsplit_once('/').unwrap_or((rest, ""));
    // `//` is for names without a dot; a star in front stands for anything below.
    let zones = zones.split('/').filter(|zone| !zone.is_empty());
    let zones = zones.map(|zone| Zone::new(if zone == "#" { "" } else { zone.trim_start_matches("*.") }));
    (zones.collect(), target)
}

/// `ADDR#PORT@SOURCE`
fn address(text: &str) -> Option<SocketAddr> {
    let text = text.trim().split('@').next()?;
    let (ip, port) = text.split_once('#').unwrap_or((text, "53"));
    let ip = ip.split('%').next()?;
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::loops::testing::{Tree, told};

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn servers_are_read_with_their_domains_and_lines() {
        let tree = Tree::new(&[(
            "etc/dnsmasq.conf",
            "# server=/x/10.9.9.9\nno-resolv\nserver=/Consul/127.0.0.1#8600 # to consul\nserver=/a.example/b.example/10.0.0.3\n\
             server=10.0.0.2@eth0\nlocal=/lan/\naddress=/ads.example/0.0.0.0\nrev-server=10.0.0.0/8,127.0.0.1#8600\n",
        )]);
        let reading = read(&tree.roots(), &[]);
        let expected = [
            "consul. -> 127.0.0.1:8600 (/etc/dnsmasq.conf:3)",
            "a.example. -> 10.0.0.3:53 (/etc/dnsmasq.conf:4)",
            "b.example. -> 10.0.0.3:53 (/etc/dnsmasq.conf:4)",
            ". -> 10.0.0.2:53 (/etc/dnsmasq.conf:5)",
            "lan. answered (/etc/dnsmasq.conf:6)",
            "ads.example. answered (/etc/dnsmasq.conf:7)",
            "10.in-addr.arpa. -> 127.0.0.1:8600 (/etc/dnsmasq.conf:8)",
        ];
        assert_eq!(told(&reading), expected);
        assert_eq!(reading.listens, ["0.0.0.0:53".parse().unwrap()]);
        assert!(reading.gaps.is_empty(), "{:?}", reading.gaps);
    }

    #[test]
    fn included_directories_are_read_as_dnsmasq_reads_them() {
        let tree = Tree::new(&[
            ("etc/dnsmasq.conf", "conf-dir=/etc/dnsmasq.d/,*.conf\nno-resolv\n"),
            ("etc/dnsmasq.d/10-consul.conf", "server=/consul/127.0.0.1#8600\n"),
            ("etc/dnsmasq.d/README", "server=/readme/127.0.0.1\n"),
            ("etc/other.d/a", "server=/a/10.0.0.1\n"),
            ("etc/other.d/a.dpkg-dist", "server=/dist/10.0.0.1\n"),
        ]);
        let reading = read(&tree.roots(), &[]);
        assert_eq!(
            told(&reading),
            ["consul. -> 127.0.0.1:8600 (/etc/dnsmasq.d/10-consul.conf:1)"]
        );
        let debian =
            words("-x /run/dnsmasq/dnsmasq.pid -u dnsmasq -7 /etc/other.d,.dpkg-dist,.dpkg-old --local-service");
        let reading = read(&tree.roots(), &debian);
        assert!(told(&reading).contains(&"a. -> 10.0.0.1:53 (/etc/other.d/a:1)".to_owned()));
        assert_eq!(reading.rules.len(), 2, "{reading:?}");
    }

    #[test]
    fn the_command_line_counts_like_a_file() {
        let tree = Tree::new(&[
            ("etc/dnsmasq.conf", "server=/never/10.9.9.9\n"),
            ("run/lab.conf", "port=5353\n"),
        ]);
        let arguments =
            words("-k --conf-file /run/lab.conf -R -S /consul/127.0.0.1#8600 --listen-address=127.0.0.1,::1");
        let reading = read(&tree.roots(), &arguments);
        assert_eq!(told(&reading), ["consul. -> 127.0.0.1:8600 (its command line)"]);
        assert_eq!(
            reading.listens,
            ["127.0.0.1:5353".parse().unwrap(), "[::1]:5353".parse().unwrap()]
        );
    }

    #[test]
    fn without_servers_it_asks_those_of_resolv_conf() {
        let tree = Tree::new(&[
            ("etc/resolv.conf", "nameserver 127.0.0.53\n"),
            ("run/dnsmasq/resolv.conf", "nameserver 10.0.0.2\n"),
        ]);
        assert_eq!(
            told(&read(&tree.roots(), &[])),
            [". -> 127.0.0.53:53 (/etc/resolv.conf:1)"]
        );
        let reading = read(&tree.roots(), &words("-r /run/dnsmasq/resolv.conf"));
        assert_eq!(told(&reading), [". -> 10.0.0.2:53 (/run/dnsmasq/resolv.conf:1)"]);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let tree = Tree::new(&[(
            "etc/dnsmasq.conf",
            "no-resolv\nserver=dns.example\nenable-dbus\nconf-file=/none\nconf-dir=/nothing\nrev-server=x\n\
             conf-file=/etc/dnsmasq.conf\n",
        )]);
        let gaps = read(&tree.roots(), &[]).gaps;
        let told: Vec<_> = gaps.iter().map(|gap| format!("{}: {}", gap.place, gap.why)).collect();
        for part in [
            "dnsmasq.conf:2: the server is no address",
            "dnsmasq.conf:3: servers can",
            "/none: No such file",
        ] {
            assert!(told.iter().any(|line| line.contains(part)), "{part}: {told:?}");
        }
        assert_eq!(gaps.len(), 6, "{told:?}");
    }
}
