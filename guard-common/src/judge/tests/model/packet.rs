//! A packet on one CPU: its sections, each of which holds a lock, or none, from its beginning to its end.
//!
//! They are those of `judge_query`, `judge_spelled`, `judge_remember`, `judge_unmark`, `judge_answer`, `judge_failure` and
//! `judge_mark` in `guard_ebpf::bench`, in the order in which `guard_ebpf::hook` calls them. Whatever another CPU does, it
//! does between two of them.

use std::{format, string::String};

use super::space::{self, MARK};
use crate::{
    judge::{
        Evidence, Hop, KeyState, Note, Rules, Ruling, Spelled,
        breaker::{CLOSED, OPEN, SUSPECT, TEST},
        evidence, mark,
    },
    key::Key,
    marks::{Look, MarkLine, Room},
    spelling::Spelling,
    time::Ticks,
};

/// What is found wrong, in words.
pub(super) type Checked<T = ()> = Result<T, String>;

/// Fails with words.
macro_rules! ensure {
    ($what:expr, $($words:tt)+) => {
        if !$what {
            return Err(format!($($words)+));
        }
    };
}
pub(super) use ensure;

/// How the name of a query is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    /// In small letters.
    Plain,
    /// As the mark makes it look that was out before any CPU began.
    Mark,
    /// As an earlier mark made it look.
    EarlierMark,
    /// At random, and not by a mark.
    Random,
}

/// A query as the judge gets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query {
    pub(super) hop: Hop,
    pub(super) looks: Looks,
    pub(super) unsigned: bool,
    /// Whether the table of marks has room, should it be marked.
    pub(super) room: Room,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Packet {
    Query(Query),
    Answer { asked: bool },
    Error { asked: bool },
}

/// What all CPUs share: the state of the key, and the marks that are out.
#[derive(Clone, Copy)]
pub(super) struct World {
    pub(super) rules: Rules,
    /// Letters of the name.
    pub(super) letters: u32,
    pub(super) key: KeyState,
    marks: [MarkLine; LINES],
    /// The latest that any clock has shown.
    pub(super) latest: Ticks,
    /// How often the breaker opened, and how often it closed.
    pub(super) trips: u32,
    pub(super) releases: u32,
}

impl World {
    pub(super) fn new(key: KeyState, rules: Rules, letters: u32) -> Self {
        Self {
            rules,
            letters,
            key,
            marks: [MarkLine::default(); LINES],
            latest: space::NOW,
            trips: 0,
            releases: 0,
        }
    }
}

/// What comes next of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Judge,
    Spell,
    Remember,
    Unmark,
    Restore,
    Over,
}

/// A packet on its way through the hook.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cpu {
    pub(super) packet: Packet,
    /// Read before any lock is taken.
    pub(super) now: Ticks,
    /// Tells its mark from that of another CPU.
    number: u32,
    pub(super) next: Section,
    pub(super) ruling: Option<Ruling>,
    /// What was told of it in all sections; an event tells the last.
    pub(super) notes: [u32; 5],
    /// Whether it went on with a mark.
    pub(super) marked: bool,
    /// Whether it asked what it looks like, and has not looked at it since.
    pub(super) looked: bool,
}

const KEY: Key = Key(0x5eed);
const PLAIN: u64 = 1;
/// Lines of the table of marks.
const LINES: usize = 8;

impl Cpu {
    pub(super) const fn new(packet: Packet, now: Ticks, number: u32) -> Self {
        Self {
            packet,
            now,
            number,
            next: Section::Judge,
            ruling: None,
            notes: [0; 5],
            marked: false,
            looked: false,
        }
    }

    /// What the mark of this CPU makes the name look like.
    pub(super) const fn flipped(&self) -> u64 {
        0x100 + self.number as u64
    }

    const fn digest(&self, looks: Looks) -> u64 {
        match looks {
            Looks::Plain => PLAIN,
            Looks::Mark => MARK as u64,
            Looks::EarlierMark => 3,
            Looks::Random => 0x200 + self.number as u64,
        }
    }

