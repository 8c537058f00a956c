//! consul: `recursors`, the ports and addresses of DNS, and its own domain, in JSON or HCL.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::node::{Action, Place, Reading, Rule, Zone, server};
use crate::doctor::roots::Roots;

/// Where packages put it.
const USUAL: &str = "/etc/consul.d";
/// consul's own.
const DNS_PORT: u16 = 8600;

/// What is gathered over all files. Later ones win, but lists grow.
#[derive(Debug, Default)]
struct State {
    reading: Reading,
    port: Option<u16>,
    client: Option<String>,
    dns: Option<String>,
    domain: Option<String>,
    alternatives: Vec<String>,
    recursors: Vec<(SocketAddr, Place)>,
}

/// Reads what a consul agent with these arguments reads.
pub(super) fn read(roots: &Roots, arguments: &[String]) -> Reading {
    let mut state = State::default();
    let mut files: Vec<PathBuf> = Vec::new();
    let place = Place::whole("its command line");
    let is_dev = flags(arguments).any(|(word, _)| word == "dev");
    for (word, value) in flags(arguments) {
        match word {
            "config-dir" => folder(roots, Path::new(value), &mut files, &mut state.reading),
            "config-file" if roots.list(value).is_ok() => {
                folder(roots, Path::new(value), &mut files, &mut state.reading);
            }
            "config-file" => files.push(value.into()),
            "recursor" => state.recursor(value, place.clone()),
            "dns-port" => state.port = value.parse().ok(),
            "client" => state.client = Some(value.to_owned()),
            "domain" => state.domain = Some(value.to_owned()),
            "alt-domain" => state.alternatives.push(value.to_owned()),
            _ => {}
        }
    }
    if arguments.is_empty() && !is_dev && roots.exists(USUAL) {
        folder(roots, Path::new(USUAL), &mut files, &mut state.reading);
    }
    for file in &files {
        state.file(roots, file);
    }
    state.finish()
}

/// `-word=value` or `-word value`, with one dash or two.
fn flags(arguments: &[String]) -> impl Iterator<Item = (&str, &str)> {
    let following = arguments.iter().skip(1).map(String::as_str).chain([""]);
    arguments.iter().zip(following).filter_map(|(word, next)| {
        let word = word.strip_prefix('-')?;
        let word = word.strip_prefix('-').unwrap_or(word);
        Some(word.split_once('=').unwrap_or((word, next)))
    })
}

/// The files of a directory that consul reads.
fn folder(roots: &Roots, folder: &Path, files: &mut Vec<PathBuf>, reading: &mut Reading) {
    match roots.list(folder) {
        Ok(found) => {
            let is_read = |path: &PathBuf| {
                path.extension()
                    .is_some_and(|ending| ending == "json" || ending == "hcl")
            };
            files.extend(found.into_iter().filter(is_read));
        }
        Err(error) => reading.gap(Place::whole(folder), error.to_string()),
    }
}

impl State {
    fn file(&mut self, roots: &Roots, path: &Path) {
        let text = match roots.read(path) {
            Ok(text) => text,
            Err(error) => return self.reading.gap(Place::whole(path), error.to_string()),
        };
        let read = if path.extension().is_some_and(|ending| ending == "json") {
            serde_json::from_str(&text).map_err(|error| error.to_string())
        } else {
            hcl::from_str::<Value>(&text).map_err(|error| error.to_string())
        };
        let value = match read {
            Ok(value) => value,
            Err(error) => {
                let first = error.lines().next().unwrap_or_default().to_owned();
                return self
                    .reading
                    .gap(Place::whole(path), format!("it is not understood: {first}"));
            }
        };
        let string = |value: &Value| value.as_str().map(str::to_owned);
        self.client = string(&value["client_addr"]).or_else(|| self.client.take());
        self.dns = string(within(&value, "addresses", "dns")).or_else(|| self.dns.take());
        let port = within(&value, "ports", "dns").as_i64();
        self.port = port.and_then(|port| u16::try_from(port.max(0)).ok()).or(self.port);
        self.domain = string(&value["domain"]).or_else(|| self.domain.take());
        self.alternatives.extend(string(&value["alt_domain"]));
        let recursor = string(&value["recursor"]);
        let recursors = value["recursors"].as_array().into_iter().flatten();
        for recursor in recursors.filter_map(string).chain(recursor) {
            self.recursor(&recursor, line_of(&text, path, &recursor));
        }
    }

    fn recursor(&mut self, text: &str, place: Place) {
        match server(text, 53) {
            Some(address) => self.recursors.push((address, place)),
            None => self.reading.gap(place, format!("the recursor {text} is no address")),
        }
    }

