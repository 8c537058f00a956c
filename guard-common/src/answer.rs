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
//! The door gives the packet its new length first ([`Plan::frame_len`]), then has it written ([`Plan::write`]).

use crate::{
    bytes::{Bytes, BytesMut},
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

const UDP_HEADER_LEN: usize = 8;
const PROTOCOL_UDP: u32 = 17;
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
    /// It has to be complete.
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
        (Some(found), Some(sum)) if found == fold(sum) && found != 0 => Checksum::Partial,
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
            flags: FLAG_QR
                | FLAG_RA
                | message.header.flags & (FLAG_OPCODE | FLAG_RD | FLAG_CD)
                | (remark.rcode(rcode) & 0x0f) as u16,
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
        frame.put_be16(at + 2, flags)?;
        frame.put_be16(at + 4, 1)?;
        frame.put_be16(at + 6, 0)?;
        frame.put_be16(at + 8, 0)?;
        frame.put_be16(at + 10, edns_flags.is_some() as u16)?;
        if let Some(flags) = edns_flags {
            write_edns(frame, question_end, flags, remark)?;
        }

        swap32(frame, 0, 6)?;
        swap16(frame, 4, 10)?;
        let udp_len = self.frame_len() - packet.transport_at;
        match packet.family {
            Family::V4 => {
                swap32(frame, packet.ip_at + 12, packet.ip_at + 16)?;
                frame.put_be16(packet.ip_at + 2, (self.frame_len() - packet.ip_at) as u16)?;
                frame.put_u8(packet.ip_at + 8, TTL)?;
                frame.put_be16(packet.ip_at + 10, 0)?;
                let sum = sum(frame, packet.ip_at, 20, 0)?;
                frame.put_be16(packet.ip_at + 10, !fold(sum))?;
            }
            Family::V6 => {
                for word in 0..4 {
                    swap32(frame, packet.ip_at + 8 + word * 4, packet.ip_at + 24 + word * 4)?;
                }
                frame.put_be16(packet.ip_at + 4, udp_len as u16)?;
                frame.put_u8(packet.ip_at + 7, TTL)?;
            }
        }

        let udp_at = packet.transport_at;
        swap16(frame, udp_at, udp_at + 2)?;
        frame.put_be16(udp_at + 4, udp_len as u16)?;
        frame.put_be16(udp_at + 6, 0)?;
        let pseudo_header = pseudo_header(frame, &packet, udp_len)?;
        let checksum = match checksum {
            Checksum::Partial => fold(pseudo_header),
            // Zero means "no checksum" and is not allowed over IPv6 (RFC 8200 section 8.1).
            Checksum::Whole => match !fold(sum(frame, udp_at, udp_len, pseudo_header)?) {
                0 => 0xffff,
                sum => sum,
            },
        };
        frame.put_be16(udp_at + 6, checksum)
    }
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
    frame.put_u8(at, 0)?;
    frame.put_be16(at + 1, TYPE_OPT)?;
    frame.put_be16(at + 3, PAYLOAD_SIZE)?;
    frame.put_be16(at + 5, 0)?;
    frame.put_be16(at + 7, flags)?;
    frame.put_be16(at + 9, (EDNS_LEN - OPT_LEN) as u16)?;
    frame.put_be16(at + 11, OPTION_EDE)?;
    frame.put_be16(at + 13, (2 + TEXT_LEN) as u16)?;
    frame.put_be16(at + 15, remark.info_code())?;
    let text = remark.text();
    for word in 0..TEXT_LEN / 4 {
        let [a, b, c, d] = [word * 4, word * 4 + 1, word * 4 + 2, word * 4 + 3].map(|at| text[at]);
        frame.put_ne32(at + 17 + word * 4, u32::from_ne_bytes([a, b, c, d]))?;
    }
    Some(())
}

#[inline(always)]
fn swap32<B: BytesMut + ?Sized>(frame: &mut B, one: usize, other: usize) -> Option<()> {
    let (first, second) = (frame.ne32(one)?, frame.ne32(other)?);
    frame.put_ne32(one, second)?;
    frame.put_ne32(other, first)
}

#[inline(always)]
fn swap16<B: BytesMut + ?Sized>(frame: &mut B, one: usize, other: usize) -> Option<()> {
    let (first, second) = (frame.be16(one)?, frame.be16(other)?);
    frame.put_be16(one, second)?;
    frame.put_be16(other, first)
}

/// The unfolded sum over the pseudo header of RFC 768 or RFC 8200 section 8.1, in 16-bit words of network order.
#[inline(always)]
fn pseudo_header<B: Bytes + ?Sized>(frame: &B, packet: &Packet, udp_len: usize) -> Option<u64> {
    let (source, destination) = packet.addresses(frame)?;
    // The marker of a mapped IPv4 address is 0xffff, which is zero in ones' complement.
    let mut total = udp_len as u64 + PROTOCOL_UDP as u64;
    for word in 0..4 {
        total += u32::from_be(source.0[word]) as u64 + u32::from_be(destination.0[word]) as u64;
    }
    Some(total)
}

/// Adds `len` bytes from `at` on, as 32-bit words of network order, to an unfolded ones' complement sum.
#[inline(always)]
fn sum<B: Bytes + ?Sized>(frame: &B, at: usize, len: usize, start: u64) -> Option<u64> {
    let mut total = start;
    let mut done = 0;
    for _ in 0..(UDP_HEADER_LEN + MAX_MESSAGE_LEN) / 4 {
        if done + 4 > len {
            break;
        }
        total += u32::from_be(frame.ne32(at + done)?) as u64;
        done += 4;
    }
    if len & 2 != 0 {
        total += (frame.be16(at + done)? as u64) << 16;
        done += 2;
    }
    if len & 1 != 0 {
        let shift = if len & 2 != 0 { 8 } else { 24 };
        total += (frame.u8(at + done)? as u64) << shift;
    }
    Some(total)
}

/// Folds a sum to 16 bits.
#[inline(always)]
pub(crate) const fn fold(total: u64) -> u16 {
    let total = (total & 0xffff_ffff) + (total >> 32);
    let total = (total & 0xffff_ffff) + (total >> 32);
    let total = (total & 0xffff) + (total >> 16);
    let total = (total & 0xffff) + (total >> 16);
    let total = (total & 0xffff) + (total >> 16);
    total as u16
}

#[cfg(test)]
mod tests;
