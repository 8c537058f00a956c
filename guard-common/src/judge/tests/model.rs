//! The judge as a machine of states, gone through as far as packets lead.
//!
//! [`packet`] takes a packet through the sections of its hook, and looks at each; [`space`] goes from state to state;
//! [`cpus`] lets packets get between each other's sections. What is asked of every state that is found:
//!
//! - **It closes again.** A hold is over after its time, and the next query is let through; if that one is answered, the
//!   key is closed, and nothing is left of a mark. A test that nobody answers ends as well.
//! - **No state waits for its eviction.** Ten quiet seconds and two queries that are answered lead to the state of a key
//!   never seen. Of the flags, an answer takes away all but four: `TESTED`, that `RANDOM` and `SHUFFLED` spellings were
//!   seen, and how often marks were answered. They stay for as long as the key is asked for every ten seconds (`TESTED`
//!   until the breaker opens again), and choose only which evidence counts, and how much of it.
//! - **A loop is told from every state**: whatever happened before, one that hands marks on is cut.
//!
//! The searches round what has no end ([`space::canonical`]); [`any`] does without, at random.
//!
//! To see that they would notice, twenty rules were broken one by one in the judge, and each was found here. Among them: a
//! test that never extends; one whose end every query puts off; an answer that does not close a test, or that closes a
//! breaker although it is from before the trip; an extension that forgets that there was a test; holds that double
//! without end; an answer that leaves the mark or `UNMARKABLE`; ten quiet seconds that leave `RANDOM`; a mark without
//! room that is not taken back, or whosever it is; a look at the spelling that does not ask whether an answer or a trip
//! came first; a lost mark that leaves its bits; one return for a proof; pace that trips at 18; hops that wrap.

mod any;
mod cpus;
mod packet;
mod space;

use std::{format, println, vec::Vec};

use self::{
    packet::{Checked, Looks, Packet, Query, ensure},
    space::{NOW, Play, RULES, Seen, Wait, canonical, check, fresh},
};
use crate::{
    flow::Sighting,
    judge::{
        Endpoint, Evidence, Hop, KeyState, Rules, Spelled,
        breaker::CLOSED,
        evidence::{FORGET_TICKS, TURN_LEAK_TICKS},
        mark::{self, STALE_TICKS},
    },
    marks::Room,
    spelling::Spelling,
    time::Ticks,
};

/// The play with one server.
const ALONE: &str = "a server that asks itself";
/// What stays of the flags when a question is answered.
const LASTING: u8 = mark::TESTED | mark::RANDOM | mark::SHUFFLED | 3 << mark::ANSWERED_SHIFT;

/// Who asks whom.
#[derive(Clone, Copy, Debug)]
enum Who {
    /// This client, or this forwarder for one of its clients, asks this server.
    Client(u16, u16),
    /// This server asks that one, from the socket that it always uses, with the ID that it was asked with.
    Server(u16, u16),
    /// The same with an ID of its own.
    Renamer(u16, u16),
}

/// A query on its way on one host, or from one host to another.
const fn hop(who: Who, same_host: bool, sighting: Sighting) -> Hop {
    let (client, port, server, id) = match who {
        Who::Client(client, server) => (100 + client, 30_000 + client, server, 700 + client),
        Who::Server(from, to) => (from, 40_000 + from, to, 77),
        Who::Renamer(from, to) => (from, 40_000 + from, to, 80 + from),
    };
    Hop {
        client: Endpoint {
            address: if same_host { 1 } else { client },
            port,
        },
        server: Endpoint {
            address: if same_host { 1 } else { server },
            port: 53 + server,
        },
        id,
        same_host,
        plain: true,
        egress: false,
        sighting,
    }
}

/// Builds what may happen to a key.
struct Script {
    same_host: bool,
    packets: Vec<Packet>,
}

impl Script {
    const fn new(same_host: bool) -> Self {
        Self {
            same_host,
            packets: Vec::new(),
        }
    }

