//! The states of a key, told apart by what they will do, and a search through all of them that packets can bring about.

use std::{
    collections::HashSet,
    format,
    hash::{BuildHasherDefault, Hasher},
    string::String,
    vec,
    vec::Vec,
};

use super::packet::{Checked, Cpu, Looks, Packet, World, ensure};
use crate::{
    judge::{
        ALL_RUNGS, Evidence, KeyState, Note, RUNGS, Rules, Rung,
        breaker::{CLOSED, OPEN, SUSPECT, TEST},
        evidence::{self, FORGET_TICKS, PACE_LEAK_TICKS, Scores, TURN_LEAK_TICKS},
        mark::{self, MARK_TICKS, STALE_TICKS},
    },
    time::Ticks,
};

/// The moment at which every state is looked at: the ticks wrap in whatever comes next.
pub(super) const NOW: Ticks = Ticks(u32::MAX);
/// Another one, where they do not.
const FAR_FROM_THE_WRAP: Ticks = Ticks(0x4000_0000);
/// What the mark that is out looks like, whatever it was.
pub(super) const MARK: u32 = 0x11;

/// Holds of 4, 8 and 16 ticks: the longest is that of the second level.
const LEVELS: u8 = 3;
/// Holds of 4, 8 and 16 ticks.
pub(super) const RULES: Rules = Rules {
    hold_ticks: 4,
    hold_max_ticks: 16,
    test_ticks: 6,
    marks: 1,
};

/// Where a search began, no state was before.
const NO_STATE: u32 = u32::MAX;
/// Hops beyond the last number of them that means anything.
const HOPS: u16 = 17;

/// Ticks by which the clock of another CPU may be ahead.
const CLOCKS: u32 = 2;

/// How much time passes before a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    Ticks(u32),
    /// As many ticks before the end of the hold, of the test or of the mark; nothing if there is no such end ahead.
    UntilBeforeEnd(u32),
}

impl Wait {
    /// The moment after it; `None` if it is the same as no wait.
    pub(super) fn after(self, key: &KeyState) -> Option<Ticks> {
        match self {
            Self::Ticks(ticks) => Some(NOW.plus(ticks)),
            Self::UntilBeforeEnd(ticks) => {
                let left = key.until.0.wrapping_sub(NOW.0) as i32;
                (key.phase != CLOSED && left > ticks as i32).then(|| NOW.plus(left as u32 - ticks))
            }
        }
    }
}

/// A key, and what may happen to it.
pub(super) struct Play {
    pub(super) name: &'static str,
    pub(super) rules: Rules,
    /// Letters of the name.
    pub(super) letters: u32,
    pub(super) steps: Vec<(Wait, Packet)>,
    /// States after which the search ends.
    pub(super) most: usize,
}

/// What a search has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) states: usize,
    pub(super) transitions: usize,
    /// Whether there are no others.
    pub(super) all: bool,
    pub(super) phases: [usize; 4],
    pub(super) notes: [usize; 5],
    pub(super) trips: [usize; 6],
    pub(super) marks: usize,
    pub(super) unmarked: usize,
    pub(super) flags: u8,
}

impl Seen {
    pub(super) fn add(&mut self, other: &Self) {
        self.states += other.states;
        self.transitions += other.transitions;
        self.marks += other.marks;
        self.unmarked += other.unmarked;
        self.flags |= other.flags;
        let counts = self.phases.iter_mut().chain(&mut self.notes).chain(&mut self.trips);
        for (sum, more) in counts.zip(other.phases.iter().chain(&other.notes).chain(&other.trips)) {
            *sum += more;
        }
    }
}

