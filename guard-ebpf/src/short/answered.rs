//! The answer to a held query: where it lies is known.

use guard_common::{
    bytes::Bytes as _,
    packet::{Family, Packet, Transport},
    question::{HEADER_LEN, Header, Message, Question},
};

use super::{ANSWERED, IP_AT, V4_LEN, V6_LEN, family, over};
use crate::frame::{Frame, MAX_OFFSET};

/// Where the question of a query lies that is answered, and the slot of the policy that says how.
#[derive(Clone, Copy)]
pub(crate) struct Answered(u32);

impl Answered {
    const SLOT_SHIFT: u32 = 25;

    #[inline(always)]
    pub(super) const fn pack(udp_at: usize, question_end: usize, slot: u32) -> u32 {
        ANSWERED | over(udp_at) | (slot & 1) << Self::SLOT_SHIFT | question_end as u32
    }

    /// What a number stands for that `pass` returned.
    #[inline(always)]
    pub(crate) const fn unpack(number: u32) -> Self {
        Self(number)
    }

    #[inline(always)]
    pub(crate) const fn slot(self) -> u32 {
        self.0 >> Self::SLOT_SHIFT & 1
    }

    /// Its headers.
    #[inline(always)]
    pub(crate) fn packet(self, frame: &Frame) -> Option<Packet> {
        let family = family(self.0);
        let header_len = match family {
            Family::V4 => V4_LEN,
            Family::V6 => V6_LEN,
        };
        let udp_at = IP_AT + header_len;
        Some(Packet {
            family,
            transport: Transport::Udp,
            ip_at: IP_AT,
            transport_at: udp_at,
            ip_len: header_len + frame.be16(udp_at + 4)? as usize,
            source_port: 0,
            destination_port: 0,
        })
    }

    /// The message.
    #[inline(always)]
    pub(crate) fn message(self, frame: &Frame, packet: &Packet) -> Option<Message> {
        let (at, end) = (packet.transport_at + 8, packet.ip_at + packet.ip_len);
        let name_at = at + HEADER_LEN;
        let name_len = (self.0 as usize & MAX_OFFSET).wrapping_sub(name_at + 4) & 0xff;
        Some(Message {
            at,
            end,
            header: Header::read(frame, at, end).ok()?,
            question: Question::read(frame, name_at, name_len, end).ok()?,
        })
    }
}
