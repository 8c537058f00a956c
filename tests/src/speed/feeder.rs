//! The program that goes before the one that is measured.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use crate::{
    assembly::{
        add, call, copy, exit, go_on, load, load_32, set, set_64, skip_if_equal, skip_if_greater, store, store_8,
        subtract,
    },
    bench::Gate,
    names::{Names, draw},
    sys::{self, Instruction, Next, ProgramKind, Shared},
};

/// `BPF_FUNC_xdp_adjust_tail`
const ADJUST_TAIL: i32 = 65;
/// `BPF_FUNC_skb_change_tail`
const CHANGE_TAIL: i32 = 38;

/// What is done to a packet before it is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feed {
    /// The names that it asks for; none leaves the one that it has.
    pub names: Option<Names>,
    /// Where in the frame its DNS ID lies, if that is drawn at random.
    pub id_at: Option<usize>,
    /// Where its IPv4 source address lies, if that is another one each time.
    pub source_at: Option<usize>,
    /// Whether all of it is written anew, in its first length: the last run may have made an answer of it.
    pub restores: bool,
}

/// A program that feeds another, and goes on to it.
#[derive(Debug)]
pub(super) struct Feeder {
    program: OwnedFd,
    // The kernel keeps both for as long as the program is loaded, but it empties a map of programs that nobody else
    // has.
    _numbers: Shared<1>,
    _next: Next,
}

impl Feeder {
    /// Feeds packets like `frame` to a program at a gate.
    pub(super) fn new(gate: Gate, frame: &[u8], feed: Feed, program: BorrowedFd<'_>) -> io::Result<Self> {
        let numbers = Shared::new()?;
        let next = Next::to(program)?;
        let instructions = instructions(gate, frame, feed, numbers.descriptor(), next.descriptor());
        Ok(Self {
            program: sys::load(gate.kind(), &instructions)?,
            _numbers: numbers,
            _next: next,
        })
    }

    /// What the kernel is to run.
    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

/// A program that lets everything pass.
pub(crate) fn empty(gate: Gate) -> io::Result<OwnedFd> {
    // TC's number for it is -1.
    sys::load(gate.kind(), &[set(0, gate.pass().cast_signed()), exit()])
}

/// A program that drops packets which have these bytes there, and lets all others pass.
///
/// # Errors
///
/// The kernel does not take it.
pub fn filter(gate: Gate, place: usize, bytes: [u8; 8]) -> io::Result<OwnedFd> {
    let (data, end) = ends(gate.kind());
    let place = place as i16;
    let mut program = vec![
        load_32(7, 1, data),
        load_32(8, 1, end),
        set(0, gate.pass().cast_signed()),
        copy(2, 7),
        add(2, (place + 8).into()),
    ];
    let [low, high] = set_64(3, u64::from_le_bytes(bytes));
    let compare = [load(2, 7, place), low, high, subtract(2, 3)];
    program.push(skip_if_greater(2, 8, compare.len() as i16 + 1));
    program.extend(compare);
    program.extend([skip_if_equal(2, 0, 1), exit()]);
    program.extend([set(0, gate.drop().cast_signed()), exit()]);
    sys::load(gate.kind(), &program)
}

/// Where `data` and `data_end` lie in `struct xdp_md` and in `struct __sk_buff` (include/uapi/linux/bpf.h).
const fn ends(kind: ProgramKind) -> (i16, i16) {
    match kind {
        ProgramKind::Xdp => (0, 4),
        ProgramKind::Classifier => (76, 80),
    }
}

/// r6 is the context, r7 where the packet begins.
fn instructions(gate: Gate, frame: &[u8], feed: Feed, numbers: i32, next: i32) -> Vec<Instruction> {
    let length = frame.len() as i32;
    let (data, end) = ends(gate.kind());
    let mut program = vec![copy(6, 1)];
    if feed.restores {
        program.extend(resize(gate.kind(), length, data, end));
    }
    let mut body = Vec::new();
    if feed.restores {
        body.extend(rewrite(frame));
    }
    if feed.names.is_some() || feed.id_at.is_some() || feed.source_at.is_some() {
        body.extend(draw(feed.names, feed.id_at, feed.source_at, numbers));
    }
    // A packet that is too short is not touched.
    program.extend([load_32(7, 6, data), load_32(8, 6, end), copy(2, 7), add(2, length)]);
    program.push(skip_if_greater(2, 8, body.len() as i16));
    program.extend(body);
    program.extend(go_on(6, next));
    program.extend([set(0, gate.pass().cast_signed()), exit()]);
    program
}

/// Gives the packet back the length it had.
fn resize(kind: ProgramKind, length: i32, data: i16, end: i16) -> Vec<Instruction> {
    match kind {
        ProgramKind::Xdp => vec![
            load_32(3, 6, end),
            load_32(4, 6, data),
            subtract(3, 4),
            set(2, length),
            subtract(2, 3),
            skip_if_equal(2, 0, 2),
            copy(1, 6),
            call(ADJUST_TAIL),
        ],
        // `len` is the first field.
        ProgramKind::Classifier => vec![
            load_32(2, 6, 0),
            skip_if_equal(2, length, 4),
            copy(1, 6),
            set(2, length),
            set(3, 0),
            call(CHANGE_TAIL),
        ],
    }
}

/// Writes every byte of the packet.
fn rewrite(frame: &[u8]) -> Vec<Instruction> {
    let (words, rest) = frame.as_chunks::<8>();
    let mut body = Vec::new();
    for (word, bytes) in words.iter().enumerate() {
        body.extend(set_64(2, u64::from_le_bytes(*bytes)));
        body.push(store(7, word as i16 * 8, 2));
    }
    for (byte, value) in rest.iter().enumerate() {
        body.push(set(2, (*value).into()));
        body.push(store_8(7, (words.len() * 8 + byte) as i16, 2));
    }
    body
}
