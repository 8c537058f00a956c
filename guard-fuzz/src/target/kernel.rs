//! The kernel object against the same judge natively: the same frames, the same moments, and all that comes of them.
//!
//! Both are asked about each frame in turn. What the kernel draws at random, the nonce of a mark, is read from its table
//! and given to the other. A script is given up where nobody can say what the kernel went by: the clock ticked meanwhile,
//! or a number was drawn that leaves a short name as it is.

use std::time::Duration;

use anyhow::{Context as _, Result};
use guard_common::{
    bytes::{Bytes, Cursor},
    counter::{COUNTERS, Counters, RowCount},
    event::Event,
    key::{Key, Secret},
    marks::Look,
    packet::{Packet, Stop, Transport},
    policy::Policy,
    question::Message,
    sample::Sample,
    spelling::{Change, NamePlace, Pattern, Respelling, Spelling},
    time::Ticks,
};
use guard_native::{Door, Fate};
use guard_sim::random::Random;
use guard_tests::bench::{Bench, Gate, IFINDEX, Outcome, WIRE, Way};
use nix::time::{ClockId, clock_gettime};

use super::{
    Target,
    answer::is_complete,
    door::{Done, Spelled, is_lawful, way},
    question_in,
};
use crate::{
    driver::{Verdict, wrong},
    script::{Script, Step, policy, shows_all},
};

/// More samples than a script has frames: all are shown.
const QUOTA: u32 = 1 << 20;
/// No offset above this is read in the kernel (`guard_ebpf::frame`).
const REACH: usize = 0x3ff;
/// Of so many letters, a pattern that is drawn at random flips at least one: but for one pattern in 2^32.
const CERTAIN_LETTERS: usize = 32;
/// Scripts after which both begin anew: each has other keys, by a secret of its own, but what was given up has left
/// more in the tables of one than in those of the other. That must not come to matter, as it would in full ones.
const SCRIPTS: u32 = 250;
/// Bytes of an Ethernet header and of the IP headers behind it, by EtherType: a test run of TC takes no frame that is
/// shorter, and one of XDP none without the first.
const ETHERNET_LEN: usize = 14;
const IP_LEN: [([u8; 2], usize); 2] = [([8, 0], 20), ([0x86, 0xdd], 40)];

/// The target. A case is a script.
pub(super) struct Kernel {
    bench: Bench,
    door: Door,
    scripts: u32,
}

impl Kernel {
    pub(super) fn new() -> Result<Self> {
        let bench = Bench::new(|_| ())?;
        let mut kernel = Self {
            bench,
            door: Door::new(policy(0), Secret::default()),
            scripts: 0,
        };
        kernel.forget()?;
        Ok(kernel)
    }

    fn run(&mut self, script: &Script) -> Result<Verdict> {
        let policy = policy(script.plan);
        let shows_all = shows_all(script.plan);
        // A storm under a plan that hides must not make the next one show less.
        self.bench.forget_locals()?;
        self.bench.set_control(|control| {
            control.secret = script.secret;
            control.sample_quota = if shows_all { QUOTA } else { 0 };
        })?;
        self.bench.set_policy(policy)?;
        self.door.set_secret(script.secret);
        self.door.set_policy(policy);
        let before = [self.counts(IFINDEX)?, self.counts(WIRE)?];
        let rows_before = self.rows(&policy)?;
        let mut done = Done::default();
        let mut spelled = Spelled::default();
        let mut all_within_reach = true;
        for (number, step) in script.steps.iter().enumerate() {
            let mut frame = step.frame.clone();
            if step.spelled {
                spelled.put_on(&mut frame);
            }
            if !is_taken(step.gate, &frame) {
                continue;
            }
            all_within_reach &= is_within_reach(&frame);
            match self.step(script, &policy, step, &frame)? {
                Met::Both(fate, after) => {
                    spelled.note(&frame, &after);
                    done.note(fate, frame != after);
                }
                Met::Unclear(why) => {
                    self.drain()?;
                    return Ok(Ok(why));
                }
                Met::Wrong(why) => {
                    self.drain()?;
                    return Ok(wrong(format!(
                        "step {number} ({:?} on {}): {why}",
                        step.gate, step.device
                    )));
                }
            }
        }
        let after = [self.counts(IFINDEX)?, self.counts(WIRE)?];
        if all_within_reach && let Some(why) = counts_differ(&before, &after) {
            return Ok(wrong(why));
        }
        if let Some(why) = rows_differ(&rows_before, &self.rows(&policy)?) {
            return Ok(wrong(why));
        }
        Ok(Ok(done.class()))
    }

