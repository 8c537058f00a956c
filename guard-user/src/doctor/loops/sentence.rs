//! How a loop is told: the way of a query through it, where each hop is written, and how to mend it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    graph::{Circle, Hop},
    node::{Node, Program},
};
use crate::doctor::finding::{Finding, Level};

/// Whose configuration is mended first: a resolver that is asked for everything by mistake before one that has a rule.
const FIRST_TO_MEND: [Program; 6] = [
    Program::Consul,
    Program::CoreDns,
    Program::Unbound,
    Program::Dnsdist,
    Program::Dnsmasq,
    Program::Resolved,
];

/// One loop. `own_network` is the network namespace that is looked from.
pub(super) fn circle(circle: &Circle, nodes: &[Node], own_network: u64) -> Finding {
    let hops: Vec<_> = circle.hops.iter().map(|hop| (hop, &nodes[hop.node])).collect();
    let names: Vec<_> = hops.iter().map(|(_, node)| node.name()).collect();
    let runs = hops.iter().all(|(_, node)| node.pid.is_some());
    let level = if runs { Level::Fail } else { Level::Warn };
    let way = format!("{} -> {}", names.join(" -> "), names[0]);
    let what = format!("a loop as written: {way}, for {}", queries(circle));
    let written = hops.iter().map(|(hop, node)| {
        let zone = if hop.zone.is_root() {
            "everything else".to_owned()
        } else {
            hop.zone.to_string()
        };
        format!(
            "{} sends {zone} to {} ({})",
            node.program.word(),
            hop.addresses(),
            hop.place
        )
    });
    let mut why: Vec<String> = written.collect();
    if circle.only_ds {
        why.push("consul before 1.19 sends DS queries for its own domain on, too".to_owned());
    }
    if !runs {
        why.push("not all of them run now".to_owned());
    }
    if hops.iter().any(|(_, node)| node.network != own_network) {
        why.push("they are in a network namespace of their own".to_owned());
    }
    why.push(format!("dnsguard proves it: {}", probe(circle, &hops)));
    Finding::new("loops.circle", level, what)
        .why(why.join("; "))
        .remedy(mend(circle, &hops))
}

/// Which queries go round.
fn queries(circle: &Circle) -> String {
    let zones: Vec<_> = [&circle.zone].into_iter().chain(&circle.also).collect();
    let zones: Vec<_> = zones.iter().map(|zone| zone.to_string()).collect();
    match (circle.only_ds, circle.zone.is_root()) {
        (false, true) => "every name that no closer rule takes".to_owned(),
        (false, false) => format!("every name in {}", zones.join(", ")),
        (true, _) => format!("DS queries in {}", zones.join(", ")),
    }
}

/// The command that shows it.
fn probe(circle: &Circle, hops: &[(&Hop, &Node)]) -> String {
    // Where a query comes in by the last hop, it can come in from outside.
    let entry = hops
        .last()
        .and_then(|(hop, _)| hop.to.first())
        .copied()
        .map(reachable)
        .unwrap_or_default();
    let zone = if circle.zone.is_root() {
        "example.".to_owned()
    } else {
        circle.zone.to_string()
    };
    let kind = if circle.only_ds { "--type DS " } else { "" };
    format!("dnsguard probe {kind}--server {entry} '*.{zone}'")
}

/// An address at which whoever listens on this one can be asked from here.
pub(super) fn reachable(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port()).to_string()
}

/// What to change, and where.
fn mend(circle: &Circle, hops: &[(&Hop, &Node)]) -> String {
    let rank = |program: Program| FIRST_TO_MEND.iter().position(|first| *first == program);
    let Some((hop, node)) = hops.iter().min_by_key(|(_, node)| rank(node.program)) else {
        return String::new();
    };
    let Hop { place, zone, .. } = hop;
    let to = hop.addresses();
    match node.program {
        Program::Consul => {
            let newer = if circle.only_ds {
                ", or install consul 1.19 or newer"
            } else {
                ""
            };
            format!("take {to} out of consul's recursors ({place}) and name the real upstreams there{newer}")
        }
        Program::CoreDns => {
            format!("name the real upstreams in CoreDNS's forward instead of {to} ({place})")
        }
        Program::Unbound => {
            format!("take {to} out of unbound's zone {zone} ({place}); do-not-query-localhost: yes refuses loopback")
        }
        Program::Dnsdist => format!("take the server {to} out of dnsdist's pool for {zone} ({place})"),
        Program::Dnsmasq => format!(
            "name a server that does not send {zone} back to dnsmasq instead of {to} ({place}), or answer it there: \
             local=/{}/",
            zone.to_string().trim_end_matches('.')
        ),
        Program::Resolved => format!("name the real upstreams in DNS= instead of {to} ({place})"),
    }
}
