//! The answer to a plain query, written in one go.
//!
//! No tags and no options lie between its headers, and nothing behind its question, so that its answer is as long: only
//! addresses, ports and flags change. A [`super::Plan`] comes to the same.

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use super::{answer_flags, changed, fold, lanes, pseudo_header_of, turn_ethernet, turned_v4, turned_v6};
use crate::{bytes::BytesMut, packet::Family};

const IP_AT: usize = EthHdr::LEN;
/// The counts in a DNS header with one question and no records, the first byte least significant.
const ONE_QUESTION: u64 = 1_u16.swap_bytes() as u64;

/// Turns a query over this family into its answer, if it is such a one. Question and frame end at `question_end`, which
/// lies behind the headers. Where its checksum is yet to be completed, so is that of the answer, if `completes` says that
/// somebody will.
///
/// `None`, with nothing written, if it is no such query, or its answer needs a checksum that is not made of the query's.
#[inline(always)]
pub fn turn<B: BytesMut + ?Sized>(
    frame: &mut B,
    family: Family,
    question_end: usize,
    rcode: u32,
    completes: bool,
) -> Option<()> {
    match family {
        Family::V4 => turn_v4(frame, question_end, rcode, completes),
        Family::V6 => turn_v6(frame, question_end, rcode, completes),
    }
}

#[inline(always)]
fn turn_v4<B: BytesMut + ?Sized>(frame: &mut B, question_end: usize, rcode: u32, completes: bool) -> Option<()> {
    // The third word ends with the ports, the fourth with the flags.
    let [first, second, third, fourth, counts] = frame.le64s_from::<IP_AT, 5>()?;
    let udp_len = question_end - (IP_AT + Ipv4Hdr::LEN);
    if counts != ONE_QUESTION || fourth as u16 != (udp_len as u16).swap_bytes() {
        return None;
    }
    let asked = Asked {
        checksum: (fourth >> 16) as u16,
        flags: (fourth >> 48) as u16,
        pseudo_header: pseudo_header_of((second >> 32) + (third & 0xffff_ffff), udp_len),
    };
    let (checksum, flags) = asked.answered(rcode, completes)?;
    let [first, second, third] = turned_v4([first, second, third], udp_len);
    let ports = (third >> 32) as u32;
    let third = third & 0xffff_ffff | (ports.rotate_left(16) as u64) << 32;
    let fourth = fourth & 0xffff_0000_ffff | (checksum as u64) << 16 | (flags as u64) << 48;
    turn_ethernet(frame)?;
    frame.put_le64s_from::<IP_AT, 5>([first, second, third, fourth, counts])
}

#[inline(always)]
fn turn_v6<B: BytesMut + ?Sized>(frame: &mut B, question_end: usize, rcode: u32, completes: bool) -> Option<()> {
    let [first, a, b, c, d, udp, dns] = frame.le64s_from::<IP_AT, 7>()?;
    // NSCOUNT and ARCOUNT.
    let [rest] = frame.le32s_at([IP_AT + 7 * 8])?;
    let udp_len = question_end - (IP_AT + Ipv6Hdr::LEN);
    if dns >> 32 != ONE_QUESTION || rest != 0 || (udp >> 32) as u16 != (udp_len as u16).swap_bytes() {
        return None;
    }
    let asked = Asked {
        checksum: (udp >> 48) as u16,
        flags: (dns >> 16) as u16,
        pseudo_header: pseudo_header_of(lanes(a) + lanes(b) + lanes(c) + lanes(d), udp_len),
    };
    let (checksum, flags) = asked.answered(rcode, completes)?;
    let [first, a, b, c, d] = turned_v6([first, a, b, c, d], udp_len);
    let ports = udp as u32;
    let udp = ports.rotate_left(16) as u64 | udp & 0xffff << 32 | (checksum as u64) << 48;
    let dns = dns & !0xffff_0000 | (flags as u64) << 16;
    turn_ethernet(frame)?;
    frame.put_le64s_from::<IP_AT, 7>([first, a, b, c, d, udp, dns])
}

/// What changes of a query, as it lies in memory, and the unfolded sum over its pseudo header.
struct Asked {
    checksum: u16,
    flags: u16,
    pseudo_header: u64,
}

impl Asked {
    /// The checksum and the flags of its answer. `None` if the checksum cannot be made of the query's.
    #[inline(always)]
    const fn answered(&self, rcode: u32, completes: bool) -> Option<(u16, u16)> {
        let flags = answer_flags(self.flags.swap_bytes(), rcode).swap_bytes();
        let is_partial = self.checksum == fold(self.pseudo_header);
        if self.checksum == 0 || is_partial && !completes {
            return None;
        }
        let checksum = if is_partial {
            self.checksum
        } else {
            changed(self.checksum, self.flags as u64, flags as u64)
        };
        Some((checksum, flags))
    }
}
