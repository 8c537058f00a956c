//! A packet at a hook: `guard_ebpf::hook`, and what it calls.

use guard_common::{
    address::Address,
    budget::{Subject, ZONES},
    case::Case,
    counter::{Counter, Counters, RowCount},
    event::Event,
    flow::Sighting,
    judge::{Endpoint, Evidence, KeyState, Note, Ruling},
    key::{Key, Secret},
    packet::{Packet, Stop, destination},
    policy::Policy,
    question::Message,
    remedy::{Shed, Verdict},
    spelling::Spelling,
    time::Ticks,
};

use crate::{budgets::Link, outcome, reading::Reading, samples::Samples, tables::Tables};

/// The hook that a packet passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The interface.
    pub ifindex: u32,
    /// Whether the packet is leaving.
    pub egress: bool,
    /// Packets on the wire: a GSO packet is several.
    pub packets: u32,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on, as the frame is now.
    Pass,
    /// It ends here.
    Drop,
    /// It goes back, as the frame is now.
    Answer,
}

/// What the guard has to say of a packet, beside its fate.
#[derive(Clone, Copy, Debug)]
pub struct News {
    /// What became of it.
    pub fate: Fate,
    /// What the agent would be told.
    pub event: Option<Event>,
    /// Whether it is a query that went to a server which already had the question.
    pub recirculates: bool,
}

impl News {
    const PASS: Self = Self {
        fate: Fate::Pass,
        event: None,
        recirculates: false,
    };
}

/// A guard: one policy in force, and tables of its own.
pub struct Door {
    pub(crate) policy: Box<Policy>,
    pub(crate) secret: Secret,
    pub(crate) tables: Tables,
    /// The state of the generator that patterns are drawn with.
    pub(crate) random: u64,
    /// The number that the next pattern is drawn with, if somebody else has drawn it.
    pub(crate) drawn: Option<u32>,
    pub(crate) samples: Samples,
}

impl Door {
    /// A guard with empty tables. Equal secrets and equal packets give equal verdicts.
    pub fn new(policy: Policy, secret: Secret) -> Self {
        Self {
            policy: Box::new(policy),
            secret,
            tables: Tables::new(),
            random: secret.0[0] | 1,
            drawn: None,
            samples: Samples::default(),
        }
    }

    /// Puts another policy in force; what is remembered stays.
    pub fn set_policy(&mut self, policy: Policy) {
        *self.policy = policy;
    }

    /// Reads keys, flows and marks by another secret from now on: of what it has seen it knows nothing any more.
    pub const fn set_secret(&mut self, secret: Secret) {
        self.secret = secret;
    }

    /// Has the next query's pattern drawn with this number, as another guard that is compared with this one has drawn it.
    pub const fn draw_with(&mut self, nonce: u32) {
        self.drawn = Some(nonce);
    }

    /// What was counted on an interface.
    pub fn counters(&self, ifindex: u32) -> &Counters {
        self.tables.counters(ifindex)
    }

    /// What each row of the policy counted.
    pub fn rows(&self) -> &[RowCount] {
        self.tables.rows()
    }

    /// What is remembered of a key.
    pub fn state(&self, key: Key) -> Option<&KeyState> {
        self.tables.key(key).state(key)
    }

    /// Judges one packet, and carries the verdict out on its frame. `now_ns` is a monotonic clock.
    pub fn pass(&mut self, frame: &mut Vec<u8>, way: Way, now_ns: u64) -> News {
        let link = if way.egress { self.link_of(frame, way) } else { None };
        let packet = match Packet::walk(frame.as_slice()) {
            Ok(packet) => packet,
            Err(stop) => {
                match stop {
                    Stop::Other => {}
                    Stop::Fragment => self.tables.count(way.ifindex, Counter::Fragments),
                    Stop::Malformed => self.tables.count(way.ifindex, Counter::BadHeader),
                }
                self.charge(link, way.ifindex, way.packets, now_ns);
                return News::PASS;
            }
        };
        if !self.policy.has_port(packet.destination_port) && !self.policy.has_port(packet.source_port) {
            self.charge(link, way.ifindex, way.packets, now_ns);
            return News::PASS;
        }
        let mut case = EMPTY;
        let mut news = News::PASS;
        match self.read(frame, &packet, way, now_ns, &mut case) {
            Reading::Query(message) => return self.query(frame, &packet, &message, &mut case, link),
            Reading::Connection => return self.connection(&case, link),
            Reading::Answer => {
                news.event = self.answered(frame, &packet, &case);
                self.restore(frame, &packet, &case);
            }
            Reading::Error => self.restore(frame, &packet, &case),
            Reading::Nothing => {}
        }
        self.charge(link, way.ifindex, way.packets, now_ns);
        news
    }

