//! Packets that differ by the name that they ask for: a program of the kernel's writes it, faster than any socket
//! sends.

use crate::{
    assembly::{
        add, copy, exclusive_or, first_of, load, mask, modulo, multiply, set, set_64, shift_right, store, store_8,
        store_16,
    },
    sys::Instruction,
};

/// Letters that tell one name from another.
pub const LETTERS: usize = 5;
/// What each of them can be: `a` to `p`.
const ALPHABET: u32 = 16;
/// Names that there are.
pub const MOST_NAMES: u32 = ALPHABET.pow(LETTERS as u32);

/// Multiplier of the generator that draws (Knuth's MMIX); its increment fits an instruction, which is all it has to do.
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const INCREMENT: i32 = 1_442_695_041;

/// In which order names come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Each is drawn.
    AtRandom,
    /// One after the other, and again from the first.
    InTurn,
}

/// The names that a packet asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// Where in the frame the [`LETTERS`] lie that tell them apart.
    pub at: usize,
    /// How many there are, [`MOST_NAMES`] at most.
    pub count: u32,
    /// Which is next.
    pub order: Order,
}

/// Writes the next name, and the next ID where `id_at` says and the next IPv4 source where `source_at` does, into a packet
/// that begins where r7 says and is as long as that takes. What is next stands in the first value of the map `numbers`. It
/// changes r0, r2 and r3.
pub(crate) fn draw(
    names: Option<Names>,
    id_at: Option<usize>,
    source_at: Option<usize>,
    numbers: i32,
) -> Vec<Instruction> {
    let order = names.map_or(Order::AtRandom, |names| names.order);
    // r0 = the number that stands in the map.
    let mut body = first_of(2, numbers).to_vec();
    body.push(load(0, 2, 0));
    match order {
        Order::InTurn => body.extend([copy(3, 0), add(3, 1), store(2, 0, 3)]),
        Order::AtRandom => {
            body.extend(set_64(3, MULTIPLIER));
            // The upper bits of such a number are good, the lower ones are not: they get both.
            body.extend([
                multiply(0, 3),
                add(0, INCREMENT),
                store(2, 0, 0),
                copy(3, 0),
                shift_right(3, 32),
                exclusive_or(0, 3),
            ]);
        }
    }
    if let Some(at) = id_at {
        body.push(store_16(7, at as i16, 0));
    }
    if let Some(at) = source_at {
        body.extend([
            store_16(7, at as i16, 0),
            copy(3, 0),
            shift_right(3, 16),
            store_16(7, at as i16 + 2, 3),
        ]);
    }
    let Some(names) = names else {
        return body;
    };
    // r0 = which name.
    match order {
        Order::InTurn => body.push(modulo(0, names.count as i32)),
        Order::AtRandom => body.extend([
            shift_right(0, 32),
            set(3, names.count as i32),
            multiply(0, 3),
            shift_right(0, 32),
        ]),
    }
    for letter in 0..LETTERS {
        body.extend([
            copy(3, 0),
            shift_right(3, letter as i32 * ALPHABET.ilog2() as i32),
            mask(3, ALPHABET as i32 - 1),
            add(3, b'a'.into()),
            store_8(7, (names.at + letter) as i16, 3),
        ]);
    }
    body
}
