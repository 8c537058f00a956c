//! The program that goes before the one that is measured.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use crate::{
    assembly::{
        add, call, copy, exclusive_or, exit, first_of, go_on, load, load_32, mask, multiply, set, set_64, shift_left,
        shift_right, skip_if_equal, skip_if_greater, store, store_8, store_16, subtract,
    },
    bench::{Gate, Way},
    sys::{self, Instruction, Next, ProgramKind, Ran, Shared},
};

/// `BPF_FUNC_xdp_adjust_tail` and `BPF_FUNC_skb_change_tail`
const ADJUST_TAIL: i32 = 65;
const CHANGE_TAIL: i32 = 38;

/// Letters of a name that a feeder writes: 16 names each, so that they are enough for a million.
pub const LETTERS: usize = 5;

/// What is done to a packet before it is judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Feed {
    /// Where [`LETTERS`] letters of its name lie, and how many names there are; they are drawn at random.
    pub names: Option<(usize, u32)>,
    /// The same, but one name after the other.
    pub in_turn: bool,
    /// Where its DNS ID lies, which is drawn at random.
    pub id_at: Option<usize>,
    /// Whether all of it is written anew.
    pub restores: bool,
}

/// A program that feeds another.
#[derive(Debug)]
pub struct Feeder {
    descriptor: OwnedFd,
    gate: Gate,
    frame: Vec<u8>,
    way: Way,
    _numbers: Shared<1>,
    _next: Next,
}

impl Feeder {
    /// Feeds packets like `frame` to a program at a gate.
    pub fn new(gate: Gate, way: Way, frame: &[u8], feed: Feed, program: BorrowedFd<'_>) -> io::Result<Self> {
        let numbers = Shared::new()?;
        let next = Next::to(program)?;
        let instructions = instructions(gate, frame, feed, numbers.descriptor(), next.descriptor());
        Ok(Self {
            descriptor: sys::load(gate.kind(), &instructions)?,
            gate,
            frame: frame.to_vec(),
            way,
            _numbers: numbers,
            _next: next,
        })
    }

    /// Runs both so many times.
    pub fn run(&self, times: u32) -> io::Result<(u32, u32)> {
        let context = self.way.context(self.gate, &self.frame);
        let Ran { returned, ns } = sys::run_test(self.descriptor.as_fd(), &self.frame, context.as_deref(), times)?;
        Ok((returned, ns))
    }
}

/// A program that lets everything pass.
pub fn empty(gate: Gate) -> io::Result<OwnedFd> {
    sys::load(gate.kind(), &[set(0, gate.pass() as i32), exit()])
}

/// Runs a program alone.
pub fn alone(program: BorrowedFd<'_>, gate: Gate, way: Way, frame: &[u8], times: u32) -> io::Result<(u32, u32)> {
    let context = way.context(gate, frame);
    let Ran { returned, ns } = sys::run_test(program, frame, context.as_deref(), times)?;
    Ok((returned, ns))
}

fn instructions(gate: Gate, frame: &[u8], feed: Feed, numbers: i32, next: i32) -> Vec<Instruction> {
    let length = frame.len() as i32;
    // `data` and `data_end` of `struct xdp_md` and of `struct __sk_buff` (include/uapi/linux/bpf.h).
    let (data, end) = match gate.kind() {
        ProgramKind::Xdp => (0, 4),
        ProgramKind::Classifier => (76, 80),
    };
    let mut program = vec![copy(6, 1)];
    if feed.restores {
        match gate.kind() {
            ProgramKind::Xdp => program.extend([
                load_32(3, 6, end),
                load_32(4, 6, data),
                subtract(3, 4),
                set(2, length),
                subtract(2, 3),
                skip_if_equal(2, 0, 2),
                copy(1, 6),
                call(ADJUST_TAIL),
            ]),
            ProgramKind::Classifier => program.extend([
                load_32(2, 6, 0),
                skip_if_equal(2, length, 4),
                copy(1, 6),
                set(2, length),
                set(3, 0),
                call(CHANGE_TAIL),
            ]),
        }
    }
    let body = body(frame, feed, numbers);
    program.extend([load_32(7, 6, data), load_32(8, 6, end), copy(2, 7), add(2, length)]);
    program.push(skip_if_greater(2, 8, body.len() as i16));
    program.extend(body);
    program.extend(go_on(6, next));
    program.extend([set(0, gate.pass() as i32), exit()]);
    program
}

/// What is done to the bytes, which begin where r7 says.
fn body(frame: &[u8], feed: Feed, numbers: i32) -> Vec<Instruction> {
    let mut body = Vec::new();
    if feed.restores {
        let (words, rest) = frame.as_chunks::<8>();
        for (word, bytes) in words.iter().enumerate() {
            body.extend(set_64(2, u64::from_le_bytes(*bytes)));
            body.push(store(7, word as i16 * 8, 2));
        }
        for (byte, value) in rest.iter().enumerate() {
            body.push(set(2, (*value).into()));
            body.push(store_8(7, (words.len() * 8 + byte) as i16, 2));
        }
    }
    if feed.names.is_none() && feed.id_at.is_none() {
        return body;
    }
    // r0 = what stands there; what comes next is a step of a generator (Knuth's MMIX), or the next number.
    body.extend(first_of(2, numbers));
    body.push(load(0, 2, 0));
    if feed.in_turn {
        body.extend([copy(3, 0), add(3, 1), store(2, 0, 3)]);
    } else {
        body.extend(set_64(3, 6_364_136_223_846_793_005));
        body.extend([
            multiply(0, 3),
            add(0, 1_442_695_041),
            store(2, 0, 0),
            copy(3, 0),
            shift_right(3, 32),
            exclusive_or(0, 3),
        ]);
    }
    if let Some(at) = feed.id_at {
        body.push(store_16(7, at as i16, 0));
    }
    if let Some((at, names)) = feed.names {
        if feed.in_turn {
            // r0 %= names
            body.push(Instruction {
                code: 0x97,
                registers: 0,
                offset: 0,
                immediate: names as i32,
            });
        } else {
            // Of the upper half, as many as there are.
            body.extend([
                shift_right(0, 32),
                set(3, names as i32),
                multiply(0, 3),
                shift_right(0, 32),
            ]);
        }
        for letter in 0..LETTERS {
            body.extend([
                copy(3, 0),
                shift_right(3, letter as i32 * 4),
                mask(3, 0xf),
                add(3, b'a'.into()),
                store_8(7, (at + letter) as i16, 3),
            ]);
        }
    }
    let _ = shift_left;
    body
}
