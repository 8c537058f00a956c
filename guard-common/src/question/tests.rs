use std::{vec, vec::Vec};

use guard_tests::{frame::Query, question::RecordType};
use hickory_proto::{
    op::Header,
    rr::Name,
    serialize::binary::{BinDecodable as _, BinDecoder},
};
use proptest::prelude::*;

use super::*;

fn read(message: &[u8]) -> Result<Message, Unreadable> {
    Message::read(message, 0, message.len())
}

/// A query for this wire name.
fn of(name: &[u8]) -> Vec<u8> {
    let mut message = vec![0xbe, 0xef, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(name);
    message.extend_from_slice(&[0, 28, 0, 1]);
    message
}

/// The wire form of a plain name.
fn wire_of(text: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

/// A name of that many bytes in wire form.
fn name_of_len(len: usize) -> Vec<u8> {
    let mut name = Vec::new();
    let mut left = len - 1;
    while left > 0 {
        // No label may leave a single byte, which no label fills.
        let label = if left == 65 { 62 } else { left.min(64) - 1 };
        name.push(label as u8);
        name.extend(vec![b'a'; label]);
        left -= label + 1;
    }
    name.push(0);
    name
}

#[test]
fn a_query_is_read_as_it_was_written() {
    let query = Query::new("Www.Example.com", "192.0.2.1:40000", "192.0.2.2:53").unwrap();
    let bytes = query.message().unwrap();
    let message = read(&bytes).unwrap();
    assert_eq!((message.header.id, message.header.flags), (0xbeef, 0x0100));
    let question = Question {
        name_at: 12,
        name_len: 17,
        qtype: 1,
        qclass: 1,
    };
    assert_eq!(message.question, question);
    assert_eq!(&bytes[12..29], b"\x03Www\x07Example\x03com\0");
    assert_eq!(message.question_end(), 33);
    assert!(!message.header.is_response());
}

#[test]
fn zones_begin_where_their_labels_do() {
    let zone = |text: &str, labels| {
        let name = wire_of(text);
        let walked = super::Name::walk(name.as_slice(), 0).unwrap();
        assert_eq!(walked.len(), name.len());
        walked.zone_at(labels).map(|at| name[at..].to_vec())
    };
    let deep = "h.g.f.e.d.c.b.a";
    for (text, labels, expected) in [
        ("www.example.com", 1, Some("com")),
        ("www.example.com", 2, Some("example.com")),
        ("www.example.com", 3, Some("www.example.com")),
        ("www.example.com", 4, None),
        ("www.example.com", 0, None),
        ("com", 1, Some("com")),
        ("com", 2, None),
        ("", 1, None),
        (deep, 7, Some("g.f.e.d.c.b.a")),
        (deep, 8, None),
    ] {
        assert_eq!(zone(text, labels), expected.map(wire_of), "{labels} labels of {text}");
    }
}

#[test]
fn names_of_every_length_up_to_255_are_read() {
    for len in (1..=255).filter(|len| *len != 2) {
        let name = name_of_len(len);
        assert_eq!(name.len(), len);
        assert_eq!(read(&of(&name)).unwrap().question.name_len, len);
    }
    let labels: Vec<u8> = [1, b'x'].repeat(127).into_iter().chain([0]).collect();
    assert_eq!(read(&of(&labels)).unwrap().question.name_len, 255);
}

#[test]
fn a_name_of_256_bytes_is_not_judged() {
    for len in [256, 257, 300] {
        assert_eq!(read(&of(&name_of_len(len))), Err(Unreadable::Name), "{len} bytes");
    }
    let labels: Vec<u8> = [1, b'x'].repeat(128).into_iter().chain([0]).collect();
    assert_eq!(read(&of(&labels)), Err(Unreadable::Name));
}

#[test]
fn compression_and_unknown_label_types_are_not_judged() {
    for label in 64..=255_u8 {
        assert_eq!(read(&of(&[label, 12, 0])), Err(Unreadable::Name), "label {label}");
        assert_eq!(
            read(&of(&[1, b'a', label, 12, 0])),
            Err(Unreadable::Name),
            "label {label}"
        );
    }
}

#[test]
fn what_is_no_plain_question_is_told_apart() {
    let plain = of(b"\x01a\0");
    for opcode in 1..16 {
        let mut message = plain.clone();
        message[2] |= opcode << 3;
        assert_eq!(read(&message), Err(Unreadable::Opcode));
    }
    for count in [0_u16, 2, 256, 0xffff] {
        let mut message = plain.clone();
        message[4..6].copy_from_slice(&count.to_be_bytes());
        assert_eq!(read(&message), Err(Unreadable::QuestionCount));
    }
}

#[test]
fn a_message_cut_anywhere_is_short() {
    let message = of(b"\x03www\x07example\0");
    for len in 0..message.len() {
        assert_eq!(read(&message[..len]), Err(Unreadable::Short), "{len} bytes");
    }
    // What lies behind the end of the datagram is not read, though it is there.
    for end in 0..message.len() {
        assert_eq!(
            Message::read(message.as_slice(), 0, end),
            Err(Unreadable::Short),
            "{end} bytes"
        );
    }
}

#[test]
fn an_answer_settles_and_an_error_does_not() {
    for rcode in 0..16_u8 {
        let mut message = of(b"\x01a\0");
        message[2] = 0x81;
        message[3] = 0x80 | rcode;
        let message = read(&message).unwrap();
        assert!(message.header.is_response());
        assert_eq!(message.header.rcode(), rcode);
        assert_eq!(message.header.is_answer(), rcode == 0 || rcode == 3);
    }
}

/// What hickory makes of a message: its header's opcode and count, and its first question.
enum Theirs {
    Unreadable,
    Read {
        opcode: u8,
        count: u16,
        question: Option<hickory_proto::op::Query>,
    },
}

fn theirs(bytes: &[u8]) -> Theirs {
    let mut decoder = BinDecoder::new(bytes);
    let Ok(header) = Header::read(&mut decoder) else {
        return Theirs::Unreadable;
    };
    let question = hickory_proto::op::Query::read(&mut decoder).ok();
    Theirs::Read {
        opcode: header.metadata.op_code.into(),
        count: header.counts.queries,
        question,
    }
}

fn wire(name: &Name) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.iter() {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label);
    }
    wire.push(0);
    wire
}

