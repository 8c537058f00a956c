//! The services that AWS gives every host at link-local addresses, all under one limit for each network interface.
//!
//! Amazon VPC User Guide, "Amazon DNS" and "DNS quotas"; Amazon EC2 User Guide, "Instance metadata service" and
//! "Amazon Time Sync Service".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use guard_common::budget::Service;

use crate::host::Host;

/// Packets per second and network interface that AWS lets through to all of them together.
pub(crate) const AWS_LIMIT: u64 = 1_024;

/// Prefix lengths of the largest VPC and of the smallest subnet ("VPC CIDR blocks", "Subnet sizing").
const LARGEST_VPC: u8 = 16;
const SMALLEST_SUBNET: u8 = 28;

/// Where a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) address: IpAddr,
    pub(crate) service: Service,
}

/// The addresses that are the same in every VPC.
pub(crate) const FIXED: [Destination; 6] = [
    Destination::v4([169, 254, 169, 253], Service::Dns),
    Destination::v4([169, 254, 169, 254], Service::Imds),
    Destination::v4([169, 254, 169, 123], Service::Ntp),
    Destination::v6(0x0253, Service::Dns),
    Destination::v6(0x0254, Service::Imds),
    Destination::v6(0x0123, Service::Ntp),
];

/// Why the destinations of an interface are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "interface {device} has no address to work the VPC's resolver out from; give it one, set vpc = \"10.0.0.0/16\" \
     (the VPC's primary CIDR), or leave {device} out of the budget's interfaces"
)]
pub(crate) struct NoAddress {
    device: String,
}

/// Every destination behind the limit of `device`.
///
/// The VPC's resolver is at the third address of its primary CIDR, which nobody on the host knows without asking AWS.
/// So it is `vpc`'s, if that is given; else the interface's own subnet's, which AWS reserves whatever the VPC is; that
/// of the largest VPC around it; and those of the sizes in between that the host names as its nameserver.
///
/// # Errors
///
/// An interface that has link-local addresses at most, unless `vpc` is given.
pub(crate) fn destinations(
    device: &str,
    host: &Host,
    vpc: Option<(Ipv4Addr, u8)>,
) -> Result<Vec<Destination>, NoAddress> {
    let mut resolvers = Vec::new();
    match vpc {
        Some((network, prefix_length)) => resolvers.push(third_address(network, prefix_length)),
        None => {
            let mut known = host.addresses_of(device).filter(|a| !is_link_local(a.ip)).peekable();
            if known.peek().is_none() {
                return Err(NoAddress {
                    device: device.to_owned(),
                });
            }
            for address in known {
                if let IpAddr::V4(ip) = address.ip {
                    resolvers.extend(guess(ip, address.prefix_length, host));
                }
            }
        }
    }
    let mut destinations = FIXED.to_vec();
    for resolver in resolvers {
        let destination = Destination::v4(resolver.octets(), Service::Dns);
        if !destinations.contains(&destination) {
            destinations.push(destination);
        }
    }
    Ok(destinations)
}

/// Where the resolver of a VPC with this address can be.
fn guess(ip: Ipv4Addr, prefix_length: u8, host: &Host) -> impl Iterator<Item = Ipv4Addr> {
    let lengths = LARGEST_VPC..=SMALLEST_SUBNET.min(prefix_length.max(LARGEST_VPC));
    lengths
        .map(move |length| (length, third_address(ip, length)))
        .filter(move |(length, resolver)| {
            [LARGEST_VPC, prefix_length].contains(length) || host.asks(IpAddr::V4(*resolver))
        })
        .map(|(_, resolver)| resolver)
}

/// The base of the network of so many bits that has this address, plus 2.
fn third_address(ip: Ipv4Addr, prefix_length: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix_length)).unwrap_or(0);
    Ipv4Addr::from((u32::from(ip) & mask).saturating_add(2))
}

/// Whether an address says nothing about the network: fe80::/10, 169.254.0.0/16.
const fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