    fn query(mut self, who: Who, sighting: Sighting, looks: &[Looks]) -> Self {
        for looks in looks {
            self.push(who, sighting, *looks, true, Room::Found);
        }
        self
    }

    fn no_room(mut self, who: Who, looks: &[Looks]) -> Self {
        for looks in looks {
            self.push(who, Sighting::New, *looks, true, Room::TakenByOthers);
            self.push(who, Sighting::New, *looks, true, Room::TakenByItself);
        }
        self
    }

    fn signed(mut self, who: Who) -> Self {
        self.push(who, Sighting::New, Looks::Plain, false, Room::Found);
        self
    }

    fn push(&mut self, who: Who, sighting: Sighting, looks: Looks, unsigned: bool, room: Room) {
        let hop = Hop {
            plain: looks == Looks::Plain,
            ..hop(who, self.same_host, sighting)
        };
        self.packets.push(Packet::Query(Query {
            hop,
            looks,
            unsigned,
            room,
        }));
    }

    fn responses(mut self) -> Self {
        for asked in [true, false] {
            self.packets.push(Packet::Answer { asked });
            self.packets.push(Packet::Error { asked });
        }
        self
    }

    /// Every packet at once, and those of the numbers after each wait.
    fn play(self, name: &'static str, rules: Rules, letters: u32, later: &[usize], most: usize) -> Play {
        let waits = [
            Wait::Ticks(TURN_LEAK_TICKS),
            Wait::Ticks(49),
            Wait::Ticks(STALE_TICKS),
            Wait::Ticks(FORGET_TICKS + 1),
            Wait::UntilBeforeEnd(1),
            Wait::UntilBeforeEnd(0),
        ];
        let at_once = self.packets.iter().map(|packet| (Wait::Ticks(0), *packet));
        let answer = self.packets.len() - 4;
        let later = later.iter().chain([&answer]);
        let later = later.flat_map(|number| waits.map(|wait| (wait, self.packets[*number])));
        Play {
            name,
            rules,
            letters,
            steps: at_once.chain(later).collect(),
            most,
        }
    }
}

const ALL_LOOKS: [Looks; 4] = [Looks::Plain, Looks::Mark, Looks::EarlierMark, Looks::Random];
const PLAIN_OR_MARK: [Looks; 2] = [Looks::Plain, Looks::Mark];

/// Two servers that ask each other, and clients.
fn pair(same_host: bool) -> Script {
    Script::new(same_host)
        .query(Who::Client(1, 0), Sighting::New, &[Looks::Plain])
        .query(Who::Server(0, 1), Sighting::New, &PLAIN_OR_MARK)
        .query(Who::Server(1, 0), Sighting::New, &ALL_LOOKS)
        .query(Who::Client(2, 1), Sighting::New, &[Looks::Plain])
        .query(Who::Client(1, 0), Sighting::Retransmit, &[Looks::Plain])
        .query(Who::Server(0, 1), Sighting::Rapid, &PLAIN_OR_MARK)
        .query(Who::Server(1, 0), Sighting::Rapid, &PLAIN_OR_MARK)
        .query(Who::Server(0, 1), Sighting::Elsewhere, &[Looks::Plain])
        .no_room(Who::Server(1, 0), &PLAIN_OR_MARK)
        .signed(Who::Server(1, 0))
        .responses()
}

/// The same with as little beside it as it takes to see each kind of evidence to its end.
fn narrow(same_host: bool, one: Who, other: Who, looks: &[Looks]) -> Script {
    Script::new(same_host)
        .query(one, Sighting::New, looks)
        .query(other, Sighting::New, looks)
        .responses()
}

