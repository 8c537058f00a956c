//! A storm on a node of a cloud that polices what it may send: with and without a guard.
//!
//! AWS drops, without a word, what an interface sends to link-local services above 1,024 packets per second: DNS, instance
//! metadata and time together. So one client that sweeps takes the name service from all others. This is that picture:
//! `network` and `vpc` are the place, `policer` is the limit, `sweep` is the storm, `stub` and `libc` are the clients that
//! do nothing wrong, `site` is all of it together, and the [`StormReport`] says what each of them got.
//!
//! **Invariant: a storm is bounded.** It ends with the good clients that are watched, or a moment after they should have
//! been done; and it never leaves its namespaces.

mod imds;
mod libc;
mod naming;
mod network;
mod ntp;
mod policer;
mod report;
mod series;
mod site;
mod stub;
mod sweep;
mod tally;
mod vpc;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};

use self::site::Site;
pub use self::{
    naming::Named,
    network::UPLINK,
    policer::{LIMIT_PPS, Policed, Service},
    report::{Crowd, Kind, StormReport},
    series::Sample,
    site::GOOD_CLIENTS,
    sweep::{SWEPT, Swept},
    tally::Tally,
};
use crate::{
    guard::{GuardOptions, Mode},
    programs,
};

/// The programs that a storm needs, as [`programs::provide`] takes them.
pub const PROGRAMS: [&str; 4] = ["ip", "nft", "dnsmasq", "unbound"];
/// Programs whose clients take part where they are to be had.
pub const WELCOME: [&str; 2] = ["musl-gcc", "systemd-resolved"];

/// Queries per second of the sweep.
const SWEEP_PPS: u32 = 5_000;

/// Brings what a storm needs, and what it can use. Says on stderr what it goes on without.
pub fn provide() -> Result<()> {
    programs::provide(&PROGRAMS)?;
    for program in WELCOME {
        if let Err(why) = programs::provide(&[program]) {
            eprintln!("programs: going on without {program} ({why:#})");
        }
    }
    Ok(())
}

/// The version of every program and library that takes part.
pub fn versions() -> Result<BTreeMap<&'static str, String>> {
    let mut versions = BTreeMap::from([
        ("dnsmasq", programs::version("dnsmasq")?),
        ("unbound", programs::version("unbound")?),
        ("glibc", programs::version("getent")?),
    ]);
    if takes_part("musl-gcc") {
        versions.insert("musl", libc::musl_version()?);
    }
    if takes_part("systemd-resolved") {
        versions.insert("systemd-resolved", programs::version("systemd-resolved")?);
    }
    Ok(versions)
}

fn takes_part(program: &str) -> bool {
    programs::locate(program).is_ok()
}

/// A guard with the preset for AWS, on the node's uplink.
pub fn link_local(mode: Mode) -> GuardOptions {
    GuardOptions {
        mode,
        interfaces: vec![UPLINK.to_owned()],
        extra_toml: "[[budget]]\npreset = \"aws-link-local\"\n".to_owned(),
    }
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Storm {
    guard: Option<GuardOptions>,
    sweep_pps: u32,
    length: Duration,
}

impl Storm {
    /// Good traffic alone.
    pub fn calm(length: Duration) -> Self {
        Self {
            guard: None,
            sweep_pps: 0,
            length,
        }
    }

    /// The storm, and nobody who would do anything about it.
    pub fn free(length: Duration) -> Self {
        Self {
            sweep_pps: SWEEP_PPS,
            ..Self::calm(length)
        }
    }

    /// The storm, and a guard on the node.
    pub fn guarded(guard: GuardOptions, length: Duration) -> Self {
        Self {
            guard: Some(guard),
            ..Self::free(length)
        }
    }

    /// Builds all of it, watches good clients for the length, and some seconds more if some wait for answers.
    pub fn run(&self) -> Result<StormReport> {
        let site = Site::start().context("build the node and its VPC")?;
        let guard = self.guard.as_ref().map(|options| site.guard(options)).transpose()?;
        site.warm_up()?;
        let mut report = site.watch(self.sweep_pps, self.length, guard.as_ref())?;
        if let Some(guard) = guard {
            report.unclean = guard.stop().err().map(|error| format!("{error:#}"));
            report.events = guard.events()?;
        }
        Ok(report)
    }
}
