//! The kernel's events of a night, told one by one with a clock that the test owns.

use guard_common::event::NAME_ROOM;

use super::*;

const SECOND: u64 = 1_000_000_000;
const HOLD_TICKS: u32 = 954;

/// An event of a key, with a query that goes to this port of 127.0.0.1.
fn event(note: Note, key: u64, port: u16, at_ns: u64) -> KernelEvent {
    let mut name = [0xee; NAME_ROOM];
    name[..10].copy_from_slice(b"\x01X\x06cONsul\0");
    let loopback = Address::v4(u32::from_ne_bytes([127, 0, 0, 1])).0;
    KernelEvent {
        at_ns,
        key,
        ifindex: 1,
        age_ticks: 3,
        hold_ticks: HOLD_TICKS,
        held: 1,
        note: note as u8,
        evidence: Evidence::Pace as u8,
        verdict: Verdict::Answer as u8,
        egress: 0,
        hops: 14,
        recirculated: 11,
        source_port: 40_123,
        destination_port: port,
        id: 7,
        qtype: 1,
        qclass: 1,
        name_len: 10,
        bits: 0,
        rapid: 1,
        source: loopback,
        destination: loopback,
        name,
    }
}

fn tell(loops: &mut Loops, event: &KernelEvent) -> Option<Event> {
    loops.on_event(event, "lo", Hook::TcIngress)
}

fn breaker(event: Option<Event>) -> Breaker {
    match event.expect("something to tell") {
        Event::Trip(breaker) | Event::Extend(breaker) | Event::Release(breaker) | Event::Expire(breaker) => breaker,
        other => panic!("{other:?} is no breaker"),
    }
}

fn ports(breaker: &Breaker) -> Vec<u16> {
    breaker.servers.iter().map(SocketAddr::port).collect()
}

#[test]
fn a_trip_names_the_hops_that_suspects_showed() {
    let mut loops = Loops::new(20);
    assert_eq!(tell(&mut loops, &event(Note::Suspect, 1, 53, SECOND)), None);
    tell(&mut loops, &event(Note::Suspect, 1, 8_600, SECOND));
    tell(&mut loops, &event(Note::Suspect, 1, 53, SECOND));
    tell(&mut loops, &event(Note::Suspect, 2, 9_999, SECOND));
    let trip = breaker(tell(&mut loops, &event(Note::Trip, 1, 8_600, SECOND)));
    assert_eq!(ports(&trip), [53, 8_600]);
    assert_eq!(
        (trip.name.as_str(), trip.qtype.as_str(), trip.qclass.as_str()),
        ("x.consul.", "A", "IN")
    );
    assert_eq!(
        (trip.key.as_str(), trip.device.as_str(), trip.hook),
        ("0000000000000001", "lo", "tc-ingress")
    );
    let packet = trip.packet.unwrap();
    assert_eq!(
        (packet.cut_ms, packet.hold_ms, packet.evidence, packet.verdict),
        (Some(3), 1_000, "pace", "answer")
    );
    assert_eq!(
        (packet.from, packet.to),
        (([127, 0, 0, 1], 40_123).into(), ([127, 0, 0, 1], 8_600).into())
    );
    assert_eq!(
        trip.reason,
        "query x.consul. A seems to go round between 127.0.0.1:53 and 127.0.0.1:8600: \
         the same 5-tuple and ID came back faster than any client retries"
    );
}

#[test]
fn hops_of_long_ago_are_no_part_of_the_loop() {
    let mut loops = Loops::new(20);
    tell(&mut loops, &event(Note::Suspect, 1, 5_353, SECOND));
    tell(&mut loops, &event(Note::Suspect, 1, 53, 20 * SECOND));
    assert_eq!(
        ports(&breaker(tell(&mut loops, &event(Note::Trip, 1, 8_600, 21 * SECOND)))),
        [53, 8_600]
    );
    tell(&mut loops, &event(Note::Suspect, 2, 5_353, 21 * SECOND));
    assert_eq!(
        ports(&breaker(tell(&mut loops, &event(Note::Trip, 2, 53, 40 * SECOND)))),
        [53]
    );
}

