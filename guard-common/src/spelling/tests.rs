use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;

const SECRET: Secret = Secret::OF_TESTS;
const KEY: Key = Key(0x5eed);
/// Headers in front of a name: UDP and DNS.
const HEADERS: usize = 20;

fn pattern(nonce: u32) -> Pattern {
    Pattern::new(nonce, KEY, &SECRET)
}

/// A datagram with this name in it, and four bytes behind it.
fn datagram(name: &[u8]) -> (Vec<u8>, NamePlace) {
    let mut datagram = vec![0x5a_u8; HEADERS];
    datagram.extend_from_slice(name);
    datagram.extend_from_slice(b"AbcD");
    let place = NamePlace {
        at: HEADERS,
        length: name.len(),
    };
    (datagram, place)
}

fn read(name: &[u8], nonce: u32) -> Spelling {
    let (datagram, place) = datagram(name);
    Spelling::read(datagram.as_slice(), place, KEY, pattern(nonce), &SECRET).unwrap()
}

fn respelled(name: &[u8], how: Respelling) -> Vec<u8> {
    let (mut datagram, place) = datagram(name);
    let before = datagram.clone();
    Change::make(datagram.as_mut_slice(), place, how, &SECRET).unwrap();
    assert_eq!(datagram[..HEADERS], before[..HEADERS]);
    assert_eq!(datagram[HEADERS + name.len()..], before[HEADERS + name.len()..]);
    datagram[HEADERS..HEADERS + name.len()].to_vec()
}

/// The ones' complement sum of 16-bit words of network order (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or_default();
        u64::from(u16::from_be_bytes([pair[0], low]))
    });
    fold(words.sum())
}

#[test]
fn letters_are_counted_and_nothing_else() {
    for (name, letters) in [
        (&b"\0"[..], 0),
        (b"\x01a\0", 1),
        (b"\x0212\0", 0),
        (b"\x06consul\0", 6),
        (b"\x03wWw\x07eXample\0", 10),
        (b"\x05a-1_z\0", 2),
        (b"\x04@[`{\0", 0),
        (b"\x04\xc1\xda\xe1\xfa\0", 0),
    ] {
        assert_eq!(read(name, 1).letters, letters, "{name:?}");
    }
    let longest: Vec<u8> = [&[63], &[b'x'; 63][..]].concat().repeat(3);
    let longest = [&longest[..], &[61], &[b'x'; 61], &[0]].concat();
    assert_eq!((longest.len(), read(&longest, 1).letters), (255, 250));
}

#[test]
fn every_number_gives_a_pattern_of_its_own_and_flips_about_half() {
    let name = b"\x0babcdefghijk\x0bLMNOPQRSTUV\0";
    let mut seen = Vec::new();
    let mut flips = [0_u32; 22];
    for nonce in 0..2_000 {
        let marked = respelled(name, Respelling::Flip(pattern(nonce)));
        let letters = |name: &[u8]| [&name[1..12], &name[13..24]].concat();
        for (count, (new, old)) in flips.iter_mut().zip(letters(&marked).iter().zip(letters(name))) {
            *count += u32::from(*new != old);
        }
        assert!(!seen.contains(&marked), "number {nonce}");
        seen.push(marked);
    }
    assert!(flips.iter().all(|count| (850..1_150).contains(count)), "{flips:?}");
}

#[test]
fn another_key_or_another_secret_gives_another_pattern() {
    let name = b"\x10abcdefghijklmnop\0";
    let other_key = Pattern::new(1, Key(0x5eef), &SECRET);
    let mut secret = SECRET;
    secret.0[3] ^= 1;
    let one = respelled(name, Respelling::Flip(pattern(1)));
    assert_ne!(one, respelled(name, Respelling::Flip(other_key)));
    let (mut datagram, place) = datagram(name);
    let other = Respelling::Flip(Pattern::new(1, KEY, &secret));
    Change::make(datagram.as_mut_slice(), place, other, &secret).unwrap();
    assert_ne!(one, datagram[HEADERS..HEADERS + name.len()]);
}

#[test]
fn a_packet_that_ends_early_is_left() {
    let (mut datagram, mut place) = datagram(b"\x03www\x07example\x03com\0");
    place.length = 200;
    assert_eq!(
        Spelling::read(datagram.as_slice(), place, KEY, pattern(1), &SECRET),
        None
    );
    assert_eq!(
        Change::make(datagram.as_mut_slice(), place, Respelling::Lower, &SECRET),
        None
    );
}

