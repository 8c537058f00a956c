//! Programs on the hooks that the guard wants: found, named, and whose they most likely are.

use std::{cell::OnceCell, collections::BTreeMap, io};

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use guard_common::abi::{PROGRAM_EGRESS, PROGRAM_INGRESS, PROGRAM_XDP};

use crate::{
    attachment::{Attachment, Hook, Method},
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

/// Whether a program of dnsguard, in any version, is called so.
pub(crate) fn is_name_of_ours(name: &str) -> bool {
    OURS.contains(&name)
}

/// A program on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hung {
    /// The hook and the method, as in `tcx ingress`.
    pub(crate) place: String,
    /// The kernel's number.
    pub(crate) id: u32,
    /// `None` where one may not ask.
    pub(crate) name: Option<String>,
    pub(crate) kind: Kind,
}

/// How it hangs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Xdp,
    Tcx,
    Clsact { priority: u16 },
}

impl Hung {
    /// Whether it is called as ours are. It may be another dnsguard's.
    pub(crate) fn is_named_like_ours(&self) -> bool {
        self.name.as_deref().is_some_and(is_name_of_ours)
    }

    /// Its name and number, and whose it is: `cil_from_netdev (id 7), most likely Cilium's`.
    pub(crate) fn words(&self) -> String {
        let name = self.name.as_deref().filter(|name| !name.is_empty());
        let name = name.unwrap_or("without a name");
        let owner = OWNERS.iter().find(|(prefix, _)| name.starts_with(prefix));
        let owner = match owner {
            Some((_, owner)) => format!("most likely {owner}'s"),
            None if self.is_named_like_ours() => "another dnsguard's".to_owned(),
            None => "somebody else's".to_owned(),
        };
        format!("{name} (id {}), {owner}", self.id)
    }
}

/// The names of all programs. They are asked for when the first one is wanted.
///
/// Only CAP_SYS_ADMIN may ask, which an agent of root gives up after its start: from then on it goes by the names of
/// programs that were there. The kernel gives no number to another program for as long as it has new ones.
#[derive(Debug, Default)]
pub(crate) struct Names {
    now: OnceCell<BTreeMap<u32, String>>,
    before: BTreeMap<u32, String>,
}

impl Names {
    /// To be asked for anew; where one may not ask any more, those of before.
    pub(crate) fn again(self) -> Self {
        Self {
            before: self.now.into_inner().unwrap_or(self.before),
            now: OnceCell::new(),
        }
    }

    /// Asks for them, whether or not one is wanted.
    pub(crate) fn ask(&self) -> &BTreeMap<u32, String> {
        self.now.get_or_init(|| {
            let loaded = loaded_programs().map_while(Result::ok);
            let name = |program: ProgramInfo| String::from_utf8_lossy(program.name()).into_owned();
            let loaded: BTreeMap<_, _> = loaded.map(|program| (program.id(), name(program))).collect();
            if loaded.is_empty() { self.before.clone() } else { loaded }
        })
    }

    /// The name of one; `None` where one may not ask.
    fn of(&self, id: u32) -> Option<String> {
        self.ask().get(&id).cloned()
    }
}

/// What it takes to see who hangs at an interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) link: &'a Link,
    pub(crate) netlink: &'a Netlink,
    pub(crate) names: &'a Names,
}

