//! dnsdist: the calls in its configuration, which is a Lua program. What the program computes is not known here; what it
//! says in so many words is.

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use super::node::{Action, Place, Reading, Zone, server};
use crate::doctor::roots::Roots;

/// The configuration of a dnsdist that is not told otherwise.
const USUAL: &str = "/etc/dnsdist/dnsdist.conf";
/// Calls that set where it listens.
const LISTENING: [&str; 2] = ["setLocal", "addLocal"];
/// Calls that bring in more than is read.
const BEYOND: [&str; 5] = [
    "dofile",
    "includeDirectory",
    "require",
    "setServerPolicyLua",
    "newServers",
];

/// One call: its arguments as written, and where.
struct Call<'t> {
    name: &'t str,
    arguments: &'t str,
    place: Place,
}

/// Reads what a dnsdist with these arguments reads.
pub(super) fn read(roots: &Roots, arguments: &[String]) -> Reading {
    let mut reading = Reading::default();
    let mut words = arguments.iter();
    let mut path = USUAL;
    while let Some(word) = words.next() {
        if word == "-C" || word == "--config" {
            path = words.next().map_or(path, String::as_str);
        } else if let Some(named) = word.strip_prefix("--config=") {
            path = named;
        }
    }
    let path = Path::new(path);
    if path
        .extension()
        .is_some_and(|ending| ending == "yml" || ending == "yaml")
    {
        reading.gap(Place::whole(path), "dnsdist's YAML is not read");
        return reading;
    }
    let text = match roots.read(path) {
        Ok(text) => text,
        Err(error) => {
            reading.gap(Place::whole(path), error.to_string());
            return reading;
        }
    };
    let text = without_comments(&text);
    let mut pools: BTreeMap<String, Vec<(SocketAddr, Place)>> = BTreeMap::new();
    let mut zones: Vec<(Zone, String)> = Vec::new();
    for call in calls(&text, path) {
        match call.name {
            "newServer" => match target(call.arguments) {
                Some(address) => pools
                    .entry(pool(call.arguments))
                    .or_default()
                    .push((address, call.place)),
                None => reading.gap(call.place, "the address of this server is not plain"),
            },
            "addAction" if call.arguments.contains("PoolAction") => {
                let named = named_zones(call.arguments);
                let pool = strings(call.arguments.split_once("PoolAction").map_or("", |(_, rest)| rest)).next();
                match pool {
                    Some(pool) if !named.is_empty() => {
                        zones.extend(named.into_iter().map(|zone| (zone, pool.to_owned())));
                    }
                    _ => reading.gap(call.place, "which names this action takes is not plain"),
                }
            }
            name if LISTENING.contains(&name) => {
                if name == "setLocal" {
                    reading.listens.clear();
                }
                reading
                    .listens
                    .extend(strings(call.arguments).next().and_then(|text| server(text, 53)));
            }
            name if BEYOND.contains(&name) => reading.gap(call.place, format!("{name} is not followed")),
            _ => {}
        }
    }
    if reading.listens.is_empty() {
        reading.listens.push(SocketAddr::from(([127, 0, 0, 1], 53)));
    }
    zones.push((Zone::root(), String::new()));
    for (zone, pool) in zones {
        for (address, place) in pools.get(&pool).into_iter().flatten() {
            reading.rule(zone.clone(), Action::Forward(vec![*address]), place.clone());
        }
    }
    reading
}

/// The text with blanks in the place of Lua's comments.
fn without_comments(text: &str) -> String {
    let mut inside = false;
    let lines = text.lines().map(|line| {
        if inside {
            inside = !line.contains("]]");
            return "";
        }
        match comment(line) {
            Some(at) => {
                inside = line[at..].starts_with("--[[") && !line[at..].contains("]]");
                &line[..at]
            }
            None => line,
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Where in a line a comment begins: at two dashes outside of a string.
fn comment(line: &str) -> Option<usize> {
    let mut quote = None;
    for (at, letter) in line.char_indices() {
        match quote {
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if matches!(letter, '"' | '\'') => quote = Some(letter),
            None if line[at..].starts_with("--") => return Some(at),
            None => {}
        }
    }
    None
}

/// The calls at the top level, `name(arguments)` or `name{arguments}`.
fn calls<'t>(text: &'t str, path: &Path) -> Vec<Call<'t>> {
    let mut calls = Vec::new();
    let mut depth = 0_usize;
    let mut begin = 0;
    let mut quote = None;
    let (mut name, mut name_start) = ("", 0);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '(' | '{') => {
                if depth == 0 {
                    let before = text[..at].trim_end();
                    let start = before.rfind(|letter: char| !letter.is_alphanumeric() && letter != '_');
                    name_start = start.map_or(0, |start| start + 1);
                    name = &before[name_start..];
                    begin = at + 1;
                }
                depth += 1;
            }
            (None, ')' | '}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 && begin > 0 {
                    let line = text[..name_start].matches('\n').count() + 1;
                    calls.push(Call {
                        name,
                        arguments: &text[begin..at],
                        place: Place::line(path, line),
                    });
                    begin = 0;
                }
            }
            _ => {}
        }
    }
    calls
}

