//! The whole door in userspace: what it may do to a packet, whatever comes.

use anyhow::Result;
use guard_common::{packet::Packet, policy::Policy, spelling::NamePlace};
use guard_native::{Fate, Way};
use guard_sim::random::Random;
use guard_tests::bench::Gate;

use super::{Target, question_in};
use crate::{
    driver::{Verdict, wrong},
    independent,
    script::{Script, policy},
};

/// Nanoseconds between two packets.
const STEP_NS: u64 = 700_000;
/// Bytes that an Extended DNS Error adds to an OPT record: what an answer may be longer than its query.
const EDE_LEN: usize = 26;
/// The lowest port that a client sends from.
const FIRST_CLIENT_PORT: u16 = 1_024;

/// The target. A case is a script.
pub(super) struct Door {
    door: guard_native::Door,
    now_ns: u64,
}

impl Door {
    pub(super) fn new() -> Self {
        Self {
            door: guard_native::Door::new(policy(0), guard_common::key::Secret::default()),
            now_ns: 1 << 40,
        }
    }
}

impl Target for Door {
    fn draw(&self, random: &mut Random) -> Vec<u8> {
        Script::draw(random)
    }

    fn check(&mut self, case: &[u8]) -> Verdict {
        let Some(script) = Script::read(case) else {
            return Ok("no script");
        };
        let policy = policy(script.plan);
        self.door.set_secret(script.secret);
        self.door.set_policy(policy);
        let mut done = Done::default();
        let mut spelled = Spelled::default();
        for step in &script.steps {
            self.now_ns += STEP_NS;
            let mut frame = step.frame.clone();
            if step.spelled {
                spelled.put_on(&mut frame);
            }
            let before = frame.clone();
            let fate = self
                .door
                .pass(&mut frame, way(step.gate, step.device), self.now_ns)
                .fate;
            is_lawful(&policy, &before, fate, &frame)?;
            spelled.note(&before, &frame);
            done.note(fate, before != frame);
        }
        Ok(done.class())
    }

    fn smaller(&self, case: &[u8]) -> Vec<Vec<u8>> {
        Script::smaller(case)
    }

    fn forget(&mut self) -> Result<()> {
        *self = Self::new();
        Ok(())
    }
}

/// The gate and the interface, as the door in userspace has them.
pub(super) const fn way(gate: Gate, device: u32) -> Way {
    Way {
        ifindex: device,
        egress: matches!(gate, Gate::TcOut),
        packets: 1,
    }
}

/// The last name that got a mark, as it is spelled with it.
#[derive(Default)]
pub(super) struct Spelled(Vec<u8>);

impl Spelled {
    /// Spells the name in a frame like this, if it is the same. A checksum over it is left out where that is allowed.
    pub(super) fn put_on(&self, frame: &mut [u8]) {
        let Ok((packet, message)) = question_in(frame) else {
            return;
        };
        let name = &mut frame[message.question.name_at..][..message.question.name_len];
        if !name.eq_ignore_ascii_case(&self.0) || name == self.0 {
            return;
        }
        name.copy_from_slice(&self.0);
        frame[packet.transport_at + 6..packet.transport_at + 8].fill(0);
    }

    /// Takes note of a query that was marked.
    pub(super) fn note(&mut self, before: &[u8], after: &[u8]) {
        if before != after
            && before.len() == after.len()
            && let Ok((_, message)) = question_in(after)
            && !message.header.is_response()
        {
            self.0 = after[message.question.name_at..][..message.question.name_len].to_vec();
        }
    }
}

/// What became of the packets of a script.
#[derive(Default)]
pub(super) struct Done {
    drops: bool,
    answers: bool,
    changes: bool,
}

impl Done {
    pub(super) fn note(&mut self, fate: Fate, changed: bool) {
        match fate {
            Fate::Pass => self.changes |= changed,
            Fate::Drop => self.drops = true,
            Fate::Answer => self.answers = true,
        }
    }

    pub(super) const fn class(&self) -> &'static str {
        match (self.answers, self.drops, self.changes) {
            (false, false, false) => "all passed",
            (false, false, true) => "some marked",
            (true, _, false) => "some answered",
            (true, _, true) => "some answered, some marked",
            (false, true, false) => "some dropped",
            (false, true, true) => "some dropped, some marked",
        }
    }
}

/// What is not understood passes as it came, a response passes with its letters at most in another case, and an answer
/// goes only to who may have one, no longer than it has to be.
pub(super) fn is_lawful(policy: &Policy, before: &[u8], fate: Fate, after: &[u8]) -> Verdict {
    let Ok((packet, message)) = question_in(before) else {
        return if fate == Fate::Pass && before == after {
            Ok("")
        } else {
            wrong(format!("{fate:?} for what is not understood"))
        };
    };
    let place = NamePlace {
        at: message.question.name_at,
        length: message.question.name_len,
    };
    match fate {
        Fate::Pass => only_letters_change(before, after, &packet, place),
        Fate::Drop | Fate::Answer if message.header.is_response() => wrong(format!("{fate:?} for a response")),
        Fate::Drop => Ok(""),
        Fate::Answer => {
            let trusted = packet
                .addresses(before)
                .is_some_and(|(source, _)| policy.trusts(&source));
            if !trusted || packet.source_port < FIRST_CLIENT_PORT || !policy.has_port(packet.destination_port) {
                return wrong("an answer to who may have none");
            }
            // A frame may be cut; what counts is how long its headers say it is.
            let longest = before.len().max(message.end) + EDE_LEN;
            let reading = independent::domain(after.get(message.at..).unwrap_or_default());
            let is_answer = reading.is_some_and(|reading| reading.responds && reading.id == message.header.id);
            if after.len() > longest || !is_answer {
                return wrong(format!("{} bytes for {}, or no answer", after.len(), before.len()));
            }
            Ok("")
        }
    }
}

fn only_letters_change(before: &[u8], after: &[u8], packet: &Packet, name: NamePlace) -> Verdict {
    if before.len() != after.len() {
        return wrong("a packet that passes has another length");
    }
    let checksum = packet.transport_at + 6..packet.transport_at + 8;
    for (at, (old, new)) in before.iter().zip(after).enumerate() {
        let is_letter =
            (name.at..name.at + name.length).contains(&at) && old.is_ascii_alphabetic() && old ^ 0x20 == *new;
        if old != new && !is_letter && !checksum.contains(&at) {
            return wrong(format!("byte {at} of a packet that passes became {new:02x}"));
        }
    }
    Ok("")
}