impl Play {
    /// Searches breadth first from these states for those that are `within`, and looks at every one of them. On a failure,
    /// tells the shortest way to it.
    pub(super) fn search(
        &self,
        from: &[KeyState],
        within: impl Fn(&KeyState) -> bool,
        look: impl Fn(&KeyState) -> Checked,
    ) -> (Vec<KeyState>, Seen) {
        let mut seen = Seen::default();
        let mut known: HashSet<KeyState, BuildHasherDefault<Mixer>> = HashSet::default();
        let mut states = from.to_vec();
        states.retain(|state| known.insert(*state));
        let mut ways = vec![(NO_STATE, 0); states.len()];
        let mut next = 0;
        while next < states.len() && states.len() < self.most {
            let state = states[next];
            if let Err(wrong) = look(&state) {
                panic!("{}: {wrong}\n{}", self.name, self.way(&states, &ways, next));
            }
            seen.phases[state.phase as usize] += 1;
            seen.flags |= state.flags;
            for (number, (wait, packet)) in self.steps.iter().enumerate() {
                let is_mark = matches!(packet, Packet::Query(query) if query.looks == Looks::Mark);
                let Some(now) = wait.after(&state) else { continue };
                if is_mark && state.phase != SUSPECT {
                    continue;
                }
                let after = match self.take(&state, now, *packet, &mut seen) {
                    Ok(after) => after,
                    Err(wrong) => panic!(
                        "{}: {wrong}\n{}then {wait:?} {packet:?}",
                        self.name,
                        self.way(&states, &ways, next)
                    ),
                };
                seen.transitions += 1;
                if within(&after) && known.insert(after) {
                    states.push(after);
                    ways.push((next as u32, number as u32));
                }
            }
            next += 1;
        }
        seen.all = next == states.len();
        seen.states = next;
        states.truncate(next);
        (states, seen)
    }

    /// The states that are found from a key never seen.
    pub(super) fn states(&self) -> Vec<KeyState> {
        self.search(&[fresh(&self.rules)], |_| true, |_| Ok(())).0
    }

    /// Takes one step: everything that one packet does, here and at another time of the clock.
    fn take(&self, state: &KeyState, now: Ticks, packet: Packet, seen: &mut Seen) -> Checked<KeyState> {
        let mut world = World::new(*state, self.rules, self.letters);
        let mut cpu = Cpu::new(packet, now, 0);
        cpu.run(&mut world)?;
        let after = canonical(&world.key, now, &self.rules);

        // One of four is enough: the ticks are read in few places.
        if seen.transitions.is_multiple_of(4) {
            let shift = FAR_FROM_THE_WRAP.0.wrapping_sub(NOW.0);
            let mut other = World::new(shifted(state, shift), self.rules, self.letters);
            other.latest = FAR_FROM_THE_WRAP;
            Cpu::new(packet, now.plus(shift), 0).run(&mut other)?;
            let elsewhen = canonical(&other.key, now.plus(shift), &self.rules);
            ensure!(after == elsewhen, "at another time: {after:?}\nbut {elsewhen:?}");
        }
        for (sum, notes) in seen.notes.iter_mut().zip(cpu.notes) {
            *sum += notes as usize;
        }
        if world.trips != 0 {
            seen.trips[Evidence::from_u8(world.key.evidence) as usize] += 1;
        }
        seen.marks += cpu.marked as usize;
        let marks = cpu.ruling.is_some_and(|ruling| ruling.marks);
        seen.unmarked += (marks && !cpu.marked) as usize;
        ensure!(
            cpu.notes[Note::Trip as usize] + cpu.notes[Note::Release as usize] <= 1,
            "told twice"
        );
        Ok(after)
    }

    fn way(&self, states: &[KeyState], ways: &[(u32, u32)], mut at: usize) -> String {
        let mut way = vec![format!("{:?}\n", states[at])];
        while ways[at].0 != NO_STATE {
            let (from, step) = ways[at];
            way.push(format!("{:?}\n", self.steps[step as usize]));
            at = from as usize;
        }
        way.push(format!("{:?}\n", states[at]));
        way.reverse();
        way.concat()
    }
}

/// A key never seen.
pub(super) fn fresh(rules: &Rules) -> KeyState {
    canonical(&KeyState::default(), NOW.minus(1_000_000), rules)
}

/// The same state at another time.
fn shifted(state: &KeyState, ticks: u32) -> KeyState {
    KeyState {
        touched: state.touched.plus(ticks),
        since: state.since.plus(ticks),
        until: state.until.plus(ticks),
        ..*state
    }
}

