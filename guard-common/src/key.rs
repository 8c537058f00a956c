//! The key of a question: its name in lower case, its type and its class, hashed with a per-boot secret.
//!
//! The name is hashed over its wire form, sixteen bytes a step. DNS compares names without regard to ASCII case (RFC
//! 4343); folding the wire form folds no length byte, because those are at most 63 and `A` is 65.

use crate::{
    bytes::Bytes,
    question::{MAX_NAME_LEN, Question},
};

/// What whoever does not hold it cannot aim collisions without. Drawn once per boot.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Secret(pub [u64; 4]);

impl Secret {
    /// Mixes two words, so that each bit of either counts in all of the result.
    ///
    /// The kernel's multiply has no upper half, which is where the bits of a product mix best. Two lower halves, of which
    /// one is turned round by its bytes before and after, do as well (`folded_multiply` of ahash 0.8, for machines without
    /// the upper half: src/operations.rs).
    #[inline(always)]
    pub const fn mix(&self, a: u64, b: u64) -> u64 {
        let straight = a.wrapping_mul(b.swap_bytes());
        let turned = a.swap_bytes().wrapping_mul(!b);
        straight ^ turned.swap_bytes() ^ self.0[3]
    }
}

#[cfg(test)]
impl Secret {
    /// What tests hash with.
    pub(crate) const OF_TESTS: Self = Self([
        0x1234_5678_9abc_def1,
        0x0fed_cba9_8765_4321,
        0x5555_aaaa_3333_cccc,
        0x77,
    ]);
}

/// Spreads the numbers of network namespaces over a key: 2^64 divided by the golden ratio.
const NAMESPACES: u64 = 0x9e37_79b9_7f4a_7c15;

/// 64 bits that stand for (qname, qtype, qclass). It is odd: 0 marks an empty slot.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key(pub u64);

/// What a walk over the bytes of a question finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// The key.
    pub key: Key,
    /// Whether its name is spelled without a capital.
    pub plain: bool,
}

impl Hashed {
    /// Both in one number, which is not zero but for one key in 2^63.
    #[inline(always)]
    pub const fn number(self) -> u64 {
        self.key.0 & !1 | self.plain as u64
    }

    /// What is in a number; `None` for zero.
    #[inline(always)]
    pub const fn from_number(number: u64) -> Option<Self> {
        if number == 0 {
            return None;
        }
        Some(Self {
            key: Key(number | 1),
            plain: number & 1 == 1,
        })
    }
}

impl Key {
    /// The key of the question that lies in `packet`. `None` if the packet is shorter than the question says.
    pub fn of<B: Bytes + ?Sized>(packet: &B, question: &Question, secret: &Secret) -> Option<Self> {
        Hashed::read(packet, question, secret).map(|hashed| hashed.key)
    }

    /// The same question in the network namespace of this number, which is a question of its own: what goes round in one
    /// is none of another's business. Number 0 has the key itself. It stays odd.
    #[inline(always)]
    pub const fn within(self, namespace: u32) -> Self {
        Self(self.0 ^ (namespace as u64).wrapping_mul(NAMESPACES) << 1)
    }
}

impl Hashed {
    /// Hashes the question that lies in `packet`. `None` if the packet is shorter than the question says.
    #[inline(always)]
    pub fn read<B: Bytes + ?Sized>(packet: &B, question: &Question, secret: &Secret) -> Option<Self> {
        let length = question.name_len;
        let block = |at| packet.le64s(question.name_at + at);
        let last = packet.le64s(question.name_at + length - BLOCK_LEN)?;
        let type_and_class = (question.qtype as u32) << 16 | question.qclass as u32;
        Some(NameHash::of(length, block, last, secret)?.asked(length, type_and_class, secret))
    }
}

/// What the bytes of a name hash to, and the case of its letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameHash {
    /// The same for names that differ in case alone.
    pub(crate) hash: u64,
    /// Whether it is spelled without a capital.
    pub(crate) plain: bool,
}

/// A name is hashed so many bytes a step.
pub(crate) const BLOCK_LEN: usize = 16;
/// Such blocks in the longest name; what is left of it is less than another one.
pub(crate) const MAX_BLOCKS: usize = MAX_NAME_LEN / BLOCK_LEN;

