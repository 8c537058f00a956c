//! How a name is spelled: which of its letters are capitals, and how to change that.
//!
//! DNS compares names without regard to the case of ASCII letters (RFC 4343). Forwarders send a name on as they got it,
//! and servers send it back as they got it. So the case of a name can carry a [`Pattern`] that nobody heeds and
//! everybody hands on: as many bits as the name has letters.
//!
//! All of it works on the wire form, eight bytes at a time. Length bytes are at most 63 and never look like letters.

use crate::{
    answer::{fold, lanes},
    bytes::{Bytes, BytesMut},
    key::{Key, Secret, fold_case},
};

/// The bit in which a capital differs from its small letter, in each of eight bytes.
const CASE: u64 = 0x2020_2020_2020_2020;
/// Words of eight bytes in the longest name.
pub const WORDS: usize = 32;

/// Which letters of a name are flipped, as a key decides it. Whoever does not hold the secret cannot guess it, and knows
/// nothing of the next one when he has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern(u64);

impl Pattern {
    /// The pattern of a number that is drawn for it.
    #[inline(always)]
    pub const fn new(nonce: u32, key: Key, secret: &Secret) -> Self {
        Self(secret.mix(nonce as u64 ^ secret.0[2], key.0 ^ secret.0[0]))
    }

    /// The case bits that are flipped in the eight bytes at `word`, if they are letters.
    #[inline(always)]
    const fn bits(self, word: usize, secret: &Secret) -> u64 {
        secret.mix(self.0 ^ secret.0[1], secret.0[0].wrapping_add(word as u64)) & CASE
    }
}

/// Where a name lies in a frame, and the bytes of its wire form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamePlace {
    /// Its first byte.
    pub at: usize,
    /// 1 to 255.
    pub length: usize,
}

/// How the name in a packet is spelled.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spelling {
    /// Stands for key and spelling.
    pub digest: u64,
    /// What the digest will be once the pattern is flipped.
    pub flipped: u64,
    /// Letters of the name: 0 to 250.
    pub letters: u32,
    /// Capitals that it has once the pattern is flipped.
    pub capitals: u32,
}

impl Spelling {
    /// Whether the pattern makes another name of it, and not one in small letters: those are everybody's.
    #[inline(always)]
    pub const fn is_a_mark(&self) -> bool {
        self.digest != self.flipped && self.capitals != 0
    }

    /// Reads how a name is spelled, and how it would be with `pattern` flipped. `None` if the packet is shorter.
    pub fn read<B: Bytes + ?Sized>(
        frame: &B,
        name: NamePlace,
        key: Key,
        pattern: Pattern,
        secret: &Secret,
    ) -> Option<Self> {
        let mut spelling = Self::begin(key, secret);
        for word in 0..WORDS {
            if !spelling.add(frame, name, word, pattern, secret)? {
                break;
            }
        }
        Some(spelling)
    }

    /// No letter read yet.
    #[inline(always)]
    pub const fn begin(key: Key, secret: &Secret) -> Self {
        let digest = secret.mix(key.0 ^ secret.0[1], secret.0[2]);
        Self {
            digest,
            flipped: digest,
            letters: 0,
            capitals: 0,
        }
    }

    /// Reads eight bytes more. False if the name ended before them, `None` if the packet did.
    #[inline(always)]
    pub fn add<B: Bytes + ?Sized>(
        &mut self,
        frame: &B,
        name: NamePlace,
        word: usize,
        pattern: Pattern,
        secret: &Secret,
    ) -> Option<bool> {
        let Some(place) = Place::of(word, name.length) else {
            return Some(false);
        };
        let bytes = frame.le64(name.at + name.length - place.before_end)?;
        let cases = place.counts & letters_of(bytes);
        let capitals = !bytes & cases;
        let flips = pattern.bits(word, secret) & cases;
        self.digest = secret.mix(self.digest ^ secret.0[0], capitals ^ secret.0[1]);
        self.flipped = secret.mix(self.flipped ^ secret.0[0], capitals ^ flips ^ secret.0[1]);
        self.letters += ones(cases);
        self.capitals += ones(capitals ^ flips);
        Some(true)
    }
}