/// More servers than a key remembers.
fn five(same_host: bool) -> Script {
    (0..5)
        .fold(Script::new(same_host), |script, server| {
            script.query(Who::Client(1, server), Sighting::New, &[Looks::Plain])
        })
        .query(Who::Client(1, 0), Sighting::Retransmit, &[Looks::Plain])
        .query(Who::Client(2, 4), Sighting::Elsewhere, &[Looks::Plain])
        .query(Who::Server(1, 0), Sighting::Rapid, &[Looks::Plain])
        .query(Who::Server(0, 1), Sighting::Rapid, &[Looks::Plain])
        .responses()
}

fn plays() -> Vec<Play> {
    let no_marks = Rules { marks: 0, ..RULES };
    let alone = Script::new(true)
        .query(Who::Client(1, 0), Sighting::New, &[Looks::Plain])
        .query(Who::Server(0, 0), Sighting::New, &ALL_LOOKS)
        .query(Who::Server(0, 0), Sighting::Rapid, &PLAIN_OR_MARK)
        .no_room(Who::Server(0, 0), &PLAIN_OR_MARK)
        .signed(Who::Server(0, 0))
        .responses();
    let (up, down) = (Who::Server(0, 1), Who::Server(1, 0));
    let (renamed_up, renamed_down) = (Who::Renamer(0, 1), Who::Renamer(1, 0));
    let pace = Script::new(true)
        .query(up, Sighting::Rapid, &PLAIN_OR_MARK)
        .query(down, Sighting::Rapid, &PLAIN_OR_MARK)
        .query(down, Sighting::New, &[Looks::Plain])
        .responses();
    let marked = [Looks::Plain, Looks::Mark, Looks::Random];
    std::vec![
        pair(true).play("a pair on one host", RULES, 12, &[0, 3, 4], 40_000),
        pair(false).play("a pair of hosts", RULES, 12, &[0, 3, 4], 40_000),
        pair(true).play("without marks", no_marks, 12, &[0, 3], 40_000),
        pair(false).play("too short for a mark", RULES, 2, &[0, 3], 40_000),
        five(true).play("five servers", no_marks, 12, &[0, 1], 40_000),
        alone.play(ALONE, RULES, 12, &[0, 1], 40_000),
        pace.play("pace", RULES, 12, &[0], 40_000),
        narrow(true, up, down, &[Looks::Plain]).play("identity", no_marks, 12, &[0], 40_000),
        narrow(false, up, down, &[Looks::Plain]).play("direction", no_marks, 12, &[0], 40_000),
        narrow(true, renamed_up, renamed_down, &[Looks::Plain]).play("ladder", no_marks, 12, &[0], 40_000),
        narrow(true, up, down, &marked).play("identity, spelled at random", RULES, 12, &[0], 40_000),
        narrow(false, renamed_up, renamed_down, &marked).play("direction, spelled at random", RULES, 12, &[0], 40_000),
        narrow(true, renamed_up, renamed_down, &PLAIN_OR_MARK).play("marks", RULES, 12, &[0], 40_000),
    ]
}

/// A query of a client that nobody has seen, to a server.
fn stranger(server: u16, same_host: bool) -> Hop {
    hop(Who::Client(9, server), same_host, Sighting::New)
}

/// Whatever happened: after its hold, a query is let through, and its answer closes the key.
fn closes(state: &KeyState, mut now: Ticks, rules: &Rules, hop: &Hop) -> Checked {
    let mut key = *state;
    let mut tries = 0;
    loop {
        let ruling = key.query(hop, now, rules);
        check(&key, now, rules)?;
        if !ruling.held {
            break;
        }
        let left = key.until.since(now);
        ensure!(left <= rules.longest_ticks(), "it takes {left} ticks to end");
        // Held, tested in vain, and held for a last time.
        ensure!(tries < 3, "held {tries} times, each time to its end");
        now = key.until;
        tries += 1;
    }
    let is_open = key.is_open();
    let release = key.answered(true, now.plus(1), rules);
    ensure!(release.is_some() == is_open, "the answer to a test is lost");
    is_settled(&key, LASTING)
}

