//! Programs on the guard's hooks: whose they are, and what they mean for it.

use std::collections::BTreeMap;

use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};
use guard_common::abi::{PROGRAM_EGRESS, PROGRAM_INGRESS, PROGRAM_XDP};

use super::{
    finding::{Finding, Level},
    privileges::{Capability, Privileges, unseen},
};
use crate::{
    attachment::Hook,
    config::{Attach, Xdp},
    netlink::{Link, Netlink},
};

/// How the programs of others are called, and whose they are. The kernel keeps 15 bytes of a name.
const OWNERS: [(&str, &str); 11] = [
    ("cil_", "Cilium"),
    ("cali_", "Calico"),
    ("calico_", "Calico"),
    ("xdp_dispatcher", "libxdp (xdp-tools)"),
    ("xdp_pass", "a test, or a program that brings NAPI to a veth"),
    ("handle_ingress", "the AWS network policy agent"),
    ("handle_egress", "the AWS network policy agent"),
    ("tcx_ingress_flo", "netobserv"),
    ("tcx_egress_flow", "netobserv"),
    ("ingress_flow_pa", "netobserv"),
    ("egress_flow_par", "netobserv"),
];
/// What programs of dnsguard are called.
const OURS: [&str; 3] = [PROGRAM_XDP, PROGRAM_INGRESS, PROGRAM_EGRESS];

/// A program on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hung {
    device: String,
    /// The hook and the method, as in `tcx ingress`.
    place: String,
    id: u32,
    /// `None` where one may not ask.
    name: Option<String>,
    kind: Kind,
}

/// How it hangs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Xdp,
    Tcx,
    Clsact { priority: u16 },
}

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
    let by_id = names_by_id();
    for link in links.iter().filter(|link| names.contains(&link.name)) {
        let named = |place: String, id, kind| Hung {
            device: link.name.clone(),
            place,
            id,
            name: by_id.get(&id).cloned(),
            kind,
        };
        hung.extend(
            link.xdp
                .iter()
                .map(|(mode, id)| named(format!("XDP ({mode})"), *id, Kind::Xdp)),
        );
        for (side, hook, direction) in [
            ("ingress", Hook::TcIngress, TcAttachType::Ingress),
            ("egress", Hook::TcEgress, TcAttachType::Egress),
        ] {
            // A kernel without tcx, or somebody who may not ask: then there is nothing to name.
            if let Ok((_, programs)) = SchedClassifier::query_tcx(&link.name, direction) {
                for program in programs {
                    let mut one = named(format!("tcx {side}"), program.id(), Kind::Tcx);
                    one.name = Some(String::from_utf8_lossy(program.name()).into_owned());
                    hung.push(one);
                }
            }
            match netlink.filters(link.ifindex, hook) {
                Ok(filters) => {
                    for filter in filters {
                        let priority = filter.priority;
                        let mut one = named(format!("clsact {side}"), filter.program, Kind::Clsact { priority });
                        one.name.get_or_insert(filter.name);
                        hung.push(one);
                    }
                }
                Err(error) => findings.push(Finding::info(
                    "programs.unseen",
                    format!("{}: its filters cannot be listed: {error}", link.name),
                )),
            }
        }
    }
    let all_ours = hung.iter().filter(|one| one.is_ours()).count();
    let foreign: Vec<_> = hung.iter().filter(|one| !one.is_ours()).collect();
    findings.extend(foreign.iter().map(|one| one.finding(attach)));
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

/// The names of all programs; none where one may not ask.
fn names_by_id() -> BTreeMap<u32, String> {
    let loaded = loaded_programs().map_while(Result::ok);
    loaded
        .map(|program| (program.id(), String::from_utf8_lossy(program.name()).into_owned()))
        .collect()
}

impl Hung {
    fn is_ours(&self) -> bool {
        self.name.as_deref().is_some_and(|name| OURS.contains(&name))
    }

    fn finding(&self, attach: &Attach) -> Finding {
        let Self {
            device,
            place,
            id,
            name,
            kind,
        } = self;
        let name = name
            .as_deref()
            .filter(|name| !name.is_empty())
            .unwrap_or("without a name");
        let owner = OWNERS.iter().find(|(prefix, _)| name.starts_with(prefix));
        let owner = owner.map_or_else(
            || "somebody else's".to_owned(),
            |(_, owner)| format!("most likely {owner}'s"),
        );
        let what = format!("{device}: {place} has the program {name} (id {id}), {owner}");
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
                .why("dnsguard puts itself first in the chain, and hands on what it lets pass")
                .remedy(shown),
            Kind::Clsact { priority } => Finding::info("programs.clsact", format!("{what}, priority {priority}"))
                .why("dnsguard at tcx runs before it; at clsact (before Linux 6.6) its priority is 53, and what a lower one \
                      ends with TC_ACT_OK it does not see")
                .remedy(shown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn hung(name: Option<&str>, kind: Kind) -> Hung {
        Hung {
            device: "eth0".to_owned(),
            place: "XDP (driver)".to_owned(),
            id: 7,
            name: name.map(str::to_owned),
            kind,
        }
    }

    #[test]
    fn an_owner_is_known_by_the_name_of_its_program() {
        let attach = Config::default().attach;
        let told = |name| hung(name, Kind::Xdp).finding(&attach).what;
        assert_eq!(
            told(Some("cil_xdp_entry")),
            "eth0: XDP (driver) has the program cil_xdp_entry (id 7), most likely Cilium's"
        );
        assert!(told(Some("xdp_dispatcher")).ends_with("most likely libxdp (xdp-tools)'s"));
        assert!(told(Some("mine")).ends_with("mine (id 7), somebody else's"));
        assert!(told(None).contains("without a name"));
        assert!(hung(Some(PROGRAM_XDP), Kind::Xdp).is_ours() && !hung(None, Kind::Xdp).is_ours());
    }

    #[test]
    fn a_taken_slot_stops_only_who_insists_on_it() {
        let level = |xdp| {
            let attach = Attach {
                xdp,
                ..Config::default().attach
            };
            hung(Some("mine"), Kind::Xdp).finding(&attach).level
        };
        assert_eq!((level(Xdp::Auto), level(Xdp::Driver)), (Level::Info, Level::Fail));
        let tcx = hung(Some("mine"), Kind::Tcx).finding(&Config::default().attach);
        assert_eq!((tcx.level, tcx.check), (Level::Info, "programs.tcx"));
    }
}