#[test]
fn a_flood_of_suspects_and_loops_stays_bounded() {
    let mut loops = Loops::new(20);
    for key in 0..5_000 {
        tell(&mut loops, &event(Note::Suspect, key, (key % 30) as u16, key));
        tell(&mut loops, &event(Note::Suspect, 9_000, (key % 30) as u16, key));
        assert!(loops.suspects.len() <= MAX_SUSPECTS);
    }
    assert_eq!(loops.suspects[&9_000].len(), MAX_SERVERS);
    assert!(loops.suspects.contains_key(&4_999) && !loops.suspects.contains_key(&1_000));
    for key in 0..5_000 {
        tell(&mut loops, &event(Note::Trip, key, 53, key));
        assert!(loops.open.len() <= MAX_LOOPS);
    }
    assert_eq!(loops.rows().len(), MAX_LOOPS);
    assert!(loops.open.contains_key(&4_999) && !loops.open.contains_key(&1_000));
    let held = loops.held();
    assert_eq!(
        held.named.iter().map(|(.., held)| held).sum::<u64>() + held.other,
        5_000
    );
}

#[test]
fn a_hold_that_nobody_extends_expires_ten_seconds_later() {
    let mut loops = Loops::new(20);
    tell(&mut loops, &event(Note::Trip, 1, 53, 100 * SECOND));
    let until_ns = loops.rows()[0].until_ns;
    assert!(until_ns.abs_diff(101 * SECOND) < SECOND / 100);
    assert_eq!(loops.tick(until_ns + GRACE_NS), []);
    assert_eq!(loops.rows().len(), 1);
    let told = loops.tick(until_ns + GRACE_NS + 1);
    let expired = breaker(told.first().cloned());
    assert!(matches!(told.as_slice(), [Event::Expire(_)]));
    assert_eq!((expired.held, expired.open_ms / 1_000, expired.packet), (1, 11, None));
    assert!(loops.rows().is_empty() && loops.tick(200 * SECOND).is_empty());
}

#[test]
fn an_extension_keeps_it_open_for_as_long_as_the_hold() {
    let mut loops = Loops::new(20);
    tell(&mut loops, &event(Note::Trip, 1, 53, 100 * SECOND));
    let mut extension = event(Note::Extend, 1, 8_600, 103 * SECOND);
    extension.hold_ticks = 60 * HOLD_TICKS;
    let extended = breaker(tell(&mut loops, &extension));
    assert_eq!((extended.open_ms, ports(&extended)), (3_000, vec![53, 8_600]));
    assert_eq!(extended.packet.unwrap().cut_ms, None);
    assert_eq!(loops.tick(160 * SECOND), []);
    assert_eq!((loops.rows()[0].level, loops.rows()[0].since_ns), (1, 100 * SECOND));
    assert_eq!(loops.tick(180 * SECOND).len(), 1);
}

#[test]
fn a_release_closes_it_and_says_what_was_held() {
    let mut loops = Loops::new(20);
    tell(&mut loops, &event(Note::Trip, 1, 53, 100 * SECOND));
    let mut answer = event(Note::Release, 1, 40_123, 102 * SECOND);
    answer.held = 5_000;
    let told = tell(&mut loops, &answer);
    assert!(matches!(told, Some(Event::Release(_))));
    let released = breaker(told);
    assert_eq!(
        (released.held, released.open_ms, ports(&released)),
        (5_000, 2_000, vec![53])
    );
    assert_eq!(
        released.reason,
        "query x.consul. A is answered again, after 2 s and 5000 held queries"
    );
    assert!(loops.rows().is_empty());
}

