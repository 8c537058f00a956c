//! Which events and queries somebody wants to see.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use wildmatch::WildMatch;

use crate::config::Cidr;

/// What a line must have: of each kind that is not empty, one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Names, with `*` for any letters.
    names: Vec<WildMatch>,
    types: Vec<String>,
    clients: Vec<Cidr>,
    devices: Vec<String>,
    /// `namespace/name`, with `*` for any letters.
    pods: Vec<WildMatch>,
    verdicts: Vec<String>,
    events: Vec<String>,
}

impl Filter {
    /// Adds what the parameter `key` of a request asks for. False if it is no filter.
    ///
    /// # Errors
    ///
    /// What is allowed.
    pub(crate) fn add(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "name" => {
                let name = value.to_ascii_lowercase();
                let ends = name.ends_with(['.', '*']);
                self.names.push(WildMatch::new(&if ends { name } else { name + "." }));
            }
            "type" => self.types.push(value.to_ascii_uppercase()),
            "client" => {
                let client = Cidr::or_address(value);
                let client =
                    client.map_err(|allowed| format!("client is '{}'; allowed: {allowed}", value.escape_debug()))?;
                self.clients.push(client);
            }
            "device" => self.devices.push(value.to_owned()),
            "pod" => self.pods.push(WildMatch::new(value)),
            "verdict" => self.verdicts.push(value.to_owned()),
            "event" => self.events.push(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether everything is wanted.
    fn is_empty(&self) -> bool {
        let Self {
            names,
            types,
            clients,
            devices,
            pods,
            verdicts,
            events,
        } = self;
        names.is_empty()
            && types.is_empty()
            && clients.is_empty()
            && devices.is_empty()
            && pods.is_empty()
            && verdicts.is_empty()
            && events.is_empty()
    }

    /// Whether a line is wanted.
    pub(crate) fn takes(&self, line: &str) -> bool {
        if self.is_empty() {
            return true;
        }
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            return false;
        };
        let text = |key: &str| value[key].as_str().unwrap_or_default();
        let all = |list: &str, key: &str| -> Vec<String> {
            let list = value[list].as_array().into_iter().flatten();
            let texts = list.filter_map(|row| row[key].as_str().map(str::to_owned));
            texts.chain([text(key).to_owned()]).collect()
        };
        let one_of = |wanted: &[String], found: &str| wanted.is_empty() || wanted.iter().any(|word| word == found);
        let has_name = || {
            let names = all("names", "name");
            self.names
                .iter()
                .any(|wanted| names.iter().any(|name| wanted.matches(name)))
        };
        let has_type = || {
            let types = all("names", "type");
            self.types.iter().any(|wanted| types.contains(wanted))
        };
        let has_client = || {
            let mut clients: Vec<IpAddr> = all("clients", "client")
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect();
            clients.extend(text("from").parse::<SocketAddr>().map(|socket| socket.ip()));
            self.clients
                .iter()
                .any(|wanted| clients.iter().any(|client| wanted.contains(&Cidr::host(*client))))
        };
        let has_pod = || {
            let mut pods = all("clients", "pod");
            pods.extend(["server_pod", "device_pod"].map(|key| text(key).to_owned()));
            let named = value["pods"].as_object().into_iter().flatten();
            pods.extend(named.filter_map(|(_, pod)| pod.as_str().map(str::to_owned)));
            self.pods
                .iter()
                .any(|wanted| pods.iter().any(|pod| wanted.matches(pod)))
        };
        one_of(&self.events, text("event"))
            && one_of(&self.devices, text("device"))
            && one_of(&self.verdicts, text("verdict"))
            && (self.names.is_empty() || has_name())
            && (self.types.is_empty() || has_type())
            && (self.clients.is_empty() || has_client())
            && (self.pods.is_empty() || has_pod())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: &str =
        r#"{"event":"trip","name":"x.consul.","type":"DS","device":"lo","verdict":"answer","from":"127.0.0.1:4001"}"#;
    const STORM: &str = r#"{"event":"over_budget","device":"eth0","clients":[{"client":"10.9.0.66"}],
        "names":[{"name":"1.2.0.192.in-addr.arpa.","type":"PTR"}]}"#;

    fn takes(wanted: &[(&str, &str)], line: &str) -> bool {
        let mut filter = Filter::default();
        for (key, value) in wanted {
            assert!(filter.add(key, value).unwrap(), "{key}");
        }
        filter.takes(line)
    }

    #[test]
    fn each_kind_narrows_and_each_value_widens() {
        assert!(takes(&[], TRIP) && takes(&[], STORM));
        assert!(takes(&[("name", "X.consul")], TRIP) && takes(&[("name", "*.consul")], TRIP));
        assert!(!takes(&[("name", "consul")], TRIP));
        assert!(takes(&[("type", "a"), ("type", "ds")], TRIP));
        assert!(!takes(&[("type", "ds"), ("device", "eth0")], TRIP));
        assert!(takes(
            &[("client", "127.0.0.0/8"), ("verdict", "answer"), ("event", "trip")],
            TRIP
        ));
        assert!(!takes(&[("verdict", "drop")], TRIP));
    }

    #[test]
    fn names_and_clients_of_a_storm_are_found() {
        assert!(takes(&[("name", "*.in-addr.arpa"), ("type", "PTR")], STORM));
        assert!(takes(&[("client", "10.9.0.66")], STORM));
        assert!(!takes(&[("client", "10.9.0.67")], STORM));
    }

    #[test]
    fn a_pod_is_found_wherever_it_is_named() {
        for line in [
            r#"{"event":"query","client":"10.0.0.7","pod":"shop/cart-1"}"#,
            r#"{"event":"query","server_pod":"shop/cart-1"}"#,
            r#"{"event":"over_budget","device_pod":"shop/cart-1"}"#,
            r#"{"event":"over_budget","clients":[{"client":"10.0.0.6"},{"client":"10.0.0.7","pod":"shop/cart-1"}]}"#,
            r#"{"event":"trip","pods":{"10.0.0.7":"shop/cart-1"}}"#,
        ] {
            assert!(
                takes(&[("pod", "shop/cart-1")], line) && takes(&[("pod", "shop/*")], line),
                "{line}"
            );
            assert!(!takes(&[("pod", "cart/*")], line), "{line}");
        }
        assert!(!takes(&[("pod", "shop/*")], STORM));
    }

    #[test]
    fn what_is_no_filter_is_said_to_be_none() {
        let mut filter = Filter::default();
        assert!(!filter.add("nmae", "x").unwrap());
        assert!(filter.add("client", "300.0.0.1").is_err());
    }
}
