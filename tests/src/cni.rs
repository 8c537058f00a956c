//! A Kubernetes node's network, as network plugins build it: pods in namespaces of their own, behind the interfaces,
//! bridges, overlays and routes of each plugin. The plugins themselves do not run.

use std::{fs, net::SocketAddr};

use anyhow::Result;

use crate::{Namespace, veth};

/// The pods' addresses; they listen where they like.
const PODS: [&str; 2] = ["10.244.0.10", "10.244.0.11"];
/// What is beyond the node's uplink.
const OUTSIDE: &str = "10.0.0.1";
/// A pod of another node, behind the overlay.
const REMOTE: &str = "10.244.1.10";
/// What routed pods have as their gateway.
const GATEWAY: &str = "169.254.1.1";

/// Who made the node's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// The Amazon VPC plugin: routed pods, and a second network card.
    AwsVpc,
    /// Calico with VXLAN: routed pods.
    Calico,
    /// Cilium with veth pairs and VXLAN: routed pods.
    Cilium,
    /// Flannel with VXLAN: pods at a bridge.
    Flannel,
    /// The plugin bridge: pods at a bridge, no overlay.
    Bridge,
    /// kindnet: routed pods.
    Kindnet,
}

/// A node with two pods, and what is beyond it.
#[derive(Debug)]
pub struct Node {
    /// The node.
    pub host: Namespace,
    /// Its pods.
    pub pods: [Namespace; 2],
    /// What is beyond the node: the network's gateway, and another node.
    pub outside: Namespace,
    overlay: Option<&'static str>,
}

impl Plugin {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::AwsVpc,
        Self::Calico,
        Self::Cilium,
        Self::Flannel,
        Self::Bridge,
        Self::Kindnet,
    ];

    /// The node's ends of the pods' links.
    pub const fn links(self) -> [&'static str; 2] {
        match self {
            Self::AwsVpc => ["eni0a1b2c3d4e5", "enif5e4d3c2b1a"],
            Self::Calico => ["cali0a1b2c3d4e5", "califfffffffff0"],
            Self::Cilium => ["lxc0a1b2c3d4e5", "lxcf5e4d3c2b1a"],
            Self::Flannel | Self::Bridge | Self::Kindnet => ["veth0a1b2c3d", "vethf5e4d3c2"],
        }
    }

    /// The interface between nodes, and the UDP port of its packets.
    const fn overlay(self) -> Option<(&'static str, u16)> {
        match self {
            Self::Calico => Some(("vxlan.calico", 4_789)),
            Self::Cilium => Some(("cilium_vxlan", 8_472)),
            Self::Flannel => Some(("flannel.1", 8_472)),
            Self::AwsVpc | Self::Bridge | Self::Kindnet => None,
        }
    }

    const fn has_bridge(self) -> bool {
        matches!(self, Self::Flannel | Self::Bridge)
    }

    /// The interfaces of the node that carry DNS, in order.
    pub fn carriers(self) -> Vec<&'static str> {
        let mut names = vec!["lo", "eth0"];
        names.extend(self.links());
        names.extend(self.overlay().map(|(name, _)| name));
        names.extend((self == Self::AwsVpc).then_some("ens6"));
        names.sort_unstable();
        names
    }
}

impl Node {
    /// Builds it.
    pub fn new(plugin: Plugin) -> Result<Self> {
        let (host, outside) = (Namespace::new()?, Namespace::new()?);
        let pods = [Namespace::new()?, Namespace::new()?];
        for switch in ["ip_forward", "conf/all/rp_filter", "conf/default/rp_filter"] {
            let value = if switch == "ip_forward" { "1" } else { "0" };
            host.run(|| fs::write(format!("/proc/sys/net/ipv4/{switch}"), value))?;
            outside.run(|| fs::write(format!("/proc/sys/net/ipv4/{switch}"), value))?;
        }
        veth::veth(&host, &outside, "eth0", &[("10.0.0.2/24", "10.0.0.1/24")])?;
        host.ip(&format!("route add default via {OUTSIDE}"))?;
        outside.ip("route add 10.244.0.0/24 via 10.0.0.2")?;
        if plugin.has_bridge() {
            host.ip("link add cni0 type bridge")?;
            host.ip("address add 10.244.0.1/24 dev cni0")?;
            host.ip("link set cni0 up")?;
        }
        for ((pod, address), link) in pods.iter().zip(PODS).zip(plugin.links()) {
            let there = pod.net_path();
            let there = there.display();
            host.ip(&format!("link add {link} type veth peer name eth0 netns {there}"))?;
            if plugin.has_bridge() {
                host.ip(&format!("link set {link} master cni0 up"))?;
                pod.ip(&format!("address add {address}/24 dev eth0"))?;
                pod.ip("link set eth0 up")?;
                pod.ip("route add default via 10.244.0.1")?;
            } else {
                host.ip(&format!("address add {GATEWAY}/32 dev {link}"))?;
                host.ip(&format!("link set {link} up"))?;
                host.ip(&format!("route add {address} dev {link} scope link"))?;
                pod.ip(&format!("address add {address}/32 dev eth0"))?;
                pod.ip("link set eth0 up")?;
                pod.ip(&format!("route add {GATEWAY} dev eth0 scope link"))?;
                pod.ip(&format!("route add default via {GATEWAY} dev eth0"))?;
            }
        }
        if let Some((name, port)) = plugin.overlay() {
            for (namespace, other, own, theirs) in [
                (&host, OUTSIDE, "10.244.255.1", "10.244.255.2"),
                (&outside, "10.0.0.2", "10.244.255.2", "10.244.255.1"),
            ] {
                namespace.ip(&format!(
                    "link add {name} type vxlan id 1 dstport {port} remote {other} dev eth0"
                ))?;
                namespace.ip(&format!("address add {own} peer {theirs} dev {name}"))?;
                namespace.ip(&format!("link set {name} up"))?;
            }
            host.ip(&format!("route add 10.244.1.0/24 via 10.244.255.2 dev {name}"))?;
            outside.ip(&format!("address add {REMOTE}/32 dev lo"))?;
            // What the other node's pod answers comes back by the overlay, all else by the network.
            outside.ip(&format!("route add 10.244.0.0/24 via 10.244.255.1 dev {name} table 7"))?;
            outside.ip(&format!("rule add from {REMOTE} table 7"))?;
        }
        match plugin {
            Plugin::AwsVpc => veth::veth(&host, &outside, "ens6", &[("10.0.1.2/24", "10.0.1.1/24")])?,
            Plugin::Cilium => {
                host.ip("link add cilium_host type veth peer name cilium_net")?;
                host.ip("link set cilium_host up")?;
                host.ip("link set cilium_net up")?;
            }
            _ => {}
        }
        let overlay = plugin.overlay().map(|(name, _)| name);
        Ok(Self {
            host,
            pods,
            outside,
            overlay,
        })
    }

    /// Where the first pod can ask for names: another pod of its node, what is outside, and a pod of another node, if
    /// there is a way to it; each with the namespace that it is in.
    pub fn servers(&self) -> Vec<(&Namespace, SocketAddr)> {
        let at = |address: &str| SocketAddr::new(address.parse().expect("it is one"), 53);
        let mut servers = vec![(&self.pods[1], at(PODS[1])), (&self.outside, at(OUTSIDE))];
        servers.extend(self.overlay.map(|_| (&self.outside, at(REMOTE))));
        servers
    }
}
