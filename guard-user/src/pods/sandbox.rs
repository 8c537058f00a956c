//! What a runtime says of one pod, read with distrust.

use std::{collections::BTreeMap, net::IpAddr};

use guard_cri::message::{PodSandbox, PodSandboxState, PodSandboxStatusResponse};
use serde::Deserialize;

use super::Pod;
use crate::selection::interface_name;

/// A pod whose network does not change as long as it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sandbox {
    /// Which it is.
    pub(super) pod: Pod,
    /// Its own addresses: none if it has the node's network.
    pub(super) addresses: Vec<IpAddr>,
    /// Interfaces of the node that were made for it, and perhaps others that it shares.
    pub(super) devices: Vec<String>,
}

/// What containerd adds under `info`, as far as it matters: what the CNI plugins answered.
#[derive(Deserialize)]
struct Info {
    #[serde(rename = "cniResult")]
    cni_result: Option<CniResult>,
}

#[derive(Deserialize)]
struct CniResult {
    #[serde(rename = "Interfaces")]
    interfaces: Option<BTreeMap<String, Option<Interface>>>,
}

#[derive(Deserialize)]
struct Interface {
    /// The network namespace that it is in; empty if that is the node's.
    #[serde(rename = "Sandbox", default)]
    sandbox: String,
}

/// The name of a pod in a list, if it is there and its name is one.
pub(super) fn pod(listed: &PodSandbox) -> Option<Pod> {
    let metadata = listed.metadata.as_ref()?;
    let is_ready = listed.state == PodSandboxState::Ready as i32;
    Pod::new(&metadata.namespace, &metadata.name).filter(|_| is_ready)
}

impl Sandbox {
    /// A pod, and what is said of it. None while its network is on its way.
    pub(super) fn read(pod: Pod, said: &PodSandboxStatusResponse) -> Option<Self> {
        let status = said.status.as_ref()?;
        if status.is_on_host_network() {
            return Some(Self {
                pod,
                addresses: Vec::new(),
                devices: Vec::new(),
            });
        }
        let network = status.network.as_ref()?;
        let others = network.additional_ips.iter().map(|other| &other.ip);
        let addresses: Vec<IpAddr> = [&network.ip]
            .into_iter()
            .chain(others)
            .filter_map(|text| text.parse().ok())
            .collect();
        if addresses.is_empty() {
            return None;
        }
        let info = said.info.get("info").and_then(|info| serde_json::from_str(info).ok());
        Some(Self {
            pod,
            addresses,
            devices: info.map(devices).unwrap_or_default(),
        })
    }
}

/// The interfaces of the node that the plugins have made or used.
fn devices(info: Info) -> Vec<String> {
    let interfaces = info.cni_result.and_then(|result| result.interfaces).unwrap_or_default();
    let of_the_node = interfaces
        .into_iter()
        .filter(|(_, interface)| interface.as_ref().is_some_and(|interface| interface.sandbox.is_empty()));
    of_the_node.filter_map(|(name, _)| interface_name(&name).ok()).collect()
}

#[cfg(test)]
mod tests {
    use guard_cri::{
        message::{PodIp, PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxStatus},
        prost::Message as _,
    };

    use super::*;

    /// What containerd 1.6.20 said of a pod on a bridge, and of one with the node's network.
    const POD: &[u8] = include_bytes!("../../../guard-cri/recorded/containerd-1.6.20-pod.bin");
    const HOST: &[u8] = include_bytes!("../../../guard-cri/recorded/containerd-1.6.20-host-network.bin");

    fn cart() -> Pod {
        Pod::new(b"shop", b"cart-1").unwrap()
    }

    fn said(ip: &str, others: &[&str], info: &str) -> PodSandboxStatusResponse {
        let others = others.iter().map(|ip| PodIp { ip: (*ip).to_owned() });
        PodSandboxStatusResponse {
            status: Some(PodSandboxStatus {
                network: Some(PodSandboxNetworkStatus {
                    ip: ip.to_owned(),
                    additional_ips: others.collect(),
                }),
                ..PodSandboxStatus::default()
            }),
            info: [("info".to_owned(), info.to_owned())].into(),
        }
    }

