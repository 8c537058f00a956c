//! The program that makes the flood: for each frame that it is given, it sends it if one is due, else drops it.
//!
//! The kernel runs it over frames of its own making, many millions in a second (`BPF_F_TEST_XDP_LIVE_FRAMES`,
//! Documentation/bpf/bpf_prog_run.rst), which no socket does. It keeps two numbers: when the next is due, and how many
//! it has sent.

use std::{io, os::fd::OwnedFd};

use super::stream::Flooding;
use crate::{
    assembly::{
        NOW, add, call, copy, exit, first_of, load, load_32, set, skip_if_at_most, skip_if_greater, store, subtract,
    },
    names::draw,
    sys::{self, Instruction, ProgramKind, Shared},
};

/// How late a packet may be and still be sent in addition to those that follow, in ns: what a thread that was not on
/// its core for a moment makes good, without filling a queue of 256.
const MAKE_GOOD_NS: i32 = 200_000;

/// `BPF_FUNC_redirect`
const REDIRECT: i32 = 23;
/// `XDP_DROP`
const DROP: i32 = 1;

/// Where the number of packets sent stands.
const SENT: usize = 1;

/// A program that is loaded, and its numbers.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) descriptor: OwnedFd,
    numbers: Shared<2>,
    // The kernel keeps it for as long as the program is loaded; so do we.
    _drawn: Shared<1>,
}

impl Program {
    /// Sends on the device with this index, one packet every `interval_ns`; 0 for as fast as it goes.
    pub(super) fn load(device: i32, interval_ns: i32, flooding: &Flooding) -> io::Result<Self> {
        let (numbers, drawn) = (Shared::new()?, Shared::new()?);
        let vary = vary(flooding, drawn.descriptor());
        let instructions = instructions(numbers.descriptor(), device, interval_ns, &vary);
        let descriptor = sys::load(ProgramKind::Xdp, &instructions)?;
        Ok(Self {
            descriptor,
            numbers,
            _drawn: drawn,
        })
    }

    /// Packets sent so far.
    pub(super) fn sent(&self) -> io::Result<u64> {
        Ok(self.numbers.read()?[SENT])
    }
}

/// Gives the packet another name and ID, if that is asked for. The context is in r9.
fn vary(flooding: &Flooding, drawn: i32) -> Vec<Instruction> {
    let Some(names) = flooding.names else {
        return Vec::new();
    };
    let draw = draw(Some(names), flooding.id_at, None, drawn);
    // `data` and `data_end` of `struct xdp_md`. A packet that is too short is sent as it is.
    let mut vary = vec![
        load_32(7, 9, 0),
        load_32(8, 9, 4),
        copy(2, 7),
        add(2, flooding.frame.len() as i32),
        skip_if_greater(2, 8, draw.len() as i16),
    ];
    vary.extend(draw);
    vary
}

fn instructions(numbers: i32, device: i32, interval_ns: i32, vary: &[Instruction]) -> Vec<Instruction> {
    let mut sends = vec![
        // r1 = when it was due; now, if that is too long ago.
        copy(2, 0),
        subtract(2, 1),
        skip_if_at_most(2, MAKE_GOOD_NS, 1),
        copy(1, 0),
        add(1, interval_ns),
        store(6, 0, 1),
        load(2, 6, 8),
        add(2, 1),
        store(6, 8, 2),
    ];
    sends.extend(vary);
    sends.extend([set(1, device), set(2, 0), call(REDIRECT), exit()]);
    let mut program = vec![copy(9, 1)];
    // r6 = the numbers.
    program.extend(first_of(6, numbers));
    program.extend([call(NOW), load(1, 6, 0), skip_if_greater(1, 0, sends.len() as i16)]);
    program.extend(sends);
    program.extend([set(0, DROP), exit()]);
    program
}
