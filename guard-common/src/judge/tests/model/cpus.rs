//! Packets on several CPUs at once: every way in which their sections can come between each other.

use std::{collections::HashSet, format, println, sync::OnceLock, vec::Vec};

use super::{
    NOW, RULES, Who, closes, fresh, hop,
    packet::{Checked, Cpu, Looks, Packet, Query, Section, World, ensure},
    plays, stranger,
};
use crate::{
    flow::Sighting,
    judge::{
        Hop, KeyState, Note,
        breaker::{CLOSED, SUSPECT},
        mark,
    },
    marks::Room,
    time::Ticks,
};

/// What happened so far while packets were under way together.
#[derive(Clone)]
pub(super) struct Race {
    pub(super) world: World,
    pub(super) cpus: Vec<Cpu>,
    /// The order in which their sections ran.
    pub(super) order: Vec<usize>,
    /// Sections that judged a query since the last answer.
    judged_since_answer: u32,
    answered: bool,
}

/// How a race can end, as far as anyone notices: whether the breaker is open.
type Ends = HashSet<bool>;

/// What all races together have shown.
#[derive(Debug, Default)]
pub(super) struct Tally {
    races: usize,
    trips: usize,
    releases: usize,
    extensions: usize,
    /// Marks that found no room after another CPU had moved on.
    taken_back_late: usize,
    /// Answers that came after a query was judged and before it was looked at.
    answered_between: usize,
    /// Marks that were put on after the suspicion was gone.
    late_marks: usize,
}

impl Race {
    pub(super) fn new(key: &KeyState, letters: u32, packets: &[(Packet, Ticks)]) -> Self {
        let cpus = packets.iter().enumerate();
        Self {
            world: World::new(*key, RULES, letters),
            cpus: cpus
                .map(|(number, (packet, now))| Cpu::new(*packet, *now, number as u32))
                .collect(),
            order: Vec::new(),
            judged_since_answer: 0,
            answered: false,
        }
    }

    /// Runs the next section of one CPU.
    pub(super) fn step(&mut self, number: usize, tally: &mut Tally) -> Checked {
        let before = self.world.key;
        let cpu = &mut self.cpus[number];
        let section = cpu.next;
        let looks_late = section == Section::Spell && self.answered && self.judged_since_answer == 0;
        let late = section == Section::Unmark && (before.phase != SUSPECT || before.count != cpu.flipped() as u32);
        cpu.step(&mut self.world)?;
        tally.taken_back_late += late as usize;
        if looks_late {
            tally.answered_between += 1;
            ensure!(
                self.world.key == before && cpu.next == Section::Over,
                "an answer came before a look at the query, and the suspicion is not withdrawn"
            );
        }
        if section == Section::Remember && cpu.marked {
            tally.late_marks += (before.phase != SUSPECT) as usize;
        }
        match (cpu.packet, section) {
            (Packet::Query(_), Section::Judge) => self.judged_since_answer += 1,
            (Packet::Answer { .. }, Section::Judge) if !before.is_open() => {
                self.judged_since_answer = 0;
                self.answered = true;
            }
            _ => {}
        }
        self.order.push(number);
        Ok(())
    }

    /// Goes through all orders; `end` looks at each.
    fn all(&self, tally: &mut Tally, ends: &mut Ends, end: &mut impl FnMut(&Self) -> Checked) -> Checked {
        let mut is_over = true;
        for number in 0..self.cpus.len() {
            if self.cpus[number].is_over() {
                continue;
            }
            is_over = false;
            let mut next = self.clone();
            next.step(number, tally)
                .map_err(|wrong| format!("{wrong}\nsections: {:?} {number}", self.order))?;
            next.all(tally, ends, end)?;
        }
        if is_over {
            tally.races += 1;
            self.over(tally)
                .and_then(|()| end(self))
                .map_err(|wrong| format!("{wrong}\nsections: {:?}\n{:?}", self.order, self.world.key))?;
            ends.insert(self.world.key.is_open());
        }
        Ok(())
    }

    /// The same packets one after the other, in both orders if there are two.
    fn one_by_one(&self, ends: &mut Ends) -> Checked {
        let numbers: Vec<usize> = (0..self.cpus.len()).collect();
        for first in &numbers {
            let mut race = self.clone();
            for number in 0..numbers.len() {
                let number = (first + number) % numbers.len();
                race.cpus[number].run(&mut race.world)?;
            }
            ends.insert(race.world.key.is_open());
        }
        Ok(())
    }

