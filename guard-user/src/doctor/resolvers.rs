//! Who answers DNS on this host, by which interfaces its own queries leave, and whether a guard looks there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{
    finding::Finding,
    loops::{Action, Node, Resolvers},
    privileges::{Capability, Privileges, unseen},
    processes::{Listener, Processes},
};
use crate::{
    config::Config,
    datapath,
    host::{self, Host},
    netlink::{Link, Netlink},
    print::harmless,
};

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
    let guarded = guarded(config, &standard, links, netlink);
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
    let all_legs = all_legs(resolvers, processes, &host::resolv_conf());
    findings.extend(legs(&all_legs, links, netlink, &own, &guarded));
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
fn guarded(config: Option<&Config>, standard: &Config, links: &[Link], netlink: &Netlink) -> Guarded {
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
    let outward = netlink.default_routes().unwrap_or_default();
    let chosen = of.attach.selection.choose(links, &outward).into_iter();
    Guarded {
        interfaces: chosen.map(|one| one.device.name).collect(),
        source: if config.is_some() {
            "the configuration"
        } else {
            "the default configuration"
        }
        .to_owned(),
        is_meant: config.is_some(),
    }
}

/// A way that queries take from this host.
struct Leg {
    /// Who asks.
    who: String,
    to: SocketAddr,
}

/// Every leg: those of the resolvers that run here, and those of programs that ask by resolv.conf(5).
fn all_legs(resolvers: &Resolvers, processes: &Processes, resolv_conf: &str) -> Vec<Leg> {
    let nameservers = host::nameserver_lines(resolv_conf).filter_map(|line| line.parse().ok());
    let mut legs: Vec<_> = nameservers
        .map(|ip: IpAddr| Leg {
            who: "programs of this host".to_owned(),
            to: SocketAddr::new(ip, 53),
        })
        .collect();
    let runs_here = |node: &&Node| node.pid.is_some() && node.network == processes.own_network;
    for node in resolvers.nodes.iter().filter(runs_here) {
        let targets = node.rules.iter().flat_map(|rule| match &rule.action {
            Action::Forward(targets) => targets.clone(),
            Action::Answer => Vec::new(),
        });
        legs.extend(targets.collect::<BTreeSet<_>>().into_iter().map(|to| Leg {
            who: node.program.word().to_owned(),
            to,
        }));
    }
    legs
}

/// By which interfaces queries leave or come in, and which of those nobody looks at.
fn legs(legs: &[Leg], links: &[Link], netlink: &Netlink, own: &[&Listener], guarded: &Guarded) -> Vec<Finding> {
    let mut by_device: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut findings: Vec<Finding> = Vec::new();
    for Leg { who, to } in legs {
        let device = netlink.route(to.ip()).ok();
        match device.and_then(|ifindex| links.iter().find(|link| link.ifindex == ifindex)) {
            Some(link) => {
                by_device
                    .entry(&link.name)
                    .or_default()
                    .insert(format!("{who} to {to}"));
            }
            None => findings.push(
                Finding::warn(
                    "resolvers.unreachable",
                    format!("{who}: there is no route to the server {to}"),
                )
                .remedy(format!("ip route get {}", to.ip())),
            ),
        }
        if to.ip().is_loopback() && !own.iter().any(|listener| hears(listener, *to)) {
            findings.push(
                Finding::warn("resolvers.nobody", format!("{who}: nobody listens at the server {to}"))
                    .why("every query to it fails at once, or after a time-out"),
            );
        }
    }
    if own.iter().any(|listener| listener.address.ip().is_loopback()) {
        by_device
            .entry("lo")
            .or_default()
            .insert("clients on this host".to_owned());
    }
    let mut wanted: BTreeSet<&str> = guarded.interfaces.iter().map(String::as_str).collect();
    wanted.extend(by_device.keys());
    let wanted: Vec<_> = wanted.iter().map(|name| format!("\"{name}\"")).collect();
    for (device, legs) in &by_device {
        let legs: Vec<_> = legs.iter().map(String::as_str).collect();
        let what = format!("{device} carries DNS: {}", legs.join(", "));
        if guarded.interfaces.contains(*device) {
            findings.push(Finding::ok("resolvers.leg", what));
            continue;
        }
        let finding = if guarded.is_meant {
            Finding::warn("resolvers.leg", what)
        } else {
            Finding::info("resolvers.leg", what)
        };
        findings.push(
            finding
                .why(format!(
                    "{} does not look there: a loop over {device} would go on",
                    guarded.source
                ))
                .remedy(format!("[attach] interfaces = [{}]", wanted.join(", "))),
        );
    }
    findings
}

/// Whether a socket gets what is sent to an address of this host.
fn hears(listener: &Listener, to: SocketAddr) -> bool {
    let ip = listener.address.ip();
    let is_one = ip == to.ip() || ip.is_unspecified() && (ip.is_ipv6() || to.is_ipv4());
    is_one && listener.address.port() == to.port()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    fn listener(address: &str) -> Listener {
        Listener {
            address: address.parse().unwrap(),
            network: 1,
            pids: Vec::new(),
        }
    }

    fn lo() -> Link {
        Link {
            ifindex: 1,
            name: "lo".to_owned(),
            ..Link::default()
        }
    }

    fn told(resolv_conf: &str, own: &[&str], interfaces: &[&str]) -> Vec<(Level, String)> {
        let own: Vec<_> = own.iter().map(|address| listener(address)).collect();
        let guarded = Guarded {
            interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
            source: "the configuration".to_owned(),
            is_meant: true,
        };
        let all = all_legs(&Resolvers::default(), &Processes::default(), resolv_conf);
        let netlink = Netlink::open().unwrap();
        let found = legs(&all, &[lo()], &netlink, &own.iter().collect::<Vec<_>>(), &guarded);
        found.into_iter().map(|finding| (finding.level, finding.what)).collect()
    }

    #[test]
    fn a_stub_that_does_not_run_is_told() {
        let expected = [
            (
                Level::Warn,
                "programs of this host: nobody listens at the server 127.0.0.53:53".to_owned(),
            ),
            (
                Level::Ok,
                "lo carries DNS: programs of this host to 127.0.0.53:53".to_owned(),
            ),
        ];
        assert_eq!(told("nameserver 127.0.0.53\n", &[], &["lo"]), expected);
        assert_eq!(told("nameserver 127.0.0.53\n", &["0.0.0.0:53"], &["lo"]).len(), 1);
        assert_eq!(told("nameserver 127.0.0.53\n", &["127.0.0.1:53"], &["lo"]).len(), 2);
    }

    #[test]
    fn an_interface_that_carries_dns_and_is_not_guarded_is_told() {
        let found = told("", &["127.0.0.1:53"], &["eth0"]);
        assert_eq!(
            found,
            [(Level::Warn, "lo carries DNS: clients on this host".to_owned())]
        );
    }

    #[test]
    fn a_port_that_is_not_looked_at_is_told_with_the_line_that_adds_it() {
        let own = [listener("127.0.0.1:53"), listener("127.0.0.1:8600")];
        let own: Vec<_> = own.iter().collect();
        let found = ports(&Config::default(), &own, &Processes::default(), true);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].remedy.as_deref(), Some("ports = [53, 8600]"));
        assert_eq!(found[0].level, Level::Warn);
    }
}