/// What is done to the case of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Respelling {
    /// The letters of a pattern are flipped. Done twice, nothing has happened.
    Flip(Pattern),
    /// All letters become small ones.
    Lower,
}

/// What a checksum covered before a name was respelled, and what it covers now: two sums of little-endian 16-bit words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    old: u64,
    new: u64,
}

impl Change {
    /// Respells a name. `None`, with the name half written, if the packet is shorter.
    pub fn make<B: BytesMut + ?Sized>(
        frame: &mut B,
        name: NamePlace,
        how: Respelling,
        secret: &Secret,
    ) -> Option<Self> {
        let mut change = Self::default();
        for word in 0..WORDS {
            if !change.add(frame, name, word, how, secret)? {
                break;
            }
        }
        Some(change)
    }

    /// Respells eight bytes more. False if the name ended before them, `None` if the packet did.
    #[inline(always)]
    pub fn add<B: BytesMut + ?Sized>(
        &mut self,
        frame: &mut B,
        name: NamePlace,
        word: usize,
        how: Respelling,
        secret: &Secret,
    ) -> Option<bool> {
        let Some(place) = Place::of(word, name.length) else {
            return Some(false);
        };
        let at = name.at + name.length - place.before_end;
        let bytes = frame.le64(at)?;
        let cases = place.counts & letters_of(bytes);
        let flips = match how {
            Respelling::Flip(pattern) => pattern.bits(word, secret) & cases,
            Respelling::Lower => !bytes & cases,
        };
        frame.put_le64(at, bytes ^ flips)?;
        // A word that begins at an odd byte has its bytes the other way round in the sum (RFC 1071 section 2).
        let turn = (place.before_end ^ name.length) as u32 & 1;
        self.old += lanes(bytes.rotate_left(8 * turn));
        self.new += lanes((bytes ^ flips).rotate_left(8 * turn));
        Some(true)
    }

    /// By how much the sum has grown in ones' complement, as the kernel's checksum helpers want it (`__wsum`).
    #[inline(always)]
    pub const fn difference(self) -> u32 {
        let sum = fold(self.new) as u32 + !fold(self.old) as u32;
        u16::from_le(fold(sum as u64)) as u32
    }

    /// Brings the complete UDP checksum at `at` up to date (RFC 1624). Zero says that there is none.
    #[inline(always)]
    pub fn apply<B: BytesMut + ?Sized>(self, frame: &mut B, at: usize) -> Option<()> {
        let checksum = frame.be16(at)?;
        if checksum == 0 {
            return Some(());
        }
        let grown = fold(self.new).swap_bytes() as u64 + !fold(self.old).swap_bytes() as u64;
        let sum = !fold(!checksum as u64 + grown);
        frame.put_be16(at, if sum == 0 { 0xffff } else { sum })
    }
}

/// Eight bytes of a name: how far before its end they begin, and which of them count. All but the last eight begin at a
/// multiple of eight; the last eight end where the name ends, and overlap those before them, or, in a short name, the
/// header in front of it.
#[derive(Clone, Copy)]
struct Place {
    before_end: usize,
    counts: u64,
}

impl Place {
    #[inline(always)]
    const fn of(word: usize, length: usize) -> Option<Self> {
        if word * 8 >= length {
            return None;
        }
        let left = length - word * 8;
        Some(if left >= 8 {
            Self {
                before_end: left,
                counts: u64::MAX,
            }
        } else {
            Self {
                before_end: 8,
                counts: u64::MAX << (64 - left as u32 * 8),
            }
        })
    }
}

/// The case bit of every byte that is an ASCII letter.
#[inline(always)]
const fn letters_of(bytes: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let seven_bits = fold_case(bytes) & (ONES * 0x7f);
    let from_a = seven_bits + ONES * (0x80 - b'a' as u64);
    let past_z = seven_bits + ONES * (0x7f - b'z' as u64);
    ((from_a ^ past_z) & !bytes & (ONES * 0x80)) >> 2
}

/// How many case bits are set.
#[inline(always)]
const fn ones(cases: u64) -> u32 {
    ((cases >> 5).wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32
}

#[cfg(test)]
mod tests;
