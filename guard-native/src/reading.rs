//! What a packet to or from a DNS port is: `guard_ebpf::dns::read`.

use guard_common::{
    case::{Case, Sight},
    counter::Counter,
    key::{Hashed, Key},
    packet::{Family, Packet, Transport},
    question::{Message, Question, Unreadable},
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
        let responds = message.is_response();
        let server_port = if responds {
            packet.source_port
        } else {
            packet.destination_port
        };
        if !self.policy.has_port(server_port) {
            return Reading::Nothing;
        }
        let secret = self.secret;
        let filled = case.fill(
            frame,
            packet,
            &message,
            sight,
            (&secret, &self.policy),
            |question| Hashed::read(frame, question, &secret),
            |message, labels| self.zone(frame, message, labels),
        );
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
            self.tables.flow(case.pending).settle(case.pending as u32);
        }
        if message.is_answer() {
            self.tables.count(ifindex, Counter::Answers);
            return Reading::Answer;
        }
        self.tables.count(ifindex, Counter::Errors);
        let key = case.subject.key;
        self.tables.bucket(key).failed(key, case.asked);
        Reading::Error
    }

    /// The digest of a zone; 0 if the name has fewer labels.
    fn zone(&self, frame: &[u8], message: &Message, labels: u8) -> u64 {
        let Some(at) = message.name.zone_at(labels) else {
            return 0;
        };
        let zone = Question {
            name_at: message.question.name_at + at,
            name_len: message.question.name_len - at,
            qtype: 0,
            qclass: 0,
        };
        Key::of(frame, &zone, &self.secret).map_or(0, |key| key.0)
    }
}