impl Surroundings<'_> {
    /// Who has the place for XDP.
    pub(crate) fn xdp(self) -> Vec<Hung> {
        let each = self.link.xdp.iter().map(|(mode, id)| Hung {
            place: format!("XDP ({mode})"),
            id: *id,
            name: self.names.of(*id),
            kind: Kind::Xdp,
        });
        each.collect()
    }

    /// Who hangs at TC on the side of a hook: tcx, then clsact, in the order in which they run. A kernel without tcx, and
    /// one that does not let its programs be asked for, has nobody there.
    ///
    /// # Errors
    ///
    /// What the kernel says to whoever asks for filters; the programs at tcx come with it.
    pub(crate) fn tc(self, hook: Hook) -> (Vec<Hung>, io::Result<()>) {
        let (side, direction) = if matches!(hook, Hook::TcEgress) {
            ("egress", TcAttachType::Egress)
        } else {
            ("ingress", TcAttachType::Ingress)
        };
        let chain = SchedClassifier::query_tcx(&self.link.name, direction);
        let chain = chain.map(|(_, programs)| programs).unwrap_or_default().into_iter();
        let mut hung: Vec<_> = chain
            .map(|program| Hung {
                place: format!("tcx {side}"),
                id: program.id(),
                name: Some(String::from_utf8_lossy(program.name()).into_owned()),
                kind: Kind::Tcx,
            })
            .collect();
        let filters = self.netlink.filters(self.link.ifindex, hook).map(|filters| {
            hung.extend(filters.into_iter().map(|filter| Hung {
                place: format!("clsact {side}"),
                id: filter.program,
                name: self.names.of(filter.program).or(Some(filter.name)),
                kind: Kind::Clsact {
                    priority: filter.priority,
                },
            }));
        });
        (hung, filters)
    }

    /// Whether an attachment of ours still hangs where it was put; `None` where that cannot be seen.
    pub(crate) fn has(self, attachment: &Attachment) -> Option<bool> {
        let Attachment {
            hook,
            method,
            program_id,
            ..
        } = attachment;
        match method {
            Method::Driver | Method::Generic => Some(self.link.xdp.iter().any(|(_, id)| id == program_id)),
            Method::Tcx => {
                let direction = if matches!(hook, Hook::TcEgress) {
                    TcAttachType::Egress
                } else {
                    TcAttachType::Ingress
                };
                let (_, programs) = SchedClassifier::query_tcx(&self.link.name, direction).ok()?;
                Some(programs.iter().any(|program| program.id() == *program_id))
            }
            Method::Clsact => {
                let filters = self.netlink.filters(self.link.ifindex, *hook).ok()?;
                Some(filters.iter().any(|filter| filter.program == *program_id))
            }
        }
    }

    /// Who hangs on the side of a hook beside our program of this number.
    pub(crate) fn beside(self, hook: Hook, program_id: u32, is_ours: impl Fn(u32) -> bool) -> Beside {
        let mut all = if matches!(hook, Hook::TcEgress) {
            Vec::new()
        } else {
            self.xdp()
        };
        let xdp = all.len();
        all.extend(self.tc(hook).0);
        // One that is not in the list may not be asked for, or came after the list was made: at tcx, or at XDP.
        let place = all.iter().position(|one| one.id == program_id).unwrap_or(xdp);
        let after = all.split_off(place);
        let others = |all: Vec<Hung>| -> Vec<Hung> {
            let others = all.into_iter().filter(|one| !is_ours(one.id) && one.name.is_some());
            others.collect()
        };
        let (before, after) = (others(all), others(after));
        let another_guard = before.iter().chain(&after).find(|one| one.is_named_like_ours());
        let told = |others: &[Hung]| {
            let told = others.iter().map(|one| format!("{}: {}", one.place, one.words()));
            told.collect()
        };
        Beside {
            another_guard: another_guard.map(|one| one.id),
            before: told(&before),
            after: told(&after),
        }
    }
}

/// Programs of others on one side of an interface, each in words, in the order in which they run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beside {
    /// The program of another dnsguard among them.
    pub(crate) another_guard: Option<u32>,
    /// Those that run before ours.
    pub(crate) before: Vec<String>,
    /// Those that run after it.
    pub(crate) after: Vec<String>,
}

impl Beside {
    /// What that means, a sentence for each side that has any.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let sides = [
            (&self.before, "others run before it"),
            (&self.after, "others run after it"),
        ];
        let told = sides.into_iter().filter(|(others, _)| !others.is_empty());
        told.map(|(others, what)| format!("{what} ({})", others.join("; ")))
            .collect()
    }

    /// All of them.
    pub(crate) fn all(self) -> Vec<String> {
        let Self { mut before, after, .. } = self;
        before.extend(after);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hung(name: Option<&str>) -> Hung {
        Hung {
            place: "XDP (driver)".to_owned(),
            id: 7,
            name: name.map(str::to_owned),
            kind: Kind::Xdp,
        }
    }

    #[test]
    fn an_owner_is_known_by_the_name_of_its_program() {
        let told = |name| hung(name).words();
        assert_eq!(
            told(Some("cil_xdp_entry")),
            "cil_xdp_entry (id 7), most likely Cilium's"
        );
        assert!(told(Some("xdp_dispatcher")).ends_with("most likely libxdp (xdp-tools)'s"));
        assert!(told(Some("mine")).ends_with("mine (id 7), somebody else's"));
        assert!(told(None).contains("without a name"));
        assert!(told(Some(PROGRAM_XDP)).ends_with("(id 7), another dnsguard's"));
    }

    #[test]
    fn each_side_has_a_sentence_if_anybody_is_there() {
        let beside = Beside {
            another_guard: None,
            before: vec!["a".to_owned()],
            after: vec!["b".to_owned(), "c".to_owned()],
        };
        assert_eq!(
            beside.reasons(),
            ["others run before it (a)", "others run after it (b; c)"]
        );
        assert_eq!(beside.all(), ["a", "b", "c"]);
        assert_eq!(Beside::default().reasons(), [""; 0]);
    }
}
