//! Who can be the guard of a network: the judge natively, or the kernel object.

use guard_common::{
    event::Event,
    judge::{Evidence, Note, Rules},
    key::Secret,
    policy::{Action, Mode, Policy},
    time::{Ticks, ticks_of_ms},
};
use guard_native::Door;
pub use guard_native::{Fate, Way};

use crate::S;

/// What the guard says of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// What becomes of it.
    pub fate: Fate,
    /// The breaker that it opened, if it did.
    pub trip: Option<Trip>,
    /// Whether it closed one.
    pub releases: bool,
}

/// A breaker that opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trip {
    /// Why.
    pub evidence: Evidence,
    /// Bits of the proof.
    pub bits: u16,
    /// Recirculated queries of the key, by the guard's own count.
    pub recirculated: u16,
}

impl Word {
    /// What a guard says that has done this with a packet, and told this of it.
    pub fn new<'e>(fate: Fate, events: impl IntoIterator<Item = &'e Event>) -> Self {
        let mut word = Self {
            fate,
            trip: None,
            releases: false,
        };
        for event in events {
            match Note::from_u8(event.note) {
                Note::Trip => {
                    word.trip = Some(Trip {
                        evidence: Evidence::from_u8(event.evidence),
                        bits: event.bits,
                        recirculated: event.recirculated,
                    });
                }
                Note::Release => word.releases = true,
                Note::None | Note::Suspect | Note::Extend => {}
            }
        }
        word
    }
}

/// Sees every packet of a network.
pub trait Guard {
    /// A network begins at this moment of simulated time.
    fn begin(&mut self, _now_ns: u64) {}

    /// Waits until a moment has come, if it has a clock of its own: nobody waits for simulated time.
    fn wait(&mut self, _now_ns: u64) {}

    /// Judges a frame, and changes it if it likes. `now_ns` is simulated time from the guard's start on.
    fn pass(&mut self, frame: &mut Vec<u8>, way: Way, now_ns: u64) -> Word;
}

/// Short of the wrap of the ticks, so that every run goes through it.
const BOOT_NS: u64 = ((u32::MAX as u64) << Ticks::SHIFT) - 3 * S;

/// The judge, natively.
pub struct Native {
    door: Door,
    /// Nanoseconds in a step of its clock: 4 ms at HZ=250.
    pub clock_ns: u64,
}

impl Native {
    /// A guard under this policy.
    pub fn new(policy: Policy) -> Self {
        Self {
            door: Door::new(policy, SECRET),
            clock_ns: 4_000_000,
        }
    }

    /// What stands behind it.
    pub const fn door(&self) -> &Door {
        &self.door
    }
}

impl Guard for Native {
    fn pass(&mut self, frame: &mut Vec<u8>, way: Way, now_ns: u64) -> Word {
        let now_ns = BOOT_NS + now_ns / self.clock_ns * self.clock_ns;
        let news = self.door.pass(frame, way, now_ns);
        Word::new(news.fate, &news.event)
    }
}

const SECRET: Secret = Secret([
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0x2545_f491,
]);

/// The policy of the agent's default configuration, with marks or without, enforced: a wrong verdict shows. `action` is
/// what a held query gets.
pub fn policy(marks: bool, action: Action) -> Policy {
    let rules = Rules {
        hold_ticks: ticks_of_ms(1_000),
        hold_max_ticks: ticks_of_ms(300_000),
        test_ticks: ticks_of_ms(2_000),
        marks: u32::from(marks),
    };
    let mut policy = Policy::new(Mode::Enforce, action, rules);
    policy.rapid_ticks = ticks_of_ms(100);
    policy.limit_answers(16, 256);
    for port in SERVER_PORTS {
        policy.add_port(port);
    }
    policy.trust(guard_common::address::Prefix::new([0; 16], 0));
    policy
}

/// Ports that servers listen on; a network's clients use none of them.
pub const SERVER_PORTS: std::ops::RangeInclusive<u16> = 1..=1_023;
