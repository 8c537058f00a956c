//! What an agent takes, in its process and in the kernel.

use std::{collections::BTreeSet, fmt::Write as _, path::PathBuf};

use anyhow::{Context as _, Result};
use aya::{
    maps::{Map, MapData, PerCpuArray},
    programs::{loaded_links, loaded_programs},
};
use guard_common::{abi, counter::Counters};
use serde::Serialize;

use crate::{Namespace, Process, guard::pins};

/// What a process takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Footprint {
    /// Memory in use, in KiB.
    pub rss_kib: u64,
    /// Open file descriptors.
    pub fds: usize,
    /// Threads.
    pub threads: usize,
}

impl Footprint {
    /// Of a running process.
    pub(super) fn of(process: &Process) -> Result<Self> {
        Ok(Self {
            rss_kib: process.rss_kib()?,
            fds: process.open_files()?,
            threads: process.threads()?,
        })
    }
}

/// What the kernel holds of a guard, by the kernel's own numbers: whatever uses its maps, pinned or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Objects {
    pub(super) programs: BTreeSet<u32>,
    pub(super) links: BTreeSet<u32>,
    pub(super) maps: BTreeSet<u32>,
}

impl Objects {
    /// Everything that uses a map.
    pub(super) fn around(map: u32) -> Result<Self> {
        let mut found = Self::default();
        // What is freed while the list is read shows as an error.
        for program in loaded_programs().flatten() {
            let maps = program.map_ids()?.unwrap_or_default();
            if maps.contains(&map) {
                found.programs.insert(program.id());
                found.maps.extend(maps);
            }
        }
        let links = loaded_links().flatten();
        let links = links.filter(|link| found.programs.contains(&link.program_id()));
        found.links = links.map(|link| link.id()).collect();
        Ok(found)
    }
}

/// What the kernel itself has counted, place by place, of queries, responses, trips and actions: for whoever wants to know
/// why something does not add up.
pub(super) fn counted(host: &Namespace) -> Result<String> {
    host.run(|| -> Result<_> {
        let map = Map::from_map_data(MapData::from_pin(pinned())?)?;
        let counters = PerCpuArray::<_, Counters>::try_from(map)?;
        let mut said = String::new();
        for place in 0..counters.len() {
            let cpus: Vec<Counters> = counters.get(&place, 0)?.iter().copied().collect();
            let total = Counters::sum(&cpus);
            let counts = total.0.iter().enumerate().filter(|(_, count)| **count > 0);
            let counts: Vec<String> = counts.map(|(index, count)| format!("{index}:{count}")).collect();
            if !counts.is_empty() {
                let _ = write!(said, "[{place}] {} ", counts.join(" "));
            }
        }
        Ok(said)
    })
}

/// The kernel's number of the map that every program of a guard has, as it is pinned on its host.
pub(super) fn map(host: &Namespace) -> Result<u32> {
    let pinned = pinned();
    host.run(|| -> Result<_> { Ok(MapData::from_pin(&pinned)?.info()?.id()) })
        .with_context(|| format!("open {}", pinned.display()))
}

fn pinned() -> PathBuf {
    pins(abi::VERSION).join("maps").join(abi::COUNTERS)
}
