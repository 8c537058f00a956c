//! What pods get from the node: a resolv.conf with a loopback address in it is each pod's own, and sends CoreDNS to
//! itself.

use std::path::Path;

use super::resolv_conf;
use crate::doctor::{finding::Finding, roots::Roots};

/// Where kubeadm puts it.
const CONFIGURATION: &str = "/var/lib/kubelet/config.yaml";
/// What systemd-resolved keeps for this case.
const WITHOUT_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// Whether pods of this node would be sent to themselves.
pub(super) fn check(roots: &Roots) -> Option<Finding> {
    let text = roots.read(CONFIGURATION).ok()?;
    let named = text.lines().find_map(|line| line.trim().strip_prefix("resolvConf:"));
    let path = named.map_or(resolv_conf::USUAL, |path| path.trim().trim_matches(['"', '\'']));
    if path.is_empty() {
        return None;
    }
    let servers = roots.read(path).unwrap_or_default();
    let servers = resolv_conf::nameservers(Path::new(path), &servers);
    let (address, place) = servers.into_iter().find(|(address, _)| address.ip().is_loopback())?;
    let ip = address.ip();
    let remedy = if roots.exists(WITHOUT_STUB) {
        format!("set resolvConf: {WITHOUT_STUB} in {CONFIGURATION}, restart the kubelet, then the CoreDNS pods")
    } else {
        format!("name the real upstreams in a file of its own, and that file as resolvConf in {CONFIGURATION}")
    };
    Some(
        Finding::warn(
            "loops.kubelet",
            format!("the kubelet hands pods the nameserver {ip} ({place})"),
        )
        .why(format!(
            "in a pod {ip} is the pod itself: CoreDNS with \"forward . /etc/resolv.conf\" sends its queries to \
                 itself, and its loop plugin ends it (CrashLoopBackOff, \"Loop ... detected\")"
        ))
        .remedy(remedy),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::loops::testing::Tree;

    #[test]
    fn a_stub_in_the_pods_resolv_conf_is_found_before_coredns_crashes() {
        let stub = ("etc/resolv.conf", "nameserver 127.0.0.53\n");
        let kubelet = (
            "var/lib/kubelet/config.yaml",
            "kind: KubeletConfiguration\nclusterDNS:\n- 10.96.0.10\n",
        );
        let found = check(&Tree::new(&[stub, kubelet]).roots()).unwrap();
        assert!(found.what.ends_with("127.0.0.53 (/etc/resolv.conf:1)"), "{found:?}");
        let real = ("run/systemd/resolve/resolv.conf", "nameserver 10.0.0.2\n");
        let found = check(&Tree::new(&[stub, kubelet, real]).roots()).unwrap();
        assert!(found.remedy.unwrap().starts_with("set resolvConf: /run/systemd"));
        let set = (kubelet.0, "resolvConf: \"/run/systemd/resolve/resolv.conf\"\n");
        assert_eq!(check(&Tree::new(&[stub, set, real]).roots()), None);
        assert_eq!(check(&Tree::new(&[stub]).roots()), None, "no kubelet");
    }
}
