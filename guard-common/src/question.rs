//! The header and the question of a DNS message (RFC 1035 sections 4.1.1 and 4.1.2).
//!
//! The name is walked by its labels and not copied. What the walk does not accept is passed and counted by kind.

use crate::bytes::{Bytes, Cursor};

/// Bytes of a DNS header.
pub const HEADER_LEN: usize = 12;
/// Where ANCOUNT and NSCOUNT lie in it: in an ordinary query both are 0.
pub const ANCOUNT_AT: usize = 6;
/// Bytes of the longest name in wire form, its root label included (RFC 1035 section 2.3.4).
pub const MAX_NAME_LEN: usize = 255;
/// Labels of the longest name: 127 of one byte each, and the root.
const MAX_LABELS: usize = 128;
const MAX_LABEL_LEN: u8 = 63;
/// Labels from the right by which zones can be told.
pub const MAX_ZONE_LABELS: usize = 7;

/// QR, the top bit of the flags word.
pub const FLAG_QR: u16 = 0x8000;
/// The OPCODE bits of the flags word.
pub const FLAG_OPCODE: u16 = 0x7800;
/// RD, recursion desired, in the flags word.
pub const FLAG_RD: u16 = 0x0100;
/// The RCODE bits of the flags word.
pub const FLAG_RCODE: u16 = 0x000f;

/// TYPE OPT, the pseudo record of EDNS (RFC 6891).
pub(crate) const TYPE_OPT: u16 = 41;

/// RCODE NOERROR.
pub const NOERROR: u8 = 0;
/// RCODE NXDOMAIN.
pub const NXDOMAIN: u8 = 3;

/// The header of a DNS message that is a query or a response with one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The ID.
    pub id: u16,
    /// The flags word: QR, OPCODE, AA, TC, RD, RA, Z, AD, CD, RCODE.
    pub flags: u16,
}

/// A DNS message as far as the judge reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where the message begins in the frame.
    pub at: usize,
    /// Where it ends in the frame.
    pub end: usize,
    /// Its header.
    pub header: Header,
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
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Shorter than its header or its question says.
    Short = 0,
    /// An OPCODE other than QUERY.
    Opcode = 1,
    /// QDCOUNT other than 1.
    QuestionCount = 2,
    /// A name that is compressed, has a label type other than 00, or is longer than 255 bytes.
    Name = 3,
}

impl Message {
    /// Reads the message that lies in `frame` from `at` up to `end`.
    pub fn read<B: Bytes + ?Sized>(frame: &B, at: usize, end: usize) -> Result<Self, Unreadable> {
        Self::read_by(frame, at, end, |name_at| name_len(frame, name_at))
    }

    /// The same, with the walk to the end of the name left to `walk`, which is told where it begins. The kernel's
    /// verifier takes the walk only as a function of its own.
    #[inline(always)]
    pub fn read_by<B: Bytes + ?Sized>(
        frame: &B,
        at: usize,
        end: usize,
        walk: impl FnOnce(usize) -> Result<usize, Unreadable>,
    ) -> Result<Self, Unreadable> {
        let header = Header::read(frame, at, end)?;
        let name_at = at + HEADER_LEN;
        let question = Question::read(frame, name_at, walk(name_at)?, end)?;
        Ok(Self {
            at,
            end,
            header,
            question,
        })
    }

    /// The byte after the question.
    #[inline(always)]
    pub const fn question_end(&self) -> usize {
        self.question.name_at + self.question.name_len + 4
    }
}

impl Question {
    /// Reads the question whose name of `name_len` bytes begins at `name_at`, in a message that goes up to `end`.
    #[inline(always)]
    pub fn read<B: Bytes + ?Sized>(frame: &B, name_at: usize, name_len: usize, end: usize) -> Result<Self, Unreadable> {
        let type_at = name_at + name_len;
        if type_at + 4 > end {
            return Err(Unreadable::Short);
        }
        let type_and_class = u32::from_be(frame.ne32(type_at).ok_or(Unreadable::Short)?);
        Ok(Self {
            name_at,
            name_len,
            qtype: (type_and_class >> 16) as u16,
            qclass: type_and_class as u16,
        })
    }
}

