//! An answer, made of the query's own packet.
//!
//! ```text
//! Ethernet      source <-> destination
//! IPv4, IPv6    source <-> destination, length, TTL 64, header checksum
//! UDP           source <-> destination, length, checksum
//! DNS header    QR, RA and RCODE set; AA, TC, Z, AD clear; ID, OPCODE, RD, CD kept; QD 1, AN 0, NS 0, AR 0 or 1
//! question      as it came
//! OPT           only if the query had one: EDE (RFC 8914)
//! ```
//!
//! The door gives the packet its new length first ([`Plan::frame_len`]), then has it written ([`Plan::write`]). An answer
//! that is as long as its query can mostly be had in one go ([`turn`]).

mod plain;

use network_types::{ip::Ipv4Hdr, udp::UdpHdr};

pub use self::plain::turn;
use crate::{
    bytes::{Bytes, BytesMut, Cursor},
    packet::{Family, Packet},
    question::{ANCOUNT_AT, FLAG_OPCODE, FLAG_QR, FLAG_RD, HEADER_LEN, Message, TYPE_OPT},
};

const FLAG_RA: u16 = 0x0080;
const FLAG_CD: u16 = 0x0010;

/// Owner, type, class, TTL and length of an OPT record (RFC 6891 section 6.1.2).
const OPT_LEN: usize = 11;
/// The DO bit in the upper half of the OPT record's flags (RFC 3225).
const FLAG_DO: u16 = 0x8000;
/// The message size that needs no fragments on any path (DNS flag day 2020).
const PAYLOAD_SIZE: u16 = 1_232;
const OPTION_EDE: u16 = 15;

/// What an answer says of itself, in the EDE: its code and its EXTRA-TEXT.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// "Other" (RFC 8914 section 4.1), for there is no code for a loop.
    Loop = 0,
    /// "Cached Error" (section 4.14): the loop was found earlier.
    Held = 1,
    /// "Other": no code for a rate limit is registered.
    RateLimit = 2,
    /// "Prohibited" (section 4.19): this client gets no recursion.
    Prohibited = 3,
}

/// Bytes of an EXTRA-TEXT: five words.
const TEXT_LEN: usize = 20;

impl Remark {
    /// The remark of a number; unknown numbers are `Loop`.
    #[inline(always)]
    pub const fn from_u32(number: u32) -> Self {
        match number {
            1 => Self::Held,
            2 => Self::RateLimit,
            3 => Self::Prohibited,
            _ => Self::Loop,
        }
    }

    /// The INFO-CODE.
    #[inline(always)]
    pub const fn info_code(self) -> u16 {
        match self {
            Self::Loop | Self::RateLimit => 0,
            Self::Held => 13,
            Self::Prohibited => 18,
        }
    }

    /// The EXTRA-TEXT.
    #[inline(always)]
    pub const fn text(self) -> [u8; TEXT_LEN] {
        match self {
            Self::Loop | Self::Held => *b"dnsguard: query loop",
            Self::RateLimit => *b"dnsguard: rate limit",
            Self::Prohibited => *b"dnsguard: prohibited",
        }
    }

    /// The RCODE that goes with it, where the policy's is `rcode`: REFUSED for who may not ask.
    #[inline(always)]
    pub const fn rcode(self, rcode: u32) -> u32 {
        match self {
            Self::Prohibited => 5,
            _ => rcode,
        }
    }
}

/// Bytes that an OPT record with the EDE takes.
const EDNS_LEN: usize = OPT_LEN + 4 + 2 + TEXT_LEN;
/// The longest message that is written: header, question, OPT.
const MAX_MESSAGE_LEN: usize = HEADER_LEN + 255 + 4 + EDNS_LEN;

const PROTOCOL_UDP: u16 = 17;
const TTL: u8 = 64;

/// Everything that has to be known of the query before its packet changes its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    packet: Packet,
    message_at: usize,
    question_end: usize,
    flags: u16,
    /// The flags of the OPT record to put back, if there is one.
    edns_flags: Option<u16>,
    remark: Remark,
    checksum: Checksum,
}

/// Who completes the UDP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It has to be complete. That of an answer which is as long as its query is made of the query's, if that has one which
    /// does not look as if it were yet to be completed: where the query's is wrong, so is the answer's.
    Whole,
    /// The sum over the pseudo header is in its place, and whoever sends the packet adds the rest (the kernel's
    /// `CHECKSUM_PARTIAL`).
    Partial,
}

