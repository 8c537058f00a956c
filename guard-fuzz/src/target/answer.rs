//! The answer that is made of a query's packet, against etherparse, hickory-proto and domain.

use etherparse::{NetHeaders, PacketHeaders, TransportHeader, UdpHeader, checksum::Sum16BitWords};
use guard_common::{
    answer::{Checksum, Plan, Remark, checksum_state, is_answerable, turn},
    packet::{Family, Packet},
    question::Message,
};
use guard_sim::random::Random;
use guard_tests::frame::left_to_the_card;
use hickory_proto::{op, serialize::binary::BinDecodable as _};

use super::{Target, question_in};
use crate::{
    draw,
    driver::{Verdict, wrong},
    independent::{self, Edns},
};

/// What an OPT record with one Extended DNS Error takes: 11 bytes, 4 for the option, 2 for its code, 20 for its text.
const EDNS_LEN: usize = 37;
/// The RCODEs that a policy can have.
const RCODES: [u32; 3] = [2, 3, 5];

/// The target. A case is a byte that says how, and the frame of a query.
pub(super) struct Answer;

/// How an answer is to be.
#[derive(Clone, Copy, Debug)]
struct How {
    rcode: u32,
    remark: Remark,
}

impl Target for Answer {
    fn draw(&self, random: &mut Random) -> Vec<u8> {
        let mut case = vec![random.next() as u8];
        case.extend(draw::query_frame(random));
        case
    }

    fn check(&mut self, case: &[u8]) -> Verdict {
        let Some((how, frame)) = case.split_first() else {
            return Ok("nothing at all");
        };
        let (packet, message) = match question_in(frame) {
            Ok(found) => found,
            Err(class) => return Ok(class),
        };
        if message.header.is_response() || !is_answerable(frame, &packet, &message) {
            return Ok("not to be answered");
        }
        let how = How {
            rcode: RCODES[usize::from(*how) % 3],
            remark: Remark::from_u32(u32::from(*how) >> 2),
        };
        let right = with_right_checksum(frame, &packet, &message);
        let right = right.as_slice();
        let plan = |checksum| Plan::new(right, &packet, &message, how.rcode, how.remark, checksum);
        let (Some(whole), Some(partial)) = (plan(Checksum::Whole), plan(Checksum::Partial)) else {
            // An OPT record that the UDP length announces lies behind the end of the frame.
            return if message.end > frame.len() {
                Ok("cut behind the question")
            } else {
                wrong("no plan for a query that is there")
            };
        };
        let written = [(frame, &whole), (right, &whole), (right, &partial)].map(|(frame, plan)| written(frame, plan));
        let [Some(as_it_came), Some(whole), Some(partial)] = written else {
            return wrong("an answer that could not be written");
        };
        let is_partial = is_partial(right, &packet, &message);
        let sent = if is_partial { &partial } else { &whole };
        for (query, completes, answer) in [(frame, false, &as_it_came), (right, false, &whole), (right, true, sent)] {
            is_the_same_in_one_go(query, &packet, &message, (how, completes), answer)?;
        }
        if without_checksum(&packet, as_it_came) != without_checksum(&packet, whole.clone()) {
            return wrong("another answer for a wrong checksum");
        }
        let class = is_right(right, &packet, &message, how, &whole)?;
        is_left_to_the_card(&packet, &whole, &partial)?;
        Ok(class)
    }
}

/// The frame of a query with the right checksum in the place of a wrong one, which its answer would take over.
fn with_right_checksum(frame: &[u8], packet: &Packet, message: &Message) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let (at, end) = (packet.transport_at, message.end);
    if end > frame.len() || frame[at + 6..at + 8] == [0, 0] || is_partial(&frame, packet, message) {
        return frame;
    }
    let addresses = match packet.family {
        Family::V4 => packet.ip_at + 12..packet.ip_at + 20,
        Family::V6 => packet.ip_at + 8..packet.ip_at + 40,
    };
    let sum = Sum16BitWords::new()
        .add_slice(&frame[addresses])
        .add_2bytes([0, 17])
        .add_slice(&frame[at + 4..at + 6])
        .add_slice(&frame[at..at + 6])
        .add_slice(&frame[at + 8..end])
        .to_ones_complement_with_no_zero();
    frame[at + 6..at + 8].copy_from_slice(&sum.to_ne_bytes());
    frame
}

