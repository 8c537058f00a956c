//! How a storm stands, in a sentence for the operator.

use guard_common::{budget::Scope, policy::Mode};

use super::Limiter;
use crate::{
    config::mode_word,
    events::OverBudget,
    link_local::AWS_LIMIT,
    offenders::{Rule, Shedder},
};

/// A storm is on.
pub(super) fn over(event: &OverBudget, scope: Scope, shedder: Shedder) -> String {
    let is_observed = event.mode == mode_word(Mode::Observe);
    let OverBudget {
        budget,
        shed_per_second,
        offered_per_second,
        ..
    } = event;
    let place = on(event.device.as_deref());
    let verb = if is_observed {
        "would have been shed"
    } else {
        "were shed"
    };
    let what = match (event.limit, shedder) {
        (_, Shedder::Rule(rule)) => {
            format!(
                "rule {budget} is broken{place}: {shed_per_second} queries/s {} {verb}",
                breach(rule)
            )
        }
        (Some(limit), _) => format!(
            "budget {budget} is over its limit of {limit} packets/s{}{place}: {offered_per_second} packets/s came, and \
             {shed_per_second} packets/s of them {verb}",
            each(scope)
        ),
        (None, _) => format!(
            "budget {budget} is over{place}: {offered_per_second} packets/s came, and {shed_per_second} packets/s of \
             them {verb}"
        ),
    };
    let meaning = if is_observed {
        match shedder {
            Shedder::Link(_) if *offered_per_second > AWS_LIMIT => {
                "; nothing was, because it only watches, and AWS drops what is above 1024 packets/s, IMDS and time \
                 service with it"
            }
            _ => "; nothing was, because it only watches",
        }
    } else {
        match shedder {
            Shedder::Link(_) => "; IMDS, time service and whoever asks little still get through",
            _ => "",
        }
    };
    format!("{what}: {}{meaning}", blame(event))
}

/// A storm is over.
pub(super) fn within(limiter: &Limiter, device: Option<&str>, shed: u64, seconds: u64) -> String {
    let Limiter {
        name, mode, shedder, ..
    } = limiter;
    let place = on(device);
    let what = match shedder {
        Shedder::Rule(_) => format!("rule {name} is kept again{place}"),
        Shedder::Budget(_) | Shedder::Link(_) => format!("budget {name} has room for everything again{place}"),
    };
    match mode {
        Mode::Enforce => format!("{what}: {shed} packets were shed in {seconds} s"),
        Mode::Observe => format!("{what}: {shed} packets would have been shed in {seconds} s"),
    }
}

/// Who makes it.
fn blame(event: &OverBudget) -> String {
    let percent = |share: f64| (share * 100.0).round();
    let mut parts = Vec::new();
    // A name that is asked for over and over says more than the zone it is in.
    let name = event.names.first().filter(|name| name.share >= 0.5);
    if let Some(name) = name {
        parts.push(format!(
            "{} % ask for {} {}",
            percent(name.share),
            name.name,
            name.qtype
        ));
    } else if let Some(zone) = event.zones.first() {
        parts.push(format!("{} % ask for names in {}", percent(zone.share), zone.zone));
    }
    if let Some(client) = event.clients.first() {
        parts.push(format!("{} % come from {}", percent(client.share), client.client));
    }
    if parts.is_empty() {
        "who makes it is not known yet".to_owned()
    } else {
        format!("of these {}", parts.join(", "))
    }
}

fn on(device: Option<&str>) -> String {
    device.map_or_else(String::new, |device| format!(" on {device}"))
}

const fn each(scope: Scope) -> &'static str {
    match scope {
        Scope::All | Scope::Destination => "",
        Scope::Client => " for each client",
        Scope::Key => " for each name and type",
        Scope::Zone => " for each zone",
        Scope::Interface => " for each interface",
    }
}

const fn breach(rule: Rule) -> &'static str {
    match rule {
        Rule::Resolvers => "to servers that are not listed",
        Rule::Sources => "from addresses that are not listed",
        Rule::Recursion => "for recursion from outside of the listed ranges",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{ClientShare, NameShare, ZoneShare};

    fn event(mode: Mode) -> OverBudget {
        OverBudget {
            budget: "aws-link-local".to_owned(),
            device: Some("eth0".to_owned()),
            limit: Some(900.0),
            shed: 1_234,
            shed_per_second: 4_100,
            offered_per_second: 5_000,
            mode: mode_word(mode),
            zones: vec![ZoneShare {
                zone: "104.in-addr.arpa.".to_owned(),
                share: 0.984,
                error: 0.01,
            }],
            clients: vec![ClientShare {
                client: "10.9.0.66".to_owned(),
                share: 0.99,
                error: 0.01,
                pod: None,
            }],
            ..OverBudget::default()
        }
    }

    #[test]
    fn a_storm_is_told_with_its_numbers_its_zone_and_its_client() {
        assert_eq!(
            over(&event(Mode::Enforce), Scope::Destination, Shedder::Link(2)),
            "budget aws-link-local is over its limit of 900 packets/s on eth0: 5000 packets/s came, and 4100 packets/s \
             of them were shed: of these 98 % ask for names in 104.in-addr.arpa., 99 % come from 10.9.0.66; IMDS, time \
             service and whoever asks little still get through"
        );
    }

    #[test]
    fn observing_says_what_would_have_been() {
        let told = over(&event(Mode::Observe), Scope::Destination, Shedder::Link(2));
        assert!(
            told.contains("would have been shed") && !told.contains("were shed"),
            "{told}"
        );
        assert!(
            told.contains("nothing was, because it only watches, and AWS drops"),
            "{told}"
        );
        let told = over(&event(Mode::Observe), Scope::Client, Shedder::Budget(0));
        assert!(
            told.contains("900 packets/s for each client on eth0") && told.ends_with("it only watches"),
            "{told}"
        );
    }

    #[test]
    fn a_hot_name_is_told_in_place_of_its_zone() {
        let mut event = event(Mode::Enforce);
        event.names.push(NameShare {
            name: "hot.example.".to_owned(),
            qtype: "A".to_owned(),
            share: 0.9,
            error: 0.01,
        });
        let told = over(&event, Scope::All, Shedder::Budget(0));
        assert!(
            told.ends_with("of these 90 % ask for hot.example. A, 99 % come from 10.9.0.66"),
            "{told}"
        );
    }

    #[test]
    fn who_is_not_known_is_not_named() {
        let event = OverBudget {
            zones: Vec::new(),
            clients: Vec::new(),
            device: None,
            ..event(Mode::Enforce)
        };
        let told = over(&event, Scope::All, Shedder::Budget(0));
        assert!(told.ends_with("were shed: who makes it is not known yet"), "{told}");
        let told = over(&event, Scope::All, Shedder::Rule(Rule::Resolvers));
        assert!(
            told.starts_with("rule aws-link-local is broken: 4100 queries/s to servers that are not listed were shed"),
            "{told}"
        );
    }

    #[test]
    fn the_end_has_the_sum() {
        let mut limiter = Limiter {
            shedder: Shedder::Budget(0),
            name: "per client".to_owned(),
            device: None,
            limit: Some(200.0),
            scope: Scope::Client,
            mode: Mode::Enforce,
        };
        assert_eq!(
            within(&limiter, Some("eth0"), 1_234, 12),
            "budget per client has room for everything again on eth0: 1234 packets were shed in 12 s"
        );
        limiter.mode = Mode::Observe;
        assert!(within(&limiter, None, 1, 1).ends_with("1 packets would have been shed in 1 s"));
    }
}
