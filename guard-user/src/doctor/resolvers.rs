//! Who answers DNS on this host, by which interfaces its own queries leave, and whether a guard looks there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{
    finding::Finding,
    loops::{Action, Resolvers},
    netlink::{Link, Netlink},
    privileges::{Capability, Privileges, unseen},
    processes::{Listener, Processes},
};
use crate::{config::Config, datapath, host::Host, print::harmless};

/// Whoever the interfaces belong to: what is guarded, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Guarded {
    interfaces: BTreeSet<String>,
    /// As a sentence begins.
    source: String,
    /// Whether somebody decided so, and it did not come about by default.
    is_meant: bool,
}

/// Listeners, their legs, and what of both no guard sees.
pub(super) fn check(
    config: Option<&Config>,
    resolvers: &Resolvers,
    processes: &Processes,
    host: &Host,
    links: &[Link],
    netlink: &Netlink,
    privileges: Privileges,
) -> Vec<Finding> {
    let standard = Config::default();
    let guarded = guarded(config, &standard, links);
    let own: Vec<_> = processes
        .listeners
        .iter()
        .filter(|listener| listener.network == processes.own_network)
        .collect();
    let mut findings = listeners(&own, processes, host);
    if own.iter().any(|listener| listener.pids.is_empty()) && !privileges.has(Capability::SysPtrace) {
        findings.push(unseen(
            "resolvers.unseen",
            "whose some of these sockets are could not be seen",
            "CAP_SYS_PTRACE",
        ));
    }
    findings.extend(legs(resolvers, processes, links, netlink, &own, &guarded));
    findings.extend(ports(config.unwrap_or(&standard), &own, processes, config.is_some()));
    findings.extend(elsewhere(processes));
    findings
}

/// A line for each server: its process, and where it listens.
fn listeners(own: &[&Listener], processes: &Processes, host: &Host) -> Vec<Finding> {
    let mut by_server: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for listener in own {
        let place = match devices_of(listener.address.ip(), host) {
            devices if listener.address.ip().is_unspecified() || devices.is_empty() => listener.address.to_string(),
            devices => format!("{} ({})", listener.address, devices.join(", ")),
        };
        by_server.entry(owner(listener, processes)).or_default().push(place);
    }
    if by_server.is_empty() {
        return vec![Finding::ok(
            "resolvers.none",
            "nobody answers DNS in this network namespace",
        )];
    }
    let told = by_server.into_iter().map(|(server, places)| {
        Finding::ok(
            "resolvers.listens",
            format!("{server} answers at {}", places.join(", ")),
        )
    });
    told.collect()
}

/// Who it is, as far as one may know.
fn owner(listener: &Listener, processes: &Processes) -> String {
    match listener.pids.first().and_then(|pid| processes.get(*pid)) {
        Some(process) => format!("{} (pid {})", harmless(&process.name), process.pid),
        None => "somebody".to_owned(),
    }
}

fn devices_of(ip: IpAddr, host: &Host) -> Vec<String> {
    if ip.is_loopback() {
        return vec!["lo".to_owned()];
    }
    let names: BTreeSet<_> = host.named(ip).map(str::to_owned).collect();
    names.into_iter().collect()
}

/// What is guarded now, or would be by the configuration.
fn guarded(config: Option<&Config>, standard: &Config, links: &[Link]) -> Guarded {
    let of = config.unwrap_or(standard);
    let name = |ifindex: &u32| {
        links
            .iter()
            .find(|link| link.ifindex == *ifindex)
            .map(|link| link.name.clone())
    };
    let pinned = datapath::guarded(&of.attach.pin_dir).unwrap_or_default();
    let pinned: BTreeSet<_> = pinned.iter().filter_map(name).collect();
    if config.is_none() && !pinned.is_empty() {
        return Guarded {
            interfaces: pinned,
            source: format!("the guard that is pinned below {}", of.attach.pin_dir.display()),
            is_meant: true,
        };
    }
    Guarded {
        interfaces: of.attach.interfaces.iter().cloned().collect(),
        source: if config.is_some() {
            "the configuration"
        } else {
            "the default configuration"
        }
        .to_owned(),
        is_meant: config.is_some(),
    }
}

