//! Marks: put on a query that goes on, taken off a response (`guard_ebpf::hook`, `guard_ebpf::step`).

use guard_common::{
    answer::{Checksum, checksum_state},
    case::Case,
    counter::Counter,
    judge::{Ruling, Spelled},
    marks::{Found, Look, Room},
    packet::Packet,
    question::is_unsigned,
    spelling::{Change, Pattern, Respelling, Spelling},
    time::Ticks,
};

use crate::door::Door;

impl Door {
    /// How a name is spelled, and how it would be with the mark of `nonce`.
    pub(crate) fn spell(&mut self, frame: &[u8], case: &Case, ruling: &Ruling, nonce: u32) -> Option<Spelled> {
        let (name, key) = (case.name(), case.subject.key);
        let pattern = Pattern::new(nonce, key, &self.secret);
        let spelling = Spelling::read(frame, name, key, pattern, &self.secret)?;
        let look = Look::new(spelling.digest, key);
        Some(Spelled {
            spelling,
            returns: ruling.returns,
            found: ruling.found,
            unsigned: is_unsigned(frame, name.at, name.length)?,
            ours: !case.plain && self.tables.marks(spelling.digest).knows(look),
        })
    }

    /// Marks a query that goes on, if there is room to remember how to undo it.
    pub(crate) fn mark(&mut self, frame: &mut [u8], packet: &Packet, case: &Case, spelling: &Spelling, nonce: u32) {
        let (flow, now) = (case.flow as u32, Ticks::from_ns(case.now_ns));
        let (key, marked) = (case.subject.key, spelling.flipped);
        let look = Look::new(marked, key);
        let room = if self.policy.allows(key) {
            Room::TakenByItself
        } else {
            self.tables.marks(marked).remember(look, flow, nonce, now)
        };
        let has_room = room == Room::Found;
        if has_room {
            self.tables.flow(case.flow).mark(flow);
        } else {
            let others = room == Room::TakenByOthers;
            self.tables.bucket(key).unmark(key, spelling.digest, marked, others);
        }
        let own = Found { nonce, own: true };
        let marked = has_room && self.respell(frame, packet, case, own).is_some();
        let counter = if marked { Counter::Marked } else { Counter::NotMarked };
        self.tables.count(case.subject.ifindex, counter);
    }

    /// Gives the question of a response the spelling back that its client sent, if a mark has changed it.
    pub(crate) fn restore(&mut self, frame: &mut [u8], packet: &Packet, case: &Case) {
        if !case.may_be_respelled() {
            return;
        }
        let Some(spelled) = self.spell(frame, case, &Ruling::NOTHING, 0) else {
            return;
        };
        let (digest, now) = (spelled.spelling.digest, Ticks::from_ns(case.now_ns));
        let look = Look::new(digest, case.subject.key);
        if let Some(found) = self.tables.marks(digest).find(look, case.flow as u32, now)
            && case.is_to_be_respelled(found)
            && self.respell(frame, packet, case, found).is_some()
        {
            self.tables.count(case.subject.ifindex, Counter::Restored);
        }
    }

    fn respell(&self, frame: &mut [u8], packet: &Packet, case: &Case, found: Found) -> Option<()> {
        let how = if found.own {
            Respelling::Flip(Pattern::new(found.nonce, case.subject.key, &self.secret))
        } else {
            Respelling::Lower
        };
        let (start, end) = packet.payload(frame)?;
        let checksum = checksum_state(frame, packet, end - packet.transport_at);
        let change = Change::make(frame, case.name(), how, &self.secret)?;
        match checksum {
            Checksum::Whole => change.apply(frame, start - 2),
            Checksum::Partial => Some(()),
        }
    }

    /// A number for a pattern: splitmix64.
    pub(crate) const fn nonce(&mut self) -> u32 {
        if let Some(drawn) = self.drawn.take() {
            return drawn;
        }
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as u32
    }
}
