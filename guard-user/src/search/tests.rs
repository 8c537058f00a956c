//! Resolvers that walk, and others that do not.

use super::*;
use crate::offenders::tests::{random, sample, wire};

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
const POD: [u8; 4] = [10, 9, 0, 7];
/// What the kubelet writes for a pod on an instance.
const LIST: [&str; 4] = [
    "default.svc.cluster.local",
    "svc.cluster.local",
    "cluster.local",
    "ec2.internal",
];

fn suffixes(search: [&str; 2]) -> Suffixes {
    Suffixes::new(&[], &[format!("search {}\n", search.join(" "))])
}

fn search() -> Search {
    Search::new(suffixes(["corp.example", "eu.corp.example"]))
}

fn ask(search: &mut Search, client: [u8; 4], name: &str, qtype: u16, now_ns: u64) {
    search.on_sample(&sample(client, &wire(name), qtype, 1), now_ns);
}

/// How the resolvers send A and AAAA of one step.
#[derive(Clone, Copy, Debug)]
enum Resolver {
    /// Both at once from one socket, next step when both are answered.
    Glibc,
    /// The same from one socket as well; a step of its own for each server.
    Musl,
    /// Both at once, from two sockets: the order varies.
    Go,
}

/// One look-up that walks the whole list. Returns when it is over.
fn walk(search: &mut Search, client: [u8; 4], name: &str, resolver: Resolver, start_ns: u64) -> u64 {
    let mut now_ns = start_ns;
    for (step, suffix) in LIST.iter().chain([&""]).enumerate() {
        let types = match resolver {
            Resolver::Glibc | Resolver::Musl => [1, 28],
            Resolver::Go if step % 2 == 0 => [28, 1],
            Resolver::Go => [1, 28],
        };
        let asked = if suffix.is_empty() {
            name.to_owned()
        } else {
            format!("{name}.{suffix}")
        };
        for qtype in types {
            ask(search, client, &asked, qtype, now_ns);
            if matches!(resolver, Resolver::Musl) {
                // A second server hears the same.
                ask(search, client, &asked, qtype, now_ns);
            }
        }
        now_ns += 2 * MS;
    }
    now_ns
}

fn told(search: &mut Search, now_ns: u64) -> Vec<SearchWalk> {
    let events = search.tick(now_ns).into_iter();
    events
        .map(|event| match event {
            Event::SearchWalk(walk) => walk,
            other => panic!("{other:?} is no walk"),
        })
        .collect()
}

#[test]
fn eight_of_ten_queries_of_a_walk_are_wasted() {
    for (resolver, wasted) in [(Resolver::Glibc, 8), (Resolver::Musl, 16), (Resolver::Go, 8)] {
        let mut search = search();
        let mut now_ns = SECOND;
        for lookup in 0..10 {
            now_ns = walk(
                &mut search,
                POD,
                &format!("www{}.example.com", lookup % 3),
                resolver,
                now_ns,
            );
        }
        assert_eq!(search.wasted(), 10 * wasted, "{resolver:?}");
        let told = told(&mut search, now_ns);
        assert_eq!(told.len(), 1);
        let found = &told[0];
        assert_eq!((found.wasted, found.queries), (10 * wasted, 10 * wasted / 8 * 10));
        assert_eq!(found.client, IpAddr::from(POD));
        assert_eq!(found.example, "www0.example.com.");
        let mut list: Vec<_> = LIST.iter().map(|suffix| format!("{suffix}.")).collect();
        let mut suffixes = found.suffixes.clone();
        list.sort();
        suffixes.sort();
        assert_eq!(suffixes, list);
        assert!(found.reason.contains("dnsConfig"), "{}", found.reason);
    }
}

#[test]
fn a_slow_resolver_still_walks() {
    // Every step waits five seconds for an answer that does not come.
    let mut search = search();
    let mut now_ns = SECOND;
    for suffix in LIST {
        ask(&mut search, POD, &format!("a.example.com.{suffix}"), 1, now_ns);
        now_ns += 5 * SECOND;
    }
    ask(&mut search, POD, "a.example.com", 1, now_ns);
    assert_eq!(search.wasted(), 4);
}

#[test]
fn a_service_that_is_found_at_once_is_no_walk() {
    let mut search = search();
    let mut random = random();
    for lookup in 0..3_000 {
        let now_ns = SECOND + lookup * 15 * MS;
        let (service, namespace) = (random(12), random(5));
        let name = format!("db{service}.ns{namespace}.svc.cluster.local");
        for qtype in [1, 28] {
            ask(&mut search, POD, &name, qtype, now_ns);
        }
        ask(&mut search, POD, &format!("pod-{}.{name}", random(3)), 1, now_ns);
    }
    assert_eq!((search.wasted(), told(&mut search, 50 * SECOND).len()), (0, 0));
}

#[test]
fn plain_traffic_is_no_walk_and_not_remembered() {
    let mut search = search();
    let mut random = random();
    for query in 0..5_000 {
        let client = [10, 0, random(4) as u8, random(250) as u8];
        let name = format!("host{}.site{}.example", random(50), random(50));
        ask(&mut search, client, &name, 1, SECOND + query * MS);
    }
    assert_eq!((search.wasted(), search.clients.len()), (0, 0));
}

#[test]
fn names_of_a_host_in_two_domains_are_only_a_walk_in_the_order_of_the_list() {
    let mut search = Search::new(suffixes(["eu.corp.example", "corp.example"]));
    ask(&mut search, POD, "www.corp.example", 1, SECOND);
    ask(&mut search, POD, "www.eu.corp.example", 1, SECOND);
    assert_eq!(search.wasted(), 0);
    ask(&mut search, POD, "www.corp.example", 1, SECOND);
    ask(&mut search, POD, "www", 1, SECOND);
    assert_eq!(search.wasted(), 3);
    assert!(!search.clients[&IpAddr::from(POD)].walks_in_cluster);
}

