//! Loads that look busy: none of them is ever a loop.

use std::vec;

use proptest::prelude::*;

use super::{
    cases,
    nodes::{Client, Dnsdist, Dnsmasq, Naive, Unbound, Upstream},
    world::{Kind, MS, Node, S, Socket, US, World, at},
};

const RESOLVER: Socket = at(1, 53);
const SECOND: Socket = at(2, 53);
const UPSTREAM: Socket = at(9, 53);

/// Adds `count` clients that begin within `spread_ns`, and lets them try again after each patience.
fn crowd(world: &mut World, count: u64, spread_ns: u64, patience_ns: &[u64]) {
    for number in 0..count {
        let socket = at(1, 20_000 + number as u16);
        world.add(Client::new(socket, RESOLVER, patience_ns.to_vec()), &[socket]);
        let start = world.random(spread_ns.max(1));
        world.wake_at(start, socket, 0);
    }
}

/// Runs for a minute: nobody trips, and as many clients as that get their answer.
#[track_caller]
fn is_left_alone(mut world: World, resolved: u32) {
    world.run(60 * S, 1_000_000);
    let tally = &world.tally;
    assert!(
        tally.trips.is_empty(),
        "after {} queries: {:?}",
        tally.queries,
        tally.trips
    );
    assert_eq!((tally.held, tally.resolved, tally.recirculated), (0, resolved, 0));
}

fn between(seed: u64, middle: impl Node + 'static, upstream: Upstream) -> World {
    let mut world = World::on_lo(seed);
    world.add(middle, &[RESOLVER]);
    world.add(upstream, &[UPSTREAM]);
    world
}

/// A forwarder that joins equal queries, and its upstream.
fn merging(seed: u64, upstream: Upstream) -> World {
    between(seed, Dnsmasq::new(1, UPSTREAM), upstream)
}

/// Two of them in a row.
fn chain(seed: u64, upstream: Upstream) -> World {
    let mut world = World::on_lo(seed);
    world.add(Dnsmasq::new(1, SECOND), &[RESOLVER]);
    world.add(Dnsmasq::new(2, UPSTREAM), &[SECOND]);
    world.add(upstream, &[UPSTREAM]);
    world
}

#[test]
fn a_client_retransmit_is_not_a_hop() {
    let mut world = merging(1, Upstream::DEAD);
    crowd(&mut world, 1, 0, &[S, 2 * S, 5 * S]);
    world.run(S / 2, u32::MAX);
    let before = world.bucket.state(super::KEY).unwrap().hops;
    world.run(20 * S, u32::MAX);
    let after = world.bucket.state(super::KEY).unwrap();
    assert_eq!((before, after.hops, after.recirculated), (2, 2, 0));
    assert_eq!(world.tally.queries, 8);
}

#[test]
fn a_client_that_asks_anew_against_a_dead_upstream_is_not_a_loop() {
    for middle in [true, false] {
        let mut world = match middle {
            true => merging(2, Upstream::DEAD),
            false => between(2, Naive::new(1, UPSTREAM), Upstream::DEAD),
        };
        let socket = at(1, 20_000);
        let mut client = Client::new(socket, RESOLVER, vec![S; 20]);
        client.fresh = true;
        world.add(client, &[socket]);
        world.wake_at(0, socket, 0);
        is_left_alone(world, 0);
    }
}

#[test]
fn a_cold_cache_herd_behind_a_slow_upstream_is_not_a_loop() {
    let mut world = merging(3, Upstream::says(Kind::Answer, 900 * MS));
    crowd(&mut world, 1_000, MS, &[5 * S]);
    // 150 wait, the others are refused; of their second tries, 150 wait again.
    is_left_alone(world, 300);
    let mut world = between(3, Unbound::new(1, UPSTREAM), Upstream::says(Kind::Answer, 900 * MS));
    crowd(&mut world, 1_000, MS, &[5 * S]);
    is_left_alone(world, 1_000);
}

/// dnsmasq repeats its one upstream query for each repeat of a client it knows.
#[test]
fn a_herd_that_retries_at_once_against_a_dead_upstream_is_not_a_loop() {
    for (seed, spread_ns) in [(1, 0), (2, MS), (3, 100 * MS), (4, S)] {
        let mut world = merging(seed, Upstream::DEAD);
        crowd(&mut world, 1_000, spread_ns, &[5 * S, 5 * S]);
        is_left_alone(world, 0);
    }
}