/// By which interfaces resolvers are asked and ask, and which of those nobody looks at.
fn legs(
    resolvers: &Resolvers,
    processes: &Processes,
    links: &[Link],
    netlink: &Netlink,
    own: &[&Listener],
    guarded: &Guarded,
) -> Vec<Finding> {
    let mut by_device: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut unreachable: Vec<Finding> = Vec::new();
    for node in resolvers
        .nodes
        .iter()
        .filter(|node| node.pid.is_some() && node.network == processes.own_network)
    {
        let targets: BTreeSet<SocketAddr> = node
            .rules
            .iter()
            .flat_map(|rule| match &rule.action {
                Action::Forward(targets) => targets.clone(),
                Action::Answer => Vec::new(),
            })
            .collect();
        for target in targets {
            let device = netlink.route(target.ip()).ok();
            let device = device.and_then(|ifindex| links.iter().find(|link| link.ifindex == ifindex));
            match device {
                Some(link) => {
                    let leg = format!("{} to {target}", node.program.word());
                    by_device.entry(link.name.clone()).or_default().insert(leg);
                }
                None => unreachable.push(Finding::warn(
                    "resolvers.unreachable",
                    format!("{} sends queries to {target}, and there is no route to it", node.name()),
                )),
            }
        }
    }
    if own.iter().any(|listener| listener.address.ip().is_loopback()) {
        by_device
            .entry("lo".to_owned())
            .or_default()
            .insert("clients on this host".to_owned());
    }
    let mut findings = unreachable;
    for (device, legs) in &by_device {
        let legs: Vec<_> = legs.iter().map(String::as_str).collect();
        let what = format!("{device} carries DNS: {}", legs.join(", "));
        if guarded.interfaces.contains(device) {
            findings.push(Finding::ok("resolvers.leg", what));
            continue;
        }
        let mut wanted: BTreeSet<_> = guarded.interfaces.clone();
        wanted.extend(by_device.keys().cloned());
        let wanted: Vec<_> = wanted.iter().map(|name| format!("\"{name}\"")).collect();
        let why = format!(
            "{} does not look there: a loop over {device} would go on",
            guarded.source
        );
        let remedy = format!("[attach] interfaces = [{}]", wanted.join(", "));
        let finding = if guarded.is_meant {
            Finding::warn("resolvers.leg", what)
        } else {
            Finding::info("resolvers.leg", what)
        };
        findings.push(finding.why(why).remedy(remedy));
    }
    findings
}

/// Ports on which resolvers answer and the guard does not look.
fn ports(config: &Config, own: &[&Listener], processes: &Processes, is_meant: bool) -> Vec<Finding> {
    let mut missing: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
    for listener in own
        .iter()
        .filter(|listener| !config.ports.contains(&listener.address.port()))
    {
        missing
            .entry(listener.address.port())
            .or_default()
            .insert(owner(listener, processes));
    }
    if missing.is_empty() {
        return Vec::new();
    }
    let mut wanted: BTreeSet<u16> = config.ports.iter().copied().collect();
    wanted.extend(missing.keys());
    let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
    let told = missing.iter().map(|(port, servers)| {
        let servers: Vec<_> = servers.iter().map(String::as_str).collect();
        let what = format!("port {port} is not looked at: {} answers there", servers.join(", "));
        let finding = if is_meant {
            Finding::warn("resolvers.port", what)
        } else {
            Finding::info("resolvers.port", what)
        };
        finding
            .why("queries to this port are no DNS for dnsguard")
            .remedy(format!("ports = [{}]", wanted.join(", ")))
    });
    told.collect()
}

/// Servers in other network namespaces, such as pods.
fn elsewhere(processes: &Processes) -> Vec<Finding> {
    let others = processes
        .listeners
        .iter()
        .filter(|listener| listener.network != processes.own_network);
    let mut by_server: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for listener in others {
        by_server
            .entry(owner(listener, processes))
            .or_default()
            .push(listener.address.to_string());
    }
    if by_server.is_empty() {
        return Vec::new();
    }
    let told: Vec<_> = by_server
        .iter()
        .map(|(server, places)| format!("{server} at {}", places.join(", ")))
        .collect();
    vec![
        Finding::info(
            "resolvers.elsewhere",
            format!("in network namespaces of their own: {}", told.join("; ")),
        )
        .why("a guard in this namespace sees of them what crosses its own interfaces; not what goes over their lo"),
    ]
}
