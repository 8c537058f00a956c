//! What comes of a query that is held or shed, and what the agent is told: `guard_ebpf::dns::act`.

use guard_common::{
    answer::{Plan, checksum_state, is_answerable},
    bytes::Bytes as _,
    case::Case,
    counter::{Counter, action_index},
    event::{Event, NAME_ROOM},
    judge::Ruling,
    packet::Packet,
    question::Message,
    remedy::{Held, Reason, Shed, Verdict, client_tag, remark, remedy, remedy_of_shed},
    time::Ticks,
};

use crate::door::{Door, Fate};

/// log2 of the ticks in the second for which answers to shed queries are counted.
const SECOND_SHIFT: u32 = 10;

impl Door {
    /// What is to become of a query.
    pub(crate) fn verdict(
        &mut self,
        frame: &[u8],
        packet: &Packet,
        message: &Message,
        case: &Case,
        ruling: &Ruling,
        shed: &Shed,
    ) -> Verdict {
        if !ruling.held && !shed.is_shed() {
            return Verdict::Pass;
        }
        let held = Held {
            trusted: self.policy.trusts(&case.subject.client),
            source_port: packet.source_port,
            answerable: is_answerable(frame, packet, message),
            held_in_hold: ruling.held_in_hold,
        };
        let (verdict, reason) = if ruling.held {
            self.sentence(case, &held, ruling)
        } else {
            (self.sentence_of_shed(case, &held, shed), shed.reason)
        };
        self.tables
            .count_at(case.subject.ifindex, action_index(verdict, reason), 1);
        verdict
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "all that is known of a query, at the end of its way"
    )]
    pub(crate) fn carry_out(
        &mut self,
        frame: &mut Vec<u8>,
        packet: &Packet,
        message: &Message,
        ruling: &Ruling,
        shed: &Shed,
        verdict: Verdict,
        case: &Case,
    ) -> Fate {
        let fate = match verdict {
            Verdict::Pass | Verdict::WouldAnswer | Verdict::WouldDrop => return Fate::Pass,
            Verdict::Drop => Fate::Drop,
            Verdict::Answer => match self.answer(frame, packet, message, ruling, shed) {
                Some(()) => Fate::Answer,
                None => {
                    self.tables.count(case.subject.ifindex, Counter::AnswerFailed);
                    Fate::Drop
                }
            },
        };
        // What does not go on was not asked. What is shed for being a repeat may be that of one that was.
        if shed.reason != Reason::Repeat {
            self.tables.flow(case.flow).settle(case.flow as u32);
        }
        fate
    }

    /// What becomes of a TCP segment that opens a connection.
    pub(crate) fn fate_of_connection(&mut self, case: &Case, shed: &Shed) -> Fate {
        if !shed.is_shed() {
            return Fate::Pass;
        }
        let held = Held {
            trusted: false,
            source_port: 0,
            answerable: false,
            held_in_hold: 0,
        };
        let verdict = self.sentence_of_shed(case, &held, shed);
        self.tables
            .count_at(case.subject.ifindex, action_index(verdict, shed.reason), 1);
        if verdict == Verdict::Drop {
            Fate::Drop
        } else {
            Fate::Pass
        }
    }

    fn sentence(&mut self, case: &Case, held: &Held, ruling: &Ruling) -> (Verdict, Reason) {
        let tag = client_tag(case.subject.key, case.client.address, &self.secret);
        let limit = self.policy.answers_per_client;
        let tables = &mut self.tables;
        remedy(&self.policy, case.subject.key, held, || {
            tables.allowance(tag).spend(tag as u32, ruling.until, limit)
        })
    }

    fn sentence_of_shed(&mut self, case: &Case, held: &Held, shed: &Shed) -> Verdict {
        let second = Ticks(Ticks::from_ns(case.now_ns).0 >> SECOND_SHIFT);
        let tag = shed.tag(&self.secret);
        let of_client = shed.client_tag(case.client.address, &self.secret);
        let (limit, rate) = (self.policy.answers_per_client, self.policy.answer_rate);
        let tables = &mut self.tables;
        remedy_of_shed(&self.policy, shed, held, || {
            tables.allowance(of_client).spend(of_client as u32, second, limit)
                && tables.meters(tag).charge(tag, &rate, case.now_ns, 1)
        })
    }

    fn answer(
        &self,
        frame: &mut Vec<u8>,
        packet: &Packet,
        message: &Message,
        ruling: &Ruling,
        shed: &Shed,
    ) -> Option<()> {
        let checksum = checksum_state(frame.as_slice(), packet, message.end - packet.transport_at);
        let (rcode, remark) = (self.policy.rcode, remark(ruling, shed));
        let plan = Plan::new(frame.as_slice(), packet, message, rcode, remark, checksum)?;
        frame.resize(plan.frame_len(), 0);
        plan.write(frame.as_mut_slice())
    }
}

/// What the agent is told of a ruling.
pub(crate) fn tell(frame: &[u8], packet: &Packet, case: &Case, ruling: &Ruling, verdict: Verdict) -> Event {
    let place = case.name();
    let mut name = [0; NAME_ROOM];
    if let Some(bytes) = frame.get(place.at..place.at + place.length) {
        name[..place.length].copy_from_slice(bytes);
    }
    let (source, destination) = packet.addresses(frame).unwrap_or_default();
    Event {
        at_ns: case.now_ns,
        key: case.subject.key.0,
        ifindex: case.subject.ifindex,
        age_ticks: ruling.age_ticks,
        hold_ticks: ruling.hold_ticks,
        held: ruling.held_in_hold,
        note: ruling.note as u8,
        evidence: ruling.evidence as u8,
        verdict: verdict as u8,
        egress: u8::from(case.subject.egress),
        hops: ruling.hops,
        recirculated: ruling.recirculated,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        id: case.id,
        qtype: case.subject.qtype,
        qclass: frame.be16(place.at + place.length + 2).unwrap_or_default(),
        name_len: case.name_len,
        bits: ruling.bits.into(),
        rapid: ruling.rapid.into(),
        source: source.0,
        destination: destination.0,
        name,
    }
}
