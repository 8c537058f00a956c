//! Budgets as the operator states them: `[[budget]]`.

mod overlap;
mod read;

use std::{fmt, net::Ipv4Addr};

use guard_common::{
    budget::{MAX_DEVICES, Scope},
    policy::{Action, Mode},
};

pub(super) use self::read::{Placed, Stated, budgets};
use super::{Attach, Cidr, limit::Allowance, mode_word, zone::Zone};
use crate::device::Device;

/// The loopback interface, which leads to no link-local service.
const LOOPBACK: &str = "lo";

/// A limit over a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// What it is called in events and metrics; no other budget is called that.
    pub(crate) name: String,
    /// What shares a bucket.
    pub(crate) sharing: Sharing,
    /// Which way the queries go.
    pub(crate) direction: Direction,
    /// How much it allows.
    pub(crate) allowance: Allowance,
    /// What happens to a query above that.
    pub(crate) excess: Excess,
    /// Which queries it is about.
    pub(crate) filter: Filter,
    /// A mode of its own; it never does more than the mode of the whole.
    pub(crate) mode: Option<Mode>,
}

/// What shares a bucket. Lists are in order, from narrow to broad, and have nothing twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Everything that goes to the filter's destinations, of which there is at least one.
    Destination,
    /// What comes from the same client prefix.
    Client(Vec<Prefixes>),
    /// What asks the same question.
    Key,
    /// What asks for names in the same zone, a zone being so many labels from the right: 1 to 7.
    Zone(Vec<u8>),
    /// What passes the same interface.
    Interface,
    /// Everything.
    All,
}

/// Bits of an address by which clients of either family are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefixes {
    /// 0 to 32.
    pub(crate) v4: u8,
    /// 0 to 128.
    pub(crate) v6: u8,
}

/// Which way queries go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// They come in at an interface.
    In,
    /// They go out.
    Out,
    /// Either; both are charged to the same bucket.
    Both,
}

/// What happens to a query above a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// It is answered in place.
    Answer,
    /// It is dropped in silence.
    Drop,
    /// It is counted, and goes on.
    Count,
}

/// What narrows a budget down; an empty list leaves it as wide as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Names at or below these, none of them inside another.
    pub(crate) zones: Vec<Zone>,
    /// Queries to these.
    pub(crate) destinations: Vec<Cidr>,
    /// Queries at these.
    pub(crate) interfaces: Vec<String>,
    /// Queries of these types, at most [`guard_common::budget::MAX_TYPES`].
    pub(crate) types: Vec<u16>,
}

/// The preset `aws-link-local`: one bucket for each interface, for every packet to the services that AWS polices
/// together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkLocal {
    /// How much one interface may send: limit and burst of 1 to 100,000.
    pub(crate) allowance: Allowance,
    /// Packets per second, the same as in the allowance.
    pub(crate) limit: u32,
    /// What happens to a query above that.
    pub(crate) excess: Excess,
    /// The interfaces; if there is none, all that are named in `[attach]` or lead outward, but the loopback interface.
    pub(crate) interfaces: Vec<String>,
    /// The VPC's primary CIDR, a /16 to /28, if the operator says it.
    pub(crate) vpc: Option<(Ipv4Addr, u8)>,
    /// A mode of its own; it never does more than the mode of the whole.
    pub(crate) mode: Option<Mode>,
}

impl Budget {
    /// How many rows it is in the kernel: one for each prefix length or label count, for each zone that it is about,
    /// and for every four interfaces.
    pub(crate) const fn row_count(&self) -> usize {
        let shared = match &self.sharing {
            Sharing::Client(prefixes) => prefixes.len(),
            Sharing::Zone(labels) => labels.len(),
            Sharing::Destination | Sharing::Key | Sharing::Interface | Sharing::All => 1,
        };
        let chunks = self.filter.interfaces.len().div_ceil(MAX_DEVICES);
        let zones = self.filter.zones.len();
        shared * (if zones == 0 { 1 } else { zones }) * (if chunks == 0 { 1 } else { chunks })
    }

