//! Headers and question of a datagram that has them where they always are.

use guard_common::{
    address::Address,
    bytes::Bytes as _,
    case::Ends,
    counter::Counter,
    key::Hashed,
    policy::Control,
    question::{HEADER_LEN, Question, name_len},
};

use super::{IP_AT, V4_LEN, V6_LEN};
use crate::frame::Frame;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Reads a query. `None` if it is none, or lies elsewhere.
#[inline(always)]
pub(super) fn query(frame: &Frame, control: &Control) -> Option<Asked> {
    let datagram = match frame.be16(IP_AT - 2)? {
        IPV4 => v4(frame, control)?,
        IPV6 => v6(frame, control)?,
        _ => return None,
    };
    datagram.question(frame, control)
}

/// A datagram by its IP header: its addresses are folded.
struct Datagram {
    source: u32,
    destination: u32,
    udp_at: usize,
    /// Where the IP packet ends.
    end: usize,
    /// The counter of such queries.
    counter: usize,
}

#[inline(always)]
fn v4(frame: &Frame, control: &Control) -> Option<Datagram> {
    let [first, second, third] = frame.le64s(IP_AT)?;
    // Version 4, five words of header, no fragment; UDP.
    if first & 0xff3f_0000_0000_00ff != 0x45 || (second >> 8) as u8 != 17 {
        return None;
    }
    let (source, destination) = (((second >> 32) as u32).to_le(), (third as u32).to_le());
    if source == destination {
        return None;
    }
    Some(Datagram {
        source: Address::fold_v4(source, &control.secret),
        destination: Address::fold_v4(destination, &control.secret),
        udp_at: IP_AT + V4_LEN,
        end: IP_AT + ((first >> 16) as u16).swap_bytes() as usize,
        counter: Counter::QueriesV4 as usize,
    })
}

#[inline(always)]
fn v6(frame: &Frame, control: &Control) -> Option<Datagram> {
    let [first, a, b, c, d] = frame.le64s(IP_AT)?;
    if first as u8 >> 4 != 6 || (first >> 48) as u8 != 17 || (a ^ c) | (b ^ d) == 0 {
        return None;
    }
    Some(Datagram {
        source: Address::v6(a, b).fold(&control.secret),
        destination: Address::v6(c, d).fold(&control.secret),
        udp_at: IP_AT + V6_LEN,
        end: IP_AT + V6_LEN + ((first >> 32) as u16).swap_bytes() as usize,
        counter: Counter::QueriesV6 as usize,
    })
}

/// A query with one question to a DNS port.
pub(super) struct Asked {
    pub(super) ends: Ends,
    pub(super) hashed: Hashed,
    /// The DNS ID.
    pub(super) id: u16,
    /// The counter of such queries.
    pub(super) counter: usize,
    pub(super) udp_at: usize,
    pub(super) question_end: usize,
    pub(super) qtype: u16,
}

impl Asked {
    /// Where its name begins.
    #[inline(always)]
    pub(super) const fn name_at(&self) -> usize {
        name_behind(self.udp_at)
    }
}

/// Where the name of the message behind a UDP header begins.
#[inline(always)]
const fn name_behind(udp_at: usize) -> usize {
    udp_at + 8 + HEADER_LEN
}

impl Datagram {
    #[inline(always)]
    fn question(&self, frame: &Frame, control: &Control) -> Option<Asked> {
        let udp_at = control.blur(self.udp_at) & 0x7f;
        let [udp, dns] = frame.le64s(udp_at)?;
        let [source_port, destination_port, length] =
            [udp, udp >> 16, udp >> 32].map(|half| (half as u16).swap_bytes());
        let end = udp_at + length as usize;
        // QR and OPCODE are zero, QDCOUNT is one.
        let is_query = dns & 0xffff_00f8_0000 == 0x0100_0000_0000;
        if !is_query || end > self.end || !control.has_port(destination_port) {
            return None;
        }
        let name_at = name_behind(udp_at);
        let name_len = control.blur(name_len(frame, name_at).ok()?) & 0xff;
        let question = Question::read(frame, name_at, name_len, end).ok()?;
        Some(Asked {
            ends: Ends::new((self.source, source_port), (self.destination, destination_port)),
            hashed: Hashed::read(frame, &question, &control.secret)?,
            id: (dns as u16).swap_bytes(),
            counter: self.counter,
            udp_at,
            question_end: name_at + name_len + 4,
            qtype: question.qtype,
        })
    }
}
