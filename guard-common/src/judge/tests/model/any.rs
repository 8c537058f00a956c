//! What a search cannot go through: states with any numbers in them, any rules, and long runs on three CPUs.

use std::format;

use proptest::{prelude::*, test_runner::TestCaseError};

use super::{
    super::cases,
    NOW, Who, closes,
    cpus::{Race, Tally, racers},
    forgets, hop,
    packet::{Cpu, Looks, Packet, Query, World},
    space::check,
    stranger,
};
use crate::{
    flow::Sighting,
    judge::{
        ALL_RUNGS, Hop, KeyState, Note, RUNGS, Rules, Rung,
        breaker::{CLOSED, OPEN, SUSPECT, TEST},
        evidence::{Ladder, Scores},
        mark::{self, MARK_TICKS},
        quiet::{MANY_ARE_ONE, VERY_MANY},
    },
    marks::Room,
    time::Ticks,
};

/// Ticks by which a clock may seem ahead.
const AHEAD: u32 = 1 << 16;

fn rules() -> impl Strategy<Value = Rules> {
    (1..1_000_u32, 0..3_000_u32, 1..4_000_u32, 0..2_u32).prop_map(|(hold_ticks, longer, test_ticks, marks)| Rules {
        hold_ticks,
        hold_max_ticks: hold_ticks + longer,
        test_ticks,
        marks,
    })
}

/// Any state that breaks none of the rules in [`check`].
fn state(rules: Rules) -> impl Strategy<Value = KeyState> {
    let full = prop_oneof![3 => any::<u16>(), 1 => Just(u16::MAX)];
    let numbers = (any::<u32>(), full, any::<[u8; 4]>(), any::<[u8; 4]>());
    let rungs = prop::array::uniform4((0..6_u16, 50..60_u16, 70..90_u16, any::<u16>()));
    let phase = prop::sample::select(std::vec![CLOSED, OPEN, TEST, SUSPECT]);
    (phase, numbers, rungs, 0..10_000_u32, any::<u32>(), 0..=16_u8).prop_map(
        move |(phase, (count, hops, counts, bytes), rungs, idle, end, level)| {
            let [recirculated, taken, asked, last] = counts;
            let [flags, visited, bits, outgoing] = bytes;
            let mut rungs = rungs;
            for at in 1..RUNGS {
                // No server stands on two rungs.
                while rungs[..at]
                    .iter()
                    .any(|rung| (rung.0, rung.1) == (rungs[at].0, rungs[at].1))
                {
                    rungs[at].1 += 16;
                }
            }
            let (taken, asked) = (taken & ALL_RUNGS, asked & taken & ALL_RUNGS);
            let (longest, is_open) = match phase {
                OPEN => (rules.hold_max_ticks, true),
                TEST => (rules.test_ticks, true),
                _ => (MARK_TICKS, false),
            };
            let mut key = KeyState {
                touched: NOW.minus(idle),
                since: NOW.minus(idle),
                until: NOW.plus(end % longest + 1).minus(if end >> 31 == 0 { 0 } else { idle }),
                count,
                hops,
                recirculated,
                phase,
                level: if phase == CLOSED { 0 } else { level },
                ladder: Ladder(asked << RUNGS | taken),
                visited: match phase {
                    TEST => asked | (visited & 3) << RUNGS,
                    _ => visited,
                },
                flags: match phase {
                    OPEN => flags & mark::TESTED,
                    TEST => mark::TESTED,
                    _ => flags,
                },
                scores: Scores {
                    pace: visited,
                    echo: bits,
                    ladder: outgoing,
                },
                bits: if phase == CLOSED { 0 } else { bits },
                overtaken: if phase == CLOSED { 0 } else { outgoing },
                outgoing,
                rungs: rungs.map(|(address, port, id, socket)| Rung {
                    address,
                    port,
                    id,
                    socket,
                }),
                ..KeyState::default()
            };
            // Where the last hop went.
            key.rung_of(&stranger(last as u16 % 6, is_open));
            key
        },
    )
}