impl Destination {
    const fn v4([a, b, c, d]: [u8; 4], service: Service) -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            service,
        }
    }

    /// `fd00:ec2::` with this last group.
    const fn v6(last: u16, service: Service) -> Self {
        Self {
            address: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, last)),
            service,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Address;

    /// A host whose `ens5` has these addresses.
    fn host(addresses: &[(&str, u8)], nameservers: &[&str]) -> Host {
        let addresses = addresses.iter().map(|(ip, prefix_length)| Address {
            device: "ens5".to_owned(),
            ip: ip.parse().unwrap(),
            prefix_length: *prefix_length,
        });
        let nameservers = nameservers.iter().map(|ip| ip.parse().unwrap());
        Host::new(addresses.collect(), nameservers.collect())
    }

    /// The destinations beside those that are the same everywhere.
    fn resolvers(host: &Host, vpc: Option<(Ipv4Addr, u8)>) -> Vec<String> {
        let all = destinations("ens5", host, vpc).unwrap();
        let (fixed, guessed) = all.split_at(FIXED.len());
        assert_eq!(fixed, FIXED);
        assert!(guessed.iter().all(|guess| guess.service == Service::Dns), "{guessed:?}");
        guessed.iter().map(|guess| guess.address.to_string()).collect()
    }

    #[test]
    fn six_destinations_are_the_same_everywhere() {
        let text = FIXED.map(|fixed| format!("{} {:?}", fixed.address, fixed.service));
        let expected = [
            "169.254.169.253 Dns",
            "169.254.169.254 Imds",
            "169.254.169.123 Ntp",
            "fd00:ec2::253 Dns",
            "fd00:ec2::254 Imds",
            "fd00:ec2::123 Ntp",
        ];
        assert_eq!(text, expected);
    }

    #[test]
    fn a_subnet_gives_its_own_resolver_and_the_one_of_the_largest_vpc() {
        assert_eq!(
            resolvers(&host(&[("10.7.33.9", 20)], &[]), None),
            ["10.7.0.2", "10.7.32.2"]
        );
        assert_eq!(resolvers(&host(&[("172.31.5.9", 20)], &[]), None), ["172.31.0.2"]);
        assert_eq!(resolvers(&host(&[("10.7.33.9", 16)], &[]), None), ["10.7.0.2"]);
    }

    #[test]
    fn a_vpc_in_between_is_found_by_the_nameserver_of_the_host() {
        let host = host(&[("10.7.53.9", 24)], &["127.0.0.53", "10.7.48.2", "10.7.49.2"]);
        // 10.7.48.2 begins a /20; no size makes 10.7.49.2 the third address of a network around 10.7.53.9.
        assert_eq!(resolvers(&host, None), ["10.7.0.2", "10.7.48.2", "10.7.53.2"]);
    }

    #[test]
    fn every_address_of_the_interface_counts_once() {
        let host = host(
            &[
                ("10.7.33.9", 24),
                ("10.7.33.10", 24),
                ("100.64.3.1", 19),
                ("2001:db8::1", 64),
            ],
            &[],
        );
        assert_eq!(resolvers(&host, None), ["10.7.0.2", "10.7.33.2", "100.64.0.2"]);
    }

    #[test]
    fn a_length_that_no_subnet_has_leaves_the_largest_vpc() {
        for prefix_length in [0, 8, 29, 31, 32] {
            assert_eq!(
                resolvers(&host(&[("10.7.33.9", prefix_length)], &[]), None),
                ["10.7.0.2"]
            );
        }
        // A host route and the nameserver of a /26.
        let host = host(&[("10.7.33.70", 32)], &["10.7.33.66"]);
        assert_eq!(resolvers(&host, None), ["10.7.0.2", "10.7.33.66"]);
    }

    #[test]
    fn a_vpc_that_is_given_replaces_every_guess() {
        let vpc = Some((Ipv4Addr::new(10, 6, 0, 0), 17));
        assert_eq!(resolvers(&host(&[("10.7.33.9", 20)], &["10.7.0.2"]), vpc), ["10.6.0.2"]);
        assert_eq!(resolvers(&host(&[], &[]), vpc), ["10.6.0.2"]);
    }

    #[test]
    fn a_subnet_without_ipv4_has_the_fixed_destinations_only() {
        assert_eq!(resolvers(&host(&[("2001:db8::1", 64)], &[]), None), [""; 0]);
    }

    #[test]
    fn an_interface_without_addresses_is_named_with_what_to_do() {
        let expected = "interface ens5 has no address to work the VPC's resolver out from; give it one, set vpc = \
                        \"10.0.0.0/16\" (the VPC's primary CIDR), or leave ens5 out of the budget's interfaces";
        for addresses in [&[][..], &[("fe80::1", 64), ("169.254.20.10", 32)]] {
            let error = destinations("ens5", &host(addresses, &[]), None).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        assert!(destinations("ens6", &host(&[("10.7.33.9", 20)], &[]), None).is_err());
    }
}