#[test]
fn a_breaker_from_before_the_agent_is_taken_up() {
    let mut loops = Loops::new(20);
    tell(&mut loops, &event(Note::Extend, 1, 53, SECOND));
    assert_eq!(loops.keys().collect::<Vec<_>>(), [Key(1)]);
    let released = breaker(tell(&mut loops, &event(Note::Release, 2, 40_123, SECOND)));
    assert!(released.servers.is_empty());
}

/// The same event, for a name with this letter before `consul`.
fn named(mut event: KernelEvent, letter: u8) -> KernelEvent {
    event.name[1] = letter;
    event
}

#[test]
fn an_open_name_keeps_its_series_until_it_closes() {
    let mut loops = Loops::new(2);
    let open = |loops: &Loops| {
        let open = loops.open_by_name();
        let named: Vec<_> = open
            .named
            .into_iter()
            .map(|(name, qtype, count)| format!("{name} {qtype} {count}"))
            .collect();
        (named, open.other)
    };
    for (key, letter) in [(1, b'c'), (2, b'A'), (3, b'b')] {
        tell(&mut loops, &named(event(Note::Trip, key, 53, key * SECOND), letter));
    }
    // The other class of the same name.
    tell(&mut loops, &named(event(Note::Trip, 4, 53, 9 * SECOND), b'C'));
    assert_eq!(
        open(&loops),
        (vec!["c.consul. A 2".to_owned(), "a.consul. A 1".to_owned()], 1)
    );
    tell(&mut loops, &named(event(Note::Release, 2, 53, 10 * SECOND), b'a'));
    assert_eq!(
        open(&loops),
        (vec!["c.consul. A 2".to_owned(), "b.consul. A 1".to_owned()], 0)
    );
    loops.set_top(0);
    assert_eq!(open(&loops), (Vec::new(), 3));
}

#[test]
fn what_a_breaker_held_is_counted_once() {
    let mut loops = Loops::new(20);
    let held = |loops: &Loops| (loops.rows()[0].held, loops.held().named[0].2);
    tell(&mut loops, &event(Note::Trip, 1, 53, 100 * SECOND));
    loops.on_held(Key(1), 700, 100 * SECOND + SECOND / 2);
    assert_eq!(held(&loops), (700, 700));
    loops.on_held(Key(1), 700, 101 * SECOND);
    assert_eq!(held(&loops), (700, 700));
    tell(&mut loops, &event(Note::Extend, 1, 53, 103 * SECOND));
    assert_eq!(held(&loops), (701, 701));
    // The table is asked after the next hold began, but before its event is read.
    loops.on_held(Key(1), 40, 106 * SECOND);
    assert_eq!(held(&loops), (740, 740));
    loops.on_held(Key(1), 30, 107 * SECOND);
    tell(&mut loops, &event(Note::Extend, 1, 53, 106 * SECOND));
    assert_eq!(held(&loops), (770, 770));
    loops.on_held(Key(1), 31, 108 * SECOND);
    assert_eq!(held(&loops), (771, 771));
    loops.on_held(Key(2), 1_000, 108 * SECOND);
    assert_eq!(held(&loops), (771, 771));
}

#[test]
fn the_biggest_loop_comes_first() {
    let mut loops = Loops::new(20);
    for key in 1..=3 {
        tell(&mut loops, &event(Note::Trip, key, 53, key));
    }
    loops.on_held(Key(2), 9, 10);
    assert_eq!(loops.rows().iter().map(|row| row.key).collect::<Vec<_>>(), [2, 1, 3]);
}

#[test]
fn suspects_that_went_quiet_are_forgotten() {
    let mut loops = Loops::new(20);
    tell(&mut loops, &event(Note::Suspect, 1, 53, SECOND));
    loops.tick(5 * SECOND);
    assert_eq!(loops.suspects.len(), 1);
    loops.tick(12 * SECOND);
    assert!(loops.suspects.is_empty());
}