/// The state as it is at `now`, put to [`NOW`], without what is only told of and without what nobody reads in its phase.
/// What counts without end stops at the first number that means no more; how long ago something was is rounded down to
/// the last moment from which on it means something else. So one state stands for many, and the search may find some that
/// no packets bring about: what holds for all of them holds for the others.
pub(super) fn canonical(state: &KeyState, now: Ticks, rules: &Rules) -> KeyState {
    let idle = [FORGET_TICKS + 1, PACE_LEAK_TICKS + 1, TURN_LEAK_TICKS];
    let passed = now.since(state.touched);
    let idle = idle.into_iter().find(|idle| passed >= *idle).unwrap_or(0);
    let left = state.until.0.wrapping_sub(now.0) as i32;
    let left = match state.phase {
        SUSPECT if left > (MARK_TICKS - STALE_TICKS) as i32 => MARK_TICKS as i32,
        SUSPECT if left > 0 => (MARK_TICKS - STALE_TICKS) as i32,
        OPEN | TEST => left.max(-(rules.hold_max_ticks as i32) - 1),
        _ => 0,
    };
    let mut canonical = KeyState {
        touched: NOW.minus(idle),
        since: NOW,
        until: Ticks(NOW.0.wrapping_add(left as u32)),
        count: match state.phase {
            SUSPECT => MARK,
            OPEN | TEST => state.count.min(2),
            _ => 0,
        },
        hops: state.hops.min(HOPS),
        recirculated: state.recirculated.min(1),
        evidence: 0,
        level: match state.level {
            // From there on holds are the longest, and the last number is the next.
            LEVELS..15 if state.is_open() => 15,
            level => level,
        },
        ..*state
    };
    let scores = &mut canonical.scores;
    scores.pace = scores.pace.min(evidence::TRIP);
    scores.echo = scores.echo.min(evidence::TRIP);
    scores.ladder = scores.ladder.min(evidence::TRIP);
    if state.is_open() {
        // A test begins without them.
        canonical.hops = 0;
        canonical.recirculated = 0;
        canonical.scores = Scores::default();
        canonical.last = evidence::Position::NOWHERE;
        canonical.bits = 0;
        canonical.overtaken = 0;
        canonical.outgoing = 0;
        if state.phase == OPEN {
            canonical.visited = 0;
            canonical.ladder.forget_asked();
        }
    }
    for index in 0..RUNGS {
        let (taken, asked) = (
            canonical.ladder.0 >> index & 1,
            canonical.ladder.0 >> (RUNGS + index) & 1,
        );
        let rung = &mut canonical.rungs[index];
        if taken == 0 {
            *rung = Rung::default();
        } else if asked == 0 {
            (rung.id, rung.socket) = (0, 0);
        }
    }
    canonical
}

/// What is true of every state.
pub(super) fn check(key: &KeyState, now: Ticks, rules: &Rules) -> Checked {
    let KeyState { phase, flags, .. } = *key;
    ensure!(phase <= SUSPECT, "no such phase: {phase}");
    let left = key.until.0.wrapping_sub(now.0) as i32;
    let longest = match phase {
        OPEN => rules.hold_max_ticks,
        TEST => rules.test_ticks,
        SUSPECT => MARK_TICKS,
        _ => i32::MAX as u32 - CLOCKS,
    };
    ensure!(left <= (longest + CLOCKS) as i32, "{left} ticks are left of {longest}");
    ensure!(
        key.hold_ticks(rules) <= rules.hold_max_ticks,
        "a hold longer than the longest"
    );
    if key.is_open() {
        ensure!(key.level <= 16, "a hold doubled {} times", key.level);
        ensure!(
            flags & !mark::TESTED == 0,
            "an open breaker with flags of marks: {flags:#x}"
        );
        ensure!(
            phase != TEST || flags == mark::TESTED,
            "a test, and no query was let through"
        );
    } else {
        ensure!(key.held() == 0, "a closed breaker holds");
    }
    if phase == CLOSED {
        ensure!(
            key.bits == 0 && key.level == 0 && key.overtaken == 0,
            "a mark is gone, and left something"
        );
    }
    let (taken, asked) = (key.ladder.0 & ALL_RUNGS, key.ladder.0 >> RUNGS);
    ensure!(asked & !taken == 0, "asked a server that is not remembered");
    Ok(())
}

/// Multiplies and turns: states are many, and nobody makes them collide.
#[derive(Default)]
pub(super) struct Mixer(u64);

impl Mixer {
    const fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.mix(*byte as u64);
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(number as u64);
    }

    fn write_u16(&mut self, number: u16) {
        self.mix(number as u64);
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}