    /// Puts one frame before both.
    fn step(&mut self, script: &Script, policy: &Policy, step: &Step, frame: &[u8]) -> Result<Met> {
        let secret = script.secret;
        let now_ns = coarse_ns()?;
        let outcome = self.bench.run_by(Way::on(step.device), step.gate, frame)?;
        if coarse_ns()? != now_ns {
            return Ok(Met::Unclear("given up: the clock ticked"));
        }
        if !is_within_reach(frame) {
            let passed = outcome.returned == step.gate.pass() && outcome.frame == frame;
            return Ok(if passed {
                Met::Both(Fate::Pass, outcome.frame)
            } else {
                Met::Wrong("what lies beyond the reach of the kernel's walk does not pass as it came".to_owned())
            });
        }
        match self.nonce(secret, frame, &outcome)? {
            Nonce::Told(nonce) => self.door.draw_with(nonce),
            Nonce::Unneeded => {}
            Nonce::Unclear => return Ok(Met::Unclear("given up: two marks look the same")),
        }
        let mut native = frame.to_vec();
        let news = self.door.pass(&mut native, way(step.gate, step.device), now_ns);
        let Some(fate) = fate(step.gate, outcome.returned, outcome.frame != frame) else {
            return Ok(Met::Wrong(format!("the program returned {}", outcome.returned)));
        };
        if fate != news.fate {
            return Ok(Met::Wrong(format!(
                "the kernel says {fate:?}, the judge natively {:?}",
                news.fate
            )));
        }
        if outcome.frame == frame && is_short_mark(frame, &native) {
            return Ok(Met::Unclear("given up: a pattern that leaves a short name as it is"));
        }
        if fate != Fate::Drop && !is_same(step.gate, frame, &outcome.frame, &native) {
            return Ok(Met::Wrong(format!(
                "of {frame:02x?} the kernel makes {:02x?}, the judge natively {native:02x?}",
                outcome.frame
            )));
        }
        if let Err(why) = is_lawful(policy, frame, fate, &outcome.frame) {
            return Ok(Met::Wrong(why));
        }
        let events = self.bench.events()?;
        if !events.iter().map(told).eq(news.event.iter().map(told)) {
            return Ok(Met::Wrong(format!(
                "the kernel tells {events:?}, the judge natively {:?}",
                news.event
            )));
        }
        let samples = self.bench.samples()?;
        let natively: Vec<Sample> = self.door.samples().collect();
        if shows_all(script.plan) && !samples.iter().map(shown).eq(natively.iter().map(shown)) {
            return Ok(Met::Wrong(format!(
                "the kernel shows {samples:?}, the judge natively {natively:?}"
            )));
        }
        if let Ok((_, message)) = question_in(frame)
            && let Some(key) = Key::of(frame, &message.question, &secret)
        {
            let (kernel, native) = (self.bench.state(key)?, self.door.state(key).copied());
            if kernel != native {
                return Ok(Met::Wrong(format!("the state of the key is {kernel:?} and {native:?}")));
            }
        }
        Ok(Met::Both(fate, outcome.frame))
    }

    /// The number that the mark on a query was drawn with, if it got one.
    fn nonce(&self, secret: Secret, frame: &[u8], outcome: &Outcome) -> Result<Nonce> {
        let marked = outcome.frame.as_slice();
        if marked == frame || marked.len() != frame.len() {
            return Ok(Nonce::Unneeded);
        }
        let Some((_, message)) = question_in(marked)
            .ok()
            .filter(|(_, message)| !message.header.is_response())
        else {
            return Ok(Nonce::Unneeded);
        };
        let place = place(&message);
        let key = Key::of(marked, &message.question, &secret).context("a question without a key")?;
        let any = Pattern::new(0, key, &secret);
        let spelling = Spelling::read(marked, place, key, any, &secret).context("a name without a spelling")?;
        let mut line = self.bench.marks(spelling.digest)?;
        let Some(found) = line.find(Look::new(spelling.digest, key), 0, Ticks(0)) else {
            return Ok(Nonce::Unneeded);
        };
        let pattern = Pattern::new(found.nonce, key, &secret);
        let mut again = frame.to_vec();
        Change::make(again.as_mut_slice(), place, Respelling::Flip(pattern), &secret).context("a name that is cut")?;
        let name = place.at..place.at + place.length;
        Ok(if again[name.clone()] == marked[name] {
            Nonce::Told(found.nonce)
        } else {
            Nonce::Unclear
        })
    }