    /// What is true whatever the order was.
    pub(super) fn over(&self, tally: &mut Tally) -> Checked {
        let World { trips, releases, .. } = self.world;
        let told = |note: Note| self.cpus.iter().map(|cpu| cpu.notes[note as usize]).sum::<u32>();
        ensure!(
            told(Note::Trip) == trips,
            "trips: {trips}, and told of {}",
            told(Note::Trip)
        );
        ensure!(
            told(Note::Release) == releases,
            "releases: {releases}, and told of {}",
            told(Note::Release)
        );
        tally.trips += trips as usize;
        tally.releases += releases as usize;
        tally.extensions += told(Note::Extend) as usize;
        for cpu in &self.cpus {
            // An event tells the last note of a packet.
            let last = cpu.ruling.map_or(Note::None, |ruling| ruling.note);
            for note in [Note::Trip, Note::Extend, Note::Release] {
                ensure!(
                    (cpu.notes[note as usize] != 0) == (last == note),
                    "{note:?} is told of by no event"
                );
            }
            ensure!(
                !cpu.marked || cpu.is_remembered(&mut self.world.clone()),
                "a query went on with a mark that nobody can undo"
            );
        }
        let key = &self.world.key;
        // The mark that the key waits for is one that some query carries.
        let mut carriers = self.cpus.iter().filter(|cpu| key.count == cpu.flipped() as u32);
        ensure!(
            key.phase != SUSPECT
                || carriers.any(|cpu| cpu.marked)
                || self.cpus.iter().all(|cpu| key.count != cpu.flipped() as u32),
            "a mark is out, and nobody carries it"
        );
        for server in [0, 4] {
            closes(key, self.world.latest, &RULES, &stranger(server, true))?;
        }
        Ok(())
    }
}

/// Of the states that packets bring about, some of each kind.
fn some_states() -> &'static [KeyState] {
    static STATES: OnceLock<Vec<KeyState>> = OnceLock::new();
    STATES.get_or_init(|| {
        let mut some = Vec::new();
        for play in plays() {
            if play.rules == RULES {
                let states = play.states();
                let open = states.iter().filter(|state| state.is_open());
                some.extend(states.iter().step_by(1_200).chain(open.step_by(4)));
            }
        }
        some
    })
}

fn query(who: Who, sighting: Sighting, looks: Looks, room: Room) -> Packet {
    let hop = Hop {
        plain: looks == Looks::Plain,
        ..hop(who, true, sighting)
    };
    Packet::Query(Query {
        hop,
        looks,
        unsigned: true,
        room,
    })
}

/// The packets that race: hops of a loop with a mark and without, with room for the next and without, and those of others.
pub(super) fn racers() -> Vec<Packet> {
    let (up, down) = (Who::Server(0, 1), Who::Server(1, 0));
    let (new, rapid) = (Sighting::New, Sighting::Rapid);
    std::vec![
        query(up, new, Looks::Plain, Room::Found),
        query(down, new, Looks::Plain, Room::Found),
        query(down, new, Looks::Plain, Room::TakenByOthers),
        query(down, rapid, Looks::Plain, Room::TakenByItself),
        query(up, rapid, Looks::Mark, Room::Found),
        query(down, new, Looks::Mark, Room::Found),
        query(down, rapid, Looks::Mark, Room::TakenByOthers),
        query(down, new, Looks::Random, Room::Found),
        query(Who::Client(1, 0), new, Looks::Plain, Room::Found),
        query(
            Who::Client(2, 1),
            Sighting::Retransmit,
            Looks::Plain,
            Room::TakenByOthers
        ),
        query(up, Sighting::Elsewhere, Looks::Plain, Room::Found),
        Packet::Answer { asked: true },
        Packet::Answer { asked: false },
        Packet::Error { asked: true },
    ]
}

/// When the clocks of the CPUs are read: at once, one a tick before the other, and around the end of what the key waits for.
fn clocks(key: &KeyState) -> Vec<[Ticks; 2]> {
    let mut clocks = std::vec![[NOW, NOW], [NOW, NOW.plus(1)], [NOW.plus(1), NOW]];
    let end = key.until;
    if key.phase != CLOSED && end != NOW && NOW.is_before(end, u32::MAX >> 1) {
        clocks.extend([[end, end], [end.minus(1), end], [end, end.minus(1)], [end, end.plus(1)]]);
    }
    clocks
}

#[test]
fn two_cpus_lose_no_wake_up_and_tell_of_everything_once() {
    let (states, racers) = (some_states(), racers());
    let mut tally = Tally::default();
    for state in states {
        for (at, one) in racers.iter().enumerate() {
            for other in &racers[at..] {
                for [now, later] in clocks(state) {
                    let race = Race::new(state, 12, &[(*one, now), (*other, later)]);
                    let (mut ends, mut serial) = (Ends::new(), Ends::new());
                    let raced = race
                        .one_by_one(&mut serial)
                        .and_then(|()| race.all(&mut tally, &mut ends, &mut |_| Ok(())));
                    if let Err(wrong) = raced {
                        panic!("{wrong}\nfrom {state:?}\n{one:?} at {now:?}\n{other:?} at {later:?}");
                    }
                    // Two hops of a loop may be told or not as they come between each other; an answer and a hold may not.
                    let answers = matches!(other, Packet::Answer { .. });
                    assert!(
                        ends.is_subset(&serial) || !answers && !state.is_open(),
                        "an end that no order of whole packets has: {state:?} {one:?} {other:?}"
                    );
                }
            }
        }
    }
    println!("{} states: {tally:?}", states.len());
    assert!(states.len() > 150);
    let Tally {
        races,
        trips,
        releases,
        extensions,
        taken_back_late,
        answered_between,
        late_marks,
    } = tally;
    assert!(races > 300_000);
    for shown in [
        trips,
        releases,
        extensions,
        taken_back_late,
        answered_between,
        late_marks,
    ] {
        assert!(shown > 100);
    }
}

