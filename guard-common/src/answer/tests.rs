use std::{format, string::String, vec, vec::Vec};

use etherparse::checksum::u64_16bit_word;
use guard_tests::{
    frame::{Edns0, HELD, LOOP, PROHIBITED, Query, RATE_LIMIT, checksums_hold, left_to_the_card},
    question::{Name, RecordType, ResponseCode},
};
use proptest::prelude::*;

use super::*;

const V4: [&str; 2] = ["192.0.2.1:40000", "192.0.2.2:53"];
const V6: [&str; 2] = ["[2001:db8::1]:40000", "[2001:db8::2]:53"];
const SERVFAIL: u32 = 2;

fn query(name: &str, ends: [&str; 2]) -> Query {
    Query::new(name, ends[0], ends[1]).unwrap()
}

/// Does to the frame what a door does.
fn answer(mut frame: Vec<u8>, rcode: u32, remark: Remark, checksum: Checksum) -> Vec<u8> {
    let packet = Packet::walk(frame.as_slice()).unwrap();
    let (start, end) = packet.payload(frame.as_slice()).unwrap();
    let message = Message::read(frame.as_slice(), start, end).unwrap();
    assert!(is_answerable(frame.as_slice(), &packet, &message));
    let plan = Plan::new(frame.as_slice(), &packet, &message, rcode, remark, checksum).unwrap();
    let turned = turned(&frame, remark.rcode(rcode), checksum == Checksum::Partial);
    frame.resize(plan.frame_len(), 0xa5);
    plan.write(frame.as_mut_slice()).unwrap();
    if let Some(turned) = turned {
        assert_eq!(hex(&turned), hex(&frame), "turned round in one go");
    }
    frame
}

/// The answer that is written in one go, if it is.
fn turned(query: &[u8], rcode: u32, completes: bool) -> Option<Vec<u8>> {
    let packet = Packet::walk(query).unwrap();
    let (start, end) = packet.payload(query).unwrap();
    let question_end = Message::read(query, start, end).unwrap().question_end();
    if packet.ip_at != 14 || packet.has_ip_options() || question_end != query.len() {
        return None;
    }
    let mut frame = query.to_vec();
    let turned = turn(frame.as_mut_slice(), packet.family, question_end, rcode, completes);
    if turned.is_none() {
        assert_eq!(frame, query, "nothing is written");
    }
    turned.map(|()| frame)
}

