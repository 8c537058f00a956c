//! What a figure has to be read with: the machine that it was measured on.

use std::{fs, num::NonZero, thread};

use anyhow::{Context as _, Result};

use super::record::Machine;
use crate::host;

/// This one.
pub(super) fn here(rounds: usize) -> Result<Machine> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let clock = fs::read_to_string(clock).with_context(|| format!("cannot read {clock}"))?;
    let value = |name: &str| field(&cpuinfo, name);
    Ok(Machine {
        // Some architectures name none.
        cpu: value("model name").unwrap_or(std::env::consts::ARCH).to_owned(),
        cpus: thread::available_parallelism().map_or(1, NonZero::get),
        mhz: value("cpu MHz")
            .and_then(|mhz| mhz.parse().ok())
            .map_or(0, |mhz: f64| mhz as u32),
        kernel: host::kernel()?,
        clock: clock.trim().to_owned(),
        rounds,
    })
}

/// In a sentence.
pub(super) fn shown(machine: &Machine) -> String {
    let Machine {
        cpu,
        cpus,
        mhz,
        kernel,
        clock,
        rounds,
    } = machine;
    let clocked = if *mhz == 0 {
        String::new()
    } else {
        format!(" at {mhz} MHz")
    };
    format!("{cpu}{clocked}, {cpus} processors, Linux {kernel}, clock source {clock}; {rounds} rounds for each packet")
}

/// The first value of this name.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let (_, value) = cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(label, _)| label.trim() == name)?;
    Some(value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_found_by_its_fields() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A Processor\ncpu MHz\t\t: 1996.250\n";
        assert_eq!(field(cpuinfo, "model name"), Some("A Processor"));
        assert_eq!(field(cpuinfo, "cpu MHz"), Some("1996.250"));
        assert_eq!(field(cpuinfo, "cpu"), None);
    }
}
