//! The header and the question of a DNS message (RFC 1035 sections 4.1.1 and 4.1.2).
//!
//! The name is walked by its labels and not copied. What the walk does not accept is passed and counted by kind.

use crate::bytes::Bytes;

/// Bytes of a DNS header.
pub const HEADER_LEN: usize = 12;
/// Bytes of the longest name in wire form, its root label included (RFC 1035 section 2.3.4).
pub const MAX_NAME_LEN: usize = 255;
/// Labels of the longest name: 127 of one byte each, and the root.
const MAX_LABELS: usize = 128;
const MAX_LABEL_LEN: u8 = 63;

/// QR, the top bit of the flags word.
pub const FLAG_QR: u16 = 0x8000;
/// The OPCODE bits of the flags word.
pub const FLAG_OPCODE: u16 = 0x7800;
/// The RCODE bits of the flags word.
pub const FLAG_RCODE: u16 = 0x000f;

/// RCODE NOERROR.
pub const NOERROR: u8 = 0;
/// RCODE NXDOMAIN.
pub const NXDOMAIN: u8 = 3;

/// A DNS message as far as the judge reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where the message begins in the frame.
    pub at: usize,
    /// Where it ends in the frame.
    pub end: usize,
    /// The ID.
    pub id: u16,
    /// The flags word: QR, OPCODE, AA, TC, RD, RA, Z, AD, CD, RCODE.
    pub flags: u16,
    /// Its one question.
    pub question: Question,
}

/// Where the question lies in the frame, and what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The first length byte of the name.
    pub name_at: usize,
    /// Bytes of the name in wire form, its root label included: 1 to 255.
    pub name_len: usize,
    /// The QTYPE.
    pub qtype: u16,
    /// The QCLASS.
    pub qclass: u16,
}

/// Why a message is not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Shorter than its header or its question says.
    Short,
    /// An OPCODE other than QUERY.
    Opcode,
    /// QDCOUNT other than 1.
    QuestionCount,
    /// A name that is compressed, has a label type other than 00, or is longer than 255 bytes.
    Name,
}

impl Message {
    /// Reads the message that lies in `frame` from `at` up to `end`.
    pub fn read<B: Bytes + ?Sized>(frame: &B, at: usize, end: usize) -> Result<Self, Unreadable> {
        Self::read_by(frame, at, end, |name_at| name_len(frame, name_at))
    }

    /// The same, with the walk of the name left to `name_len`, which is asked for the name's offset. The kernel's
    /// verifier takes the walk only as a function of its own.
    #[inline(always)]
    pub fn read_by<B: Bytes + ?Sized>(
        frame: &B,
        at: usize,
        end: usize,
        name_len: impl FnOnce(usize) -> Result<usize, Unreadable>,
    ) -> Result<Self, Unreadable> {
        if at + HEADER_LEN > end {
            return Err(Unreadable::Short);
        }
        let id = frame.be16(at).ok_or(Unreadable::Short)?;
        let flags = frame.be16(at + 2).ok_or(Unreadable::Short)?;
        if flags & FLAG_OPCODE != 0 {
            return Err(Unreadable::Opcode);
        }
        if frame.be16(at + 4).ok_or(Unreadable::Short)? != 1 {
            return Err(Unreadable::QuestionCount);
        }
        let name_at = at + HEADER_LEN;
        let name_len = name_len(name_at)?;
        let type_at = name_at + name_len;
        if type_at + 4 > end {
            return Err(Unreadable::Short);
        }
        let question = Question {
            name_at,
            name_len,
            qtype: frame.be16(type_at).ok_or(Unreadable::Short)?,
            qclass: frame.be16(type_at + 2).ok_or(Unreadable::Short)?,
        };
        Ok(Self {
            at,
            end,
            id,
            flags,
            question,
        })
    }

    /// Whether QR is set.
    #[inline(always)]
    pub const fn is_response(&self) -> bool {
        self.flags & FLAG_QR != 0
    }

    /// The RCODE of the header.
    #[inline(always)]
    pub const fn rcode(&self) -> u8 {
        (self.flags & FLAG_RCODE) as u8
    }

    /// Whether a response settles the question: NOERROR and NXDOMAIN do, an error does not, because a forwarder at its
    /// limit answers with errors in the middle of a loop.
    #[inline(always)]
    pub const fn is_answer(&self) -> bool {
        matches!(self.rcode(), NOERROR | NXDOMAIN)
    }

    /// The byte after the question.
    #[inline(always)]
    pub const fn question_end(&self) -> usize {
        self.question.name_at + self.question.name_len + 4
    }
}

/// Bytes of the wire name that begins at `name_at`.
#[inline(always)]
pub fn name_len<B: Bytes + ?Sized>(frame: &B, name_at: usize) -> Result<usize, Unreadable> {
    let mut len = 0;
    for _ in 0..MAX_LABELS {
        let label = frame.u8(name_at + len).ok_or(Unreadable::Short)?;
        if label > MAX_LABEL_LEN {
            return Err(Unreadable::Name);
        }
        len += label as usize + 1;
        if len > MAX_NAME_LEN {
            return Err(Unreadable::Name);
        }
        if label == 0 {
            return Ok(len);
        }
    }
    Err(Unreadable::Name)
}

#[cfg(test)]
mod tests;