    /// The line that its mark is in. Which one that is, is a matter of its digest.
    const fn line<'world>(&self, world: &'world mut World) -> &'world mut MarkLine {
        &mut world.marks[self.number as usize % LINES]
    }

    pub(super) fn is_over(&self) -> bool {
        self.next == Section::Over
    }

    fn spelled(&self, query: &Query, ruling: &Ruling, letters: u32) -> Spelled {
        Spelled {
            spelling: Spelling {
                digest: self.digest(query.looks),
                flipped: self.flipped(),
                letters,
                capitals: 1,
            },
            returns: ruling.returns,
            found: ruling.found,
            unsigned: query.unsigned,
            ours: matches!(query.looks, Looks::Mark | Looks::EarlierMark),
        }
    }

    /// Runs all sections that are left, as if there were no other CPU.
    pub(super) fn run(&mut self, world: &mut World) -> Checked {
        while !self.is_over() {
            self.step(world)?;
        }
        Ok(())
    }

    /// Runs the next section.
    pub(super) fn step(&mut self, world: &mut World) -> Checked {
        let before = world.key;
        let (now, rules) = (self.now, world.rules);
        let section = self.next;
        world.latest = if now.since(world.latest) > 0 { now } else { world.latest };
        let mut ruling = None;
        self.next = Section::Over;
        match self.packet {
            Packet::Query(query) => match section {
                Section::Judge => {
                    let judged = world.key.query(&query.hop, now, &rules);
                    ruling = Some(judged);
                    if judged.suspects {
                        self.next = Section::Spell;
                        self.looked = true;
                    }
                }
                Section::Spell => {
                    let spelled = self.spelled(&query, &self.ruling.ok_or("no ruling")?, world.letters);
                    ruling = world.key.spelled(&query.hop, &spelled, now, &rules);
                    self.looked = false;
                    if ruling.is_some_and(|ruling| ruling.marks) {
                        self.next = Section::Remember;
                    }
                    check_spelled(&before, &world.key, &query, &spelled, ruling.as_ref())?;
                }
                Section::Remember => {
                    if query.room == Room::Found {
                        let look = Look::new(self.flipped(), KEY);
                        let room = self.line(world).remember(look, self.number, self.number, now);
                        ensure!(room == Room::Found, "an empty line has no room");
                        self.marked = true;
                    } else {
                        self.next = Section::Unmark;
                    }
                }
                Section::Unmark => {
                    let digest = self.digest(query.looks);
                    let others = query.room == Room::TakenByOthers;
                    world.key.unmark(digest, self.flipped(), others);
                    let own = before.phase == SUSPECT && before.count == self.flipped() as u32;
                    ensure!(
                        own || world.key == before,
                        "a mark that found no room took back what is not its own"
                    );
                    ensure!(
                        world.key.phase != SUSPECT || world.key.count != self.flipped() as u32,
                        "a mark that found no room is still out"
                    );
                }
                Section::Restore | Section::Over => return Err("no such section".into()),
            },
            Packet::Answer { asked } if section == Section::Judge => {
                ruling = world.key.answered(asked, now, &rules);
                self.next = Section::Restore;
                check_answered(&before, &world.key, asked, ruling.as_ref())?;
            }
            Packet::Error { asked } if section == Section::Judge => {
                world.key.failed(asked);
                self.next = Section::Restore;
                ensure!(before.phase == world.key.phase, "an error settles nothing");
            }
            Packet::Answer { .. } | Packet::Error { .. } => {
                self.line(world).find(Look::new(MARK as u64, KEY), self.number, now);
            }
        }
        if let Some(ruling) = &ruling {
            self.notes[ruling.note as usize] += 1;
            self.ruling = Some(*ruling);
        }
        let opened = !before.is_open() && world.key.is_open();
        let closed = before.is_open() && !world.key.is_open();
        let note = ruling.map_or(Note::None, |ruling| ruling.note);
        ensure!(
            opened == (note == Note::Trip),
            "it opened, or a trip was told of: {note:?}"
        );
        ensure!(
            closed == (note == Note::Release),
            "it closed, or a release was told of: {note:?}"
        );
        world.trips += opened as u32;
        world.releases += closed as u32;
        if matches!(self.packet, Packet::Query(_)) && section == Section::Judge {
            check_query(
                &before,
                &world.key,
                self.ruling.as_ref().ok_or("no ruling")?,
                now,
                &rules,
            )?;
        }
        if opened {
            check_evidence(&before, &world.key, self.ruling.as_ref().ok_or("no ruling")?, &rules)?;
        }
        space::check(&world.key, world.latest, &rules)
    }

    /// Whether a mark of this packet is in the table of those that are out.
    pub(super) fn is_remembered(&self, world: &mut World) -> bool {
        self.line(world)
            .find(Look::new(self.flipped(), KEY), self.number, self.now)
            .is_some_and(|found| found.own && found.nonce == self.number)
    }
}

