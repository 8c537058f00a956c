//! Rules for a host that must not be abused: where its DNS may go, where it may come from, and who may ask it to
//! recurse.

use crate::{
    address::Address,
    budget::Subject,
    policy::{Action, Mode, Ranges},
    remedy::{Reason, Shed},
};

/// The rules; each is off while its ranges are empty.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Hygiene {
    /// Queries leave only to these.
    pub resolvers: Ranges,
    /// Queries leave only from these.
    pub sources: Ranges,
    /// Queries that ask for recursion come in only from these.
    pub recursion: Ranges,
    observes: u32,
    /// Indexes of the interfaces that the rules are about; 0 for none, and all of them none for any.
    pub devices: [u32; MAX_DEVICES],
}

/// Interfaces that the rules can be about.
pub const MAX_DEVICES: usize = 8;

impl Hygiene {
    /// No rule.
    pub const NONE: Self = Self {
        resolvers: Ranges::NONE,
        sources: Ranges::NONE,
        recursion: Ranges::NONE,
        observes: 0,
        devices: [0; MAX_DEVICES],
    };

    /// The same rules in a mode of their own; they never do more than the policy's mode allows.
    #[must_use]
    pub const fn in_mode(mut self, mode: Mode) -> Self {
        self.observes = matches!(mode, Mode::Observe) as u32;
        self
    }

    /// Whether there is no rule.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.resolvers.is_empty() && self.sources.is_empty() && self.recursion.is_empty()
    }

    /// Whether the rules are about an interface. One comparison at the end, as it stands: of several, the kernel's verifier
    /// would follow every way out.
    #[inline(always)]
    fn is_about(&self, ifindex: u32) -> bool {
        let mut about = self.devices[0] == 0;
        for device in self.devices {
            about |= device == ifindex;
        }
        core::hint::black_box(about)
    }

    /// What a query breaks, if it does. `holds` tells whether one of the ranges holds an address. What stays on this
    /// host breaks nothing. A query for recursion is answered, others are dropped: whoever abuses this host is not told.
    #[inline(always)]
    pub fn breach(
        &self,
        subject: &Subject,
        wants_recursion: bool,
        same_host: bool,
        holds: impl Fn(Ranges, &Address) -> bool,
    ) -> Option<Shed> {
        if same_host || !self.is_about(subject.ifindex) {
            return None;
        }
        let (reason, action) = if !subject.egress {
            if self.recursion.is_empty() || !wants_recursion || holds(self.recursion, &subject.client) {
                return None;
            }
            (Reason::Recursion, Action::Answer)
        } else if !self.resolvers.is_empty() && !holds(self.resolvers, &subject.server) {
            (Reason::Resolver, Action::Drop)
        } else if !self.sources.is_empty() && !holds(self.sources, &subject.client) {
            (Reason::Source, Action::Drop)
        } else {
            return None;
        };
        Some(Shed {
            row: Shed::NO_ROW,
            reason,
            action,
            observes: self.observes != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Address = Address::v4(u32::from_ne_bytes([10, 0, 0, 5]));
    const LISTED: Address = Address::v4(u32::from_ne_bytes([10, 0, 0, 2]));
    const STRANGER: Address = Address::v4(u32::from_ne_bytes([192, 0, 2, 1]));
    const RULED: Ranges = Ranges::from_number(1);

    fn rules() -> Hygiene {
        Hygiene {
            resolvers: RULED,
            sources: RULED,
            recursion: RULED,
            ..Hygiene::NONE
        }
    }

    fn breach(rules: &Hygiene, client: Address, server: Address, egress: bool, recursion: bool) -> Option<Reason> {
        let subject = Subject {
            client,
            server,
            egress,
            ..Subject::default()
        };
        let shed = rules.breach(&subject, recursion, false, |_, address| *address != STRANGER);
        shed.map(|shed| shed.reason)
    }

    #[test]
    fn queries_leave_only_from_and_to_what_is_listed() {
        let rules = rules();
        assert_eq!(breach(&rules, HERE, LISTED, true, true), None);
        assert_eq!(breach(&rules, HERE, STRANGER, true, true), Some(Reason::Resolver));
        assert_eq!(breach(&rules, STRANGER, LISTED, true, true), Some(Reason::Source));
        assert_eq!(breach(&Hygiene::NONE, STRANGER, STRANGER, true, true), None);
    }

    #[test]
    fn rules_about_some_interfaces_leave_the_others_alone() {
        let rules = Hygiene {
            devices: [7, 8, 0, 0, 0, 0, 0, 0],
            ..rules()
        };
        let breach = |ifindex| {
            let subject = Subject {
                server: STRANGER,
                egress: true,
                ifindex,
                ..Subject::default()
            };
            rules.breach(&subject, true, false, |_, address| *address != STRANGER)
        };
        assert!(breach(7).is_some() && breach(8).is_some());
        assert!(breach(9).is_none());
    }

    #[test]
    fn strangers_get_no_recursion() {
        let rules = rules();
        assert_eq!(breach(&rules, STRANGER, HERE, false, true), Some(Reason::Recursion));
        assert_eq!(breach(&rules, STRANGER, HERE, false, false), None);
        assert_eq!(breach(&rules, LISTED, HERE, false, true), None);
    }

    #[test]
    fn what_stays_on_this_host_breaks_nothing() {
        let subject = Subject {
            client: STRANGER,
            server: STRANGER,
            egress: true,
            ..Subject::default()
        };
        assert_eq!(rules().breach(&subject, true, true, |_, _| false), None);
    }

    #[test]
    fn a_mode_of_its_own_only_watches() {
        let subject = Subject {
            client: STRANGER,
            server: STRANGER,
            egress: true,
            ..Subject::default()
        };
        for (mode, observes) in [(Mode::Observe, true), (Mode::Enforce, false)] {
            let shed = rules()
                .in_mode(mode)
                .breach(&subject, true, false, |_, _| false)
                .unwrap();
            assert_eq!(shed.observes, observes);
        }
    }
}