    /// What both have counted on an interface.
    fn counts(&self, device: u32) -> Result<[Counters; 2]> {
        Ok([self.bench.counters_of(device)?, *self.door.counters(device)])
    }

    /// What both have counted on each row of the policy.
    fn rows(&self, policy: &Policy) -> Result<Vec<[RowCount; 2]>> {
        let natively = self.door.rows().iter();
        let rows = (0..policy.row_count()).zip(natively);
        rows.map(|(row, native)| Ok([self.bench.row(row)?, *native])).collect()
    }

    /// Takes what was told and shown, so that the next script finds none of it.
    fn drain(&mut self) -> Result<()> {
        self.bench.events()?;
        self.bench.samples()?;
        self.door.samples().for_each(drop);
        Ok(())
    }
}

impl Target for Kernel {
    fn draw(&self, random: &mut Random) -> Vec<u8> {
        Script::draw(random)
    }

    fn check(&mut self, case: &[u8]) -> Verdict {
        let Some(script) = Script::read(case) else {
            return Ok("no script");
        };
        self.scripts += 1;
        let renewed = if self.scripts > SCRIPTS { self.forget() } else { Ok(()) };
        match renewed.and_then(|()| self.run(&script)) {
            Ok(verdict) => verdict,
            Err(error) => wrong(format!("{error:#}")),
        }
    }

    fn smaller(&self, case: &[u8]) -> Vec<Vec<u8>> {
        Script::smaller(case)
    }

    fn forget(&mut self) -> Result<()> {
        self.drain()?;
        self.bench.forget()?;
        self.door = Door::new(policy(0), Secret::default());
        self.door.show_samples(QUOTA);
        self.scripts = 0;
        Ok(())
    }
}

/// What came of a frame before both.
enum Met {
    /// The same.
    Both(Fate, Vec<u8>),
    /// Nobody can say what the kernel went by.
    Unclear(&'static str),
    Wrong(String),
}

/// What a mark was drawn with.
enum Nonce {
    Told(u32),
    /// There is no mark.
    Unneeded,
    /// Another mark looks the same, and hides it.
    Unclear,
}

/// Where the name of a message lies.
const fn place(message: &Message) -> NamePlace {
    NamePlace {
        at: message.question.name_at,
        length: message.question.name_len,
    }
}

/// Whether a query was marked whose letters are so few that another number may well leave all of them as they are.
fn is_short_mark(before: &[u8], after: &[u8]) -> bool {
    let Some((_, message)) = question_in(before)
        .ok()
        .filter(|(_, message)| !message.header.is_response())
    else {
        return false;
    };
    let NamePlace { at, length } = place(&message);
    let letters = before[at..at + length]
        .iter()
        .filter(|byte| byte.is_ascii_alphabetic())
        .count();
    before.len() == after.len() && before != after && letters < CERTAIN_LETTERS
}

/// The coarse clock, by which the programs go.
fn coarse_ns() -> Result<u64> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?).as_nanos() as u64)
}

/// Whether a test run takes such a frame.
fn is_taken(gate: Gate, frame: &[u8]) -> bool {
    let ip_len = match frame.get(12..ETHERNET_LEN) {
        None => return false,
        Some(_) if gate == Gate::Xdp => 0,
        Some(kind) => IP_LEN.iter().find(|(ip, _)| ip == kind).map_or(0, |(_, len)| *len),
    };
    frame.len() >= ETHERNET_LEN + ip_len
}

/// What a program did. Going out, a drop and an answer are both a redirect; a packet that goes nowhere is as it came.
const fn fate(gate: Gate, returned: u32, changed: bool) -> Option<Fate> {
    if returned == gate.pass() {
        Some(Fate::Pass)
    } else if returned == gate.answer() && changed {
        Some(Fate::Answer)
    } else if returned == gate.drop() {
        Some(Fate::Drop)
    } else {
        None
    }
}