/// Three hops of a loop: on its way up, back with a mark, and up again.
fn loop_hops() -> [Packet; 3] {
    let (up, down) = (Who::Server(0, 1), Who::Server(1, 0));
    [
        query(up, Sighting::New, Looks::Plain, Room::Found),
        query(down, Sighting::New, Looks::Plain, Room::Found),
        query(up, Sighting::Rapid, Looks::Plain, Room::Found),
    ]
}

/// What the other CPUs may do while one is between two sections: as much as they like.
fn bursts() -> Vec<Vec<(u32, Packet)>> {
    let answer = (1, Packet::Answer { asked: true });
    let hops = |number| loop_hops().into_iter().cycle().take(number).map(|packet| (0, packet));
    let rapid = |number| {
        (0..number).map(|number| {
            let who = if number % 2 == 0 {
                Who::Server(0, 1)
            } else {
                Who::Server(1, 0)
            };
            (0, query(who, Sighting::Rapid, Looks::Plain, Room::Found))
        })
    };
    let later = |ticks| (ticks, loop_hops()[0]);
    std::vec![
        [answer].into_iter().chain(hops(6)).collect(),
        [answer].into_iter().chain(hops(3)).chain([answer]).collect(),
        hops(20).collect(),
        hops(80).collect(),
        rapid(40).collect(),
        rapid(40).chain([later(4), answer]).collect(),
        rapid(40).chain([later(4), answer]).chain(rapid(40)).collect(),
        rapid(40)
            .chain([later(4), later(6), later(8), answer])
            .chain(hops(9))
            .collect(),
        [later(9_538), answer].into_iter().chain(hops(6)).collect(),
        hops(2)
            .chain([(0, Packet::Error { asked: true }); 9])
            .chain(hops(9))
            .collect(),
    ]
}

/// A CPU may be interrupted between two sections for longer than any packet takes.
#[test]
fn whatever_goes_on_meanwhile_a_cpu_takes_back_its_own_mark_only() {
    let (states, racers, bursts) = (some_states(), racers(), bursts());
    let (mut tally, mut races) = (Tally::default(), 0);
    let mut remarked = 0;
    for state in states {
        for slow in &racers {
            for burst in &bursts {
                for sections in 0..4 {
                    let mut race = Race::new(state, 12, &[(*slow, NOW)]);
                    let slowly = (0..sections).try_for_each(|_| {
                        if race.cpus[0].is_over() {
                            Ok(())
                        } else {
                            race.step(0, &mut tally)
                        }
                    });
                    let mut now = NOW;
                    let raced = slowly.and_then(|()| {
                        for (number, (wait, packet)) in burst.iter().enumerate() {
                            now = now.plus(*wait);
                            race.cpus.push(Cpu::new(*packet, now, 1 + number as u32));
                            while !race.cpus[number + 1].is_over() {
                                race.step(number + 1, &mut tally)?;
                            }
                        }
                        let key = &race.world.key;
                        let marks = race.cpus[1..]
                            .iter()
                            .any(|cpu| cpu.marked && key.count == cpu.flipped() as u32);
                        remarked += (race.cpus[0].next == Section::Unmark && key.phase == SUSPECT && marks) as usize;
                        while !race.cpus[0].is_over() {
                            race.step(0, &mut tally)?;
                        }
                        race.over(&mut tally)
                    });
                    if let Err(wrong) = raced {
                        panic!("{wrong}\nfrom {state:?}\n{slow:?}, after {sections} sections {burst:?}");
                    }
                    races += 1;
                }
            }
        }
    }
    println!("{races} bursts, {remarked} in which another mark was out: {tally:?}");
    assert!(remarked > 100);
}

/// What the search above has found, when a mark was taken back whosever it was.
#[test]
fn a_mark_that_finds_no_room_leaves_alone_the_one_that_came_after_an_answer() {
    let mut world = World::new(fresh(&RULES), RULES, 12);
    let run = |packet, number, world: &mut World| {
        let mut cpu = Cpu::new(packet, NOW, number);
        cpu.run(world).unwrap();
        cpu
    };
    let [up, down, _] = loop_hops();
    run(up, 1, &mut world);
    run(down, 2, &mut world);
    let Packet::Query(query) = up else { unreachable!() };
    let room = Room::TakenByOthers;
    let mut slow = Cpu::new(Packet::Query(Query { room, ..query }), NOW, 0);
    while slow.next != Section::Unmark {
        slow.step(&mut world).unwrap();
    }
    run(Packet::Answer { asked: true }, 3, &mut world);
    // A name whose marks were answered is marked later than before.
    let mut hops = (4..20).map(|number| run(if number % 2 == 0 { up } else { down }, number, &mut world));
    let marked = hops.find(|hop| hop.marked).unwrap();
    slow.run(&mut world).unwrap();
    assert_eq!((world.key.phase, world.key.count), (SUSPECT, marked.flipped() as u32));
    assert!(!world.key.has(mark::UNMARKABLE));
}