/// Closed, with no hops, no mark, and none of the flags but these.
fn is_settled(key: &KeyState, lasting: u8) -> Checked {
    ensure!(key.phase == CLOSED, "answered, and in phase {}", key.phase);
    ensure!(
        key.hops == 0 && key.recirculated == 0 && key.scores.pace == 0,
        "answered, and there are hops"
    );
    ensure!(
        key.bits == 0 && key.level == 0 && key.visited == 0,
        "answered, and there is a mark"
    );
    ensure!(
        key.flags & !lasting == 0,
        "answered, and there are flags: {:#x}",
        key.flags
    );
    Ok(())
}

/// A client that asks every tick, as if held by nobody, is let through within a test and a hold.
fn lets_the_impatient_through(state: &KeyState, rules: &Rules) -> Checked {
    let mut key = *state;
    for ticks in 0..=rules.hold_max_ticks + rules.test_ticks + 1 {
        if !key.query(&stranger(3, true), NOW.plus(ticks), rules).held {
            return Ok(());
        }
    }
    Err(format!("a client that asks every tick is never let through: {key:?}"))
}

/// Quiet for a while: the next query begins anew, whatever there was.
fn forgets(state: &KeyState, rules: &Rules, hop: &Hop) -> Checked {
    let now = NOW.plus(FORGET_TICKS + 1);
    let mut key = *state;
    let ruling = key.query(hop, now, rules);
    ensure!(
        !ruling.held,
        "held after ten quiet seconds, by holds of {} ticks",
        rules.hold_max_ticks
    );
    ensure!(
        ruling.tests == state.is_open(),
        "let through by an open breaker, and no test"
    );
    if !state.is_open() {
        ensure!(key.phase == CLOSED && key.hops == 1, "a hop of long ago counts");
        ensure!(key.flags & !mark::TESTED == 0, "a flag of long ago: {:#x}", key.flags);
    }
    let released = key.answered(true, now.plus(1), rules);
    ensure!(released.is_some() == state.is_open(), "the answer to a test is lost");
    is_settled(&key, LASTING)?;
    // One more pause after the release, and nothing tells the key from one that was never seen.
    let later = now.plus(FORGET_TICKS + 2);
    let mut fresh = canonical(&KeyState::default(), NOW, rules);
    for (key, now) in [(&mut key, later), (&mut fresh, NOW)] {
        key.query(hop, now, rules);
        key.answered(true, now, rules);
    }
    let mut last = canonical(&key, later, rules);
    last.flags &= !mark::TESTED;
    ensure!(
        last == canonical(&fresh, NOW, rules),
        "something lasts for ever: {last:?}"
    );
    Ok(())
}

/// What is asked of every state.
fn look(state: &KeyState, rules: &Rules) -> Checked {
    for same_host in [false, true] {
        for server in [0, 5] {
            closes(state, NOW, rules, &stranger(server, same_host))?;
        }
        forgets(state, rules, &stranger(0, same_host))?;
    }
    lets_the_impatient_through(state, rules)
}

/// How servers ask each other in a loop that hands marks on.
#[derive(Clone, Copy, Debug)]
struct Round {
    servers: u16,
    same_host: bool,
    /// Ticks from hop to hop.
    pace: u32,
}

/// Lets one query go round, each time with an ID and from a port of its own: the mark is all that tells. Tells how many
/// hops there were before it was held.
fn cut(state: &KeyState, rules: &Rules, round: Round) -> Option<u32> {
    let mut key = *state;
    let mut digest = 1;
    for number in 0..300_u16 {
        let now = NOW.plus(number as u32 * round.pace);
        let (from, to) = ((number + round.servers - 1) % round.servers, number % round.servers);
        let usual = hop(Who::Server(from, to), round.same_host, Sighting::New);
        let client = Endpoint {
            port: 50_000 + number,
            ..usual.client
        };
        let hop = Hop {
            client,
            id: 900 + number,
            plain: digest == 1,
            ..usual
        };
        let mut ruling = key.query(&hop, now, rules);
        let flipped = 0x1000 + number as u64;
        if ruling.suspects {
            let spelled = Spelled {
                spelling: Spelling {
                    digest,
                    flipped,
                    letters: 12,
                    capitals: 1,
                },
                returns: ruling.returns,
                found: ruling.found,
                unsigned: true,
                ours: digest != 1,
            };
            ruling = key.spelled(&hop, &spelled, now, rules).unwrap_or(ruling);
        }
        if ruling.held {
            return Some(number as u32);
        }
        if ruling.marks {
            digest = flipped;
        }
    }
    None
}