/// Whether both made the same of a frame. A checksum that looks unfinished is one to complete for whoever cannot ask the
/// kernel: XDP completes any, TC asks.
fn is_same(gate: Gate, before: &[u8], kernel: &[u8], native: &[u8]) -> bool {
    if kernel == native {
        return true;
    }
    let Ok((packet, message)) = question_in(before) else {
        return false;
    };
    let udp_len = message.end - packet.transport_at;
    let state = guard_common::answer::checksum_state(before, &packet, udp_len);
    let checksum = packet.transport_at + 6..packet.transport_at + 8;
    let differs_elsewhere =
        kernel.len() != native.len() || (0..kernel.len()).any(|at| kernel[at] != native[at] && !checksum.contains(&at));
    if differs_elsewhere || state != guard_common::answer::Checksum::Partial {
        return false;
    }
    gate != Gate::Xdp || is_complete(&packet, kernel)
}

/// A frame of which nothing is read that begins further in than the kernel's verifier lets a program reach.
struct WithinReach<'a>(&'a [u8]);

impl Bytes for WithinReach<'_> {
    fn u8(&self, at: usize) -> Option<u8> {
        self.0.u8(at).filter(|_| at <= REACH)
    }

    fn be16(&self, at: usize) -> Option<u16> {
        self.0.be16(at).filter(|_| at <= REACH)
    }

    fn ne32(&self, at: usize) -> Option<u32> {
        self.0.ne32(at).filter(|_| at <= REACH)
    }

    fn le64(&self, at: usize) -> Option<u64> {
        self.0.le64(at).filter(|_| at <= REACH)
    }

    fn le64s<const N: usize>(&self, at: usize) -> Option<[u64; N]> {
        self.0.le64s(at).filter(|_| at <= REACH)
    }

    fn cursor(&self, at: usize) -> impl Cursor {
        self.0.cursor(at)
    }
}

/// Whether the kernel reads the same in a frame as somebody who reaches all of it.
fn is_within_reach(frame: &[u8]) -> bool {
    fn read<B: Bytes + ?Sized>(frame: &B) -> Result<(Packet, Option<Message>), Option<Stop>> {
        let packet = Packet::walk(frame).map_err(Some)?;
        if packet.transport == Transport::Tcp {
            return Ok((packet, None));
        }
        let (start, end) = packet.payload(frame).ok_or(None)?;
        Ok((packet, Message::read(frame, start, end).ok()))
    }
    frame.len() <= REACH || read(frame) == read(&WithinReach(frame))
}

/// All of an event but what is left over behind its name.
fn told(event: &Event) -> ([u64; 19], [[u32; 4]; 2], &[u8]) {
    let numbers = [
        event.at_ns,
        event.key,
        event.ifindex.into(),
        event.age_ticks.into(),
        event.hold_ticks.into(),
        event.held.into(),
        event.note.into(),
        event.evidence.into(),
        event.verdict.into(),
        event.egress.into(),
        event.hops.into(),
        event.recirculated.into(),
        event.source_port.into(),
        event.destination_port.into(),
        event.id.into(),
        event.qtype.into(),
        event.qclass.into(),
        event.bits.into(),
        event.rapid.into(),
    ];
    (numbers, [event.source, event.destination], event.wire_name())
}

/// All of a sample but what is left over behind its name.
fn shown(sample: &Sample) -> ([u64; 9], [[u32; 4]; 2], &[u8]) {
    let numbers = [
        sample.at_ns,
        sample.weight.into(),
        sample.ifindex.into(),
        sample.row.into(),
        sample.verdict.into(),
        sample.reason.into(),
        sample.egress.into(),
        sample.kind.into(),
        sample.qtype.into(),
    ];
    (numbers, [sample.client, sample.server], sample.wire_name())
}

/// What one has counted more than the other.
fn counts_differ(before: &[[Counters; 2]; 2], after: &[[Counters; 2]; 2]) -> Option<String> {
    for (before, after) in before.iter().zip(after) {
        for index in 0..COUNTERS {
            let [kernel, native] = [0, 1].map(|who| after[who].0[index] - before[who].0[index]);
            if kernel != native {
                return Some(format!("counter {index}: {kernel} in the kernel, {native} natively"));
            }
        }
    }
    None
}

fn rows_differ(before: &[[RowCount; 2]], after: &[[RowCount; 2]]) -> Option<String> {
    before.iter().zip(after).zip(0..).find_map(|((before, after), row)| {
        let [kernel, native] = [0, 1].map(|who| {
            let (before, after) = (before[who], after[who]);
            (after.within - before.within, after.over - before.over)
        });
        (kernel != native).then(|| format!("row {row}: within and over {kernel:?} in the kernel, {native:?} natively"))
    })
}