    fn query(
        &mut self,
        frame: &mut Vec<u8>,
        packet: &Packet,
        message: &Message,
        case: &mut Case,
        link: Option<Link>,
    ) -> News {
        let ifindex = case.subject.ifindex;
        self.sight(case);
        let (now, rules) = (Ticks::from_ns(case.now_ns), self.policy.rules);
        let (key, hop) = (case.subject.key, case.hop());
        let begins = self.tables.bucket(key).begins(key, &hop, now);
        let mut ruling = Ruling::NOTHING;
        let mut news = News::PASS;
        if !begins {
            match self.tables.bucket(key).query(key, &hop, now, &rules) {
                Some(judged) => {
                    self.count_ruling(ifindex, &judged);
                    news.recirculates = judged.recirculates;
                    ruling = judged;
                }
                None => self.tables.count(ifindex, Counter::TableFull),
            }
        }
        let nonce = self.nonce();
        let mut spelling = Spelling::default();
        if ruling.suspects
            && let Some(spelled) = self.spell(frame, case, &ruling, nonce)
        {
            spelling = spelled.spelling;
            if let Some(closer) = self.tables.bucket(key).spelled(key, &hop, &spelled, now, &rules) {
                self.count_ruling(ifindex, &closer);
                ruling = closer;
            }
        }
        let shed = if ruling.held {
            self.tables.flow(case.flow).settle(case.flow as u32);
            Shed::NOTHING
        } else {
            self.sheds(case, link, ruling.tests)
        };
        let verdict = self.verdict(frame, packet, message, case, &ruling, &shed);
        if ruling.note != Note::None {
            news.event = Some(outcome::tell(frame, packet, case, &ruling, verdict));
        }
        self.show(frame, case, &shed, verdict);
        news.fate = self.carry_out(frame, packet, message, &ruling, &shed, verdict, case);
        if news.fate == Fate::Pass {
            if begins && !self.tables.bucket(key).begin(key, &hop, now) {
                self.tables.count(ifindex, Counter::TableFull);
            }
            if let Some(link) = link {
                self.count_link(link, ifindex, case.packets);
            }
            if ruling.marks {
                self.mark(frame, packet, case, &spelling, nonce);
            }
        }
        news
    }

    /// Whether this very query was seen before, and where.
    fn sight(&mut self, case: &mut Case) {
        let place = case.place();
        let (now, rapid_ticks) = (Ticks::from_ns(case.now_ns), self.policy.rapid_ticks);
        let line = self.tables.flow(case.flow);
        let sighting = line.sight(case.flow as u32, place, case.plain, now, rapid_ticks);
        case.sighting = sighting as u8;
        case.subject.elsewhere = sighting == Sighting::Elsewhere;
        case.subject.onward = case.subject.elsewhere && !line.turns(case.flow as u32, place);
        match sighting {
            Sighting::Retransmit => self.tables.count(case.subject.ifindex, Counter::Retransmits),
            Sighting::Elsewhere => self.tables.count(case.subject.ifindex, Counter::SeenElsewhere),
            Sighting::New | Sighting::Rapid => {}
        }
    }

    fn answered(&mut self, frame: &[u8], packet: &Packet, case: &Case) -> Option<Event> {
        let key = case.subject.key;
        let (now, rules) = (Ticks::from_ns(case.now_ns), self.policy.rules);
        let ruling = self.tables.bucket(key).answered(key, case.asked, now, &rules)?;
        self.count_ruling(case.subject.ifindex, &ruling);
        Some(outcome::tell(frame, packet, case, &ruling, Verdict::Pass))
    }

    fn connection(&mut self, case: &Case, link: Option<Link>) -> News {
        let Some(link) = link else { return News::PASS };
        let mut shed = Shed::NOTHING;
        self.exceeds_link(case, link, false, &mut shed);
        let fate = self.fate_of_connection(case, &shed);
        if fate == Fate::Pass {
            self.count_link(link, case.subject.ifindex, case.packets);
        }
        News { fate, ..News::PASS }
    }

    fn link_of(&self, frame: &[u8], way: Way) -> Option<Link> {
        let rules = &self.policy.link;
        if rules.is_empty() {
            return None;
        }
        let index = rules.link_of(way.ifindex)?;
        let service = rules.service_at(&destination(frame)?)?;
        Some(Link { index, service })
    }

    fn count_ruling(&mut self, ifindex: u32, ruling: &Ruling) {
        if ruling.recirculates {
            self.tables.count(ifindex, Counter::Recirculations);
        }
        match ruling.note {
            Note::Trip => {
                self.tables.count(ifindex, Counter::Trips);
                if ruling.evidence == Evidence::Mark {
                    self.tables.count(ifindex, Counter::Proofs);
                }
            }
            Note::Extend => self.tables.count(ifindex, Counter::Extensions),
            Note::Release => self.tables.count(ifindex, Counter::Releases),
            Note::None | Note::Suspect => {}
        }
    }
}

/// A case that is yet to be filled in.
const EMPTY: Case = Case {
    subject: Subject {
        client: Address([0; 4]),
        server: Address([0; 4]),
        key: Key(0),
        zones: [0; ZONES],
        ifindex: 0,
        qtype: 0,
        egress: false,
        elsewhere: false,
        onward: false,
    },
    flow: 0,
    now_ns: 0,
    packets: 0,
    client: Endpoint { address: 0, port: 0 },
    server: Endpoint { address: 0, port: 0 },
    id: 0,
    name_at: 0,
    name_len: 0,
    flags: 0,
    same_host: false,
    plain: false,
    sighting: 0,
    asked: false,
    settled: 0,
    policy: 0,
    spare: [0; 7],
};
