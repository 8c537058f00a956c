//! How bytes are spoiled: a bit, a byte, a length, a piece too much or too little, a cut anywhere.

use guard_sim::random::Random;

use super::Chance as _;

/// Bytes at the bounds of what a parser looks at: label lengths and types, counts, versions, extension headers.
const EDGES: [u8; 18] = [
    0, 1, 5, 6, 17, 41, 43, 44, 60, 0x3f, 0x40, 0x45, 0x46, 0x60, 0x7f, 0x80, 0xc0, 0xff,
];
/// Most bytes of a piece that is put in or taken out.
const PIECE: usize = 24;

/// Spoils `bytes` in one to four places.
pub(crate) fn spoil(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        once(random, bytes);
    }
}

fn once(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return bytes.push(random.next() as u8);
    }
    let at = random.below(bytes.len() as u64) as usize;
    let end = (at + random.between(1, PIECE)).min(bytes.len());
    match random.below(10) {
        0 | 1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes[at] = random.next() as u8,
        3 | 4 => bytes[at] = random.pick(&EDGES),
        5 => {
            // A length or a count, off by a little.
            let off = random.pick(&[1, 2, 4, 8, 255, 254, 252]);
            bytes[at] = bytes[at].wrapping_add(off);
        }
        6 => drop(bytes.drain(at..end)),
        7 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        8 => {
            let count = random.between(1, 8);
            let piece = random.bytes(count);
            bytes.splice(at..at, piece);
        }
        _ => bytes.truncate(at),
    }
}
