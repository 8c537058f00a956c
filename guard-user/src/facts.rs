//! What a policy needs to know of the host it is for.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use guard_common::budget::Service;

use crate::{
    config::Config,
    device::Device,
    host::Host,
    link_local::{self, Destination, NoAddress},
    netlink::Netlink,
};

/// Facts of the host, as plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The index of each guarded interface that the configuration has something for, by its name.
    pub(crate) devices: BTreeMap<String, u32>,
    /// The addresses that the host has but those of fe80::/10, in order, if the configuration asks for them.
    pub(crate) addresses: Vec<IpAddr>,
    /// Where the link-local services of an interface are, by its name, if it has a budget for them.
    pub(crate) services: BTreeMap<String, Vec<(IpAddr, Service)>>,
}

impl Facts {
    /// What this configuration needs to know of a host whose guarded interfaces are these; `before` is what was known a
    /// moment ago.
    ///
    /// # Errors
    ///
    /// An interface that is named for the link-local budget has no address to find the services by, and nothing was known
    /// before. One that has come since, or was found, has those that are the same everywhere until it gets its address.
    pub(crate) fn gather(
        config: &Config,
        devices: &[Device],
        host: &Host,
        before: Option<&Self>,
    ) -> Result<Self, NoAddress> {
        let mut services = BTreeMap::new();
        if let Some(link_local) = &config.link_local {
            for device in devices.iter().filter(|device| link_local.is_on(device)) {
                let pairs = |known: &[Destination]| known.iter().map(|known| (known.address, known.service)).collect();
                let is_named = link_local.interfaces(&config.attach).any(|name| name == device.name);
                let known = match link_local::destinations(&device.name, host, link_local.vpc) {
                    Ok(known) => pairs(&known),
                    Err(error) if is_named && before.is_none() => return Err(error),
                    Err(_) => before
                        .and_then(|before| before.services.get(&device.name).cloned())
                        .unwrap_or_else(|| pairs(&link_local::FIXED)),
                };
                services.insert(device.name.clone(), known);
            }
        }
        let mut addresses = Vec::new();
        if config.hygiene.names_own_addresses() {
            addresses.extend(host.addresses().filter(|address| !is_on_one_link(*address)));
            addresses.sort_unstable();
            addresses.dedup();
        }
        Ok(Self {
            devices: devices
                .iter()
                .filter(|device| services.contains_key(&device.name) || config.limits_at(&device.name))
                .map(|device| (device.name.clone(), device.ifindex))
                .collect(),
            addresses,
            services,
        })
    }
}

/// Whether an address of fe80::/10 (RFC 4291 section 2.5.6). Each interface has one, the veths of all pods too; they are
/// taken for own as one range.
fn is_on_one_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Says why the link-local services of an interface cannot be found now, and what to do, if they cannot.
pub(crate) fn check_services(interface: &str, vpc: Option<(Ipv4Addr, u8)>) -> Result<(), String> {
    let links = Netlink::open().and_then(|netlink| netlink.links());
    let links = links.map_err(|error| format!("cannot list the interfaces of this host: {error}"))?;
    Device::named(interface, &links).map_err(|error| error.to_string())?;
    let host = Host::read().map_err(|error| format!("cannot read the addresses of this host: {error}"))?;
    let found = link_local::destinations(interface, &host, vpc);
    found.map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Address;

    fn config(text: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(file.path()).unwrap()
    }

    fn host() -> Host {
        let address = Address {
            device: "ens5".to_owned(),
            ip: [10, 7, 33, 9].into(),
            prefix_length: 20,
        };
        let link_local = Address {
            ip: "fe80::1".parse().unwrap(),
            ..address.clone()
        };
        Host::new(vec![link_local, address.clone(), address], Vec::new())
    }

    /// `lo`, two that lead outward, and a pod's.
    fn devices() -> Vec<Device> {
        let device = |(ifindex, name): (u32, &str)| Device {
            name: name.to_owned(),
            ifindex,
            physical: false,
            loopback: name == "lo",
            outward: name.starts_with("ens"),
        };
        [(1, "lo"), (2, "ens5"), (3, "ens6"), (4, "veth0")].map(device).to_vec()
    }

    #[test]
    fn services_are_looked_up_for_the_interfaces_that_have_the_budget() {
        let text = "[attach]\ninterfaces = ['lo', 'ens5']\n[[budget]]\npreset = 'aws-link-local'\n";
        let facts = Facts::gather(&config(text), &devices()[..2], &host(), None).unwrap();
        assert_eq!(facts.services.keys().collect::<Vec<_>>(), ["ens5"]);
        assert_eq!(facts.devices, BTreeMap::from([("ens5".to_owned(), 2)]));
        let resolver = (IpAddr::from([10, 7, 0, 2]), Service::Dns);
        assert!(facts.services["ens5"].contains(&resolver), "{facts:?}");
        assert!(facts.addresses.is_empty(), "nobody asks for them");
        let own = Facts::gather(&config("[hygiene]\nsources = ['own']\n"), &devices(), &host(), None).unwrap();
        assert_eq!(own.addresses, [IpAddr::from([10, 7, 33, 9])]);
    }

    #[test]
    fn an_interface_without_addresses_is_fine_until_it_has_the_budget() {
        let text = "[attach]\ninterfaces = ['lo', 'ens6']\n";
        let gather = |text: &str, before| Facts::gather(&config(text), &devices(), &host(), before);
        assert!(gather(text, None).is_ok());
        let text = format!("{text}[[budget]]\npreset = 'aws-link-local'\n");
        assert!(gather(&text, None).is_err());
    }

    #[test]
    fn an_interface_that_comes_has_the_fixed_services_until_it_gets_its_address() {
        let text = "[attach]\npreset = 'host'\n[[budget]]\npreset = 'aws-link-local'\n";
        let facts = Facts::gather(&config(text), &devices(), &host(), None).unwrap();
        let counts = facts.services.iter().map(|(name, known)| (name.as_str(), known.len()));
        assert_eq!(counts.collect::<Vec<_>>(), [("ens5", 8), ("ens6", 6)]);
        // Its address is taken away again.
        let nobody = Host::new(Vec::new(), Vec::new());
        let later = Facts::gather(&config(text), &devices(), &nobody, Some(&facts)).unwrap();
        assert_eq!(later, facts);
    }

    #[test]
    fn an_interface_that_is_not_there_has_no_services() {
        let error = check_services("none-such", None).unwrap_err();
        assert!(error.starts_with("there is no interface none-such"), "{error}");
    }
}