fn state(frame: &[u8]) -> Checksum {
    let packet = Packet::walk(frame).unwrap();
    let (start, end) = packet.payload(frame).unwrap();
    checksum_state(frame, &packet, end - start + UdpHdr::LEN)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

fn is_as_built_independently(query: &Query) {
    for (rcode, remark, code, ede) in [
        (SERVFAIL, Remark::Loop, ResponseCode::ServFail, LOOP),
        (SERVFAIL, Remark::Held, ResponseCode::ServFail, HELD),
        (3, Remark::RateLimit, ResponseCode::NXDomain, RATE_LIMIT),
        (SERVFAIL, Remark::Prohibited, ResponseCode::Refused, PROHIBITED),
    ] {
        let expected = query.answer_frame(code, ede).unwrap();
        let frame = query.frame().unwrap();
        let ours = answer(frame.clone(), rcode, remark, Checksum::Whole);
        assert_eq!(hex(&ours), hex(&expected), "{query:?}");
        assert!(checksums_hold(&ours).unwrap());
        // Ethernet pads short frames.
        let padded = [frame, vec![0; 18]].concat();
        assert_eq!(
            hex(&answer(padded, rcode, remark, Checksum::Whole)),
            hex(&expected),
            "padded {query:?}"
        );
    }
}

#[test]
fn an_answer_is_the_one_that_other_libraries_build() {
    for ends in [V4, V6] {
        for vlans in [&[][..], &[7], &[7, 4094]] {
            for edns in [
                Edns0::Without,
                Edns0::With { dnssec_ok: false },
                Edns0::With { dnssec_ok: true },
            ] {
                for name in [".", "a", "ab", "abc", "abcd", "Www.Example.com", "x.service.consul"] {
                    for (recursion_desired, checking_disabled) in [(true, false), (false, true)] {
                        let mut query = query(name, ends);
                        query.envelope.vlans = vlans.to_vec();
                        (query.edns, query.recursion_desired) = (edns, recursion_desired);
                        query.checking_disabled = checking_disabled;
                        is_as_built_independently(&query);
                    }
                }
            }
        }
    }
}

#[test]
fn names_of_every_length_have_right_checksums() {
    for ends in [V4, V6] {
        for length in 1..=249_usize {
            let labels: Vec<Vec<u8>> = vec![b'n'; length]
                .chunks(62)
                .map(|label| label.to_ascii_lowercase())
                .collect();
            let mut query = query("x", ends);
            query.question.name = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
            query.question.name.set_fqdn(true);
            is_as_built_independently(&query);
        }
    }
}

#[test]
fn a_checksum_that_comes_to_zero_is_sent_as_ones() {
    for (ends, checksum_at) in [(V4, 40), (V6, 60)] {
        let mut query = query("www.example.com", ends);
        let expected = query.answer_frame(ResponseCode::ServFail, LOOP).unwrap();
        let checksum = u16::from_be_bytes([expected[checksum_at], expected[checksum_at + 1]]);
        // The ID that makes up what is missing to zero.
        let sum = u32::from(query.id) + u32::from(checksum);
        query.id = ((sum & 0xffff) + (sum >> 16)) as u16;
        let expected = query.answer_frame(ResponseCode::ServFail, LOOP).unwrap();
        assert_eq!(expected[checksum_at..checksum_at + 2], [0xff, 0xff]);
        is_as_built_independently(&query);
    }
}

#[test]
fn a_query_without_a_checksum_gets_an_answer_with_one() {
    let query = query("www.example.com", V4);
    let mut frame = query.frame().unwrap();
    frame[40..42].fill(0);
    assert_eq!(state(&frame), Checksum::Whole);
    let expected = query.answer_frame(ResponseCode::ServFail, LOOP).unwrap();
    assert_eq!(answer(frame, SERVFAIL, Remark::Loop, Checksum::Whole), expected);
}

/// What the network card does in the end.
fn complete(mut frame: Vec<u8>) -> Vec<u8> {
    let at = Packet::walk(frame.as_slice()).unwrap().transport_at;
    let sum = u64_16bit_word::ones_complement_with_no_zero(u64_16bit_word::add_slice(0, &frame[at..]));
    frame[at + 6..at + 8].copy_from_slice(&sum.to_ne_bytes());
    frame
}

/// The reader of a query drops one whose checksum is wrong; so does the reader of its answer.
#[test]
fn a_wrong_checksum_stays_as_wrong() {
    for (ends, checksum_at) in [(V4, 40), (V6, 60)] {
        let query = Query {
            edns: Edns0::Without,
            ..query("www.example.com", ends)
        };
        let right = answer(query.frame().unwrap(), SERVFAIL, Remark::Loop, Checksum::Whole);
        assert!(checksums_hold(&right).unwrap());
        let mut frame = query.frame().unwrap();
        frame[checksum_at] ^= 0x40;
        let mut wrong = answer(frame, SERVFAIL, Remark::Loop, Checksum::Whole);
        assert!(!checksums_hold(&wrong).unwrap());
        wrong[checksum_at..checksum_at + 2].copy_from_slice(&right[checksum_at..checksum_at + 2]);
        assert_eq!(wrong, right);
    }
}

#[test]
fn a_checksum_left_to_the_card_stays_left_to_the_card() {
    for ends in [V4, V6] {
        for name in ["a", "ab", "www.example.com"] {
            let query = query(name, ends);
            let whole = query.frame().unwrap();
            assert_eq!(state(&whole), Checksum::Whole);
            let partial = left_to_the_card(&whole).unwrap();
            assert_eq!(state(&partial), Checksum::Partial);
            assert_eq!(complete(partial.clone()), whole, "the test's own card works");

            let expected = query.answer_frame(ResponseCode::ServFail, LOOP).unwrap();
            let ours = answer(partial, SERVFAIL, Remark::Loop, Checksum::Partial);
            assert_eq!(hex(&ours), hex(&left_to_the_card(&expected).unwrap()));
            assert_eq!(hex(&complete(ours)), hex(&expected));
        }
    }
}

#[test]
fn flags_that_a_response_must_not_echo_are_cleared() {
    let query = query("www.example.com", V4);
    let mut frame = query.frame().unwrap();
    // AA, TC, Z, AD and an RCODE.
    frame[44] |= 0x06;
    frame[45] |= 0x6f;
    let ours = answer(frame, SERVFAIL, Remark::Loop, Checksum::Whole);
    assert_eq!(ours, query.answer_frame(ResponseCode::ServFail, LOOP).unwrap());
}

#[test]
fn only_an_opt_that_comes_first_is_answered_with_one() {
    let mut query = query("www.example.com", V4);
    query.edns = Edns0::Without;
    let expected = query.answer_frame(ResponseCode::ServFail, LOOP).unwrap();
    // A TSIG record, as far as anybody reads it.
    let mut message = query.message().unwrap();
    message[11] = 1;
    message.extend_from_slice(&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0]);
    let frame = query.envelope.around(&message).unwrap();
    assert_eq!(answer(frame, SERVFAIL, Remark::Loop, Checksum::Whole), expected);
    // An OPT that is cut short.
    let mut message = query.message().unwrap();
    message[11] = 1;
    message.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0]);
    let frame = query.envelope.around(&message).unwrap();
    assert_eq!(answer(frame, SERVFAIL, Remark::Loop, Checksum::Whole), expected);
}

