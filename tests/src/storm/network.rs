//! The network of a storm: a VPC, a node with one interface in it, and the pods of that node.
//!
//! ```text
//!  pods            10.60.48.2, and 10.60.50.0/24 all its own: a pod has an address, not a namespace
//!   | pods0
//!  node            10.60.32.10, forwards; what leaves it leaves by eni0, with the source address it came with
//!   | eni0
//!  aws             10.60.32.1; 10.60.0.2 and the link-local services
//! ```
//!
//! A pod that needs files of its own, for it runs a real program, gets a namespace too ([`Network::pod`]).

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::{Context as _, Result};

use crate::{Namespace, veth::veth};

/// The node's interface in the VPC, where a guard goes.
pub const UPLINK: &str = "eni0";
/// The VPC's resolver: its first network address plus two.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 2);
/// The same resolver by its link-local address.
pub(super) const RESOLVER_LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
/// The instance metadata service.
pub(super) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The time service.
pub(super) const TIME: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 123);
/// The node itself.
pub(super) const NODE: Ipv4Addr = Ipv4Addr::new(10, 60, 32, 10);
/// The node as its pods see it.
pub(super) const NODE_FOR_PODS: Ipv4Addr = Ipv4Addr::new(10, 60, 48, 1);
/// The pod that sweeps.
pub(super) const SWEEPER: Ipv4Addr = Ipv4Addr::new(10, 60, 50, 250);

/// The namespaces, wired.
#[derive(Debug)]
pub(super) struct Network {
    /// What stands for AWS.
    pub(super) aws: Namespace,
    /// The EC2 instance.
    pub(super) node: Namespace,
    /// The pods that need no namespace of their own.
    pub(super) pods: Namespace,
    /// Wires to pods laid so far.
    wires: u8,
}

impl Network {
    pub(super) fn lay() -> Result<Self> {
        let (aws, node) = (Namespace::new()?, Namespace::new()?);
        veth(&node, &aws, UPLINK, &[("10.60.32.10/20", "10.60.32.1/20")])?;
        for service in [RESOLVER, RESOLVER_LINK_LOCAL, METADATA, TIME] {
            aws.ip(&format!("address add {service}/32 dev lo"))?;
        }
        aws.ip(&format!("route add 10.60.48.0/20 via {NODE}"))?;
        node.ip("route add default via 10.60.32.1")?;
        node.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
            .context("let the node forward")?;
        node.cover("resolv.conf", &resolv_conf())?;

        let (pods, address) = wire(&node, 0)?;
        // Every address of a prefix is local with one route: no need to add them one by one.
        pods.ip("route add local 10.60.50.0/24 dev lo")?;
        node.ip(&format!("route add 10.60.50.0/24 via {address}"))?;
        Ok(Self {
            aws,
            node,
            pods,
            wires: 1,
        })
    }

    /// A pod with a namespace, whose `resolv.conf` names the VPC's resolver.
    pub(super) fn pod(&mut self) -> Result<Namespace> {
        let (pod, _) = wire(&self.node, self.wires)?;
        self.wires += 1;
        pod.cover("resolv.conf", &resolv_conf())?;
        Ok(pod)
    }

    /// The address of a pod without a namespace, 0 to 199.
    pub(super) fn pod_address(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 60, 50, number + 1).into()
    }
}

/// A new namespace behind the node, by the wire with this number, and its address.
fn wire(node: &Namespace, number: u8) -> Result<(Namespace, Ipv4Addr)> {
    let [near, far] = [1, 2].map(|host| Ipv4Addr::new(10, 60, 48, 4 * number + host));
    let pod = Namespace::new()?;
    veth(
        node,
        &pod,
        &format!("pods{number}"),
        &[(&format!("{near}/30"), &format!("{far}/30"))],
    )?;
    pod.ip(&format!("route add default via {near}"))?;
    Ok((pod, far))
}

/// As DHCP writes it on EC2.
fn resolv_conf() -> String {
    format!("nameserver {RESOLVER}\n")
}

/// Where a DNS server listens.
pub(super) fn dns(address: Ipv4Addr) -> SocketAddr {
    (address, 53).into()
}
