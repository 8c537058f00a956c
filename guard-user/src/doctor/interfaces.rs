//! The interfaces that are or could be guarded: their drivers, how they would be attached to, and what lacks for XDP in
//! the driver.

use std::{collections::BTreeSet, thread};

use super::{
    finding::{Finding, Level},
    native::{self, Native, native},
    roots::Roots,
};
use crate::{
    attachment::Hook,
    config::{Attach, Config, Xdp},
    datapath::incoming,
    device::Device,
    ethtool::Statistics,
    host::Host,
    netlink::Link,
};

/// Names of the interfaces to look at: those of the configuration, else `lo`, those with hardware behind them, and those
/// that are up and have an address that others can route to.
pub(super) fn choose(config: Option<&Config>, links: &[Link], outward: &BTreeSet<u32>, host: &Host) -> Vec<String> {
    if let Some(config) = config {
        let selection = &config.attach.selection;
        let chosen = selection.choose(links, outward).into_iter().map(|one| one.device.name);
        let mut names: Vec<_> = chosen.collect();
        // What is named and not there is to be told.
        names.extend(
            selection
                .named()
                .filter(|name| !names.iter().any(|known| known == name))
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        );
        return names;
    }
    let is_routed = |link: &Link| {
        let mut addresses = host.addresses_of(&link.name);
        link.is_up
            && addresses.any(|address| !matches!(address.ip, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local()))
    };
    let chosen = links
        .iter()
        .filter(|link| link.name == "lo" || Device::is_physical(link) || is_routed(link));
    chosen.map(|link| link.name.clone()).collect()
}

/// What there is to say of each.
pub(super) fn check(
    roots: &Roots,
    names: &[String],
    is_configured: bool,
    links: &[Link],
    attach: &Attach,
    statistics: &mut Statistics,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in names {
        let link = links.iter().find(|link| link.name == *name);
        match Device::named(name, links) {
            Ok(device) => findings.extend(interface(roots, &device, link, attach, statistics)),
            Err(error) if is_configured => findings.push(Finding::fail("interfaces.link", error.to_string())),
            Err(error) => findings.push(Finding::info("interfaces.link", error.to_string())),
        }
    }
    findings
}

fn interface(
    roots: &Roots,
    device: &Device,
    link: Option<&Link>,
    attach: &Attach,
    statistics: &mut Statistics,
) -> Vec<Finding> {
    let facts = facts(roots, &device.name, link, statistics);
    let mut findings = Vec::new();
    let name = &device.name;
    let driver = match facts.driver.as_str() {
        "" => "no driver".to_owned(),
        driver => format!("driver {driver}"),
    };
    if link.is_some_and(|link| !link.is_up) {
        findings.push(
            Finding::info(
                "interfaces.link",
                format!("{name}: it is down ({driver}, MTU {})", facts.mtu),
            )
            .remedy(format!("ip link set dev {name} up")),
        );
    }
    let hook = incoming(device, attach.xdp);
    if !matches!(hook, Hook::Xdp) {
        let why = if device.loopback {
            "every packet comes in again, and is looked at once"
        } else if attach.xdp == Xdp::Off {
            "xdp is off"
        } else {
            "there is no hardware behind it, and XDP could lose answers"
        };
        let ways = if device.loopback { "incoming" } else { "both ways" };
        findings.push(Finding::ok(
            "interfaces.hook",
            format!("{name}: TC, {ways} ({driver}, MTU {}): {why}", facts.mtu),
        ));
        return findings;
    }
    findings.push(xdp(name, &facts, attach.xdp));
    findings
}

/// How XDP would be attached.
fn xdp(name: &str, facts: &native::Interface, wanted: Xdp) -> Finding {
    const CHECK: &str = "interfaces.xdp";
    let driver = &facts.driver;
    if wanted == Xdp::Generic {
        return Finding::ok(
            CHECK,
            format!("{name}: generic XDP, as the configuration wants ({driver})"),
        );
    }
    // Without the driver there is another way, unless the configuration rules it out.
    let (level, otherwise) = if wanted == Xdp::Driver {
        (
            Level::Fail,
            "the configuration wants XDP in the driver and nothing else: this interface is not guarded",
        )
    } else {
        (
            Level::Info,
            "it is guarded all the same, by generic XDP or TC, at more cost for each packet",
        )
    };
    match native(facts) {
        Native::Ready { notes } => {
            let finding = Finding::ok(
                CHECK,
                format!("{name}: XDP in the driver ({driver}, MTU {})", facts.mtu),
            );
            if notes.is_empty() {
                finding
            } else {
                finding.why(notes.join("; "))
            }
        }
        Native::Lacks(lacks) => {
            let why: Vec<_> = lacks.iter().map(|lack| lack.why.as_str()).collect();
            let remedies: Vec<_> = lacks.iter().map(|lack| lack.remedy.as_str()).collect();
            Finding::new(
                CHECK,
                level,
                format!("{name}: no XDP in the driver ({driver}): {}", why.join("; ")),
            )
            .why(otherwise)
            .remedy(remedies.join(" && "))
        }
        Native::Never(why) => Finding::new(CHECK, level, format!("{name}: no XDP in the driver: {why}")).why(otherwise),
        Native::Unknown => Finding::info(
            CHECK,
            format!("{name}: what XDP takes in the driver {driver} is not known here; run tries it and says why not"),
        ),
    }
}

fn facts(roots: &Roots, name: &str, link: Option<&Link>, statistics: &mut Statistics) -> native::Interface {
    // What a driver does not tell is left out: then nothing can be said of it.
    let driver = statistics.driver_of(name).ok().flatten().unwrap_or_default();
    let features = roots.read(format!("/sys/class/net/{name}/device/features"));
    native::Interface {
        name: name.to_owned(),
        driver: driver.name,
        version: driver.version,
        mtu: link.map_or(0, |link| link.mtu),
        channels: statistics.channels(name).ok().flatten(),
        offloads: statistics.offloads(name).unwrap_or_default(),
        virtio_features: features.unwrap_or_default().trim().to_owned(),
        processors: thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jumbo() -> native::Interface {
        native::Interface {
            name: "eth0".to_owned(),
            driver: "ena".to_owned(),
            mtu: 9_001,
            ..native::Interface::default()
        }
    }

    #[test]
    fn what_lacks_is_information_until_the_configuration_insists() {
        let found = xdp("eth0", &jumbo(), Xdp::Auto);
        assert_eq!(found.level, Level::Info);
        assert_eq!(
            found.what,
            "eth0: no XDP in the driver (ena): its MTU is 9001; ena takes at most 3498 with XDP"
        );
        assert_eq!(found.remedy.as_deref(), Some("ip link set dev eth0 mtu 3498"));
        assert_eq!(xdp("eth0", &jumbo(), Xdp::Driver).level, Level::Fail);
        assert_eq!(xdp("eth0", &jumbo(), Xdp::Generic).level, Level::Ok);
    }

    #[test]
    fn a_driver_that_is_not_known_is_no_fault() {
        let other = native::Interface {
            driver: "ixgbe".to_owned(),
            ..jumbo()
        };
        assert_eq!(xdp("eth0", &other, Xdp::Driver).level, Level::Info);
        let small = native::Interface { mtu: 1_500, ..jumbo() };
        let found = xdp("eth0", &small, Xdp::Auto);
        assert_eq!(found.level, Level::Ok);
        assert!(found.why.unwrap().contains("takes the link down"));
    }
}