/// What one query may do to a key.
fn check_query(before: &KeyState, after: &KeyState, ruling: &Ruling, now: Ticks, rules: &Rules) -> Checked {
    ensure!(!ruling.held || after.is_open(), "held by a breaker that is closed");
    ensure!(
        !ruling.held || now.is_before(after.until, rules.longest_ticks()),
        "held by a hold that is over"
    );
    ensure!(!(ruling.held && ruling.suspects), "what is held is not to be marked");
    ensure!(!ruling.marks, "marked before it was looked at");
    ensure!(
        !ruling.tests || after.phase == TEST && !ruling.held,
        "a test, and none is under way"
    );
    if ruling.held {
        ensure!(
            after.held() > 0 && ruling.held_in_hold == after.held(),
            "held, and not counted"
        );
    }
    if !before.is_open() {
        return Ok(());
    }
    let over = !now.is_before(before.until, rules.longest_ticks());
    match (before.phase, over) {
        (OPEN, false) => ensure!(ruling.held && after.phase == OPEN, "let through by a hold"),
        (OPEN, true) => ensure!(ruling.tests, "the hold is over, and the next query does not test"),
        (_, false) => ensure!(
            after.phase == TEST && after.until == before.until,
            "a test ended before its time"
        ),
        (_, true) => ensure!(
            ruling.tests
                || ruling.note == Note::Extend
                    && after.phase == OPEN
                    && after.level >= before.level
                    && after.has(mark::TESTED),
            "a test that nobody answered sticks, or its answer would come in vain"
        ),
    }
    ensure!(
        ruling.held || ruling.tests,
        "let through by an open breaker, and not as a test"
    );
    Ok(())
}

/// Only an answer to a query that was let through since the breaker opened closes it.
fn check_answered(before: &KeyState, after: &KeyState, asked: bool, ruling: Option<&Ruling>) -> Checked {
    ensure!(
        ruling.is_some() == (before.is_open() && before.has(mark::TESTED) && asked),
        "an answered test closes, and nothing else"
    );
    ensure!(
        after.is_open() || after.phase == CLOSED && after.hops == 0,
        "an answer settles the key"
    );
    Ok(())
}

/// A mark is put on while the breaker is closed, and told of.
fn check_spelled(
    before: &KeyState,
    after: &KeyState,
    query: &Query,
    spelled: &Spelled,
    ruling: Option<&Ruling>,
) -> Checked {
    let marks = ruling.is_some_and(|ruling| ruling.marks);
    let is_out = after.phase == SUSPECT && after.count == spelled.spelling.flipped as u32;
    ensure!(
        marks == is_out,
        "a mark that is not put on, or one that nobody knows of"
    );
    ensure!(
        !marks || !before.is_open() && query.unsigned,
        "marked while it is held, or although it is signed"
    );
    ensure!(
        !before.is_open() || after == before,
        "an open breaker does not care how a query is spelled"
    );
    ensure!(
        before.hops != 0 || after == before,
        "nothing is under suspicion once it is answered"
    );
    Ok(())
}

/// A breaker opens for what the rules take for a loop.
fn check_evidence(before: &KeyState, after: &KeyState, ruling: &Ruling, rules: &Rules) -> Checked {
    ensure!(ruling.held, "what gives the loop away is held as well");
    ensure!(after.phase == OPEN && after.level == 0, "a hold begins with the first");
    ensure!(
        ruling.evidence == Evidence::from_u8(after.evidence),
        "told of something else"
    );
    let scores = &after.scores;
    let unprovable = rules.marks == 0 || before.has(mark::UNMARKABLE);
    let returns = if ruling.found == Evidence::Identity {
        mark::PROOF_RETURNS_OF_ID
    } else {
        mark::PROOF_RETURNS
    };
    let enough = match ruling.evidence {
        Evidence::Mark => before.phase == SUSPECT && ruling.bits >= mark::PROOF_BITS && before.level + 1 >= returns,
        _ if scores.pace >= evidence::TRIP => true,
        Evidence::Identity | Evidence::Direction | Evidence::Ladder | Evidence::Pace => {
            (unprovable || before.has(mark::SHUFFLED)) && scores.echo >= evidence::TRIP
                || unprovable && scores.ladder >= evidence::RAPID_TURNS
        }
        Evidence::None => false,
    };
    ensure!(enough, "a trip without enough evidence: {:?}", ruling.evidence);
    Ok(())
}