#[test]
fn what_is_asked_much_later_is_no_step() {
    let mut search = search();
    ask(&mut search, POD, "a.example.com.cluster.local", 1, SECOND);
    ask(&mut search, POD, "a.example.com", 1, 7 * SECOND);
    // And a name that was answered then does not count when it is asked for again.
    ask(&mut search, POD, "a.example.com.cluster.local", 1, 20 * SECOND);
    ask(&mut search, POD, "a.example.com", 1, 20 * SECOND);
    assert_eq!(search.wasted(), 1);
}

#[test]
fn two_clients_do_not_walk_together() {
    let mut search = search();
    ask(&mut search, POD, "a.example.com.cluster.local", 1, SECOND);
    ask(&mut search, [10, 9, 0, 8], "a.example.com", 1, SECOND);
    assert_eq!(search.wasted(), 0);
}

#[test]
fn a_few_wasted_queries_are_not_worth_telling() {
    let mut search = search();
    walk(&mut search, POD, "www.example.com", Resolver::Glibc, SECOND);
    walk(&mut search, POD, "www.example.com", Resolver::Glibc, 2 * SECOND);
    assert_eq!((search.wasted(), told(&mut search, 3 * SECOND).len()), (16, 0));
    // Nor are a few in each minute.
    walk(&mut search, POD, "www.example.com", Resolver::Glibc, 30 * SECOND);
    let mut search = self::search();
    for minute in 0..10 {
        let now_ns = (1 + minute * 61) * SECOND;
        walk(&mut search, POD, "www.example.com", Resolver::Glibc, now_ns);
        walk(&mut search, POD, "www.example.com", Resolver::Glibc, now_ns + SECOND);
        assert!(told(&mut search, now_ns + 60 * SECOND).is_empty());
    }
}

#[test]
fn forty_wasted_queries_among_a_thousand_are_not_worth_telling() {
    let mut search = search();
    for lookup in 0..5 {
        walk(
            &mut search,
            POD,
            "www.example.com",
            Resolver::Glibc,
            SECOND + lookup * SECOND,
        );
    }
    for query in 0..1_000 {
        ask(
            &mut search,
            POD,
            &format!("db{query}.a.svc.cluster.local"),
            1,
            8 * SECOND,
        );
    }
    assert_eq!((search.wasted(), told(&mut search, 9 * SECOND).len()), (40, 0));
}

#[test]
fn who_walks_on_is_told_of_once_an_hour() {
    let mut search = search();
    let mut events = Vec::new();
    for second in 1..=3_700 {
        for _ in 0..4 {
            walk(&mut search, POD, "www.example.com", Resolver::Glibc, second * SECOND);
        }
        events.extend(told(&mut search, second * SECOND + SECOND / 2));
    }
    assert_eq!(events.len(), 2, "{events:?}");
}

#[test]
fn ten_are_told_of_in_a_minute_the_most_wasteful_first() {
    let mut search = search();
    let mut waste = |second: u64| {
        for client in 1..=30_u8 {
            for _ in 0..7 + client {
                walk(
                    &mut search,
                    [10, 0, 0, client],
                    "www.example.com",
                    Resolver::Glibc,
                    second * SECOND,
                );
            }
        }
        told(&mut search, second * SECOND + SECOND / 2)
    };
    let first = waste(1);
    assert_eq!(first.len(), 10);
    assert_eq!(first[0].client.to_string(), "10.0.0.30");
    assert!(first.iter().all(|walk| walk.wasted >= first[9].wasted));
    assert!(waste(20).is_empty());
    assert_eq!(waste(62).len(), 10);
}

#[test]
fn samples_stand_for_the_queries_they_are_of() {
    let mut search = search();
    search.on_sample(&sample(POD, &wire("a.example.com.svc.cluster.local"), 1, 64), SECOND);
    search.on_sample(&sample(POD, &wire("a.example.com.cluster.local"), 28, 64), SECOND);
    assert_eq!(search.wasted(), 64);
    let found = &told(&mut search, 2 * SECOND)[0];
    assert_eq!((found.wasted, found.queries), (64, 128));
}

#[test]
fn however_many_clients_and_names_there_are_memory_is_bounded() {
    let mut search = search();
    for number in 0..3_000_u32 {
        let [_, b, c, d] = number.to_be_bytes();
        for name in 0..20 {
            ask(
                &mut search,
                [10, b, c, d],
                &format!("{name}.cluster.local"),
                1,
                SECOND + u64::from(number),
            );
        }
    }
    assert_eq!(search.clients.len(), MAX_CLIENTS);
    assert!(search.clients.values().all(|client| client.names.len() <= MAX_NAMES));
    assert!(told(&mut search, 100 * SECOND).is_empty());
    assert!(search.clients.is_empty());
}

#[test]
fn hostile_names_are_told_in_printable_letters() {
    let mut search = search();
    for _ in 0..60 {
        for suffix in [&b"\x07cluster\x05local\0"[..], b"\0"] {
            let name = [b"\x05\x1b[2J\n", suffix].concat();
            search.on_sample(&sample(POD, &name, 1, 1), SECOND);
        }
    }
    let found = &told(&mut search, 2 * SECOND)[0];
    assert_eq!(found.example, "\\027[2j\\010.");
    assert!(
        found.reason.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()),
        "{}",
        found.reason
    );
}
