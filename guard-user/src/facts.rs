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
    link_local::{self, NoAddress},
};

/// Facts of the host, as plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The index of each guarded interface, by its name.
    pub(crate) devices: BTreeMap<String, u32>,
    /// The addresses that the host has but those of fe80::/10, in order, if the configuration asks for them.
    pub(crate) addresses: Vec<IpAddr>,
    /// Where the link-local services of an interface are, by its name, if it has a budget for them.
    pub(crate) services: BTreeMap<String, Vec<(IpAddr, Service)>>,
}

impl Facts {
    /// What this configuration needs to know.
    ///
    /// # Errors
    ///
    /// An interface that has a link-local budget, but no address to find the services by.
    pub(crate) fn gather(config: &Config, devices: &[Device], host: &Host) -> Result<Self, NoAddress> {
        let mut services = BTreeMap::new();
        if let Some(link_local) = &config.link_local {
            for name in link_local.interfaces(&config.attach) {
                let known = link_local::destinations(name, host, link_local.vpc)?;
                let known = known.iter().map(|known| (known.address, known.service));
                services.insert(name.to_owned(), known.collect());
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
    Device::find_all(&[interface.to_owned()]).map_err(|errors| errors.to_string())?;
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

    #[test]
    fn services_are_looked_up_for_the_interfaces_that_have_the_budget() {
        let text = "[attach]\ninterfaces = ['lo', 'ens5']\n[[budget]]\npreset = 'aws-link-local'\n";
        let facts = Facts::gather(&config(text), &[], &host()).unwrap();
        assert_eq!(facts.services.keys().collect::<Vec<_>>(), ["ens5"]);
        let resolver = (IpAddr::from([10, 7, 0, 2]), Service::Dns);
        assert!(facts.services["ens5"].contains(&resolver), "{facts:?}");
        assert!(facts.addresses.is_empty(), "nobody asks for them");
        let own = Facts::gather(&config("[hygiene]\nsources = ['own']\n"), &[], &host()).unwrap();
        assert_eq!(own.addresses, [IpAddr::from([10, 7, 33, 9])]);
    }

    #[test]
    fn an_interface_without_addresses_is_fine_until_it_has_the_budget() {
        let text = "[attach]\ninterfaces = ['lo', 'ens6']\n";
        assert!(Facts::gather(&config(text), &[], &host()).is_ok());
        let text = format!("{text}[[budget]]\npreset = 'aws-link-local'\n");
        assert!(Facts::gather(&config(&text), &[], &host()).is_err());
    }

    #[test]
    fn an_interface_that_is_not_there_has_no_services() {
        let error = check_services("none-such", None).unwrap_err();
        assert!(error.starts_with("there is no interface none-such"), "{error}");
    }
}
