//! What a packet to or from a DNS port is: `guard_ebpf::dns::read`.

use guard_common::{
    case::{Case, Sight},
    counter::Counter,
    key::{Hashed, Key},
    packet::{Family, Packet, Transport},
    question::{Message, Name, Unreadable},
};

use crate::door::{Door, Way};

/// A packet that was read.
pub(crate) enum Reading {
    /// Nothing to judge.
    Nothing,
    Query(Message),
    /// A response that settles a question.
    Answer,
    /// A response that settles nothing.
    Error,
    /// A TCP segment that opens a connection to a DNS port.
    Connection,
}

impl Door {
    pub(crate) fn read(&mut self, frame: &[u8], packet: &Packet, way: Way, now_ns: u64, case: &mut Case) -> Reading {
        let ifindex = way.ifindex;
        let sight = Sight {
            ifindex,
            egress: way.egress,
            packets: way.packets,
            now_ns,
        };
        if packet.transport == Transport::Tcp {
            if packet.segment_len(frame).is_some_and(|len| len > 0) {
                self.tables.count(ifindex, Counter::TcpSegments);
            }
            let opens = self.policy.has_port(packet.destination_port) && packet.opens_connection(frame);
            return if opens && case.fill_connection(frame, packet, sight).is_some() {
                Reading::Connection
            } else {
                Reading::Nothing
            };
        }
        let Some((start, end)) = packet.payload(frame) else {
            self.tables.count(ifindex, Counter::BadHeader);
            return Reading::Nothing;
        };
        let message = match Message::read(frame, start, end) {
            Ok(message) => message,
            Err(unreadable) => {
                let counter = match unreadable {
                    Unreadable::Short => Counter::ShortMessage,
                    Unreadable::Opcode => Counter::OtherOpcode,
                    Unreadable::QuestionCount => Counter::QuestionCount,
                    Unreadable::Name => Counter::BadName,
                };
                self.tables.count(ifindex, counter);
                return Reading::Nothing;
            }
        };
        let responds = message.header.is_response();
        let server_port = if responds {
            packet.source_port
        } else {
            packet.destination_port
        };
        if !self.policy.has_port(server_port) {
            return Reading::Nothing;
        }
        let secret = self.secret;
        let Some(hashed) = Hashed::read(frame, &message.question, &secret) else {
            return Reading::Nothing;
        };
        case.fill_question(&message.question, hashed, ifindex);
        let filled = case.fill(frame, packet, message.header, sight, &secret).and_then(|()| {
            let walk = |name_at| Name::walk(frame, name_at).ok();
            case.fill_subject(frame, packet, &self.policy, walk, |zone| Key::of(frame, zone, &secret))
        });
        if filled.is_none() {
            return Reading::Nothing;
        }
        if !responds {
            let counter = match packet.family {
                Family::V4 => Counter::QueriesV4,
                Family::V6 => Counter::QueriesV6,
            };
            self.tables.count(ifindex, counter);
            return Reading::Query(message);
        }
        let settled = self.tables.flow(case.flow).settle(case.flow as u32);
        (case.asked, case.settled) = (settled.asked, settled.number() as u8);
        if case.asked && !self.policy.link.is_empty() {
            let pending = case.pending(&secret);
            self.tables.flow(pending).settle(pending as u32);
        }
        if message.header.is_answer() {
            self.tables.count(ifindex, Counter::Answers);
            return Reading::Answer;
        }
        self.tables.count(ifindex, Counter::Errors);
        let key = case.subject.key;
        self.tables.bucket(key).failed(key, case.asked);
        Reading::Error
    }
}
