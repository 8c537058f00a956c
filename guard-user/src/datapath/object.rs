//! Loading the kernel object over the pinned maps.
//!
//! aya takes whatever map it finds at a pin. A map of another size under a program's feet is memory corruption, so each
//! pin is compared with what the object says first, and thrown away if it differs.

use std::{
    os::fd::AsFd as _,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, Map, MapData, MapError, MapInfo, MapType},
};
use guard_common::{
    abi,
    budget::{LinkBudget, MAX_LINKS, MeterLine},
    counter::{Counters, RowCount},
    flow::FlowLine,
    judge::KeyBucket,
    local::Local,
    marks::MarkLine,
    policy::{Control, MAX_ROWS, Policy},
    remedy::Allowance,
};
use nix::sys::resource::{Resource, setrlimit};
use tracing::{debug, warn};

use super::pins::Pins;
use crate::sys;

/// Why the kernel object cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectError {
    #[error("cannot load the maps of the kernel object: {0}; it takes root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    Load(#[source] Box<EbpfError>),
    #[error("cannot remove the outdated map {0}: {1}")]
    Outdated(String, #[source] std::io::Error),
    #[error("cannot read the map {0}, which is to be taken over: {1}")]
    Kept(String, #[source] MapError),
}

/// Loads the maps; programs are loaded when they are first attached. `namespace` is what goes on top of the index of the
/// interfaces that they are for.
pub(super) fn load(object: &[u8], pins: &Pins, namespace: u32) -> Result<Ebpf, ObjectError> {
    // Before 5.11 maps count against the locked memory of a process.
    if let Err(error) = setrlimit(
        Resource::RLIMIT_MEMLOCK,
        nix::libc::RLIM_INFINITY,
        nix::libc::RLIM_INFINITY,
    ) {
        debug!("cannot raise the limit for locked memory: {error}");
    }
    let _writing = writing_control();
    let mut control = Control::default();
    let mut loader = EbpfLoader::new();
    for (name, value_size, max_entries) in shapes() {
        let path = pins.map(name);
        if path.exists() && !fits(&path, name, value_size, max_entries) {
            warn!(
                "{} is not the map that this version needs: it is replaced, what it held is lost",
                path.display()
            );
            std::fs::remove_file(&path).map_err(|error| ObjectError::Outdated(path.display().to_string(), error))?;
        }
        if name == abi::CONTROL && path.exists() {
            control = kept(&path).map_err(|error| ObjectError::Kept(path.display().to_string(), error))?;
        }
        loader.map_pin_path(abi::map_in_object(name), path);
    }
    // aya writes a variable's first value into its map, also into one that it has found pinned, in which programs read that
    // are attached. So its first value is what is there.
    loader.override_global(abi::CONTROL, &control, false);
    // An object that was built before there were others has none.
    loader.override_global(abi::NAMESPACE, &namespace, false);
    let ebpf = loader
        .load(object)
        .map_err(|error| ObjectError::Load(Box::new(error)))?;
    for name in FROZEN {
        if let Some(Map::Array(map) | Map::PerCpuArray(map)) = ebpf.map(name)
            && let Err(error) = sys::freeze(map.fd().as_fd())
        {
            debug!("{name} is not frozen: {error}");
        }
    }
    Ok(ebpf)
}

/// Maps that programs alone write to: nobody else may, the agent included. Those with locks cannot be frozen, nor can a
/// ring buffer, in which its reader notes how far it has come; constants are frozen when they are loaded.
const FROZEN: [&str; 5] = [abi::ALLOWANCES, abi::COUNTERS, "DESKS", abi::FLOWS, abi::LOCALS];

/// Name, bytes of a value, and entries of each map.
fn shapes() -> [(&'static str, usize, usize); 13] {
    [
        (abi::CONTROL, size_of::<Control>(), 1),
        (abi::POLICIES, size_of::<Policy>(), 2),
        (abi::KEYS, size_of::<KeyBucket>(), abi::KEY_BUCKETS),
        (abi::FLOWS, size_of::<FlowLine>(), abi::FLOW_LINES),
        (abi::MARKS, size_of::<MarkLine>(), abi::MARK_LINES),
        (abi::ALLOWANCES, size_of::<Allowance>(), abi::ALLOWANCE_SLOTS),
        (abi::COUNTERS, size_of::<Counters>(), abi::DEVICE_SLOTS),
        (abi::EVENTS, 0, abi::EVENT_BYTES),
        (abi::METERS, size_of::<MeterLine>(), abi::METER_LINES),
        (abi::LINKS, size_of::<LinkBudget>(), MAX_LINKS),
        (abi::ROWS, size_of::<RowCount>(), 2 * MAX_ROWS),
        (abi::LOCALS, size_of::<Local>(), 1),
        (abi::SAMPLES, 0, abi::SAMPLE_BYTES),
    ]
}

/// Whether what is pinned is the map of this name in every respect: somebody else's may differ in its type alone.
fn fits(path: &Path, name: &'static str, value_size: usize, max_entries: usize) -> bool {
    let key_size = if value_size == 0 { 0 } else { size_of::<u32>() };
    let kind = match value_size {
        0 => MapType::RingBuf,
        _ if is_per_cpu(name) => MapType::PerCpuArray,
        _ => MapType::Array,
    };
    MapInfo::from_pin(path).is_ok_and(|info| {
        info.map_type().is_ok_and(|found| found == kind)
            && info.name() == abi::map_in_object(name).as_bytes()
            && info.map_flags() == 0
            && info.key_size() as usize == key_size
            && info.value_size() as usize == value_size
            && info.max_entries() as usize == max_entries
    })
}

/// Who changes `CONTROL` keeps what this returns until it is written: of the agent's threads one at a time does. Another
/// agent does not, as long as this one has the lock on the pins.
pub(super) fn writing_control() -> MutexGuard<'static, ()> {
    static WRITES: Mutex<()> = Mutex::new(());
    WRITES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is read first by programs that may be attached.
fn kept(path: &Path) -> Result<Control, MapError> {
    let control: Array<MapData, Control> = Map::Array(MapData::from_pin(path)?).try_into()?;
    control.get(&0, 0)
}

/// Whether each CPU has values of its own in this map.
fn is_per_cpu(name: &str) -> bool {
    [abi::COUNTERS, abi::LOCALS, abi::ROWS].contains(&name)
}

/// Bytes that the values of each map take.
pub(super) fn bytes(cpus: usize) -> impl Iterator<Item = (&'static str, u64)> {
    shapes().into_iter().map(move |(name, value_size, max_entries)| {
        let copies = if is_per_cpu(name) { cpus } else { 1 };
        (name, (value_size.max(1) * max_entries * copies) as u64)
    })
}