    #[test]
    fn what_containerd_says_of_a_pod_is_its_address_and_its_interface() {
        let said = PodSandboxStatusResponse::decode(POD).unwrap();
        let sandbox = Sandbox::read(cart(), &said).unwrap();
        assert_eq!(sandbox.addresses, [IpAddr::from([10, 88, 0, 2])]);
        // The bridge is one of them: the kernel says that it leads to nobody.
        let [bridge, own] = &sandbox.devices[..] else {
            panic!("{sandbox:?}")
        };
        assert_eq!((bridge.as_str(), &own[..4]), ("cni0", "veth"));
    }

    #[test]
    fn a_pod_with_the_nodes_network_has_no_address_of_its_own() {
        let said = PodSandboxStatusResponse::decode(HOST).unwrap();
        let sandbox = Sandbox::read(cart(), &said).unwrap();
        assert_eq!((sandbox.addresses.len(), sandbox.devices.len()), (0, 0));
        // CRI-O gives those of the node.
        let mut said = said;
        let status = said.status.as_mut().unwrap();
        status.network = self::said("192.0.2.1", &[], "").status.unwrap().network;
        assert_eq!(Sandbox::read(cart(), &said).unwrap().addresses, [] as [IpAddr; 0]);
    }

    #[test]
    fn a_pod_has_all_its_addresses_and_one_without_is_not_there_yet() {
        let both = Sandbox::read(cart(), &said("10.0.0.7", &["fd00::7", "nonsense"], "{}")).unwrap();
        assert_eq!(
            both.addresses,
            ["10.0.0.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]
        );
        for none in [
            said("", &[], ""),
            said("10.0.0.256", &[], ""),
            PodSandboxStatusResponse::default(),
        ] {
            assert_eq!(Sandbox::read(cart(), &none), None);
        }
    }

    #[test]
    fn what_a_runtime_adds_is_a_help_and_no_condition() {
        for (info, devices) in [
            ("", 0),
            ("[]", 0),
            ("{\"cniResult\":null}", 0),
            ("{\"cniResult\":{\"Interfaces\":null}}", 0),
            ("{\"cniResult\":{\"Interfaces\":{\"a\":null}}}", 0),
            ("{\"cniResult\":{\"Interfaces\":[]}}", 0),
            ("{\"cniResult\":{\"Interfaces\":{\"veth1\":{\"Sandbox\":\"\"}}}}", 1),
            (
                "{\"cniResult\":{\"Interfaces\":{\"eth0\":{\"Sandbox\":\"/run/netns/x\"}}}}",
                0,
            ),
            (
                "{\"cniResult\":{\"Interfaces\":{\"a/b\":{},\"\\u001b[2J\":{},\"much-too-long-a-name\":{}}}}",
                0,
            ),
        ] {
            let sandbox = Sandbox::read(cart(), &said("10.0.0.7", &[], info)).unwrap();
            assert_eq!((sandbox.addresses.len(), sandbox.devices.len()), (1, devices), "{info}");
        }
    }

    #[test]
    fn a_pod_in_a_list_has_a_name_and_its_network() {
        let mut listed = PodSandbox {
            id: b"x".to_vec(),
            metadata: Some(PodSandboxMetadata {
                name: b"cart-1".to_vec(),
                uid: Vec::new(),
                namespace: b"shop".to_vec(),
            }),
            state: PodSandboxState::Ready as i32,
        };
        assert_eq!(pod(&listed), Some(cart()));
        listed.state = PodSandboxState::NotReady as i32;
        assert_eq!(pod(&listed), None);
        listed.state = 7;
        assert_eq!(pod(&listed), None);
    }
}
