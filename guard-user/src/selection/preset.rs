//! Which interfaces of a host carry DNS: a plain host's, and those that a Kubernetes network plugin makes.
//!
//! A pod's DNS is seen at the host's end of its link, in both directions. A bridge between pods is no such place: what
//! one pod answers another goes from port to port, and the bridge itself never sees it. One packet is seen at several
//! of these interfaces, and is one hop all the same (see [`guard_common::flow`]).

use std::fmt;

use crate::netlink::Link;

/// A kind of host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Preset {
    /// A plain host, and every network plugin that is recognised by its interfaces.
    Auto,
    /// `lo`, and what leads outward.
    Host,
    /// The Amazon VPC plugin.
    AwsVpc,
    /// Calico, with or without an overlay.
    Calico,
    /// Cilium with veth pairs; where it uses netkit, `lo` and what leads outward.
    Cilium,
    /// Flannel over VXLAN.
    Flannel,
    /// The plugins bridge and ptp, kindnet and kubenet.
    Bridge,
}

/// Every preset and its word.
pub(crate) const PRESETS: [(&str, Preset); 7] = [
    ("auto", Preset::Auto),
    ("host", Preset::Host),
    ("aws-vpc", Preset::AwsVpc),
    ("calico", Preset::Calico),
    ("cilium", Preset::Cilium),
    ("flannel", Preset::Flannel),
    ("bridge", Preset::Bridge),
];

/// The bridges of network plugins.
const BRIDGES: [&str; 3] = ["cni0", "cbr0", "kube-bridge"];

impl Preset {
    /// Its word in the configuration.
    pub(crate) fn word(self) -> &'static str {
        let found = PRESETS.iter().find(|(_, preset)| *preset == self);
        found.map_or("", |(word, _)| word)
    }

    /// What it means on a host with these interfaces: presets other than [`Preset::Auto`].
    pub(super) fn resolve(self, links: &[Link]) -> Vec<Self> {
        if self != Self::Auto {
            return vec![self];
        }
        let mut found = vec![Self::Host];
        let plugins = [Self::AwsVpc, Self::Calico, Self::Cilium, Self::Flannel, Self::Bridge];
        found.extend(plugins.into_iter().filter(|plugin| plugin.is_recognised(links)));
        found
    }

    /// Whether the plugin has made some of these interfaces.
    fn is_recognised(self, links: &[Link]) -> bool {
        links.iter().any(|link| match self {
            Self::Auto | Self::Host => true,
            Self::AwsVpc => is_hashed(link, "eni"),
            Self::Calico => is_hashed(link, "cali") || link.name.starts_with("vxlan.calico"),
            Self::Cilium => link.name.starts_with("cilium_"),
            Self::Flannel => link.name.starts_with("flannel"),
            Self::Bridge => is_plugins_bridge(link) || is_routed_pod(link),
        })
    }

    /// What an interface is to this kind of host, if it carries DNS there, beside `lo` and what leads outward.
    pub(super) fn role(self, link: &Link, links: &[Link]) -> Option<Role> {
        let pod = |is_pod: bool| is_pod.then_some(Role::Pod);
        let overlay = |prefix: &str| link.name.starts_with(prefix).then_some(Role::Overlay);
        match self {
            Self::Auto | Self::Host => None,
            // Pods with a security group of their own have a `vlan` beside their trunk interface.
            Self::AwsVpc => pod(is_hashed(link, "eni") || is_hashed(link, "vlan")),
            Self::Calico => pod(is_hashed(link, "cali")).or_else(|| overlay("vxlan.calico")),
            Self::Cilium => pod(link.kind == "veth" && link.name.starts_with("lxc"))
                .or_else(|| overlay("cilium_vxlan"))
                .or_else(|| overlay("cilium_geneve")),
            Self::Flannel => pod(is_port(link, links)).or_else(|| overlay("flannel")),
            Self::Bridge => pod(is_port(link, links) || is_routed_pod(link)),
        }
    }
}

/// What an interface is to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The host's end of a pod's link.
    Pod,
    /// It carries what pods of different nodes say to each other.
    Overlay,
}

/// As it stands in a reason.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "a pod's link",
            Self::Overlay => "an overlay",
        })
    }
}

/// A veth with this prefix and a hash: the plugin's, and not a network card that is called alike.
fn is_hashed(link: &Link, prefix: &str) -> bool {
    let hash = link.name.strip_prefix(prefix).unwrap_or_default();
    link.kind == "veth" && hash.len() == 11 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_plugins_bridge(link: &Link) -> bool {
    link.kind == "bridge" && BRIDGES.contains(&link.name.as_str())
}

/// A port of a plugin's bridge.
fn is_port(link: &Link, links: &[Link]) -> bool {
    let bridge = links.iter().find(|bridge| bridge.ifindex == link.master);
    link.kind == "veth" && bridge.is_some_and(is_plugins_bridge)
}

/// A pod's link without a bridge, as kindnet and the plugin ptp make it.
fn is_routed_pod(link: &Link) -> bool {
    let hash = link.name.strip_prefix("veth").unwrap_or_default();
    let is_plugins = hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    link.kind == "veth" && link.leads_elsewhere && link.master == 0 && is_plugins
}