    fn finish(mut self) -> Reading {
        let port = self.port.unwrap_or(DNS_PORT);
        let client = self.dns.or(self.client);
        let client = client.unwrap_or_else(|| Ipv4Addr::LOCALHOST.to_string());
        if port != 0 {
            for word in client.split_whitespace() {
                if let Ok(ip) = word.parse::<IpAddr>() {
                    self.reading.listens.push(SocketAddr::new(ip, port));
                }
            }
        }
        let domain = self.domain.unwrap_or_else(|| "consul".to_owned());
        let domains = self.alternatives.iter().chain([&domain]);
        for domain in domains.filter(|domain| !domain.is_empty()) {
            // consul before 1.19 recurses DS queries for its own domain, too.
            self.reading.rules.push(Rule {
                zone: Zone::new(domain),
                except_ds: true,
                action: Action::Answer,
                place: Place::whole("its own domain"),
            });
        }
        for (address, place) in self.recursors {
            self.reading.forward(Zone::root(), address, place);
        }
        self.reading
    }
}

/// A value in a block, which HCL may give as a list of blocks.
fn within<'v>(value: &'v Value, block: &str, key: &str) -> &'v Value {
    let block = &value[block];
    if block.is_array() { &block[0][key] } else { &block[key] }
}

/// Where in a file a recursor is named: the first line with it from `recursors` on.
fn line_of(text: &str, path: &Path, recursor: &str) -> Place {
    let quoted = format!("\"{recursor}\"");
    let lines = text.lines().enumerate();
    let mut behind = lines.skip_while(|(_, line)| !line.contains("recursor"));
    match behind.find(|(_, line)| line.contains(&quoted)) {
        Some((index, _)) => Place::line(path, index + 1),
        None => Place::whole(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::loops::testing::{Tree, told};

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn hcl_and_json_say_the_same() {
        let hcl = "client_addr = \"127.0.0.1 10.0.0.1\"\nrecursors = [\n  \"127.0.0.1\",\n  \"10.0.0.2:5353\"\n]\nports {\n  dns = 8700\n}\n";
        let json = "{\"client_addr\": \"127.0.0.1 10.0.0.1\",\n\"recursors\":\n[\"127.0.0.1\",\n\"10.0.0.2:5353\"],\n\"ports\": {\"dns\": 8700}}";
        for (name, text) in [("a.hcl", hcl), ("a.json", json)] {
            let tree = Tree::new(&[(&format!("etc/consul.d/{name}"), text)]);
            let reading = read(&tree.roots(), &[]);
            let expected = [
                "consul. answered but for DS (its own domain)".to_owned(),
                format!(". -> 127.0.0.1:53 (/etc/consul.d/{name}:3)"),
                format!(". -> 10.0.0.2:5353 (/etc/consul.d/{name}:4)"),
            ];
            assert_eq!(told(&reading), expected);
            assert_eq!(
                reading.listens,
                ["127.0.0.1:8700".parse().unwrap(), "10.0.0.1:8700".parse().unwrap()]
            );
            assert!(reading.gaps.is_empty(), "{:?}", reading.gaps);
        }
    }

    #[test]
    fn several_files_are_one_configuration() {
        let tree = Tree::new(&[
            (
                "etc/consul.d/a.hcl",
                "domain = \"corp\"\naddresses { dns = \"0.0.0.0\" }\n",
            ),
            ("etc/consul.d/b.json", "{\"recursors\": [\"10.0.0.2\"]}"),
            ("etc/consul.d/README.md", "recursors"),
        ]);
        let reading = read(
            &tree.roots(),
            &words("agent -config-dir=/etc/consul.d -recursor 10.0.0.3"),
        );
        let expected = [
            "corp. answered but for DS (its own domain)",
            ". -> 10.0.0.3:53 (its command line)",
            ". -> 10.0.0.2:53 (/etc/consul.d/b.json:1)",
        ];
        assert_eq!(told(&reading), expected);
        assert_eq!(reading.listens, ["0.0.0.0:8600".parse().unwrap()]);
    }

    #[test]
    fn a_development_agent_has_no_files() {
        let tree = Tree::new(&[("etc/consul.d/a.json", "{\"recursors\": [\"127.0.0.1\"]}")]);
        let reading = read(&tree.roots(), &words("agent -dev"));
        assert_eq!(told(&reading), ["consul. answered but for DS (its own domain)"]);
        assert_eq!(reading.listens, ["127.0.0.1:8600".parse().unwrap()]);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let tree = Tree::new(&[
            ("etc/consul.d/a.hcl", "recursors = [\"{{ GetPrivateIP }}\"]\n"),
            ("etc/consul.d/b.json", "{\"recursors\": [}"),
        ]);
        let gaps = read(
            &tree.roots(),
            &words("agent -config-dir /etc/consul.d -config-file /none.hcl"),
        )
        .gaps;
        assert_eq!(gaps.len(), 3, "{gaps:?}");
        assert!(
            gaps.iter().any(|gap| gap.why.starts_with("the recursor {{")),
            "{gaps:?}"
        );
        assert!(
            gaps.iter().any(|gap| gap.why.starts_with("it is not understood")),
            "{gaps:?}"
        );
    }
}