#[test]
fn it_closes_again_from_every_state_and_no_state_is_for_ever() {
    let mut total = Seen::default();
    let mut open = Vec::new();
    for play in plays() {
        let (states, seen) = play.search(&[fresh(&play.rules)], |_| true, |state| look(state, &play.rules));
        println!("{}: {seen:?}", play.name);
        total.add(&seen);
        open.extend(states.into_iter().filter(KeyState::is_open));
    }
    // An open breaker has fewer states: these are all of them, for what five servers and a client can do.
    let breaker = five(true).play("open", RULES, 12, &[0, 1, 5], usize::MAX);
    let (_, seen) = breaker.search(&open, KeyState::is_open, |state| look(state, &RULES));
    println!("{}: {seen:?}", breaker.name);
    assert!(seen.all);
    total.add(&seen);
    println!("all: {total:?}");
    assert!(total.states > 100_000 && total.transitions > 4_000_000, "{total:?}");
    assert!(total.phases.iter().all(|states| *states > 100), "{total:?}");
    assert!(total.notes.iter().all(|notes| *notes > 100), "{total:?}");
    let trips = |evidence: Evidence| total.trips[evidence as usize];
    assert_eq!(trips(Evidence::None), 0);
    for evidence in [
        Evidence::Pace,
        Evidence::Identity,
        Evidence::Direction,
        Evidence::Ladder,
        Evidence::Mark,
    ] {
        assert!(trips(evidence) != 0, "{evidence:?}: {total:?}");
    }
    assert!(total.marks > 100 && total.unmarked > 100, "{total:?}");
    assert_eq!(total.flags, u8::MAX, "some flag was never set");
}

/// From a state whose mark was never lost, the promise is kept. One that was lost again and again is waited for longer,
/// and where a server asks itself, for its ten seconds: then nobody can tell who else asks.
#[test]
fn a_loop_that_hands_marks_on_is_cut_whatever_came_before() {
    let (mut most, mut most_after_losses, mut loops) = (0, 0, 0);
    for play in plays() {
        if play.rules != RULES || play.letters != 12 {
            continue;
        }
        for state in play.states().iter().filter(|state| !state.is_open()).step_by(29) {
            let was_lost = state.flags >> mark::LOST_SHIFT & 3 != 0;
            for (servers, same_host, pace) in [
                (1, true, 49),
                (2, true, 0),
                (2, false, 1),
                (3, true, 49),
                (3, false, 0),
                (4, true, 1),
            ] {
                let round = Round {
                    servers,
                    same_host,
                    pace,
                };
                // Who asks himself after another was asked does not look like a loop by his hops.
                if servers == 1 && play.name != ALONE {
                    continue;
                }
                let Some(hops) = cut(state, &RULES, round) else {
                    panic!("{}: never cut: {round:?}\n{state:?}", play.name);
                };
                loops += 1;
                let most = if was_lost || servers == 1 {
                    &mut most_after_losses
                } else {
                    &mut most
                };
                *most = hops.max(*most);
            }
        }
    }
    println!("{loops} loops: cut after {most} hops, and after {most_after_losses} where marks were lost");
    assert!(loops > 10_000);
    assert!(most <= 32, "cut after {most} hops");
    assert!(most_after_losses <= 256, "cut after {most_after_losses} hops");
}