impl NameHash {
    /// Hashes a name of this length by its blocks, of which `block` reads the one at an offset, and by its last sixteen
    /// bytes.
    #[inline(always)]
    pub(crate) fn of(
        length: usize,
        mut block: impl FnMut(usize) -> Option<[u64; 2]>,
        [mut low, mut high]: [u64; 2],
        secret: &Secret,
    ) -> Option<Self> {
        let [first, second, third, fourth] = secret.0;
        let mut hash = first;
        let mut capitals = 0;
        // All bits of what is compared are known where the loop ends, and the length stays what it was: verifiers before
        // Linux 6.2 would check all that follows once for each number of blocks, had it been compared itself, and once more
        // for a length below sixteen.
        let blocks = length & 0xf0;
        let mut is_short = true;
        for number in 0..MAX_BLOCKS {
            if number * BLOCK_LEN == blocks {
                break;
            }
            let [one, other] = folded(block(number * BLOCK_LEN)?, &mut capitals);
            hash = secret.mix(one ^ second, other ^ hash);
            is_short = false;
        }
        // The last sixteen bytes end where the name ends, and wait for nothing that came before. They overlap the last
        // block, and for a short name they reach back into the twenty bytes of UDP and DNS header in front of it: those
        // are shifted out.
        if is_short {
            high >>= 8_usize.saturating_sub(length) * 8;
            low = low.unbounded_shr(16_usize.saturating_sub(length) as u32 * 8);
        }
        let [low, high] = folded([low, high], &mut capitals);
        let last = secret.mix(low ^ third, high ^ fourth);
        Some(Self {
            hash: hash ^ last.rotate_left(32) ^ third,
            plain: capitals == 0,
        })
    }

    /// Hashes the question that has this name, of this length, and this type and class.
    #[inline(always)]
    pub(crate) const fn asked(self, length: usize, type_and_class: u32, secret: &Secret) -> Hashed {
        let rest = (length as u64) << 32 | type_and_class as u64;
        Hashed {
            key: Key(secret.mix(self.hash, rest ^ secret.0[3]) | 1),
            plain: self.plain,
        }
    }
}

/// Sixteen bytes of a name without capitals. Where it had some, bits are set in `capitals`.
#[inline(always)]
const fn folded(words: [u64; 2], capitals: &mut u64) -> [u64; 2] {
    let [low, high] = words;
    if !may_have_capitals(low, high) {
        return words;
    }
    let (low_folded, high_folded) = (fold_case(low), fold_case(high));
    *capitals |= low ^ low_folded | high ^ high_folded;
    [low_folded, high_folded]
}

/// Whether one of sixteen bytes is in a column of the ASCII table that has capitals: 0x40 is set in it, and 0x20 is not.
/// Names are mostly in small letters.
#[inline(always)]
const fn may_have_capitals(low: u64, high: u64) -> bool {
    const COLUMN: u64 = 0x4040_4040_4040_4040;
    (low & !(low << 1) | high & !(high << 1)) & COLUMN != 0
}

