//! The pods in an event: whose its addresses are, and where its interface leads.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use super::{Breaker, ClientShare, Event, OverBudget, SearchWalk};
use crate::pods::{Names, Pod};

/// Pods that the sentence of an event names; its fields have all.
const MOST_NAMED: usize = 3;

/// The event with the pods in it named, as far as they are known.
pub(super) fn named<'e>(event: &'e Event, names: &Names) -> Cow<'e, Event> {
    let addresses = addresses(event);
    let device = device(event);
    if addresses.is_empty() && device.is_none() {
        return Cow::Borrowed(event);
    }
    let directory = names.among(addresses.iter().copied());
    let pods = directory.among(addresses);
    let device_pod = device.and_then(|device| directory.behind(device)).cloned();
    if pods.is_empty() && device_pod.is_none() {
        return Cow::Borrowed(event);
    }
    let mut event = event.clone();
    event.name(&pods, device_pod);
    Cow::Owned(event)
}

/// The addresses of those who are told of, the first ones first.
fn addresses(event: &Event) -> Vec<IpAddr> {
    match event {
        Event::Trip(breaker) | Event::Extend(breaker) | Event::Release(breaker) | Event::Expire(breaker) => {
            let packet = breaker.packet.iter().flat_map(|packet| [packet.from, packet.to]);
            let sockets = breaker.servers.iter().copied().chain(packet);
            sockets.map(|socket| socket.ip()).collect()
        }
        Event::OverBudget(over) => over.clients.iter().filter_map(address).collect(),
        Event::SearchWalk(walk) => vec![walk.client],
        _ => Vec::new(),
    }
}

fn address(share: &ClientShare) -> Option<IpAddr> {
    share.client.parse().ok()
}

/// The interface on which it was seen.
fn device(event: &Event) -> Option<&str> {
    match event {
        Event::Trip(breaker) | Event::Extend(breaker) | Event::Release(breaker) | Event::Expire(breaker) => {
            Some(&breaker.device)
        }
        Event::OverBudget(over) => over.device.as_deref(),
        _ => None,
    }
}

impl Event {
    fn name(&mut self, pods: &BTreeMap<IpAddr, Pod>, device_pod: Option<Pod>) {
        let mut sentence = Vec::new();
        // In the order in which the event has them.
        for address in addresses(self) {
            if let Some(pod) = pods.get(&address) {
                let part = format!("{address} is pod {pod}");
                if sentence.len() < MOST_NAMED && !sentence.contains(&part) {
                    sentence.push(part);
                }
            }
        }
        if let (Some(device), Some(pod)) = (device(self), &device_pod)
            && !pods.values().any(|named| named == pod)
        {
            sentence.push(format!("{device} leads to pod {pod}"));
        }
        let reason = match self {
            Self::Trip(breaker) | Self::Extend(breaker) | Self::Release(breaker) | Self::Expire(breaker) => {
                let Breaker {
                    pods: named, reason, ..
                } = breaker;
                named.clone_from(pods);
                breaker.device_pod = device_pod;
                reason
            }
            Self::OverBudget(OverBudget {
                clients,
                device_pod: behind,
                reason,
                ..
            }) => {
                for share in clients {
                    share.pod = address(share).and_then(|address| pods.get(&address).cloned());
                }
                *behind = device_pod;
                reason
            }
            Self::SearchWalk(SearchWalk {
                client, pod, reason, ..
            }) => {
                *pod = pods.get(client).cloned();
                reason
            }
            _ => return,
        };
        for part in sentence {
            *reason += "; ";
            *reason += &part;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        events::tests::{trip, value},
        pods::{Directory, Known, fixed},
    };

    fn names() -> Names {
        let pod = |name: &str, address: &str, device: &str| Known {
            pod: Pod::new(b"shop", name.as_bytes()).unwrap(),
            addresses: vec![address.parse().unwrap()],
            devices: vec![device.to_owned()],
        };
        fixed(Directory::new([
            pod("cart-1", "10.0.0.7", "veth7"),
            pod("dns-1", "10.0.0.8", "veth8"),
        ]))
    }

    fn storm(device: &str) -> Event {
        let client = |client: &str| ClientShare {
            client: client.to_owned(),
            ..ClientShare::default()
        };
        Event::OverBudget(OverBudget {
            device: Some(device.to_owned()),
            clients: vec![client("10.0.0.7"), client("192.0.2.1")],
            reason: "it is over".to_owned(),
            ..OverBudget::default()
        })
    }

    #[test]
    fn the_client_of_a_storm_is_a_pod_and_stays_an_address() {
        let event = value(&named(&storm("veth7"), &names()));
        assert_eq!(event["clients"][0]["client"], "10.0.0.7");
        assert_eq!(event["clients"][0]["pod"], "shop/cart-1");
        assert!(event["clients"][1].get("pod").is_none(), "{event}");
        assert_eq!(event["device_pod"], "shop/cart-1");
        assert_eq!(event["reason"], "it is over; 10.0.0.7 is pod shop/cart-1");
    }

    #[test]
    fn an_interface_leads_to_a_pod_whatever_addresses_it_forges() {
        let event = value(&named(&storm("veth8"), &names()));
        assert_eq!(
            event["reason"],
            "it is over; 10.0.0.7 is pod shop/cart-1; veth8 leads to pod shop/dns-1"
        );
        assert_eq!(event["device_pod"], "shop/dns-1");
    }

    #[test]
    fn the_servers_of_a_loop_are_pods() {
        let Event::Trip(mut breaker) = trip() else {
            panic!("a trip")
        };
        breaker.servers = vec![
            ([10, 0, 0, 8], 53).into(),
            ([10, 0, 0, 7], 53).into(),
            ([10, 0, 0, 8], 5353).into(),
        ];
        let event = value(&named(&Event::Trip(breaker), &names()));
        assert_eq!(
            event["pods"],
            json!({"10.0.0.7": "shop/cart-1", "10.0.0.8": "shop/dns-1"})
        );
        assert_eq!(
            event["reason"],
            "it went round; 10.0.0.8 is pod shop/dns-1; 10.0.0.7 is pod shop/cart-1"
        );
    }

    #[test]
    fn who_is_no_pod_changes_nothing() {
        assert_eq!(*named(&trip(), &names()), trip());
        assert_eq!(*named(&storm("veth7"), &Names::default()), storm("veth7"));
        assert_eq!(*named(&Event::lost(1), &names()), Event::lost(1));
    }
}