fn packet() -> impl Strategy<Value = Packet> {
    let sighting = prop::sample::select(std::vec![
        Sighting::New,
        Sighting::Retransmit,
        Sighting::Rapid,
        Sighting::Elsewhere,
    ]);
    let looks = prop::sample::select(std::vec![Looks::Plain, Looks::Mark, Looks::EarlierMark, Looks::Random]);
    let room = prop::sample::select(std::vec![Room::Found, Room::TakenByOthers, Room::TakenByItself]);
    let who = (0..3_u8, 0..6_u16, 0..6_u16).prop_map(|(kind, from, to)| match kind {
        0 => Who::Client(from, to),
        1 => Who::Server(from, to),
        _ => Who::Renamer(from, to),
    });
    let query = (who, sighting, looks, room, any::<[bool; 3]>());
    prop_oneof![
        8 => query.prop_map(|(who, sighting, looks, room, [same_host, unsigned, egress])| {
            let usual = hop(who, same_host, sighting);
            let hop = Hop { plain: looks == Looks::Plain, egress, ..usual };
            Packet::Query(Query { hop, looks, unsigned, room })
        }),
        1 => any::<bool>().prop_map(|asked| Packet::Answer { asked }),
        1 => any::<bool>().prop_map(|asked| Packet::Error { asked }),
    ]
}

fn right(checked: Result<(), std::string::String>) -> Result<(), TestCaseError> {
    checked.map_err(TestCaseError::fail)
}

proptest! {
    #![proptest_config(cases(8_000))]

    /// One packet never leads from a state that keeps the rules to one that does not, whatever is in it; so none ever does.
    #[test]
    fn every_state_that_keeps_the_rules_leads_to_one_that_keeps_them_and_closes(
        (rules, state) in rules().prop_flat_map(|rules| (Just(rules), state(rules))),
        packet in packet(),
        letters in prop::sample::select(std::vec![0, 2, 3, 6, 12, 250]),
        wait in prop_oneof![Just(0), 0..60_u32, 0..20_000_u32],
    ) {
        let now = NOW.plus(wait);
        right(check(&state, NOW, &rules))?;
        let mut world = World::new(state, rules, letters);
        right(Cpu::new(packet, now, 0).run(&mut world))?;
        right(closes(&world.key, now, &rules, &stranger(4, letters == 3)))?;
        right(closes(&state, NOW, &rules, &stranger(0, letters == 2)))?;
        right(forgets(&state, &rules, &stranger(0, letters == 2)))?;
    }

    /// What passes the short way, the long way lets through as well, without a word, and leaves the key in the same state.
    #[test]
    fn the_short_way_leads_where_the_long_way_does(
        (rules, state) in rules().prop_flat_map(|rules| (Just(rules), state(rules))),
        asked in prop::sample::select(std::vec![0, 1, 2, 4, 8, 3, 15]),
        is_known in any::<bool>(),
        hops in prop_oneof![Just(0), 0..20_u16, Just(u16::MAX)],
        packet in packet(),
        wait in prop_oneof![Just(0), 0..60_u32, 0..20_000_u32],
    ) {
        let Packet::Query(Query { mut hop, .. }) = packet else { return Ok(()) };
        let mut short = KeyState { phase: CLOSED, level: 0, recirculated: 0, scores: Scores::default(), hops, ..state };
        short.ladder = Ladder(short.ladder.0 & ALL_RUNGS | asked << RUNGS | asked);
        if is_known {
            let rung = short.rungs[asked.trailing_zeros() as usize % RUNGS];
            (hop.server.address, hop.server.port) = (rung.address, rung.port);
            short.rung_of(&hop);
        }
        let (before, now) = (short, NOW.plus(wait));
        let mut long = short;
        let foreseen = short.repeats(&hop, now) || short.would_begin(&hop, now);
        let passes = short.passes(&hop, now);
        if hop.sighting != Sighting::Elsewhere {
            prop_assert_eq!(foreseen, passes, "{:?}", before);
        }
        if passes {
            let ruling = long.query(&hop, now, &rules);
            prop_assert!(!ruling.held && !ruling.suspects && !ruling.recirculates && ruling.note == Note::None);
        }
        prop_assert_eq!(short, long, "{} from {:?}", passes, before);
    }

    /// What a look finds held, the long way holds as well, without a word, and leaves the key in the same state.
    #[test]
    fn what_a_look_finds_held_is_held(
        (rules, state) in rules().prop_flat_map(|rules| (Just(rules), state(rules))),
        packet in packet(),
        wait in prop_oneof![Just(0), 0..2_000_u32],
        count in prop_oneof![0..VERY_MANY, VERY_MANY - 2..VERY_MANY + 2, u32::MAX - 20..],
        random in any::<u32>(),
    ) {
        let Packet::Query(Query { hop, .. }) = packet else { return Ok(()) };
        let now = NOW.plus(wait);
        let mut short = KeyState { phase: OPEN, flags: 0, count, ..state };
        let mut long = short;
        let holds = short.holds(now, rules.longest_ticks());
        let ruling = long.query(&hop, now, &rules);
        if holds {
            let in_hold = short.note_held(now, random);
            prop_assert!(ruling.held && !ruling.tests && !ruling.suspects && ruling.note == Note::None);
            prop_assert_eq!(in_hold, short.count);
            // Of very many, a few are counted for all.
            let more = u32::from(random.is_multiple_of(MANY_ARE_ONE)) * MANY_ARE_ONE;
            let is_exact = count < VERY_MANY;
            let counted = if is_exact { long.count } else { count.saturating_add(more) };
            prop_assert_eq!(short, KeyState { count: counted, ..long });
            prop_assert_eq!(ruling.until, short.until);
        } else {
            prop_assert!(long.phase == TEST, "{:?}", long);
        }
    }

    /// Ticks wrap after 52 days. A breaker that nobody asked for in so long may look as if it had just opened, and then holds
    /// for once more, and by what a clock may be ahead.
    #[test]
    fn however_long_a_key_is_left_alone_it_closes(
        (rules, state) in rules().prop_flat_map(|rules| (Just(rules), state(rules))),
        wait in any::<u32>(),
    ) {
        let mut key = state;
        let now = NOW.plus(wait);
        let hop = stranger(0, true);
        if key.query(&hop, now, &rules).held {
            let left = key.until.0.wrapping_sub(now.0);
            prop_assert!(left <= rules.longest_ticks() + AHEAD, "{} ticks are left", left);
            right(closes(&key, key.until, &rules, &hop))?;
        } else {
            key.answered(true, now, &rules);
            prop_assert_eq!(key.phase, CLOSED);
        }
    }
}

