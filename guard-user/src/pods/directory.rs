//! The pods of a node at one moment, by address and by interface.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    hash::Hash,
    net::IpAddr,
};

use super::Pod;

/// The most pods that are known: more than any node runs (the kubelet's own limit is 110 unless it is raised).
pub(super) const MAX_PODS: usize = 4_096;
/// The most addresses, and the most interfaces, of one pod: the first ones.
const MAX_EACH: usize = 8;

/// A pod and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Which it is.
    pub(crate) pod: Pod,
    /// Its addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// The interfaces of the node that lead to it and to nobody else, by name.
    pub(crate) devices: Vec<String>,
}

/// All of them. What two of them claim is nobody's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    addresses: HashMap<IpAddr, Option<Pod>>,
    devices: HashMap<String, Option<Pod>>,
    pods: usize,
}

impl Directory {
    /// Of these, the first [`MAX_PODS`].
    pub(crate) fn new(pods: impl IntoIterator<Item = Known>) -> Self {
        let mut directory = Self::default();
        for known in pods.into_iter().take(MAX_PODS) {
            directory.pods += 1;
            let addresses = known.addresses.iter().map(IpAddr::to_canonical);
            for address in addresses.filter(is_unicast).take(MAX_EACH) {
                claim(&mut directory.addresses, address, &known.pod);
            }
            for device in known.devices.into_iter().take(MAX_EACH) {
                claim(&mut directory.devices, device, &known.pod);
            }
        }
        directory
    }

    /// The pod that has this address.
    pub(crate) fn at(&self, address: IpAddr) -> Option<&Pod> {
        self.addresses.get(&address.to_canonical())?.as_ref()
    }

    /// The pod that this interface of the node leads to.
    pub(crate) fn behind(&self, device: &str) -> Option<&Pod> {
        self.devices.get(device)?.as_ref()
    }

    /// Those of these addresses that are pods', and whose.
    pub(crate) fn among(&self, addresses: impl IntoIterator<Item = IpAddr>) -> BTreeMap<IpAddr, Pod> {
        let known = |address: IpAddr| Some((address, self.at(address)?.clone()));
        addresses.into_iter().filter_map(known).collect()
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.pods
    }
}

/// Whether it can be one pod's own.
fn is_unicast(address: &IpAddr) -> bool {
    !address.is_loopback() && !address.is_multicast() && !address.is_unspecified()
}

fn claim<K: Eq + Hash>(claims: &mut HashMap<K, Option<Pod>>, what: K, pod: &Pod) {
    match claims.entry(what) {
        Entry::Vacant(free) => {
            free.insert(Some(pod.clone()));
        }
        Entry::Occupied(mut taken) => {
            if taken.get().as_ref() != Some(pod) {
                taken.insert(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, addresses: &[&str], devices: &[&str]) -> Known {
        Known {
            pod: Pod::new(b"default", name.as_bytes()).unwrap(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            devices: devices.iter().map(|device| (*device).to_owned()).collect(),
        }
    }

    fn at(directory: &Directory, address: &str) -> Option<String> {
        directory.at(address.parse().unwrap()).map(ToString::to_string)
    }

    #[test]
    fn a_pod_is_found_by_each_of_its_addresses_and_interfaces() {
        let directory = Directory::new([
            known("a", &["10.0.0.7", "fd00::7"], &["veth7"]),
            known("b", &["10.0.0.8"], &[]),
        ]);
        assert_eq!(at(&directory, "10.0.0.7").as_deref(), Some("default/a"));
        assert_eq!(at(&directory, "::ffff:10.0.0.7").as_deref(), Some("default/a"));
        assert_eq!(at(&directory, "fd00::7").as_deref(), Some("default/a"));
        assert_eq!(directory.behind("veth7").map(Pod::name), Some("a"));
        assert_eq!((at(&directory, "10.0.0.9"), directory.behind("veth8")), (None, None));
        assert_eq!(directory.len(), 2);
    }

    #[test]
    fn what_two_claim_is_nobodys_however_many_more_claim_it() {
        let pods = ["a", "b", "a", "c"].map(|name| known(name, &["10.0.0.7"], &["cni0"]));
        let directory = Directory::new(pods);
        assert_eq!((at(&directory, "10.0.0.7"), directory.behind("cni0")), (None, None));
        // A pod that was made anew is there twice for a moment, and is one pod.
        let twice = Directory::new(["a", "a"].map(|name| known(name, &["10.0.0.7"], &[])));
        assert_eq!(at(&twice, "10.0.0.7").as_deref(), Some("default/a"));
    }

    #[test]
    fn nobody_has_loopback() {
        let directory = Directory::new([known("a", &["127.0.0.1", "::1", "0.0.0.0", "224.0.0.1"], &[])]);
        assert_eq!((directory.len(), directory.addresses.len()), (1, 0));
    }

    #[test]
    fn however_many_there_are_memory_is_bounded() {
        let many = (0..2 * MAX_PODS as u32).map(|number| Known {
            addresses: (0..100)
                .map(|host| IpAddr::V4((number << 8 | host | 1 << 28).into()))
                .collect(),
            ..known("a", &[], &[])
        });
        let directory = Directory::new(many);
        assert_eq!(directory.len(), MAX_PODS);
        assert!(directory.addresses.len() <= MAX_PODS * MAX_EACH);
    }
}