/// A name of some labels, of any bytes, as often as not letters.
fn names() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => prop::char::range('A', 'z').prop_map(|letter| letter as u8), 1 => any::<u8>()];
    prop::collection::vec(prop::collection::vec(byte, 1..=63), 0..8).prop_map(|labels| {
        let mut name = Vec::new();
        for label in labels {
            if name.len() + label.len() + 2 > 255 {
                break;
            }
            name.push(label.len() as u8);
            name.extend_from_slice(&label);
        }
        name.push(0);
        name
    })
}

proptest! {
    #[test]
    fn what_is_flipped_twice_is_as_it_was(name in names(), nonce: u32) {
        let how = Respelling::Flip(pattern(nonce));
        let marked = respelled(&name, how);
        prop_assert!(marked.eq_ignore_ascii_case(&name));
        prop_assert_eq!(respelled(&marked, how), name);
    }

    #[test]
    fn the_mark_looks_as_was_foretold(name in names(), nonce: u32) {
        let spelling = read(&name, nonce);
        let marked = respelled(&name, Respelling::Flip(pattern(nonce)));
        let then = read(&marked, nonce);
        prop_assert_eq!((then.digest, then.flipped), (spelling.flipped, spelling.digest));
        prop_assert_eq!(then.letters, spelling.letters);
        let letters = name.iter().skip(1).filter(|byte| byte.is_ascii_alphabetic()).count();
        // A label's length is no letter, whatever it is.
        let lengths = letters_in_lengths(&name);
        prop_assert_eq!(spelling.letters as usize, letters - lengths);
        let flips = name.iter().zip(&marked).filter(|(old, new)| old != new).count();
        prop_assert_eq!(spelling.digest == spelling.flipped, flips == 0);
        let capitals = marked.iter().filter(|byte| byte.is_ascii_uppercase()).count();
        prop_assert_eq!(spelling.capitals as usize, capitals);
        prop_assert_eq!(spelling.is_a_mark(), flips != 0 && capitals != 0);
    }

    #[test]
    fn names_are_told_apart_by_the_case_of_each_letter(name in names(), at in any::<prop::sample::Index>()) {
        let mut other = name.clone();
        let at = at.index(name.len());
        if name[at].is_ascii_alphabetic() {
            other[at] ^= 0x20;
            prop_assert_ne!(read(&name, 1).digest, read(&other, 1).digest);
        }
    }

    #[test]
    fn lower_is_to_ascii_lowercase(name in names()) {
        prop_assert_eq!(respelled(&name, Respelling::Lower), name.to_ascii_lowercase());
    }

    /// Whatever lies around the name, and whichever way the checksum is mended.
    #[test]
    fn a_checksum_follows_the_name(name in names(), nonce: u32, lower: bool, head in any::<[u8; HEADERS]>()) {
        let (mut datagram, place) = datagram(&name);
        datagram[..HEADERS].copy_from_slice(&head);
        // As a UDP header has it, at an even offset.
        const AT: usize = 6;
        datagram[AT..AT + 2].fill(0);
        let checksum = match !sum(&datagram) { 0 => 0xffff, sum => sum };
        datagram[AT..AT + 2].copy_from_slice(&checksum.to_be_bytes());
        let how = if lower { Respelling::Lower } else { Respelling::Flip(pattern(nonce)) };
        let change = Change::make(datagram.as_mut_slice(), place, how, &SECRET).unwrap();

        let by_kernel = by_kernels_helper(checksum, change.difference());
        change.apply(datagram.as_mut_slice(), AT).unwrap();
        prop_assert!(matches!(sum(&datagram), 0 | 0xffff), "the sum is {:x}", sum(&datagram));
        let applied = u16::from_be_bytes([datagram[AT], datagram[AT + 1]]);
        prop_assert_ne!(applied, 0);
        prop_assert_eq!(applied, by_kernel);
        datagram[AT..AT + 2].fill(0);
        change.apply(datagram.as_mut_slice(), AT).unwrap();
        prop_assert_eq!(&datagram[AT..AT + 2], &[0, 0], "none stays none");
    }
}

/// Labels are 63 bytes at most: only in the middle of the alphabet's upper half would a length look like a letter, and
/// it is below that.
fn letters_in_lengths(name: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < name.len() {
        count += usize::from(at > 0 && name[at].is_ascii_alphabetic());
        at += usize::from(name[at]) + 1;
    }
    count
}

/// `csum_replace_by_diff` (net/core/utils.c), and what `bpf_l4_csum_replace` makes of a zero for UDP.
fn by_kernels_helper(checksum: u16, difference: u32) -> u16 {
    let old = u32::from(!checksum.to_be());
    let sum = !fold(u64::from(difference) + u64::from(old));
    match sum.to_be() {
        0 => 0xffff,
        sum => sum,
    }
}
