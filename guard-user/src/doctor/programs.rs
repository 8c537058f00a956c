//! Programs on the guard's hooks: whose they are, and what they mean for it.

use super::{
    finding::{Finding, Level},
    privileges::{Capability, Privileges, unseen},
};
use crate::{
    attachment::Hook,
    config::{Attach, TcxOrder, Xdp},
    neighbours::{Hung, Kind, Names, Surroundings},
    netlink::{Link, Netlink},
};

/// Everything on the hooks of these interfaces.
pub(super) fn check(
    names: &[String],
    links: &[Link],
    attach: &Attach,
    netlink: &Netlink,
    privileges: Privileges,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut hung = Vec::new();
    let names_by_id = Names::default();
    for link in links.iter().filter(|link| names.contains(&link.name)) {
        let surroundings = Surroundings {
            link,
            netlink,
            names: &names_by_id,
        };
        let mut found = surroundings.xdp();
        for hook in [Hook::TcIngress, Hook::TcEgress] {
            let (at_tc, filters) = surroundings.tc(hook);
            found.extend(at_tc);
            if let Err(error) = filters {
                findings.push(Finding::info(
                    "programs.unseen",
                    format!("{}: its filters cannot be listed: {error}", link.name),
                ));
            }
        }
        hung.extend(found.into_iter().map(|one| (link.name.as_str(), one)));
    }
    let all_ours = hung.iter().filter(|(_, one)| one.is_named_like_ours()).count();
    let foreign: Vec<_> = hung.iter().filter(|(_, one)| !one.is_named_like_ours()).collect();
    findings.extend(foreign.iter().map(|(device, one)| finding(device, one, attach)));
    let sees_all = privileges.has(Capability::SysAdmin);
    if foreign.is_empty() && sees_all {
        let ours = match all_ours {
            0 => String::new(),
            1 => ", and one of dnsguard's".to_owned(),
            many => format!(", and {many} of dnsguard's"),
        };
        findings.push(Finding::ok(
            "programs.none",
            format!("no programs of others on {}{ours}", names.join(", ")),
        ));
    }
    if !sees_all {
        findings.push(unseen(
            "programs.unseen",
            "the names of XDP programs, and programs at tcx, could not be seen",
            "CAP_SYS_ADMIN and CAP_NET_ADMIN",
        ));
    }
    findings
}

/// What a program of somebody else's means for us.
fn finding(device: &str, one: &Hung, attach: &Attach) -> Finding {
    let Hung { place, id, kind, .. } = one;
    let what = format!("{device}: {place} has the program {}", one.words());
    let shown = format!("bpftool prog show id {id}");
    match kind {
            Kind::Xdp => {
                let (level, then) = match attach.xdp {
                    Xdp::Driver | Xdp::Generic => (Level::Fail, "and the configuration wants no other hook"),
                    Xdp::Auto | Xdp::Off => (Level::Info, "dnsguard leaves it there and uses TC"),
                };
                let remedy = if level == Level::Fail {
                    "set xdp = \"auto\" in [attach]".to_owned()
                } else {
                    shown
                };
                Finding::new("programs.xdp", level, what)
                    .why(format!(
                        "an interface has one place for XDP: {then}; packets that this program redirects or drops are never \
                         seen there"
                    ))
                    .remedy(remedy)
            }
            Kind::Tcx => Finding::info("programs.tcx", what)
                .why(match attach.tcx_order {
                    TcxOrder::First => "dnsguard puts itself first in the chain, and hands on what it lets pass",
                    TcxOrder::Last => {
                        "dnsguard puts itself last in the chain (tcx_order), and never sees what this one redirects or drops"
                    }
                })
                .remedy(shown),
            Kind::Clsact { priority } => Finding::info("programs.clsact", format!("{what}, priority {priority}"))
                .why("dnsguard at tcx runs before it; at clsact (before Linux 6.6) its priority is 53, and what a lower one \
                      ends with TC_ACT_OK it does not see")
                .remedy(shown),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn hung(kind: Kind) -> Hung {
        Hung {
            place: "XDP (driver)".to_owned(),
            id: 7,
            name: Some("mine".to_owned()),
            kind,
        }
    }

    #[test]
    fn a_taken_slot_stops_only_who_insists_on_it() {
        let level = |xdp| {
            let attach = Attach {
                xdp,
                ..Config::default().attach
            };
            finding("eth0", &hung(Kind::Xdp), &attach).level
        };
        assert_eq!((level(Xdp::Auto), level(Xdp::Driver)), (Level::Info, Level::Fail));
        let tcx = finding("eth0", &hung(Kind::Tcx), &Config::default().attach);
        assert_eq!((tcx.level, tcx.check), (Level::Info, "programs.tcx"));
    }
}
