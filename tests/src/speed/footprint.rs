//! What the kernel object takes before a packet comes.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::bench::Bench;

/// A map of the kernel object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapMemory {
    /// Its name; the kernel keeps 15 letters of it.
    pub name: String,
    /// What the kernel says that it takes, `memlock` in `/proc/PID/fdinfo`.
    pub bytes: u64,
}

/// How long it takes to read the object, make its maps, and have its three programs verified and compiled.
pub fn load_time() -> Result<Duration> {
    let start = Instant::now();
    let bench = Bench::new(|_| ())?;
    let taken = start.elapsed();
    drop(bench);
    Ok(taken)
}

/// Every map of the programs. Arrays for each CPU take as much for each of them.
pub fn map_memory() -> Result<Vec<MapMemory>> {
    let maps = Bench::new(|_| ())?.maps()?;
    maps.iter()
        .map(|map| {
            let descriptor = map.fd()?;
            let path = format!("/proc/self/fdinfo/{}", descriptor.as_fd().as_raw_fd());
            let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            Ok(MapMemory {
                name: map.name_as_str().unwrap_or_default().to_owned(),
                bytes: memlock(&text).with_context(|| format!("no memlock in {path}"))?,
            })
        })
        .collect()
}

fn memlock(fdinfo: &str) -> Option<u64> {
    let value = fdinfo.lines().find_map(|line| line.strip_prefix("memlock:"))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_a_map_takes() {
        assert_eq!(
            memlock("pos:\t0\nmap_type:\t2\nmemlock:\t8388944\nmap_id:\t7\n"),
            Some(8_388_944)
        );
        assert_eq!(memlock("pos:\t0\n"), None);
    }
}
