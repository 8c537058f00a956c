//! The answer to a held query: where it lies is known.

use guard_common::{
    answer::{Plan, Remark, turn},
    bytes::Bytes as _,
    packet::{Family, Packet, Transport},
    question::{HEADER_LEN, Header, Message, Question},
};

use super::{ANSWERED, IP_AT, V4_LEN, V6_LEN, family, over};
use crate::{
    door::Door,
    frame::{Frame, MAX_OFFSET},
};

/// Where the question of a query ends that is answered, and the RCODE that it gets.
#[derive(Clone, Copy)]
pub(crate) struct Answered(u32);

impl Answered {
    const RCODE_SHIFT: u32 = 12;

    #[inline(always)]
    pub(super) const fn pack(udp_at: usize, question_end: usize, rcode: u32) -> u32 {
        ANSWERED | over(udp_at) | (rcode & 0xf) << Self::RCODE_SHIFT | question_end as u32
    }

    /// What a number stands for that `pass` returned.
    #[inline(always)]
    pub(crate) const fn unpack(number: u32) -> Self {
        Self(number)
    }

    /// Turns the query into its answer. `None`, with the packet half written, if that fails.
    #[inline(always)]
    pub(crate) fn answer<D: Door>(self, door: &D) -> Option<()> {
        let rcode = self.0 >> Self::RCODE_SHIFT & 0xf;
        let question_end = self.0 as usize & MAX_OFFSET;
        if door.has_length(question_end)
            && turn(&mut door.frame(), family(self.0), question_end, rcode, D::COMPLETES).is_some()
        {
            return Some(());
        }
        let frame = door.frame();
        let packet = self.packet(&frame)?;
        let message = self.message(&frame, &packet)?;
        let checksum = door.checksum(&frame, &packet, message.end - packet.transport_at);
        door.write(&Plan::new(&frame, &packet, &message, rcode, Remark::Held, checksum)?)
    }

    #[inline(always)]
    fn packet(self, frame: &Frame) -> Option<Packet> {
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

    /// As far as an answer asks.
    #[inline(always)]
    fn message(self, frame: &Frame, packet: &Packet) -> Option<Message> {
        let (at, end) = (packet.transport_at + 8, packet.ip_at + packet.ip_len);
        let name_at = at + HEADER_LEN;
        let name_len = (self.0 as usize & MAX_OFFSET).wrapping_sub(name_at + 4) & 0xff;
        Some(Message {
            at,
            end,
            header: Header {
                id: 0,
                flags: frame.be16(at + 2)?,
            },
            question: Question {
                name_at,
                name_len,
                qtype: 0,
                qclass: 0,
            },
        })
    }
}
