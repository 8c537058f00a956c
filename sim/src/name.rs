//! Names, and how they are spelled.

use crate::random::Random;

/// A name in wire form, in small letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    wire: Vec<u8>,
    /// The bytes that are letters.
    letters: Caps,
}

/// Which bytes of a wire name are capitals: a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caps([u64; 4]);

impl Name {
    /// The name of these labels.
    ///
    /// # Panics
    ///
    /// If it is no name: labels are of 1 to 63 bytes, and all of it fits into 255.
    pub fn new(text: &str) -> Self {
        let mut wire = Vec::new();
        for label in text.split('.').filter(|label| !label.is_empty()) {
            assert!(label.len() < 64, "{label} is too long");
            wire.push(label.len() as u8);
            wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        wire.push(0);
        assert!(wire.len() <= 255, "{text} is too long");
        let mut letters = Caps::default();
        for at in lettered(&wire) {
            letters.set(at);
        }
        Self { wire, letters }
    }

    /// A name of so many letters, with digits between them so that no other is like it.
    pub fn with_letters(letters: usize, random: &mut Random) -> Self {
        let mut text = String::new();
        let mut label = 0;
        for _ in 0..letters {
            if label > 20 {
                text.push('.');
                label = 0;
            }
            text.push((b'a' + random.below(26) as u8) as char);
            label += 1;
        }
        // Eighteen digits make it this name and no other.
        text.push('.');
        text += &format!("{:018}", random.below(1_000_000_000_000_000_000));
        Self::new(&text)
    }

    /// The wire form.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// How many letters it has.
    pub fn letter_count(&self) -> u32 {
        self.letters.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Each letter a capital or not, as it comes.
    pub fn at_random(&self, random: &mut Random) -> Caps {
        Caps(self.letters.0.map(|letters| letters & random.next()))
    }

    /// All letters capitals.
    pub const fn shouted(&self) -> Caps {
        self.letters
    }

    /// The wire form as it is spelled, into a packet.
    pub fn write(&self, caps: Caps, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(&self.wire);
        if caps != Caps::default() {
            for at in 0..self.wire.len() {
                if caps.has(at) {
                    into[start + at] ^= 0x20;
                }
            }
        }
    }

    /// How it is spelled in a packet.
    ///
    /// # Panics
    ///
    /// If it is another name.
    pub fn read(&self, bytes: &[u8]) -> Caps {
        let mut caps = Caps::default();
        for (at, (byte, small)) in bytes.iter().zip(&self.wire).enumerate() {
            if byte != small {
                assert_eq!(byte | 0x20, *small, "the name has become another one");
                caps.set(at);
            }
        }
        caps
    }
}

impl Caps {
    const fn set(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    const fn has(self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }
}

/// Where the letters of a wire name are.
fn lettered(wire: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut next_label = 0;
    for (at, byte) in wire.iter().enumerate() {
        if at == next_label {
            next_label += usize::from(*byte) + 1;
        } else if byte.is_ascii_alphabetic() {
            found.push(at);
        }
    }
    found
}