#[test]
fn the_same_herd_through_a_chain_of_two_is_not_a_loop() {
    for (seed, spread_ns) in [(1, 0), (2, MS), (3, 100 * MS), (4, S)] {
        let mut world = chain(seed, Upstream::DEAD);
        crowd(&mut world, 1_000, spread_ns, &[5 * S, 5 * S]);
        is_left_alone(world, 0);
    }
}

#[test]
fn unbound_that_asks_five_times_is_not_a_loop() {
    let mut world = between(5, Unbound::new(1, UPSTREAM), Upstream::DEAD);
    crowd(&mut world, 20, 10 * MS, &[2 * S, 2 * S]);
    is_left_alone(world, 0);

    let mut world = World::on_lo(6);
    world.add(Dnsmasq::new(1, SECOND), &[RESOLVER]);
    world.add(Unbound::new(2, UPSTREAM), &[SECOND]);
    world.add(Upstream::DEAD, &[UPSTREAM]);
    crowd(&mut world, 20, 10 * MS, &[2 * S, 2 * S]);
    is_left_alone(world, 0);
}

/// musl 1.2.3 sends a query again at once after a SERVFAIL, twice for each of A and AAAA, in each of its rounds.
fn musl(world: &mut World, count: u64, spread_ns: u64) {
    for number in 0..count {
        let socket = at(1, 20_000 + number as u16);
        let mut client = Client::new(socket, RESOLVER, vec![5 * S / 2]);
        client.error_retries = 4;
        world.add(client, &[socket]);
        let start = world.random(spread_ns.max(1));
        world.wake_at(start, socket, 0);
    }
}

#[test]
fn a_musl_client_that_repeats_at_once_after_servfail_is_not_a_loop() {
    for count in 1..=3 {
        let mut world = merging(7, Upstream::says(Kind::Error, 0));
        musl(&mut world, count, MS);
        is_left_alone(world, 0);
        let mut world = chain(7, Upstream::says(Kind::Error, 0));
        musl(&mut world, count, MS);
        is_left_alone(world, 0);
        let mut world = between(7, Naive::new(1, UPSTREAM), Upstream::says(Kind::Error, 0));
        musl(&mut world, count, MS);
        is_left_alone(world, 0);
    }
}

/// Nobody caches a SERVFAIL here: every client of a name that is broken asks all the way.
#[test]
fn many_clients_of_a_name_that_fails_at_once_are_not_a_loop() {
    let mut world = merging(8, Upstream::says(Kind::Error, 0));
    musl(&mut world, 100, S);
    is_left_alone(world, 0);
    let mut world = chain(8, Upstream::says(Kind::Error, 0));
    musl(&mut world, 100, S);
    is_left_alone(world, 0);
}

/// Once its query is 2 s old, dnsmasq sends it again for every new client that asks.
#[test]
fn clients_that_keep_coming_for_a_name_whose_upstream_is_dead_are_not_a_loop() {
    for (count, spread_ns) in [(100, S), (100, 10 * S), (500, 10 * S), (500, 3 * S)] {
        let mut world = merging(13, Upstream::DEAD);
        crowd(&mut world, count, spread_ns, &[]);
        is_left_alone(world, 0);
    }
}

/// dnsdist and consul forward every query they get.
#[test]
fn a_herd_behind_a_forwarder_that_merges_nothing_is_not_a_loop() {
    for spread_ns in [0, MS, 100 * MS, S] {
        let source = at(1, 30_053);
        let mut world = World::on_lo(9);
        world.add(Dnsdist::new(source, UPSTREAM), &[RESOLVER, source]);
        world.add(Upstream::says(Kind::Answer, 900 * MS), &[UPSTREAM]);
        crowd(&mut world, 1_000, spread_ns, &[5 * S]);
        is_left_alone(world, 1_000);
    }
}

