//! A storm among fifty clients, as the kernel shows it.

use guard_common::event::NAME_ROOM;

use super::*;

const SECOND: u64 = 1_000_000_000;

/// A sample of a query for a name in wire form.
pub(crate) fn sample(client: [u8; 4], name: &[u8], qtype: u16, weight: u32) -> Sample {
    let mut room = [0xee; NAME_ROOM];
    room[..name.len()].copy_from_slice(name);
    Sample {
        at_ns: 0,
        weight,
        ifindex: 2,
        row: Shed::NO_ROW,
        verdict: 0,
        reason: 0,
        egress: 1,
        kind: Kind::Query as u8,
        qtype,
        name_len: name.len() as u16,
        spare: 0,
        client: Address::v4(u32::from_ne_bytes(client)).0,
        server: Address::v4(u32::from_ne_bytes([10, 0, 0, 2])).0,
        name: room,
    }
}

/// The same, as one that was shed.
pub(crate) fn shed(sample: Sample, row: u32, reason: Reason) -> Sample {
    Sample {
        row,
        reason: reason as u8,
        kind: Kind::Shed as u8,
        ..sample
    }
}

/// A generator that any run repeats.
pub(crate) fn random() -> impl FnMut(u64) -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    }
}

pub(crate) fn wire(text: &str) -> Vec<u8> {
    Name::parse(text).unwrap().wire().to_vec()
}

/// One address of 104.16.0.0/12.
pub(crate) fn swept(random: &mut impl FnMut(u64) -> u64) -> Vec<u8> {
    let (b, c, d) = (16 + random(16), random(256), random(256));
    wire(&format!("{d}.{c}.{b}.104.in-addr.arpa"))
}

#[test]
fn a_sweep_among_fifty_clients_is_named_within_a_second() {
    let mut offenders = Offenders::new(Vec::new());
    let mut random = random();
    // One in eight of 5,000 queries of the sweep and of 50 x 10 others.
    for at in 0..687_u64 {
        let now_ns = SECOND + at * SECOND / 687;
        let sample = if random(55) < 5 {
            let client = [10, 1, 0, random(50) as u8];
            sample(client, &wire(&format!("www.site{}.example", random(500))), 1, 8)
        } else {
            sample([10, 9, 0, 66], &swept(&mut random), 12, 8)
        };
        offenders.on_sample(&sample, now_ns);
    }
    let standings = offenders.all().standings(20, 2 * SECOND);
    assert_eq!(standings.zones[0].name, "104.in-addr.arpa.");
    assert_eq!(standings.clients[0].name, "10.9.0.66");
    for found in [&standings.zones[0], &standings.clients[0]] {
        assert!((found.share - 10.0 / 11.0).abs() <= found.share_error, "{found:?}");
        assert!(
            (found.per_second - 5_000.0).abs() <= found.error_per_second + 600.0,
            "{found:?}"
        );
    }
    assert!(
        (5_000.0..6_500.0).contains(&standings.queries_per_second),
        "{standings:?}"
    );
    assert!(standings.clients[1].share < 0.02);
}

#[test]
fn shed_queries_are_told_apart_by_what_shed_them() {
    let mut offenders = Offenders::new(vec![0, 1, 1]);
    let query = |last| sample([10, 0, 0, last], b"\x01a\0", 1, 1);
    for (last, row, reason) in [
        (1, 0, Reason::Budget),
        (2, 1, Reason::Budget),
        (3, 2, Reason::Budget),
        (4, 9, Reason::Budget),
        (5, Shed::NO_ROW, Reason::Share),
        (6, Shed::NO_ROW, Reason::Repeat),
        (7, Shed::NO_ROW, Reason::Recursion),
        (8, Shed::NO_ROW, Reason::Loop),
    ] {
        offenders.on_sample(&shed(query(last), row, reason), SECOND);
    }
    let clients = |shedder| -> Vec<_> {
        let standings = offenders.shed(shedder).unwrap().standings(9, SECOND);
        let mut names: Vec<_> = standings.clients.into_iter().map(|found| found.name).collect();
        names.sort();
        names
    };
    assert_eq!(clients(Shedder::Budget(0)), ["10.0.0.1"]);
    assert_eq!(clients(Shedder::Budget(1)), ["10.0.0.2", "10.0.0.3"]);
    assert_eq!(clients(Shedder::Link(2)), ["10.0.0.5", "10.0.0.6"]);
    assert_eq!(clients(Shedder::Rule(Rule::Recursion)), ["10.0.0.7"]);
    assert_eq!(offenders.shed.len(), 4);
    assert_eq!(offenders.shed(Shedder::Link(2)).unwrap().ifindex(SECOND), Some(2));
    assert!(offenders.all().standings(9, SECOND).clients.is_empty());
}