proptest! {
    #![proptest_config(cases(1_000))]

    /// Clocks differ by two ticks at most.
    #[test]
    fn three_cpus_lose_no_wake_up_in_the_long_run(
        packets in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u32, prop_oneof![9 => 0..3_u32, 1 => 0..600_u32]), 2..48),
        order in prop::collection::vec(0..3_usize, 200),
    ) {
        let racers = racers();
        let mut race = Race::new(&KeyState::default(), 12, &[]);
        let mut tally = Tally::default();
        let mut now = NOW;
        let mut coming = packets.iter();
        let mut cpus: [Option<usize>; 3] = [None; 3];
        for cpu in order {
            let busy = cpus[cpu].filter(|number| !race.cpus[*number].is_over());
            let number = match (busy, coming.next()) {
                (Some(number), _) => number,
                (None, None) => break,
                (None, Some((packet, lag, wait))) => {
                    now = now.plus(*wait);
                    let clock: Ticks = now.minus(*lag);
                    race.cpus.push(Cpu::new(*packet.get(&racers), clock, race.cpus.len() as u32));
                    race.cpus.len() - 1
                }
            };
            cpus[cpu] = Some(number);
            right(race.step(number, &mut tally))?;
        }
        for number in 0..race.cpus.len() {
            while !race.cpus[number].is_over() {
                right(race.step(number, &mut tally))?;
            }
        }
        right(race.over(&mut tally).map_err(|wrong| format!("{wrong}\nsections: {:?}", race.order)))?;
    }
}
