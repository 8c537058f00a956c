//! The capabilities of whoever runs this, and which command needs which.

use super::{finding::Finding, roots::Roots};

/// What helps against most of what could not be seen.
pub(super) const AS_ROOT: &str = "run it as root";

/// A capability (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capability {
    NetAdmin = 12,
    NetRaw = 13,
    SysPtrace = 19,
    SysAdmin = 21,
    Perfmon = 38,
    Bpf = 39,
}

/// Those that dnsguard needs, and what for.
const NEEDED: [(Capability, &str, &str); 4] = [
    (Capability::Bpf, "CAP_BPF", "run and detach load and unpin BPF programs"),
    (
        Capability::NetAdmin,
        "CAP_NET_ADMIN",
        "run and detach attach to interfaces",
    ),
    (
        Capability::Perfmon,
        "CAP_PERFMON",
        "the verifier refuses run's programs without it",
    ),
    (
        Capability::NetRaw,
        "CAP_NET_RAW",
        "probe sees no hops without it, and so no loops",
    ),
];

/// The effective capabilities of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Privileges(u64);

impl Privileges {
    /// Reads them. None, if that fails.
    pub(super) fn read(roots: &Roots) -> Self {
        let status = roots.read("/proc/self/status").unwrap_or_default();
        Self::parse(&status).unwrap_or_default()
    }

    fn parse(status: &str) -> Option<Self> {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok().map(Self)
    }

    /// Whether this one is among them, or one that stands for it.
    pub(super) fn has(self, capability: Capability) -> bool {
        let with = |capability: Capability| self.0 >> capability as u32 & 1 == 1;
        match capability {
            Capability::Bpf | Capability::Perfmon => with(capability) || with(Capability::SysAdmin),
            _ => with(capability),
        }
    }
}

/// Whether the capabilities are there, and how to give those that are not.
pub(super) fn check(privileges: Privileges) -> Vec<Finding> {
    let missing: Vec<_> = NEEDED.iter().filter(|(needed, ..)| !privileges.has(*needed)).collect();
    if missing.is_empty() {
        let what = "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_NET_RAW are there";
        return vec![Finding::ok("privileges.capabilities", what)];
    }
    let found = missing.iter().map(|(capability, name, needs)| {
        let what = format!("whoever runs this has no {name}: {needs}");
        let finding = if *capability == Capability::NetRaw {
            Finding::warn("privileges.capabilities", what)
        } else {
            Finding::fail("privileges.capabilities", what)
        };
        let short = name.trim_start_matches("CAP_");
        finding.remedy(format!(
            "run it as root; or AmbientCapabilities={name} in the systemd unit; or \
             securityContext.capabilities.add: [\"{short}\"] in Kubernetes"
        ))
    });
    found.collect()
}

/// What this run could not see for want of a capability.
pub(super) fn unseen(check: &'static str, what: impl Into<String>, capability: &str) -> Finding {
    Finding::info(check, what).remedy(format!("{AS_ROOT}, or grant {capability}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    fn of(hex: &str) -> Privileges {
        Privileges::parse(&format!("Name:\tx\nCapPrm:\t0\nCapEff:\t{hex}\nCapBnd:\t1ff\n")).unwrap()
    }

    #[test]
    fn root_has_them_all() {
        let found = check(of("000001ffffffffff"));
        assert_eq!((found.len(), found[0].level), (1, Level::Ok));
    }

    #[test]
    fn each_one_that_is_missing_is_named_with_who_needs_it() {
        let found = check(of("0000000000000000"));
        assert_eq!(found.len(), 4);
        assert!(found[1].what.contains("no CAP_NET_ADMIN: run"), "{found:?}");
        let remedy = found[0].remedy.as_deref().unwrap();
        assert!(
            remedy.contains("AmbientCapabilities=CAP_BPF") && remedy.contains("add: [\"BPF\"]"),
            "{remedy}"
        );
        assert_eq!((found[0].level, found[3].level), (Level::Fail, Level::Warn));
    }

    #[test]
    fn the_old_capability_stands_for_two_new_ones() {
        // CAP_SYS_ADMIN and CAP_NET_ADMIN.
        let told: Vec<_> = check(of("0000000000201000"))
            .into_iter()
            .map(|found| found.what)
            .collect();
        assert_eq!(
            told,
            ["whoever runs this has no CAP_NET_RAW: probe sees no hops without it, and so no loops"]
        );
    }
}