#[test]
fn options_of_the_query_are_not_sent_back() {
    let query = query("www.example.com", V6);
    let mut message = query.message().unwrap();
    // A client cookie (RFC 7873).
    let length_at = message.len() - 2;
    message[length_at + 1] = 12;
    message.extend_from_slice(&[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    let frame = query.envelope.around(&message).unwrap();
    let expected = query.answer_frame(ResponseCode::ServFail, HELD).unwrap();
    assert_eq!(answer(frame, SERVFAIL, Remark::Held, Checksum::Whole), expected);
}

#[test]
fn records_or_ip_options_make_a_query_unanswerable() {
    let query = query("www.example.com", V4);
    let judge = |frame: &[u8]| {
        let packet = Packet::walk(frame).unwrap();
        let (start, end) = packet.payload(frame).unwrap();
        is_answerable(frame, &packet, &Message::read(frame, start, end).unwrap())
    };
    let frame = query.frame().unwrap();
    assert!(judge(&frame));
    for at in 48..52 {
        let mut frame = frame.clone();
        frame[at] = 1;
        assert!(!judge(&frame), "a count at {at}");
    }
    let mut frame = frame;
    frame[14] = 0x46;
    frame.splice(34..34, [1; 4]);
    let ip_len = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&ip_len.to_be_bytes());
    assert!(!judge(&frame));
}

#[test]
fn a_plain_query_is_answered_in_one_go() {
    for (ends, udp_at) in [(V4, 34), (V6, 54)] {
        let plain = Query {
            edns: Edns0::Without,
            ..query("www.example.com", ends)
        };
        let whole = plain.frame().unwrap();
        let partial = left_to_the_card(&whole).unwrap();
        for completes in [false, true] {
            let answer = turned(&whole, SERVFAIL, completes).unwrap();
            assert_eq!(answer, plain.answer_frame(ResponseCode::ServFail, LOOP).unwrap());
            assert_eq!(turned(&partial, SERVFAIL, completes).is_some(), completes);
            // No checksum, and a record behind the question that the message does not have.
            for (at, byte) in [(udp_at + 6, [0; 2]), (udp_at + 18, [0, 1])] {
                let mut frame = whole.clone();
                frame[at..at + 2].copy_from_slice(&byte);
                assert_eq!(turned(&frame, SERVFAIL, completes), None);
            }
            // A message that goes on behind the question.
            let mut frame = whole.clone();
            frame[udp_at + 5] += 1;
            assert_eq!(
                turn(frame.as_mut_slice(), family(ends), whole.len(), SERVFAIL, completes),
                None
            );
        }
        let with_edns = query("www.example.com", ends).frame().unwrap();
        let mut frame = with_edns.clone();
        for question_end in [whole.len(), with_edns.len()] {
            assert_eq!(
                turn(frame.as_mut_slice(), family(ends), question_end, SERVFAIL, true),
                None
            );
        }
        assert_eq!(frame, with_edns);
    }
}

fn family(ends: [&str; 2]) -> Family {
    if ends == V4 { Family::V4 } else { Family::V6 }
}

/// The longest answer is the longest question with an EDE: 37 bytes more than the query had.
#[test]
fn an_answer_is_never_longer_than_a_servfail_with_one_ede_needs() {
    assert_eq!(EDNS_LEN, 37);
    for edns in [Edns0::Without, Edns0::With { dnssec_ok: true }] {
        let mut query = query("www.example.com", V4);
        query.edns = edns;
        let ours = answer(query.frame().unwrap(), SERVFAIL, Remark::Loop, Checksum::Whole);
        let growth = ours.len() as isize - query.frame().unwrap().len() as isize;
        assert_eq!(growth, if edns == Edns0::Without { 0 } else { 26 });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_answer_is_the_one_that_other_libraries_build(
        v6: bool,
        vlans in prop::collection::vec(1..4_095_u16, 0..3),
        source: u128,
        destination: u128,
        ports: [u16; 2],
        mark: u16,
        labels in prop::collection::vec("[a-zA-Z0-9]{1,30}", 0..8),
        kind in prop::sample::select(vec![RecordType::A, RecordType::DS, RecordType::HTTPS, RecordType::ANY]),
        id: u16,
        flags: (bool, bool),
        edns in prop::sample::select(vec![
            Edns0::Without,
            Edns0::With { dnssec_ok: false },
            Edns0::With { dnssec_ok: true },
        ]),
    ) {
        let mut query = query(&labels.join("."), if v6 { V6 } else { V4 });
        let envelope = &mut query.envelope;
        (envelope.vlans, envelope.mark) = (vlans, mark);
        for (end, number) in [(&mut envelope.source, source), (&mut envelope.destination, destination)] {
            if v6 {
                end.set_ip(std::net::Ipv6Addr::from(number).into());
            } else {
                end.set_ip(std::net::Ipv4Addr::from(number as u32).into());
            }
        }
        envelope.source.set_port(ports[0]);
        envelope.destination.set_port(ports[1]);
        (query.question.kind, query.id, query.edns) = (kind, id, edns);
        (query.recursion_desired, query.checking_disabled) = flags;
        let frame = query.frame().unwrap();
        let ours = answer(frame, SERVFAIL, Remark::Loop, Checksum::Whole);
        prop_assert_eq!(hex(&ours), hex(&query.answer_frame(ResponseCode::ServFail, LOOP).unwrap()));
    }
}