/// The strings in a piece of Lua.
fn strings(text: &str) -> impl Iterator<Item = &str> {
    let quote = text.find(['"', '\'']).map_or('"', |at| char::from(text.as_bytes()[at]));
    text.split(quote).skip(1).step_by(2)
}

/// The value of a key of a table, if it is a string.
fn field<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let rest = text.split_once(key)?.1.trim_start().strip_prefix('=')?;
    strings(rest).next()
}

/// The address of a `newServer`.
fn target(arguments: &str) -> Option<SocketAddr> {
    let text = field(arguments, "address").or_else(|| strings(arguments).next())?;
    server(text.split('@').next()?, 53)
}

/// The pool of a `newServer`; empty is the one for everything.
fn pool(arguments: &str) -> String {
    field(arguments, "pool").unwrap_or_default().to_owned()
}

/// The domains of an `addAction`, if they stand there.
fn named_zones(arguments: &str) -> Vec<Zone> {
    let selector = arguments.split_once("PoolAction").map_or("", |(selector, _)| selector);
    let is_plain = !selector.contains("Rule") || selector.contains("QNameSuffixRule") || selector.contains("QNameRule");
    if !is_plain || selector.contains("NotRule") {
        return Vec::new();
    }
    strings(selector).map(Zone::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::loops::testing::{Tree, told};

    #[test]
    fn pools_are_read_with_their_domains() {
        let tree = Tree::new(&[(
            "etc/dnsdist/dnsdist.conf",
            "setLocal(\"127.0.0.1:5300\")\n--[[ newServer(\"10.9.9.9\")\n]]\nnewServer({\n  address=\"127.0.0.1:8600\", -- consul\n  \
             pool=\"consul\"\n})\nnewServer(\"10.0.0.2\")\nnewServer{address='10.0.0.3:5353'}\n\
             addAction({\"consul.\", \"service.consul.\"}, PoolAction(\"consul\"))\naddAction(QNameSuffixRule(\"lan\"), \
             PoolAction(\"none\"))\n",
        )]);
        let reading = read(&tree.roots(), &[]);
        let expected = [
            "consul. -> 127.0.0.1:8600 (/etc/dnsdist/dnsdist.conf:4)",
            "service.consul. -> 127.0.0.1:8600 (/etc/dnsdist/dnsdist.conf:4)",
            ". -> 10.0.0.2:53 (/etc/dnsdist/dnsdist.conf:8)",
            ". -> 10.0.0.3:5353 (/etc/dnsdist/dnsdist.conf:9)",
        ];
        assert_eq!(told(&reading), expected);
        assert_eq!(reading.listens, ["127.0.0.1:5300".parse().unwrap()]);
        assert!(reading.gaps.is_empty(), "{:?}", reading.gaps);
    }

    #[test]
    fn what_is_computed_is_named() {
        let tree = Tree::new(&[(
            "run/d.conf",
            "newServer(upstream())\ndofile(\"/etc/x.lua\")\naddAction(NetmaskGroupRule(nmg), PoolAction(\"a\"))\n",
        )]);
        let arguments = ["--supervised", "-C", "/run/d.conf"].map(str::to_owned);
        let gaps = read(&tree.roots(), &arguments).gaps;
        let told: Vec<_> = gaps.iter().map(|gap| gap.place.to_string()).collect();
        assert_eq!(told, ["/run/d.conf:1", "/run/d.conf:2", "/run/d.conf:3"], "{gaps:?}");
        let yaml = ["--config=/etc/dnsdist/dnsdist.yml".to_owned()];
        assert_eq!(read(&tree.roots(), &yaml).gaps[0].why, "dnsdist's YAML is not read");
        assert_eq!(read(&tree.roots(), &[]).gaps.len(), 1);
    }
}