    /// The label counts by which the kernel has to know the zones of a name.
    pub(crate) fn label_counts(&self) -> impl Iterator<Item = u8> {
        let shared = match &self.sharing {
            Sharing::Zone(labels) => labels.as_slice(),
            _ => &[],
        };
        shared.iter().copied().chain(self.filter.zones.iter().map(Zone::labels))
    }
}

impl LinkLocal {
    /// The name of the preset, and of its budget in events and metrics.
    pub(crate) const NAME: &str = "aws-link-local";
    /// What turns the labels that the kernel shares a source's packets out by into a zone.
    pub(crate) const SHARE_LABELS: u8 = 2;

    /// The interfaces that are named for it, here or, if there is none here, in `[attach]`.
    pub(crate) fn interfaces<'a>(&'a self, attach: &'a Attach) -> impl Iterator<Item = &'a str> {
        let named = attach.selection.named().filter(|name| *name != LOOPBACK);
        let named = named.filter(|_| self.interfaces.is_empty());
        self.interfaces.iter().map(String::as_str).chain(named)
    }

    /// Whether an interface that is guarded has the budget: it is named here; or none is, and it leads outward.
    pub(crate) fn is_on(&self, device: &Device) -> bool {
        if self.interfaces.is_empty() {
            device.outward
        } else {
            self.interfaces.contains(&device.name)
        }
    }
}

impl Sharing {
    /// The scope in the kernel.
    pub(crate) const fn scope(&self) -> Scope {
        match self {
            Self::Destination => Scope::Destination,
            Self::Client(_) => Scope::Client,
            Self::Key => Scope::Key,
            Self::Zone(_) => Scope::Zone,
            Self::Interface => Scope::Interface,
            Self::All => Scope::All,
        }
    }
}

impl Direction {
    const WORDS: [(&str, Self); 3] = [("in", Self::In), ("out", Self::Out), ("both", Self::Both)];

    /// Whether queries that come in are meant, and whether those that go out are.
    pub(crate) const fn in_out(self) -> (bool, bool) {
        (!matches!(self, Self::Out), !matches!(self, Self::In))
    }

    const fn word(self) -> &'static str {
        Self::WORDS[self as usize].0
    }
}

impl Excess {
    const WORDS: [(&str, Self); 3] = [("answer", Self::Answer), ("drop", Self::Drop), ("count", Self::Count)];

    /// The action and the mode in which the kernel does this. Counting is what it does while it only watches.
    pub(crate) fn in_mode(self, mode: Option<Mode>) -> (Action, Mode) {
        let mode = mode.unwrap_or(Mode::Enforce);
        match self {
            Self::Answer => (Action::Answer, mode),
            Self::Drop => (Action::Drop, mode),
            Self::Count => (Action::Drop, Mode::Observe),
        }
    }

    const fn word(self) -> &'static str {
        Self::WORDS[self as usize].0
    }
}

/// One line for `check-config`.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "budget {}: {}", self.name, self.sharing.scope().word())?;
        match &self.sharing {
            Sharing::Client(prefixes) => {
                for Prefixes { v4, v6 } in prefixes {
                    write!(f, " /{v4}+/{v6}")?;
                }
            }
            Sharing::Zone(labels) => {
                let labels: Vec<_> = labels.iter().map(u8::to_string).collect();
                write!(f, " of {} labels", labels.join(" and "))?;
            }
            Sharing::Destination | Sharing::Key | Sharing::Interface | Sharing::All => {}
        }
        let rows = self.row_count();
        let rows = format!("{rows} {}", if rows == 1 { "row" } else { "rows" });
        write!(f, ", {}, {}, ", self.direction.word(), self.allowance)?;
        write!(f, "{}{}, {rows}", self.excess.word(), Suffix(self.mode))
    }
}

/// One line for `check-config`.
impl fmt::Display for LinkLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "budget {}: destination, out, {}, ", Self::NAME, self.allowance)?;
        write!(f, "{}{}, on ", self.excess.word(), Suffix(self.mode))?;
        if self.interfaces.is_empty() {
            f.write_str("every guarded interface but lo and pods' links")
        } else {
            f.write_str(&self.interfaces.join(", "))
        }
    }
}

/// A mode of a budget's own, if it has one.
struct Suffix(Option<Mode>);

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(mode) => write!(f, " ({})", mode_word(mode)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
