//! Budgets that would charge the same packets in the same way.
//!
//! A query is charged to every row that is about it: two budgets of the same scope that share queries count each of
//! them twice. That is a mistake, and said so, unless a filter keeps them apart, or one of them is about a part of what
//! the other is about: then it is a limit within a limit, such as one for TXT within one for all types.

use std::net::Ipv4Addr;

use super::{Budget, Filter, LinkLocal, Prefixes, Sharing};
use crate::{
    config::{Attach, Cidr},
    link_local,
};

impl Budget {
    /// Whether there are packets that both would charge to their buckets in the same way.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.direction.in_out(), other.direction.in_out());
        let (one, two) = (&self.filter, &other.filter);
        (ours.0 && theirs.0 || ours.1 && theirs.1)
            && self.sharing.overlaps(&other.sharing)
            && meet(&one.interfaces, &two.interfaces, PartialEq::eq)
            && meet(&one.types, &two.types, PartialEq::eq)
            && meet(&one.destinations, &two.destinations, Cidr::overlaps)
            && meet(&one.zones, &two.zones, |a, b| a.contains(b) || b.contains(a))
            && !self.is_part_of(other)
            && !other.is_part_of(self)
    }

    /// Whether its filter leaves a part of what the other one's leaves, and not all of it. Destinations that are the
    /// scope itself are no filter.
    fn is_part_of(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.direction.in_out(), other.direction.in_out());
        let (one, two) = (&self.filter, &other.filter);
        let lies_in = |one: &Filter, two: &Filter| {
            within(&one.interfaces, &two.interfaces, PartialEq::eq)
                && within(&one.types, &two.types, PartialEq::eq)
                && within(&one.destinations, &two.destinations, |a, b| b.contains(a))
                && within(&one.zones, &two.zones, |a, b| b.contains(a))
        };
        (self.sharing != Sharing::Destination || one.destinations == two.destinations)
            && (!ours.0 || theirs.0)
            && (!ours.1 || theirs.1)
            && lies_in(one, two)
            && !lies_in(two, one)
    }
}

impl LinkLocal {
    /// Whether a budget over destinations counts what leaves for the preset's services.
    pub(super) fn overlaps(&self, budget: &Budget, attach: &Attach) -> bool {
        let is_theirs = |range: &Cidr| self.services().any(|service| range.overlaps(&service));
        let interfaces: Vec<_> = self.interfaces(attach).map(str::to_owned).collect();
        budget.sharing == Sharing::Destination
            && budget.direction.in_out().1
            && meet(&budget.filter.interfaces, &interfaces, PartialEq::eq)
            && budget.filter.destinations.iter().any(is_theirs)
    }

    /// The services, as far as they are known without the host.
    fn services(&self) -> impl Iterator<Item = Cidr> {
        let fixed = link_local::FIXED.iter().map(|fixed| fixed.address);
        // A /16 to /28 has more than two addresses above its base.
        let resolver = self.vpc.map(|(base, _)| Ipv4Addr::from(u32::from(base) + 2).into());
        fixed.chain(resolver).map(Cidr::host)
    }
}

impl Sharing {
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Client(one), Self::Client(two)) => {
                let same = |a: &Prefixes, b: &Prefixes| a.v4 == b.v4 || a.v6 == b.v6;
                meet(one, two, same)
            }
            (Self::Zone(one), Self::Zone(two)) => meet(one, two, PartialEq::eq),
            _ => self == other,
        }
    }
}

/// Whether each element of the first list lies in one of the second. An empty list stands for everything.
fn within<T>(one: &[T], other: &[T], lies_in: impl Fn(&T, &T) -> bool) -> bool {
    other.is_empty() || !one.is_empty() && one.iter().all(|a| other.iter().any(|b| lies_in(a, b)))
}

/// Whether one element of each list go together. An empty list stands for everything.
fn meet<T>(one: &[T], other: &[T], together: impl Fn(&T, &T) -> bool) -> bool {
    one.is_empty() || other.is_empty() || one.iter().any(|a| other.iter().any(|b| together(a, b)))
}