#[test]
fn after_a_pause_it_is_another_storm() {
    let mut offenders = Offenders::new(vec![0]);
    let query = |last| shed(sample([10, 0, 0, last], b"\x01a\0", 1, 100), 0, Reason::Budget);
    offenders.on_sample(&query(1), SECOND);
    offenders.on_sample(&query(2), SECOND + PAUSE_NS + 1);
    let board = offenders.shed(Shedder::Budget(0)).unwrap();
    assert_eq!((board.samples(), board.standings(9, 4 * SECOND).clients.len()), (1, 1));
    offenders.tick(20 * SECOND);
    assert!(offenders.shed(Shedder::Budget(0)).is_none());
}

#[test]
fn a_heavy_hitter_stays_while_a_million_random_names_pass() {
    let mut offenders = Offenders::new(Vec::new());
    let mut random = random();
    // What the kernel shows of them: one in 64.
    for at in 0..16_384_u64 {
        let now_ns = SECOND + at * 60_000;
        let name = wire(&format!("{:x}.{:x}.example", random(1 << 50), random(1 << 50)));
        let client = [random(256) as u8, random(256) as u8, random(256) as u8, 1];
        offenders.on_sample(&sample(client, &name, 1, 64), now_ns);
        if at % 32 == 0 {
            offenders.on_sample(&sample([10, 9, 0, 66], &wire("real.heavy.test"), 1, 64), now_ns);
        }
    }
    let standings = offenders.all().standings(20, 2 * SECOND);
    let names = |found: &[Standing]| found.iter().map(|found| found.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&standings.clients), ["10.9.0.66"]);
    assert_eq!(names(&standings.keys), ["real.heavy.test."]);
    assert_eq!(names(&standings.zones), ["example."]);
    assert!((standings.keys[0].share - 1.0 / 33.0).abs() <= standings.keys[0].share_error);
}

#[test]
fn hostile_names_stay_harmless_and_hide_nobody() {
    let mut offenders = Offenders::new(Vec::new());
    let hostile: [&[u8]; 6] = [
        b"\x04\x1b[2J\x03com\0",
        b"\x1d<script>alert(1)</script>\x80\x81\x82\x83\0",
        b"\x04\xe2\x80\xae!\0",
        b"\x3fno end",
        b"",
        b"\0",
    ];
    for name in hostile {
        offenders.on_sample(&sample([10, 0, 0, 1], name, 1, 10), SECOND);
    }
    let standings = offenders.all().standings(20, SECOND);
    assert!((standings.clients[0].per_second - 60.0).abs() < 7.0, "{standings:?}");
    assert_eq!(standings.keys.len(), 4);
    for found in standings.keys.iter().chain(&standings.zones) {
        assert!(found.name.bytes().all(|byte| byte.is_ascii_graphic()), "{found:?}");
    }
}

#[test]
fn however_many_budgets_shed_there_are_so_many_boards() {
    let mut offenders = Offenders::new((0..64).collect());
    for row in 0..64 {
        let query = sample([10, 0, 0, 1], b"\x01a\0", 1, 1);
        offenders.on_sample(&shed(query, row, Reason::Budget), SECOND + u64::from(row));
    }
    assert_eq!(offenders.shed.len(), MAX_BOARDS);
    assert!(offenders.shed(Shedder::Budget(63)).is_some() && offenders.shed(Shedder::Budget(31)).is_none());
}