/// Turns every ASCII capital of the eight bytes into its small letter.
#[inline(always)]
pub const fn fold_case(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let seven_bits = word & (ONES * 0x7f);
    let from_a = seven_bits + ONES * (0x80 - b'A' as u64);
    let past_z = seven_bits + ONES * (0x7f - b'Z' as u64);
    let capitals = (from_a ^ past_z) & !word & (ONES * 0x80);
    word | capitals >> 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::abi::{KEY_BUCKETS, key_bucket};

    const SECRET: Secret = Secret::OF_TESTS;

    /// A packet of 20 header bytes and this wire name, and its key.
    fn key(name: &[u8], qtype: u16) -> Key {
        let mut packet = std::vec![0xee_u8; 20];
        packet.extend_from_slice(name);
        let question = Question {
            name_at: 20,
            name_len: name.len(),
            qtype,
            qclass: 1,
        };
        Key::of(packet.as_slice(), &question, &SECRET).unwrap()
    }

    #[test]
    fn every_bit_of_either_word_changes_about_half_of_the_mix() {
        let (a, b) = (0xdead_beef_0bad_cafe, 0x0123_4567_89ab_cdef);
        for bit in 0..64 {
            for mixed in [SECRET.mix(a ^ 1 << bit, b), SECRET.mix(a, b ^ 1 << bit)] {
                let changed = (mixed ^ SECRET.mix(a, b)).count_ones();
                assert!((10..=54).contains(&changed), "bit {bit} changes {changed}");
            }
        }
    }

    #[test]
    fn types_whose_bytes_look_like_letters_stay_apart() {
        assert_ne!(key(b"\x01a\0", 65), key(b"\x01a\0", 97));
        assert_ne!(key(b"\0", 1), key(b"\0", 2));
    }

    #[test]
    fn what_lies_in_front_of_a_short_name_does_not_count() {
        for length in 1..40_usize {
            let mut one = std::vec![0x11_u8; 20 + length];
            let mut other = std::vec![0x22_u8; 20 + length];
            one[20..].fill(7);
            other[20..].fill(7);
            let question = Question {
                name_at: 20,
                name_len: length,
                qtype: 1,
                qclass: 1,
            };
            let of = |packet: &[u8]| Key::of(packet, &question, &SECRET).unwrap();
            assert_eq!(of(&one), of(&other), "length {length}");
        }
    }

    /// The key of `number` as a name of eight letters under `example`.
    fn numbered(packet: &mut [u8; 38], number: u64, secret: &Secret) -> Key {
        for (letter, byte) in packet[21..29].iter_mut().enumerate() {
            *byte = b'a' + (number >> (letter * 4) & 15) as u8;
        }
        let question = Question {
            name_at: 20,
            name_len: 18,
            qtype: 1,
            qclass: 1,
        };
        Key::of(packet.as_slice(), &question, secret).unwrap()
    }

    const NUMBERED: [u8; 38] = *b"....................\x08aaaaaaaa\x07example\0";

    #[test]
    fn ten_million_names_have_a_key_each() {
        let mut packet = NUMBERED;
        let mut keys: std::vec::Vec<u64> = (0..10_000_000)
            .map(|number| numbered(&mut packet, number, &SECRET).0)
            .collect();
        keys.sort_unstable();
        assert!(keys.is_sorted_by(|one, next| one < next), "two names have one key");
    }

    /// Whoever guesses a secret can make names that meet in a few buckets for it. For another secret they are spread as any
    /// others are.
    #[test]
    fn names_that_meet_for_a_guessed_secret_do_not_for_another() {
        let guessed = Secret([1, 2, 3, 4]);
        let mut packet = NUMBERED;
        let meeting: std::vec::Vec<u64> = (0..400_000)
            .filter(|number| key_bucket(numbered(&mut packet, *number, &guessed)) < 64)
            .collect();
        assert!((1_300..1_850).contains(&meeting.len()), "{} names", meeting.len());
        for last in 0..16 {
            let secret = Secret([SECRET.0[0], SECRET.0[1], SECRET.0[2], last]);
            let mut loads = std::vec![0_u8; KEY_BUCKETS];
            for number in &meeting {
                loads[key_bucket(numbered(&mut packet, *number, &secret)) as usize] += 1;
            }
            let fullest = loads.iter().max().copied().unwrap_or_default();
            assert!(fullest <= 5, "{fullest} of {} names in one bucket", meeting.len());
        }
    }

    proptest! {
        #[test]
        fn case_does_not_matter_and_anything_else_does(
            name in proptest::collection::vec(any::<u8>(), 1..256),
            at in any::<proptest::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let mut shouted = name.clone();
            shouted.make_ascii_uppercase();
            prop_assert_eq!(key(&name, 1), key(&shouted, 1));
            let mut other = name.clone();
            other[at.index(name.len())] ^= flip;
            prop_assert_eq!(key(&name, 1) == key(&other, 1), name.eq_ignore_ascii_case(&other));
        }

        #[test]
        fn a_name_without_a_capital_is_plain(name in proptest::collection::vec(any::<u8>(), 1..256)) {
            let mut packet = std::vec![b'X'; 20];
            packet.extend_from_slice(&name);
            let question = Question { name_at: 20, name_len: name.len(), qtype: 1, qclass: 1 };
            let hashed = Hashed::read(packet.as_slice(), &question, &SECRET).unwrap();
            prop_assert_eq!(hashed.plain, !name.iter().any(u8::is_ascii_uppercase));
            prop_assert_eq!(Hashed::from_number(hashed.number()), Some(hashed));
        }

        #[test]
        fn folding_is_to_ascii_lowercase(word in any::<[u8; 8]>()) {
            prop_assert_eq!(fold_case(u64::from_le_bytes(word)).to_le_bytes(), word.map(|b| b.to_ascii_lowercase()));
        }
    }
}
