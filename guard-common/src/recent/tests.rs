use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::{
    bytes::Bytes as _,
    question::{HEADER_LEN, Question, name_len},
};

const SECRET: Secret = Secret::OF_TESTS;

/// UDP header and DNS header, and where the name is behind them.
const NAME_AT: usize = 8 + HEADER_LEN;

/// Labels of these lengths, spelled by a letter each, in wire form.
fn wire_name(labels: &[(u8, u8)]) -> Vec<u8> {
    let mut name = Vec::new();
    for (length, letter) in labels {
        name.push(*length);
        name.extend(core::iter::repeat_n(*letter, (*length).into()));
    }
    name.push(0);
    name
}

/// A packet that asks for a name; what follows the question is a record of something.
fn packet(name: &[u8], type_and_class: [u8; 4]) -> Vec<u8> {
    [&[0x11; NAME_AT], name, &type_and_class, &[0xee; 11]].concat()
}

/// What the short way makes of a packet: the length of the name, and the question hashed.
fn read(recent: &mut Recent, packet: &[u8]) -> Option<(usize, Hashed)> {
    let name = packet.cursor(0).forward(NAME_AT);
    let type_and_class = recent.recall(name).or_else(|| recent.learn(name, &SECRET))?;
    Some((recent.name_len(), recent.asked(type_and_class, &SECRET)))
}

/// The same of one who remembers nothing.
fn read_anew(packet: &[u8]) -> Option<(usize, Hashed)> {
    let length = name_len(packet, NAME_AT).ok()?;
    let question = Question::read(packet, NAME_AT, length, packet.len()).ok()?;
    Some((length, Hashed::read(packet, &question, &SECRET)?))
}

#[test]
fn nobody_recalls_a_name_that_was_never_read() {
    let nothing = Recent::default();
    for zeros in [0, NAME_AT] {
        let packet = [vec![0; zeros], vec![7; NAME_AT - zeros], vec![0; 40]].concat();
        assert_eq!(nothing.recall(packet.as_slice().cursor(0).forward(NAME_AT)), None);
    }
}

#[test]
fn a_name_is_recalled_as_it_is_spelled_with_any_type() {
    let mut recent = Recent::default();
    for length in 1..=63 {
        let labels = [(length, b'a'), (length, b'b'), (length, b'c'), (length.min(61), b'd')];
        for count in 0..=labels.len() {
            let name = wire_name(&labels[..count]);
            let first = packet(&name, [0, 1, 0, 1]);
            assert_eq!(read(&mut recent, &first), read_anew(&first));
            let other_type = packet(&name, [0, 28, 0, 1]);
            let place = other_type.as_slice().cursor(0).forward(NAME_AT);
            assert_eq!(
                recent.recall(place),
                Some(u32::from_ne_bytes([0, 28, 0, 1])),
                "{count} x {length}"
            );
            assert_eq!(read(&mut recent, &other_type), read_anew(&other_type));
            for at in 0..name.len() {
                let mut other = first.clone();
                other[NAME_AT + at] ^= 0x20;
                let place = other.as_slice().cursor(0).forward(NAME_AT);
                assert_eq!(recent.recall(place), None, "byte {at} of {count} x {length}");
            }
        }
    }
}

#[test]
fn what_cannot_be_read_leaves_no_name() {
    let name = wire_name(&[(20, b'a'), (20, b'b')]);
    let whole = packet(&name, [0, 1, 0, 1]);
    for length in NAME_AT..NAME_AT + name.len() + 4 {
        let mut recent = Recent::default();
        assert!(read(&mut recent, &whole).is_some());
        let cut = &whole[..length];
        assert_eq!(read(&mut recent, cut), None, "{length} bytes");
        assert_eq!(recent.name_len(), 0);
        assert_eq!(read(&mut recent, &whole), read_anew(&whole));
    }
}

proptest! {
    /// Names that differ in a few letters, in case, in where a label ends, and in length.
    #[test]
    fn whatever_came_before_a_name_is_read_as_it_is(
        names in proptest::collection::vec(
            proptest::collection::vec((0..=63_u8, prop::sample::select(b"aAb\x01".as_slice())), 0..6),
            1..40,
        ),
        types in proptest::collection::vec(any::<[u8; 4]>(), 40),
    ) {
        let mut recent = Recent::default();
        for (labels, type_and_class) in names.iter().zip(types) {
            // A label of no length ends the name, and what follows it is something else.
            let packet = packet(&wire_name(labels), type_and_class);
            for _ in 0..2 {
                prop_assert_eq!(read(&mut recent, &packet), read_anew(&packet));
            }
        }
    }
}