fn agrees(bytes: &[u8]) -> Result<(), TestCaseError> {
    match (read(bytes), theirs(bytes)) {
        (
            Ok(ours),
            Theirs::Read {
                opcode,
                count,
                question: Some(question),
            },
        ) => {
            prop_assert_eq!((opcode, count), (0, 1));
            let Question {
                name_at,
                name_len,
                qtype,
                qclass,
            } = ours.question;
            let name = &bytes[name_at..name_at + name_len];
            prop_assert_eq!(name, wire(question.name()));
            prop_assert_eq!(name.to_ascii_lowercase(), wire(&question.name().to_lowercase()));
            prop_assert_eq!(qtype, u16::from(question.query_type()));
            prop_assert_eq!(qclass, u16::from(question.query_class()));
        }
        (Ok(ours), Theirs::Read { question: None, .. }) => prop_assert!(false, "only we read {:?}", ours.question),
        (Ok(_), Theirs::Unreadable) => prop_assert!(false, "only we read the header"),
        (Err(Unreadable::Opcode), Theirs::Read { opcode, .. }) => prop_assert_ne!(opcode, 0),
        (Err(Unreadable::QuestionCount), Theirs::Read { count, .. }) => prop_assert_ne!(count, 1),
        // hickory follows pointers.
        (Err(Unreadable::Name), Theirs::Read { question, .. }) => {
            let walked = wire_len(&bytes[12..]);
            prop_assert!(question.is_none() || walked.is_none(), "{walked:?}");
        }
        (Err(Unreadable::Short), Theirs::Read { question, .. }) => prop_assert!(question.is_none()),
        (Err(unreadable), Theirs::Unreadable) => prop_assert_eq!(unreadable, Unreadable::Short),
    }
    Ok(())
}

/// Bytes of a name without pointers, if that is one.
fn wire_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            0 => return (at < 255).then_some(at + 1),
            label @ 1..=63 => at += usize::from(label) + 1,
            _ => return None,
        }
    }
}

fn labels() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let label = prop_oneof![
        4 => "[a-zA-Z0-9_-]{1,20}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 1..64),
    ];
    prop::collection::vec(label, 0..8)
}

use std::string::String;

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_name_is_as_long_from_its_place_as_it_is_from_its_offset(
        labels in prop::collection::vec((0..70_u8, prop::collection::vec(any::<u8>(), 0..70)), 0..140),
        ends: bool,
    ) {
        let mut bytes: Vec<u8> = vec![7; 3];
        for (length, label) in labels {
            bytes.push(length);
            bytes.extend(label.iter().cycle().chain(&[0]).take(length.into()));
        }
        bytes.extend(ends.then_some(0));
        let bytes = bytes.as_slice();
        prop_assert_eq!(name_len_at(bytes.cursor(3)), name_len(bytes, 3).ok());
    }

    #[test]
    fn what_hickory_writes_we_read(labels in labels(), kind: u16, id: u16) {
        let mut name = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap_or_else(|_| Name::root());
        name.set_fqdn(true);
        let mut query = Query::new("x", "192.0.2.1:40000", "192.0.2.2:53").unwrap();
        query.question.name = name.clone();
        query.question.kind = RecordType::from(kind);
        query.id = id;
        let bytes = query.message().unwrap();
        let message = read(&bytes).unwrap();
        prop_assert_eq!(message.header.id, id);
        prop_assert_eq!(message.question.qtype, kind);
        prop_assert_eq!(&bytes[12..12 + message.question.name_len], wire(&name));
        agrees(&bytes)?;
    }

    #[test]
    fn we_and_hickory_agree_on_damaged_messages(
        labels in labels(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let mut name: Vec<u8> = labels.iter().flat_map(|label| {
            let mut wire = vec![label.len() as u8];
            wire.extend_from_slice(label);
            wire
        }).collect();
        name.push(0);
        let mut bytes = of(&name);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        agrees(&bytes)?;
    }

    #[test]
    fn we_and_hickory_agree_on_noise(noise in prop::collection::vec(0..80_u8, 0..320)) {
        let mut bytes = of(&[]);
        bytes.truncate(12);
        bytes.extend_from_slice(&noise);
        agrees(&bytes)?;
    }
}
