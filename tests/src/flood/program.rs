//! The program that makes the flood: for each frame that it is given, it sends it if one is due, else drops it.
//!
//! The kernel runs it over frames of its own making, many millions in a second (`BPF_F_TEST_XDP_LIVE_FRAMES`,
//! Documentation/bpf/bpf_prog_run.rst), which no socket does. It keeps two numbers: when the next is due, and how many it
//! has sent.

use std::{io, os::fd::OwnedFd};

use crate::{
    assembly::{NOW, add, call, copy, exit, first_of, load, set, skip_if_at_most, skip_if_greater, store, subtract},
    sys::{self, Instruction, ProgramKind, Shared},
};

/// How late a packet may be and still be sent in addition to those that follow, in ns: what a thread that was not on its
/// core for a moment makes good, without filling a queue of 256.
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
}

impl Program {
    /// Sends on the device with this index, one packet every `interval_ns`; 0 for as fast as it goes.
    pub(super) fn load(device: i32, interval_ns: i32) -> io::Result<Self> {
        let numbers = Shared::new()?;
        let descriptor = sys::load(
            ProgramKind::Xdp,
            &instructions(numbers.descriptor(), device, interval_ns),
        )?;
        Ok(Self { descriptor, numbers })
    }

    /// Packets sent so far.
    pub(super) fn sent(&self) -> io::Result<u64> {
        Ok(self.numbers.read()?[SENT])
    }
}

fn instructions(numbers: i32, device: i32, interval_ns: i32) -> [Instruction; 20] {
    let [numbers, and_more] = first_of(6, numbers);
    [
        // r6 = the numbers: a load of 64 bits takes two.
        numbers,
        and_more,
        call(NOW),
        load(1, 6, 0),
        skip_if_greater(1, 0, 13),
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
        set(1, device),
        set(2, 0),
        call(REDIRECT),
        exit(),
        set(0, DROP),
        exit(),
    ]
}
