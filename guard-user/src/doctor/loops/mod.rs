//! Resolver configurations that form a loop as written: read-only, as far as they can be understood.
//!
//! ```text
//! processes, files -> dnsmasq, consul, resolved, coredns, unbound, dnsdist -> node -> graph -> sentence
//! ```
//!
//! A configuration is what somebody meant; a proof is `dnsguard probe`.

mod consul;
mod coredns;
mod dnsdist;
mod dnsmasq;
mod graph;
mod kubelet;
mod node;
mod resolv_conf;
mod resolved;
mod sentence;
#[cfg(test)]
mod testing;
mod unbound;

use std::net::{IpAddr, SocketAddr};

pub(super) use self::node::{Action, Node, Program};
use self::node::{Gap, Reading};
use super::{
    finding::Finding,
    processes::{Process, Processes},
    roots::Roots,
};
use crate::host::Host;

/// The programs whose configurations are read.
const PROGRAMS: [Program; 6] = [
    Program::Consul,
    Program::CoreDns,
    Program::Dnsdist,
    Program::Dnsmasq,
    Program::Resolved,
    Program::Unbound,
];
/// Names of processes that forward, too, and whose configurations are not read.
const UNREAD: [&str; 6] = ["named", "kresd", "pdns_recursor", "stubby", "smartdns", "AdGuardHome"];

/// The resolvers of this host and what they say of themselves.
#[derive(Debug, Default)]
pub(super) struct Resolvers {
    pub(super) nodes: Vec<Node>,
    gaps: Vec<(Program, Gap)>,
}

impl Resolvers {
    /// Reads the configurations of all resolvers that run, and of those that are installed and do not.
    /// `processes` forgets what listens for something else than DNS.
    pub(super) fn read(roots: &Roots, processes: &mut Processes) -> Self {
        let mut resolvers = Self::default();
        for program in PROGRAMS {
            let running: Vec<_> = processes.of(program).collect();
            for process in &running {
                let directory = process.directory();
                let readings = match program {
                    Program::CoreDns => coredns::read(&process.roots(), &process.arguments, directory.as_deref()),
                    _ => vec![read(program, &process.roots(), &process.arguments)],
                };
                for reading in readings {
                    resolvers.add(program, Some(process), processes, reading);
                }
            }
            if running.is_empty() {
                for reading in installed(program, roots) {
                    resolvers.add(program, None, processes, reading);
                }
            }
        }
        for node in resolvers.nodes.iter().filter(|node| node.program == Program::Consul) {
            if let Some(pid) = node.pid {
                processes.keep_ports(pid, &node.listens.iter().map(SocketAddr::port).collect());
            }
        }
        resolvers
    }

    fn add(&mut self, program: Program, process: Option<&Process>, processes: &Processes, reading: Reading) {
        self.gaps.extend(reading.gaps.into_iter().map(|gap| (program, gap)));
        let listens = match process {
            Some(process) => listens_of(process, processes, &reading.listens, program),
            None => reading.listens,
        };
        self.nodes.push(Node {
            program,
            pid: process.map(|process| process.pid),
            network: process.map_or(processes.own_network, |process| process.network),
            listens,
            rules: reading.rules,
        });
    }
}

/// Where a process listens: what its sockets say, or what its configuration says where one may not look.
fn listens_of(process: &Process, processes: &Processes, written: &[SocketAddr], program: Program) -> Vec<SocketAddr> {
    let own = processes
        .listeners
        .iter()
        .filter(|listener| listener.pids.contains(&process.pid));
    let mut real: Vec<_> = own.map(|listener| listener.address).collect();
    if matches!(program, Program::CoreDns | Program::Consul) {
        // Each port of CoreDNS is a resolver of its own, and consul gossips over both UDP and TCP.
        real.retain(|address| written.iter().any(|written| written.port() == address.port()));
    }
    if real.is_empty() { written.to_vec() } else { real }
}

fn read(program: Program, roots: &Roots, arguments: &[String]) -> Reading {
    match program {
        Program::Consul => consul::read(roots, arguments),
        Program::CoreDns => Reading::default(),
        Program::Dnsdist => dnsdist::read(roots, arguments),
        Program::Dnsmasq => dnsmasq::read(roots, arguments),
        Program::Resolved => resolved::read(roots),
        Program::Unbound => unbound::read(roots, arguments),
    }
}

/// The configuration of a program that does not run, if it has one.
fn installed(program: Program, roots: &Roots) -> Vec<Reading> {
    let usual = match program {
        Program::Consul => "/etc/consul.d",
        Program::CoreDns => return coredns::read(roots, &[], None),
        Program::Dnsdist => "/etc/dnsdist/dnsdist.conf",
        Program::Dnsmasq => "/etc/dnsmasq.conf",
        // It has no say in anything while it does not run: its file comes with systemd.
        Program::Resolved => return Vec::new(),
        Program::Unbound => "/etc/unbound/unbound.conf",
    };
    if roots.exists(usual) {
        vec![read(program, roots, &[])]
    } else {
        Vec::new()
    }
}

/// Every loop, or that there is none, and what could not be read.
pub(super) fn check(roots: &Roots, resolvers: &Resolvers, processes: &Processes, host: &Host) -> Vec<Finding> {
    let nodes = &resolvers.nodes;
    let is_own = |ip: IpAddr| host.addresses().any(|own| own == ip);
    let circles = graph::circles(nodes, &is_own);
    let mut findings: Vec<_> = circles
        .iter()
        .map(|circle| sentence::circle(circle, nodes, processes.own_network))
        .collect();
    findings.extend(kubelet::check(roots));
    if findings.is_empty() {
        findings.push(match nodes.as_slice() {
            [] => Finding::ok(
                "loops.none",
                "no resolver whose configuration can be read runs or is installed here",
            ),
            nodes => {
                let names: Vec<_> = nodes.iter().map(Node::name).collect();
                Finding::ok("loops.none", format!("no loop as written: {}", names.join(", ")))
            }
        });
    }
    for (program, gap) in &resolvers.gaps {
        let what = format!("{}: {}: {}", program.word(), gap.place, gap.why);
        findings.push(Finding::info("loops.unread", what));
    }
    for listener in &processes.listeners {
        let owners = listener.pids.iter().filter_map(|pid| processes.get(*pid));
        for process in owners.filter(|process| UNREAD.contains(&process.name.as_str())) {
            let what = format!("{} (pid {}): its configuration is not read", process.name, process.pid);
            let finding = Finding::info("loops.unread", what)
                .why("whether it is part of a loop only a query can tell")
                .remedy(format!(
                    "dnsguard probe --server {}",
                    sentence::reachable(listener.address)
                ));
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    findings
}