/// Whether a query can be answered in place: nothing in its answer and authority sections, and no IP options, which an
/// answer would have to leave out or reverse.
#[inline(always)]
pub fn is_answerable<B: Bytes + ?Sized>(frame: &B, packet: &Packet, message: &Message) -> bool {
    !packet.has_ip_options() && frame.ne32(message.at + ANCOUNT_AT) == Some(0)
}

/// Whether the UDP checksum in `frame` is one that the sending side has yet to complete.
///
/// The kernel does not tell a TC program. A complete checksum looks like an incomplete one once in 65,536 packets; then
/// the answer has a wrong checksum, and its client sees silence.
#[inline(always)]
pub fn checksum_state<B: Bytes + ?Sized>(frame: &B, packet: &Packet, udp_len: usize) -> Checksum {
    match (
        frame.be16(packet.transport_at + 6),
        pseudo_header(frame, packet, udp_len),
    ) {
        (Some(found), Some(sum)) if found.swap_bytes() == fold(sum) && found != 0 => Checksum::Partial,
        _ => Checksum::Whole,
    }
}

impl Plan {
    /// Plans the answer to `message`. `None` if the packet is shorter than its headers say.
    #[inline(always)]
    pub fn new<B: Bytes + ?Sized>(
        frame: &B,
        packet: &Packet,
        message: &Message,
        rcode: u32,
        remark: Remark,
        checksum: Checksum,
    ) -> Option<Self> {
        let question_end = message.question_end();
        Some(Self {
            packet: *packet,
            message_at: message.at,
            question_end,
            flags: answer_flags(message.header.flags, remark.rcode(rcode)),
            edns_flags: edns_flags(frame, message)?,
            remark,
            checksum,
        })
    }

    /// Bytes of the answer's frame.
    #[inline(always)]
    pub const fn frame_len(&self) -> usize {
        self.question_end + if self.edns_flags.is_some() { EDNS_LEN } else { 0 }
    }

    /// Turns the query, whose frame has been given its new length, into the answer. `None`, with the packet half
    /// written, if the frame is too short.
    #[inline(always)]
    pub fn write<B: BytesMut + ?Sized>(&self, frame: &mut B) -> Option<()> {
        let Self {
            packet,
            message_at: at,
            question_end,
            flags,
            edns_flags,
            remark,
            checksum,
        } = *self;
        let udp_at = packet.transport_at;
        let udp_len = self.frame_len() - udp_at;
        // All that is read is read before anything is written: the processor would wait for it otherwise.
        let asked = Head {
            first: frame.le64(at)?,
            rest: u32::from_le(frame.ne32(at + 8)?),
        };
        let udp = frame.le64(udp_at)?;
        // Its addresses change places, which does not change their sum.
        let pseudo_header = pseudo_header(frame, &packet, udp_len)?;
        // QDCOUNT is one, ANCOUNT is zero; and so is NSCOUNT.
        let answers = Head {
            first: asked.first & 0xffff | (flags.swap_bytes() as u64) << 16 | (1_u16.swap_bytes() as u64) << 32,
            rest: (edns_flags.is_some() as u32) << 24,
        };
        let (ports, length, found) = (udp as u32, (udp_len as u16).swap_bytes(), (udp >> 48) as u16);
        let partial = fold(pseudo_header);
        let is_as_long = edns_flags.is_none() && (udp >> 32) as u16 == length;
        let checksum = match checksum {
            Checksum::Partial => partial,
            // What has changed and counts is the header of the message.
            Checksum::Whole if is_as_long && found != 0 && found != partial => {
                changed(found, asked.sum(), answers.sum())
            }
            Checksum::Whole => NOT_KNOWN,
        };

        frame.put_le64(at, answers.first)?;
        frame.put_ne32(at + 8, answers.rest.to_le())?;
        if let Some(flags) = edns_flags {
            write_edns(frame, question_end, flags, remark)?;
        }
        turn_ethernet(frame)?;
        match packet.family {
            Family::V4 => turn_v4(frame, packet.ip_at, udp_len)?,
            Family::V6 => turn_v6(frame, packet.ip_at, udp_len)?,
        }
        let udp = ports.rotate_left(16) as u64 | (length as u64) << 32 | (checksum as u64) << 48;
        frame.put_le64(udp_at, udp)?;
        if checksum == NOT_KNOWN {
            let checksum = whole(sum(frame, udp_at, udp_len, pseudo_header)?);
            frame.put_be16(udp_at + 6, checksum.swap_bytes())?;
        }
        Some(())
    }
}

