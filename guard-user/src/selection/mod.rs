//! Which interfaces are guarded: by name, by pattern, and by what the host is; what is excluded is not.
//!
//! Plain data in, plain data out: whoever asks has listed the interfaces.

mod pattern;
mod preset;

use std::collections::BTreeSet;

pub(crate) use self::{
    pattern::{Pattern, interface_name},
    preset::{PRESETS, Preset},
};
use crate::{
    device::{Device, DeviceError},
    netlink::Link,
};

/// What the operator wants guarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// These, at least one, none twice.
    pub(crate) include: Vec<Pattern>,
    /// And never these.
    pub(crate) exclude: Vec<Pattern>,
    /// Beside those, what this kind of host has.
    pub(crate) preset: Option<Preset>,
}

/// An interface that is to be guarded, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) device: Device,
    /// What chose it, for people; empty if it is named.
    pub(crate) why: String,
}

impl Selection {
    /// The interfaces that are to be guarded. `outward` has those by which the main routing table sends what it knows no
    /// other way for.
    pub(crate) fn choose(&self, links: &[Link], outward: &BTreeSet<u32>) -> Vec<Chosen> {
        let presets = self.preset.map_or_else(Vec::new, |preset| preset.resolve(links));
        let chosen = links.iter().filter_map(|link| {
            let is_named = self.named().any(|name| name == link.name);
            let device = Device::of(link, is_named || is_uplink(link, links, outward)).ok()?;
            self.why(&device, link, links, &presets)
                .map(|why| Chosen { device, why })
        });
        chosen.collect()
    }

    /// Why an interface is to be guarded; `None` if it is not.
    fn why(&self, device: &Device, link: &Link, links: &[Link], presets: &[Preset]) -> Option<String> {
        if self.exclude.iter().any(|pattern| pattern.matches(&link.name)) {
            return None;
        }
        if let Some(pattern) = self.include.iter().find(|pattern| pattern.matches(&link.name)) {
            return Some(match pattern.as_literal() {
                Some(_) => String::new(),
                None => format!("matches {pattern}"),
            });
        }
        let of = |preset: &Preset| match (self.preset, preset) {
            (Some(Preset::Auto), found) => format!("preset auto, {}", found.word()),
            (_, preset) => format!("preset {}", preset.word()),
        };
        let role = |preset: &Preset| preset.role(link, links).map(|role| format!("{}: {role}", of(preset)));
        if let Some(why) = presets.iter().find_map(role) {
            return Some(why);
        }
        let first = presets.first()?;
        if device.loopback {
            Some(format!("{}: loopback", of(first)))
        } else {
            device.outward.then(|| format!("{}: leads outward", of(first)))
        }
    }

    /// The interfaces that are named, and not excluded.
    pub(crate) fn named(&self) -> impl Iterator<Item = &str> {
        let names = self.include.iter().filter_map(Pattern::as_literal);
        names.filter(|name| !self.exclude.iter().any(|pattern| pattern.matches(name)))
    }

    /// Whether an interface of this name is guarded, if there is one; presets may choose any.
    pub(crate) fn may_choose(&self, name: &str) -> bool {
        !self.exclude.iter().any(|pattern| pattern.matches(name))
            && (self.preset.is_some() || self.include.iter().any(|pattern| pattern.matches(name)))
    }

    /// Whether all that is guarded is named.
    pub(crate) fn is_closed(&self) -> bool {
        self.preset.is_none() && self.include.iter().all(|pattern| pattern.as_literal().is_some())
    }

    /// What is wrong with the interfaces that are named: those that are not there, or cannot be guarded.
    pub(crate) fn faults(&self, links: &[Link]) -> Vec<DeviceError> {
        self.named()
            .filter_map(|name| Device::named(name, links).err())
            .collect()
    }

    /// Words for a sentence: `lo, veth*, preset auto, but not veth9`.
    pub(crate) fn words(&self) -> String {
        let join = |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut words = join(&self.include);
        if let Some(preset) = self.preset {
            words.push_str(&format!(", preset {}", preset.word()));
        }
        if !self.exclude.is_empty() {
            words.push_str(&format!(", but not {}", join(&self.exclude)));
        }
        words
    }
}

/// Whether an interface leads out of the host: it has hardware behind it, and no bond in front of it, or is one itself, or
/// has the default route.
fn is_uplink(link: &Link, links: &[Link], outward: &BTreeSet<u32>) -> bool {
    let is_bonds = links
        .iter()
        .any(|bond| bond.ifindex == link.master && matches!(bond.kind.as_str(), "bond" | "team"));
    outward.contains(&link.ifindex) || (!is_bonds && (Device::is_physical(link) || link.kind == "bond"))
}

#[cfg(test)]
mod tests;