/// The same between hosts: the forwarder is asked, and asks; that is no direction back.
#[test]
fn a_herd_from_another_host_behind_such_a_forwarder_is_not_a_loop() {
    let forwarder = at(2, 53);
    for resolved in [0, 200] {
        for spread_ns in [0, 100 * MS, S] {
            let mut world = World::on_veth(12);
            world.add(Naive::new(2, UPSTREAM), &[forwarder]);
            let upstream = if resolved == 0 {
                Upstream::DEAD
            } else {
                Upstream::says(Kind::Answer, 900 * MS)
            };
            world.add(upstream, &[UPSTREAM]);
            for number in 0..200 {
                let socket = at(7, 20_000 + number);
                world.add(Client::new(socket, forwarder, vec![5 * S]), &[socket]);
                let start = world.random(spread_ns.max(1));
                world.wake_at(start, socket, 0);
            }
            is_left_alone(world, resolved);
        }
    }
}

#[test]
fn two_hosts_that_ask_each_other_for_the_same_name_once_are_no_loop() {
    let (one, other) = (at(2, 53), at(3, 53));
    for alive in [false, true] {
        let mut world = World::on_veth(10);
        for server in [one, other] {
            world.add(
                if alive {
                    Upstream::says(Kind::Answer, MS)
                } else {
                    Upstream::DEAD
                },
                &[server],
            );
        }
        for (socket, server) in [(at(2, 20_000), other), (at(3, 20_000), one)] {
            world.add(Client::new(socket, server, vec![2 * S, 2 * S]), &[socket]);
            world.wake_at(0, socket, 0);
        }
        is_left_alone(world, if alive { 2 } else { 0 });
    }
}

/// One packet crosses a pod's veth, a bridge and the NIC: it is one hop.
#[test]
fn a_herd_seen_on_three_interfaces_of_a_node_is_not_a_loop() {
    for upstream in [Upstream::DEAD, Upstream::says(Kind::Answer, 900 * MS)] {
        let resolved = if upstream.says.is_some() { 300 } else { 0 };
        let mut world = merging(11, upstream);
        world.same_host = false;
        world.places = 3;
        crowd(&mut world, 1_000, 10 * MS, &[5 * S]);
        is_left_alone(world, resolved);
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn no_herd_trips_whatever_the_pace_of_its_resolvers(
        seed: u64,
        count in 1..400_u64,
        spread_us in 0..500_000_u64,
        slow_us in prop::array::uniform2(1..500_u64),
        patience_ms in 1_000..6_000_u64,
        clock_ms in prop::sample::select(vec![1_u64, 4, 10]),
        hops in 1..=2_usize,
        alive: bool,
    ) {
        let mut world = World::on_lo(seed);
        world.clock_ns = clock_ms * MS;
        let servers = [RESOLVER, SECOND];
        for hop in 0..hops {
            let next = if hop + 1 == hops { UPSTREAM } else { servers[hop + 1] };
            let mut node = Dnsmasq::new(servers[hop].address, next);
            node.service_ns = slow_us[hop] * US;
            world.add(node, &[servers[hop]]);
        }
        world.add(if alive { Upstream::says(Kind::Answer, 900 * MS) } else { Upstream::DEAD }, &[UPSTREAM]);
        crowd(&mut world, count, spread_us * US, &[patience_ms * MS, patience_ms * MS]);
        world.run(60 * S, 100_000);
        prop_assert!(world.tally.trips.is_empty(), "{:?}", world.tally);
    }
}

#[test]
fn names_in_random_case_are_one_key_and_no_loop() {
    use crate::{
        key::{Key, Secret},
        question::Message,
    };
    let ask = |name: &[u8]| {
        let mut message = vec![0_u8, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(name);
        message.extend_from_slice(&[0, 1, 0, 1]);
        // The key is read from a packet, with headers in front of the message.
        let mut packet = vec![0_u8; 42];
        packet.extend_from_slice(&message);
        let question = Message::read(packet.as_slice(), 42, packet.len()).unwrap().question;
        Key::of(packet.as_slice(), &question, &Secret([1, 2, 3, 4])).unwrap()
    };
    assert_eq!(ask(b"\x03WwW\x07ExAmPlE\0"), ask(b"\x03wWw\x07eXaMpLe\0"));
    assert_ne!(ask(b"\x03www\x07example\0"), ask(b"\x03www\x07examplf\0"));
    // With one key for all spellings, the clients are those of any other herd.
    let mut world = merging(12, Upstream::says(Kind::Answer, 50 * MS));
    crowd(&mut world, 100, S, &[]);
    is_left_alone(world, 100);
}