/// Whether the checksum of a query is one that a card is to complete.
fn is_partial(frame: &[u8], packet: &Packet, message: &Message) -> bool {
    checksum_state(frame, packet, message.end - packet.transport_at) == Checksum::Partial
}

/// What is written in one go, if it is, is what a plan writes.
fn is_the_same_in_one_go(
    query: &[u8],
    packet: &Packet,
    message: &Message,
    (how, completes): (How, bool),
    answer: &[u8],
) -> Verdict {
    let question_end = message.question_end();
    if packet.ip_at != 14 || packet.has_ip_options() || question_end != query.len() {
        return Ok("");
    }
    let mut frame = query.to_vec();
    let rcode = how.remark.rcode(how.rcode);
    match turn(frame.as_mut_slice(), packet.family, question_end, rcode, completes) {
        Some(()) if frame != answer => wrong("another answer in one go"),
        None if frame != query => wrong("a packet half written in one go"),
        _ => Ok(""),
    }
}

/// A frame with no checksum of its datagram.
fn without_checksum(packet: &Packet, mut frame: Vec<u8>) -> Vec<u8> {
    frame[packet.transport_at + 6..packet.transport_at + 8].fill(0);
    frame
}

fn written(frame: &[u8], plan: &Plan) -> Option<Vec<u8>> {
    let mut frame = frame.to_vec();
    frame.resize(plan.frame_len(), 0xa5);
    plan.write(frame.as_mut_slice())?;
    Some(frame)
}

fn is_right(query: &[u8], packet: &Packet, asked: &Message, how: How, answer: &[u8]) -> Verdict {
    let questions_len = 12 + asked.question.name_len + 4;
    let (sent, got) = (&query[asked.at..], &answer[asked.at..]);
    let with_edns = got.len() != questions_len;
    if got.len() != questions_len && got.len() != questions_len + EDNS_LEN {
        return wrong(format!(
            "{} bytes of answer to a question of {questions_len}",
            got.len()
        ));
    }
    if got[12..questions_len] != sent[12..questions_len] {
        return wrong("another question");
    }
    envelope_is_turned_round(query, packet, answer)?;

    let rcode = if how.remark == Remark::Prohibited { 5 } else { how.rcode };
    let Ok(parsed) = op::Message::from_bytes(got) else {
        return wrong("hickory-proto cannot read the answer");
    };
    let metadata = &parsed.metadata;
    let bit = |flag: u16| asked.header.flags & flag != 0;
    let is_as_asked = metadata.id == asked.header.id
        && metadata.message_type == op::MessageType::Response
        && metadata.op_code == op::OpCode::Query
        && metadata.recursion_desired == bit(0x0100)
        && metadata.checking_disabled == bit(0x0010)
        && metadata.recursion_available
        && !metadata.authoritative
        && !metadata.truncation
        && !metadata.authentic_data
        && u32::from(metadata.response_code.low()) == rcode
        && parsed.queries.len() == 1
        && parsed.answers.is_empty()
        && parsed.authorities.is_empty();
    let again = independent::domain(got);
    let Some(reading) = independent::domain(sent) else {
        return wrong("domain cannot read the query");
    };
    let same_question = again.as_ref().is_some_and(|again| {
        again.question == reading.question
            && again.id == reading.id
            && again.opcode == reading.opcode
            && again.recursion_desired == reading.recursion_desired
            && again.responds
            && u32::from(again.rcode) == rcode
    });
    if !is_as_asked || !same_question {
        return wrong(format!("hickory-proto reads {parsed:?}, domain {again:?}"));
    }
    // The Z bit is nobody's field.
    if got[3] & 0x40 != 0 {
        return wrong("the reserved bit is set");
    }
    edns_is_put_back(&sent[..asked.end.min(query.len()) - asked.at], got, how, with_edns)?;
    Ok(match (packet.family, with_edns) {
        (Family::V4, false) => "answered over IPv4",
        (Family::V4, true) => "answered over IPv4, with EDNS",
        (Family::V6, false) => "answered over IPv6",
        (Family::V6, true) => "answered over IPv6, with EDNS",
    })
}