impl Header {
    /// Reads the header at `at` of a message that goes up to `end`.
    #[inline(always)]
    pub fn read<B: Bytes + ?Sized>(frame: &B, at: usize, end: usize) -> Result<Self, Unreadable> {
        if at + HEADER_LEN > end {
            return Err(Unreadable::Short);
        }
        // ID, flags, QDCOUNT and ANCOUNT.
        let head = frame.le64(at).ok_or(Unreadable::Short)?;
        let [id, flags, questions] = [head, head >> 16, head >> 32].map(|word| (word as u16).swap_bytes());
        if flags & FLAG_OPCODE != 0 {
            return Err(Unreadable::Opcode);
        }
        if questions != 1 {
            return Err(Unreadable::QuestionCount);
        }
        Ok(Self { id, flags })
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
}

/// The bytes of the wire name that begins at `name_at`, its root label included: 1 to 255.
#[inline(always)]
pub fn name_len<B: Bytes + ?Sized>(frame: &B, name_at: usize) -> Result<usize, Unreadable> {
    let mut at = name_at;
    for _ in 0..MAX_LABELS {
        let label = frame.u8(at).ok_or(Unreadable::Short)?;
        if label > MAX_LABEL_LEN {
            return Err(Unreadable::Name);
        }
        at += label as usize + 1;
        if at > name_at + MAX_NAME_LEN {
            return Err(Unreadable::Name);
        }
        if label == 0 {
            return Ok(at - name_at);
        }
    }
    Err(Unreadable::Name)
}

/// The bytes of the wire name at a place, its root label included. `None` if it is none, or longer than what can be read.
#[inline(always)]
pub fn name_len_at<C: Cursor>(name: C) -> Option<usize> {
    let mut at = name;
    for _ in 0..MAX_LABELS {
        let label = at.u8()?;
        at = at.forward(1);
        if label == 0 {
            let length = at.since(name);
            return (length <= MAX_NAME_LEN).then_some(length);
        }
        if label > MAX_LABEL_LEN {
            return None;
        }
        at = at.forward(label as usize);
    }
    None
}

/// What a walk over a wire name finds: its bytes in the lowest byte, and above it, label by label from the right, where
/// the last seven labels begin, counted from 1; 0 where there are fewer.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(u64);

impl Name {
    /// Walks the wire name that begins at `name_at`.
    #[inline(always)]
    pub fn walk<B: Bytes + ?Sized>(frame: &B, name_at: usize) -> Result<Self, Unreadable> {
        let mut at = 0;
        let mut labels = 0_u64;
        for _ in 0..MAX_LABELS {
            let label = frame.u8(name_at + at).ok_or(Unreadable::Short)?;
            if label > MAX_LABEL_LEN {
                return Err(Unreadable::Name);
            }
            let next = at + label as usize + 1;
            if next > MAX_NAME_LEN {
                return Err(Unreadable::Name);
            }
            if label == 0 {
                return Ok(Self(labels << 8 | next as u64));
            }
            labels = labels << 8 | (at + 1) as u64;
            at = next;
        }
        Err(Unreadable::Name)
    }

    /// Bytes of the name in wire form, its root label included: 1 to 255.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "no name is empty")]
    pub const fn len(self) -> usize {
        (self.0 & 0xff) as usize
    }

    /// Where its last `labels` labels begin, in bytes from its first; `None` if it has fewer, or if those are more than
    /// [`MAX_ZONE_LABELS`], or none.
    #[inline(always)]
    pub const fn zone_at(self, labels: u8) -> Option<usize> {
        if labels == 0 || labels as usize > MAX_ZONE_LABELS {
            return None;
        }
        let at = (self.0 >> ((labels as u32 * 8) & 63) & 0xff) as usize;
        if at == 0 || at >= self.len() {
            None
        } else {
            Some(at - 1)
        }
    }

    /// The 64 bits.
    #[inline(always)]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The name of 64 bits that a walk has found.
    #[inline(always)]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// Whether nobody has signed the query whose question, behind a header of [`HEADER_LEN`] bytes, is this: its answer and
/// authority sections are empty, and so is the additional one but for an OPT record. A signature (TSIG, RFC 8945; SIG(0),
/// RFC 2931) covers the name as it is spelled.
#[inline(always)]
pub fn is_unsigned<B: Bytes + ?Sized>(frame: &B, name_at: usize, name_len: usize) -> Option<bool> {
    if frame.ne32(name_at - 6)? != 0 {
        return Some(false);
    }
    let at = name_at + name_len + 4;
    Some(match frame.be16(name_at - 2)? {
        0 => true,
        1 => frame.u8(at)? == 0 && frame.be16(at + 1)? == TYPE_OPT,
        _ => false,
    })
}

#[cfg(test)]
mod tests;