/// In the place of a checksum: none.
const NOT_KNOWN: u16 = 0;

/// The checksum of a datagram with this unfolded sum. Zero means "no checksum" and is not allowed over IPv6 (RFC 8200
/// section 8.1).
#[inline(always)]
const fn whole(total: u64) -> u16 {
    match !fold(total) {
        0 => 0xffff,
        sum => sum,
    }
}

/// The checksum of a datagram, which was `found`, of which something with one unfolded sum has become something with another
/// (RFC 1624 section 3, equation 3).
#[inline(always)]
const fn changed(found: u16, before: u64, after: u64) -> u16 {
    whole(!found as u64 + !fold(before) as u64 + after)
}

/// The flags of the answer to a query with these.
#[inline(always)]
const fn answer_flags(asked: u16, rcode: u32) -> u16 {
    FLAG_QR | FLAG_RA | asked & (FLAG_OPCODE | FLAG_RD | FLAG_CD) | (rcode & 0x0f) as u16
}

/// The header of a message, the first byte of each number least significant.
struct Head {
    /// ID, flags, QDCOUNT, and ANCOUNT.
    first: u64,
    /// NSCOUNT and ARCOUNT.
    rest: u32,
}

impl Head {
    /// Its unfolded sum, as [`sum`] adds.
    #[inline(always)]
    const fn sum(&self) -> u64 {
        lanes(self.first) + self.rest as u64
    }
}

/// Swaps the addresses of an Ethernet header.
#[inline(always)]
fn turn_ethernet<B: BytesMut + ?Sized>(frame: &mut B) -> Option<()> {
    let [first, second] = frame.le64s_from::<0, 2>()?;
    let source = first >> 48 | (second & 0xffff_ffff) << 16;
    frame.put_le64s_from::<0, 2>([source | first << 48, (first >> 16 & 0xffff_ffff) | second >> 32 << 32])
}

/// Turns an IPv4 header without options round, in front of a UDP datagram of this length.
#[inline(always)]
fn turn_v4<B: BytesMut + ?Sized>(frame: &mut B, at: usize, udp_len: usize) -> Option<()> {
    let words = frame.le64s(at)?;
    frame.put_le64s(at, turned_v4(words, udp_len))
}

/// An IPv4 header and the four bytes behind it, turned round.
#[inline(always)]
const fn turned_v4([first, second, third]: [u64; 3], udp_len: usize) -> [u64; 3] {
    let length = ((Ipv4Hdr::LEN + udp_len) as u16).swap_bytes() as u64;
    let first = first & !(0xffff << 16) | length << 16;
    let (source, destination) = (second >> 32, third & 0xffff_ffff);
    // TTL, protocol, and a checksum that is zero until it is known.
    let second = TTL as u64 | second & 0xff00 | destination << 32;
    let checksum = !fold(lanes(first) + lanes(second) + source);
    [first, second | (checksum as u64) << 16, source | third >> 32 << 32]
}

/// Turns an IPv6 header round, in front of a UDP datagram of this length.
#[inline(always)]
fn turn_v6<B: BytesMut + ?Sized>(frame: &mut B, at: usize, udp_len: usize) -> Option<()> {
    let words = frame.le64s(at)?;
    frame.put_le64s(at, turned_v6(words, udp_len))
}

/// An IPv6 header, turned round.
#[inline(always)]
const fn turned_v6([first, a, b, c, d]: [u64; 5], udp_len: usize) -> [u64; 5] {
    let length = (udp_len as u16).swap_bytes() as u64;
    let next_header = first & 0xff << 48;
    let first = first & 0xffff_ffff | length << 32 | next_header | (TTL as u64) << 56;
    [first, c, d, a, b]
}

/// The flags of the OPT record, if the first additional record is one. An OPT further back (behind what, nobody
/// knows) is not looked for; such a query gets an answer without EDNS.
#[inline(always)]
fn edns_flags<B: Bytes + ?Sized>(frame: &B, message: &Message) -> Option<Option<u16>> {
    let at = message.question_end();
    if frame.be16(message.at + 10)? == 0 || at + OPT_LEN > message.end {
        return Some(None);
    }
    if frame.u8(at)? != 0 || frame.be16(at + 1)? != TYPE_OPT {
        return Some(None);
    }
    Some(Some(frame.be16(at + 7)? & FLAG_DO))
}

