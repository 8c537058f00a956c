//! Which programs are ours: what a link runs decides whether it may be taken over or removed.
//!
//! A link tells the number of its program, and only root may look a program up by that. So each program that is loaded
//! is pinned as well, before anything runs it: a number that is found among those pins is ours.

use std::{collections::BTreeSet, path::Path};

use aya::{
    maps::MapInfo,
    programs::{ProgramInfo, SchedClassifier, TcAttachType, links::PinnedLink, loaded_programs},
};

use super::pins::{Pins, files, is_clsact};
use crate::neighbours::is_name_of_ours;

/// Programs that are ours, by the kernel's numbers.
#[derive(Debug, Default)]
pub(super) struct Ours(BTreeSet<u32>);

impl Ours {
    /// Those of agents before this one, of any version that has pins.
    pub(super) fn find(pins: &Pins) -> Self {
        let mut ours = Self::default();
        let mut maps = BTreeSet::new();
        for (_, version) in pins.versions() {
            let links = files(&version.join("links")).into_iter().filter(|link| is_clsact(link));
            ours.0.extend(
                files(&version.join("programs"))
                    .into_iter()
                    .chain(links)
                    .filter_map(|pin| pinned(&pin)),
            );
            let pinned = files(&version.join("maps")).into_iter();
            maps.extend(pinned.filter_map(|map| Some(MapInfo::from_pin(map).ok()?.id())));
        }
        // Programs that were not pinned, of agents of long ago. Nobody but root is shown any.
        let loaded = loaded_programs().flatten().filter(is_named_like_ours);
        let uses_our_maps = |program: &ProgramInfo| {
            let used = program.map_ids().ok().flatten().unwrap_or_default();
            used.iter().any(|map| maps.contains(map))
        };
        ours.0.extend(loaded.filter(uses_our_maps).map(|program| program.id()));
        ours
    }

    /// One that was just loaded.
    pub(super) fn add(&mut self, program_id: u32) {
        self.0.insert(program_id);
    }

    /// Whether a program is ours.
    pub(super) fn has(&self, program_id: u32) -> bool {
        self.0.contains(&program_id)
    }

    /// A program of another dnsguard that looks at what comes over the `lo` of the network namespace that the calling thread
    /// is in.
    pub(super) fn another_at_lo(&self) -> Option<u32> {
        let (_, chain) = SchedClassifier::query_tcx("lo", TcAttachType::Ingress).ok()?;
        let another = chain
            .iter()
            .find(|program| is_named_like_ours(program) && !self.has(program.id()));
        another.map(ProgramInfo::id)
    }

    /// Whether what is pinned here runs a program of ours: a link, or the program of a clsact filter.
    pub(super) fn runs(&self, pin: &Path) -> bool {
        let program_id = if is_clsact(pin) {
            pinned(pin)
        } else {
            let link = PinnedLink::from_pin(pin).map(aya::programs::links::FdLink::from);
            link.and_then(|link| link.info()).ok().map(|info| info.program_id())
        };
        program_id.is_some_and(|program_id| self.has(program_id))
    }
}

/// The number of the program that is pinned here, if it has a name of ours.
fn pinned(pin: &Path) -> Option<u32> {
    let program = ProgramInfo::from_pin(pin).ok()?;
    is_named_like_ours(&program).then(|| program.id())
}

fn is_named_like_ours(program: &ProgramInfo) -> bool {
    program.name_as_str().is_some_and(is_name_of_ours)
}
