//! An XDP program of somebody else, over the same packets.

use std::{io, os::fd::AsFd as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use aya::programs::ProgramInfo;

use super::{
    cost::Round,
    packet::Packet,
    turns::{MEASURING, Turns},
};
use crate::{bench::Gate, flood::cpu};

/// The type of XDP programs (`BPF_PROG_TYPE_XDP`, include/uapi/linux/bpf.h).
const OF_XDP: u32 = 6;
/// What a program returns that has given up (`XDP_ABORTED`, there as well).
const ABORTED: u32 = 0;

/// An XDP program that lies in a BPF file system, whoever has loaded it.
#[derive(Debug)]
pub struct Peer {
    name: String,
    program: ProgramInfo,
}

impl Peer {
    /// The one that is pinned there.
    pub fn pinned(path: &Path) -> Result<Self> {
        let name = path.file_name().context("a path with a name at its end")?;
        let name = name.to_string_lossy().into_owned();
        let program = ProgramInfo::from_pin(path).map_err(io::Error::other)?;
        ensure!(
            program.program_type() as u32 == OF_XDP,
            "it is no XDP program, and packets for those are what is measured"
        );
        Ok(Self { name, program })
    }

    /// What its pin is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Measures it in turn with an empty program, on a processor of its own, as [`crate::speed::Trial`] does the
    /// guard's. Nobody knows what it has to return, but that it may not give up.
    pub fn rounds(&self, packet: Packet, rounds: usize) -> Result<Vec<Round>> {
        cpu::pin(0, MEASURING)?;
        let program = self.program.fd()?;
        let turns = Turns::new(Gate::Xdp, &packet.frame()?, packet.feed(1)?, program.as_fd())?;
        turns.rounds(rounds, |returned| {
            ensure!(returned != ABORTED, "{packet} at {}: it returns XDP_ABORTED", self.name);
            Ok(())
        })
    }

    /// Instructions that the verifier looked at; `None` before Linux 5.16.
    pub fn verified_instructions(&self) -> Option<u32> {
        self.program.verified_instruction_count()
    }
}