#[inline(always)]
fn write_edns<B: BytesMut + ?Sized>(frame: &mut B, at: usize, flags: u16, remark: Remark) -> Option<()> {
    let mut record = [0; EDNS_LEN];
    record[1..3].copy_from_slice(&TYPE_OPT.to_be_bytes());
    record[3..5].copy_from_slice(&PAYLOAD_SIZE.to_be_bytes());
    record[7..9].copy_from_slice(&flags.to_be_bytes());
    record[9..11].copy_from_slice(&((EDNS_LEN - OPT_LEN) as u16).to_be_bytes());
    record[11..13].copy_from_slice(&OPTION_EDE.to_be_bytes());
    record[13..15].copy_from_slice(&((2 + TEXT_LEN) as u16).to_be_bytes());
    record[15..17].copy_from_slice(&remark.info_code().to_be_bytes());
    record[17..].copy_from_slice(&remark.text());
    // The last word begins within the one before it.
    let (words, _) = record.as_chunks();
    let [first, second, third, fourth] = [words[0], words[1], words[2], words[3]].map(u64::from_le_bytes);
    frame.put_le64s(at, [first, second, third, fourth])?;
    let last = record.last_chunk().copied().map(u64::from_le_bytes)?;
    frame.put_le64(at + EDNS_LEN - 8, last)
}

/// The unfolded sum over the pseudo header of RFC 768 or RFC 8200 section 8.1: as [`sum`] adds.
#[inline(always)]
fn pseudo_header<B: Bytes + ?Sized>(frame: &B, packet: &Packet, udp_len: usize) -> Option<u64> {
    let addresses = match packet.family {
        Family::V4 => lanes(frame.le64(packet.ip_at + 12)?),
        Family::V6 => {
            let words: [u64; 4] = frame.le64s(packet.ip_at + 8)?;
            words.into_iter().map(lanes).sum()
        }
    };
    Some(pseudo_header_of(addresses, udp_len))
}

/// The same of addresses with this unfolded sum.
#[inline(always)]
const fn pseudo_header_of(addresses: u64, udp_len: usize) -> u64 {
    addresses + PROTOCOL_UDP.swap_bytes() as u64 + (udp_len as u16).swap_bytes() as u64
}

/// Adds `len` bytes from `at` on to an unfolded ones' complement sum, as 32-bit words of which the first byte is the least
/// significant one: what comes of that is the sum with its bytes swapped (RFC 1071 section 2).
#[inline(always)]
fn sum<B: Bytes + ?Sized>(frame: &B, at: usize, len: usize, start: u64) -> Option<u64> {
    let mut total = start;
    let blocks = len & 0x1f0;
    let mut done = 0;
    let mut place = frame.cursor(at);
    for _ in 0..(UdpHdr::LEN + MAX_MESSAGE_LEN) / 16 {
        if done == blocks {
            break;
        }
        let [low, high] = place.le64s()?;
        total += lanes(low) + lanes(high);
        place = place.forward(16);
        done += 16;
    }
    let mut at = at + blocks;
    if len & 8 != 0 {
        total += lanes(frame.le64(at)?);
        at += 8;
    }
    if len & 4 != 0 {
        total += u32::from_le(frame.ne32(at)?) as u64;
        at += 4;
    }
    if len & 2 != 0 {
        total += frame.be16(at)?.swap_bytes() as u64;
        at += 2;
    }
    if len & 1 != 0 {
        total += frame.u8(at)? as u64;
    }
    Some(total)
}

/// Folds a sum to 16 bits.
#[inline(always)]
pub(crate) const fn fold(total: u64) -> u16 {
    // Each half gets the other one added, and what is carried out of the lower one gets into the upper one.
    let total = (total.wrapping_add(total.rotate_left(32)) >> 32) as u32;
    let total = total.wrapping_add(total.rotate_left(16)) >> 16;
    total as u16
}

/// The sum of the two halves of eight bytes: as good as that of their four 16-bit words.
#[inline(always)]
pub(crate) const fn lanes(bytes: u64) -> u64 {
    (bytes & 0xffff_ffff) + (bytes >> 32)
}

#[cfg(test)]
mod tests;