/// An OPT with one Extended DNS Error, exactly where the query's first additional record is one.
fn edns_is_put_back(query: &[u8], answer: &[u8], how: How, with_edns: bool) -> Verdict {
    let expected = Edns {
        dnssec_ok: false,
        errors: vec![(how.remark.info_code(), how.remark.text().to_vec())],
    };
    match (independent::edns(answer), with_edns) {
        (None, false) => {
            // domain reads the whole record; one that breaks off behind its fixed part is one to the guard.
            if independent::begins_with_opt(query) {
                return wrong("the query's OPT record is gone");
            }
        }
        (Some(found), true) => {
            let asked = independent::edns(query);
            let dnssec_ok = found.dnssec_ok;
            if asked.as_ref().is_some_and(|asked| asked.dnssec_ok != dnssec_ok) && independent::begins_with_opt(query) {
                return wrong("another DO bit");
            }
            if (Edns {
                dnssec_ok: false,
                ..found
            }) != expected
            {
                return wrong(format!("not {expected:?} alone"));
            }
        }
        (found, _) => return wrong(format!("an OPT record that says {found:?}")),
    }
    Ok("")
}

/// Addresses, ports and stations change places; lengths and checksums are right, and tags are kept.
fn envelope_is_turned_round(query: &[u8], packet: &Packet, answer: &[u8]) -> Verdict {
    let Ok(parsed) = PacketHeaders::from_ethernet_slice(answer) else {
        return wrong("etherparse cannot read the answer");
    };
    if parsed.payload.slice() != &answer[packet.transport_at + 8..] {
        return wrong("the lengths of the answer are not those of its bytes");
    }
    if answer[..6] != query[6..12] || answer[6..12] != query[..6] || answer[12..packet.ip_at] != query[12..packet.ip_at]
    {
        return wrong("stations or tags of the answer");
    }
    let Some(TransportHeader::Udp(udp)) = parsed.transport else {
        return wrong("the answer is no UDP");
    };
    let ports = (udp.destination_port, udp.source_port);
    if ports != (packet.source_port, packet.destination_port) {
        return wrong("ports of the answer");
    }
    let (from, to, ttl) = match &parsed.net {
        Some(NetHeaders::Ipv4(ip, _)) => (ip.source.to_vec(), ip.destination.to_vec(), ip.time_to_live),
        Some(NetHeaders::Ipv6(ip, _)) => (ip.source.to_vec(), ip.destination.to_vec(), ip.hop_limit),
        _ => return wrong("the answer is no IP"),
    };
    let at = packet.ip_at + if packet.family == Family::V4 { 12 } else { 8 };
    let sent = &query[at..at + 2 * from.len()];
    if [to, from].concat() != sent || ttl != 64 {
        return wrong("addresses or TTL of the answer");
    }
    checksums_hold(packet, answer, &parsed.net, &udp)
}

/// Whether the checksums of an answer at these places are right.
pub(super) fn is_complete(packet: &Packet, answer: &[u8]) -> bool {
    let Ok(parsed) = PacketHeaders::from_ethernet_slice(answer) else {
        return false;
    };
    match &parsed.transport {
        Some(TransportHeader::Udp(udp)) => checksums_hold(packet, answer, &parsed.net, udp).is_ok(),
        _ => false,
    }
}

/// That of the datagram as etherparse reckons it; that of an IPv4 header by its own bytes, for etherparse knows nothing of
/// the reserved bit in it, which an answer takes over.
fn checksums_hold(packet: &Packet, answer: &[u8], net: &Option<NetHeaders>, udp: &UdpHeader) -> Verdict {
    let payload = &answer[packet.transport_at + 8..];
    let reckoned = match net {
        Some(NetHeaders::Ipv4(ip, _)) => {
            let words = answer[packet.ip_at..packet.transport_at].chunks_exact(2);
            let total: u32 = words
                .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
                .sum();
            if (total & 0xffff) + (total >> 16) != 0xffff {
                return wrong("the checksum of the answer's header");
            }
            udp.calc_checksum_ipv4(ip, payload)
        }
        Some(NetHeaders::Ipv6(ip, _)) => udp.calc_checksum_ipv6(ip, payload),
        _ => return wrong("the answer is no IP"),
    };
    if reckoned.ok() != Some(udp.checksum) || udp.checksum == 0 {
        return wrong("the checksum of the answer's datagram");
    }
    Ok("")
}

/// The answer whose checksum a card is to complete is the same, but for that.
fn is_left_to_the_card(packet: &Packet, whole: &[u8], partial: &[u8]) -> Verdict {
    let expected = left_to_the_card(whole);
    if expected.as_deref().ok() != Some(partial) {
        return wrong(format!("another answer for a card at {}", packet.transport_at));
    }
    Ok("")
}
