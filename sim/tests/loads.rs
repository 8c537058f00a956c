//! Loads that look busy, in simulated time: none of them is ever a loop, and nobody gets a response in another spelling than
//! his query's.

use guard_common::policy::Action;
use guard_sim::{
    Guard, Kind, MS, Native, Network, S, Socket, US, at,
    guard::policy,
    name::Name,
    network::{Node, Stand},
    nodes::{Client, Dnsdist, Dnsmasq, Naive, Router, Shuffler, Spells, Unbound, Upstream},
};
use proptest::prelude::*;

const RESOLVER: Socket = at(1, 53);
const SECOND: Socket = at(2, 53);
const UPSTREAM: Socket = at(9, 53);
/// Where clients are.
const CLIENTS: u16 = 8;

fn guard() -> Native {
    Native::new(policy(true, Action::Drop))
}

fn network(guard: &mut dyn Guard, stand: Stand, seed: u64) -> Network<'_> {
    let mut network = Network::new(guard, 0, stand, 1, seed);
    network.name(Name::new("www.example.com"));
    network
}

fn on_lo(guard: &mut dyn Guard, seed: u64) -> Network<'_> {
    network(guard, Stand::Loopback, seed)
}

/// Adds `count` clients that begin within `spread_ns`, and lets them try again after each patience.
fn crowd(network: &mut Network<'_>, count: u64, spread_ns: u64, patience_ns: &[u64]) {
    crowd_of(network, count, spread_ns, patience_ns, |_| ());
}

fn crowd_of(network: &mut Network<'_>, count: u64, spread_ns: u64, patience_ns: &[u64], is: impl Fn(&mut Client)) {
    crowd_at(network, RESOLVER, count, spread_ns, patience_ns, is);
}

fn crowd_at(
    network: &mut Network<'_>,
    server: Socket,
    count: u64,
    spread_ns: u64,
    patience_ns: &[u64],
    is: impl Fn(&mut Client),
) {
    for number in 0..count {
        let socket = at(CLIENTS, 20_000 + number as u16);
        let mut client = Client::new(socket, server, 0, patience_ns.to_vec());
        is(&mut client);
        network.add(client, &[socket]);
        let start = network.random.below(spread_ns.max(1));
        network.wake_at(start, socket, 0);
    }
}

/// Runs for a minute: nobody trips, and as many clients as that get their answer.
#[track_caller]
fn is_left_alone(network: &mut Network<'_>, resolved: u64) {
    network.run(60 * S, 1_000_000);
    let tally = &network.tally;
    assert!(
        tally.trips.is_empty(),
        "after {} queries: {:?}",
        tally.queries,
        tally.trips
    );
    assert_eq!(
        (tally.held, tally.resolved, tally.recirculated, tally.mangled),
        (0, resolved, 0, 0)
    );
}

fn between(network: &mut Network<'_>, middle: impl Node + 'static, upstream: Upstream) {
    network.add(middle, &[RESOLVER]);
    network.add(upstream, &[UPSTREAM]);
}

/// A forwarder that joins equal queries, and its upstream.
fn merging(network: &mut Network<'_>, upstream: Upstream) {
    between(network, Dnsmasq::new(1, UPSTREAM), upstream);
}

/// Two of them in a row.
fn chain(network: &mut Network<'_>, upstream: Upstream) {
    network.add(Dnsmasq::new(1, SECOND), &[RESOLVER]);
    network.add(Dnsmasq::new(2, UPSTREAM), &[SECOND]);
    network.add(upstream, &[UPSTREAM]);
}

#[test]
fn a_client_that_asks_anew_against_a_dead_upstream_is_not_a_loop() {
    for merges in [true, false] {
        let mut guard = guard();
        let mut network = on_lo(&mut guard, 2);
        if merges {
            merging(&mut network, Upstream::DEAD);
        } else {
            between(&mut network, Naive::new(1, UPSTREAM), Upstream::DEAD);
        }
        crowd_of(&mut network, 1, 0, &[S; 20], |client| client.fresh = true);
        is_left_alone(&mut network, 0);
    }
}

#[test]
fn a_cold_cache_herd_behind_a_slow_upstream_is_not_a_loop() {
    let mut first = guard();
    let mut network = on_lo(&mut first, 3);
    merging(&mut network, Upstream::says(Kind::Answer, 900 * MS));
    crowd(&mut network, 1_000, MS, &[5 * S]);
    // 150 wait, the others are refused; of their second tries, 150 wait again.
    is_left_alone(&mut network, 300);
    let mut second = guard();
    let mut network = on_lo(&mut second, 3);
    between(
        &mut network,
        Unbound::new(1, UPSTREAM),
        Upstream::says(Kind::Answer, 900 * MS),
    );
    crowd(&mut network, 1_000, MS, &[5 * S]);
    is_left_alone(&mut network, 1_000);
}

/// dnsmasq repeats its one upstream query for each repeat of a client it knows.
#[test]
fn a_herd_that_retries_at_once_against_a_dead_upstream_is_not_a_loop() {
    for (seed, spread_ns) in [(1, 0), (2, MS), (3, 100 * MS), (4, S)] {
        for hops in [1, 2] {
            let mut guard = guard();
            let mut network = on_lo(&mut guard, seed);
            if hops == 1 {
                merging(&mut network, Upstream::DEAD);
            } else {
                chain(&mut network, Upstream::DEAD);
            }
            crowd(&mut network, 1_000, spread_ns, &[5 * S, 5 * S]);
            is_left_alone(&mut network, 0);
        }
    }
}

#[test]
fn unbound_that_asks_five_times_is_not_a_loop() {
    let mut first = guard();
    let mut network = on_lo(&mut first, 5);
    between(&mut network, Unbound::new(1, UPSTREAM), Upstream::DEAD);
    crowd(&mut network, 20, 10 * MS, &[2 * S, 2 * S]);
    is_left_alone(&mut network, 0);

    let mut second = guard();
    let mut network = on_lo(&mut second, 6);
    network.add(Dnsmasq::new(1, SECOND), &[RESOLVER]);
    network.add(Unbound::new(2, UPSTREAM), &[SECOND]);
    network.add(Upstream::DEAD, &[UPSTREAM]);
    crowd(&mut network, 20, 10 * MS, &[2 * S, 2 * S]);
    is_left_alone(&mut network, 0);
}

/// musl 1.2.3 sends a query again at once after a SERVFAIL, twice for each of A and AAAA, in each of its rounds.
#[test]
fn clients_that_repeat_at_once_after_servfail_are_not_a_loop() {
    for (count, spread_ns) in [(1, MS), (3, MS), (100, S)] {
        for middle in 0..3 {
            let mut guard = guard();
            let mut network = on_lo(&mut guard, 7);
            let fails = Upstream::says(Kind::Error, 0);
            match middle {
                0 => merging(&mut network, fails),
                1 => chain(&mut network, fails),
                _ => between(&mut network, Naive::new(1, UPSTREAM), fails),
            }
            crowd_of(&mut network, count, spread_ns, &[5 * S / 2], |client| {
                client.error_retries = 4;
            });
            is_left_alone(&mut network, 0);
        }
    }
}

/// Once its query is 2 s old, dnsmasq sends it again for every new client that asks.
#[test]
fn clients_that_keep_coming_for_a_name_whose_upstream_is_dead_are_not_a_loop() {
    for (count, spread_ns) in [(100, S), (100, 10 * S), (500, 10 * S), (500, 3 * S)] {
        let mut guard = guard();
        let mut network = on_lo(&mut guard, 13);
        merging(&mut network, Upstream::DEAD);
        crowd(&mut network, count, spread_ns, &[]);
        is_left_alone(&mut network, 0);
    }
}

/// dnsdist, consul and CoreDNS forward every query they get, and hand marks on.
#[test]
fn a_herd_behind_a_forwarder_that_merges_nothing_is_not_a_loop() {
    for spread_ns in [0, MS, 100 * MS, S] {
        for fixed in [true, false] {
            let mut guard = guard();
            let mut network = on_lo(&mut guard, 9);
            let source = at(1, 30_053);
            if fixed {
                network.add(Dnsdist::new(source, UPSTREAM), &[RESOLVER, source]);
            } else {
                network.add(Naive::new(1, UPSTREAM), &[RESOLVER]);
            }
            network.add(Upstream::says(Kind::Answer, 900 * MS), &[UPSTREAM]);
            crowd(&mut network, 1_000, spread_ns, &[5 * S]);
            is_left_alone(&mut network, 1_000);
        }
    }
}

/// Two dnsdist in a row before a dead upstream, with a socket each; whoever asks the first one is not seen. Where it is asked.
fn unseen_row(network: &mut Network<'_>) -> Socket {
    let (front, middle) = (at(3, 53), at(1, 30_053));
    let source = at(3, 30_053);
    network.add(Dnsdist::new(source, RESOLVER), &[front, source]);
    network.add(Dnsdist::new(middle, UPSTREAM), &[RESOLVER, middle]);
    network.add(Upstream::DEAD, &[UPSTREAM]);
    network.unseen = [(CLIENTS, 3)].into();
    front
}

/// The client side uses one socket for all its queries, and so does the forwarder: it looks like servers that take turns.
#[test]
fn one_socket_that_asks_another_one_is_not_a_loop() {
    for spread_ns in [100 * MS, S] {
        let mut guard = guard();
        let mut network = on_lo(&mut guard, 9);
        let front = unseen_row(&mut network);
        crowd_at(&mut network, front, 200, spread_ns, &[5 * S], |_| ());
        is_left_alone(&mut network, 0);
    }
}

/// The same for as long as it takes: so many hops without an answer that nothing is to be proven any more.
#[test]
fn sockets_that_take_turns_before_a_dead_upstream_for_long_are_not_a_loop() {
    for spells in [Spells::Plainly, Spells::AtRandom] {
        let mut guard = guard();
        let mut network = on_lo(&mut guard, 9);
        let front = unseen_row(&mut network);
        crowd_at(&mut network, front, 100, 10 * MS, &[10 * MS; 400], |client| {
            client.spells = spells;
            client.fresh = true;
        });
        is_left_alone(&mut network, 0);
        assert!(network.tally.queries > u64::from(u16::MAX), "{}", network.tally.queries);
    }
}

/// The same between hosts: the forwarder is asked, and asks; that is no direction back.
#[test]
fn a_herd_from_another_host_behind_such_a_forwarder_is_not_a_loop() {
    for resolved in [0, 200] {
        for spread_ns in [0, 100 * MS, S] {
            let mut guard = guard();
            let mut network = network(&mut guard, Stand::Host(vec![1]), 12);
            let upstream = if resolved == 0 {
                Upstream::DEAD
            } else {
                Upstream::says(Kind::Answer, 900 * MS)
            };
            between(&mut network, Naive::new(1, UPSTREAM), upstream);
            crowd(&mut network, 200, spread_ns, &[5 * S]);
            is_left_alone(&mut network, resolved);
        }
    }
}

/// Clients of host 2 ask host 3 for a name that is host 2's own: it goes out there, and comes in from there.
#[test]
fn two_hosts_that_are_each_others_client_and_server_are_not_a_loop() {
    for late in [None, Some(MS), Some(300 * MS), Some(3 * S)] {
        for (count, spread_ns) in [(1, 0), (100, 0), (100, 100 * MS), (300, 10 * S)] {
            for spells in [Spells::Plainly, Spells::AtRandom] {
                // Those who spell at random cannot be told from a loop whose forwarders do: see the limitations.
                if spells == Spells::AtRandom && count == 100 {
                    continue;
                }
                let mut guard = guard();
                let mut network = network(&mut guard, Stand::Host(vec![2]), 10);
                let (here, there) = (at(2, 53), at(3, 53));
                let own = || late.map_or(Upstream::DEAD, |late_ns| Upstream::says(Kind::Answer, late_ns));
                // The one name is host 2's: host 3 forwards it.
                network.add(Router::new(1, own(), Naive::new(2, there)), &[here]);
                network.add(Naive::new(3, here), &[there]);
                for number in 0..count {
                    let socket = at(2, 20_000 + number as u16);
                    let mut client = Client::new(socket, there, 0, vec![5 * S]);
                    client.spells = spells;
                    network.add(client, &[socket]);
                    let start = network.random.below(spread_ns.max(1));
                    network.wake_at(start, socket, 0);
                }
                is_left_alone(&mut network, if late.is_some() { count } else { 0 });
            }
        }
    }
}

/// One packet crosses a pod's veth, a bridge and the NIC: it is one hop.
#[test]
fn a_herd_seen_on_three_interfaces_of_a_node_is_not_a_loop() {
    for (late, resolved) in [(None, 0), (Some(900 * MS), 300)] {
        let mut guard = guard();
        let mut network = network(&mut guard, Stand::Node(3), 11);
        merging(
            &mut network,
            late.map_or(Upstream::DEAD, |late_ns| Upstream::says(Kind::Answer, late_ns)),
        );
        crowd(&mut network, 1_000, 10 * MS, &[5 * S]);
        is_left_alone(&mut network, resolved);
    }
}

/// They are strict: a response in another spelling would be none to them.
#[test]
fn clients_that_spell_at_random_are_answered_in_their_own_spelling() {
    for spread_ns in [0, 100 * MS, S] {
        for late_ns in [MS, 900 * MS] {
            for middle in 0..3 {
                let mut guard = guard();
                let mut network = on_lo(&mut guard, 14);
                let answers = Upstream::says(Kind::Answer, late_ns);
                match middle {
                    0 => between(&mut network, Naive::new(1, UPSTREAM), answers),
                    1 => between(&mut network, Shuffler::new(1, UPSTREAM), answers),
                    _ => between(&mut network, Unbound::new(1, UPSTREAM), answers),
                }
                crowd_of(&mut network, 500, spread_ns, &[5 * S], |client| {
                    client.spells = Spells::AtRandom;
                });
                is_left_alone(&mut network, 500);
            }
        }
    }
}

#[test]
fn everybody_is_answered_in_his_spelling_when_a_marked_query_was_joined_with_others() {
    for (seed, spread_ns) in [(1, 0), (2, MS), (3, 2 * S), (4, 3 * S)] {
        let mut guard = guard();
        let mut network = on_lo(&mut guard, seed);
        merging(&mut network, Upstream::says(Kind::Answer, 2_500 * MS));
        crowd(&mut network, 140, spread_ns, &[S, 5 * S]);
        network.run(60 * S, u64::MAX);
        assert_eq!((network.tally.mangled, network.tally.trips.len()), (0, 0));
        assert_eq!(network.tally.resolved % 140, 0);
        drop(network);
        let counters = guard.door().counters(1);
        assert!(
            counters.get(guard_common::counter::Counter::Marked) > 0,
            "nobody was marked"
        );
        assert!(counters.get(guard_common::counter::Counter::Restored) > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_herd_trips_whatever_the_pace_of_its_resolvers(
        seed: u64,
        count in 1..400_u64,
        spread_us in 0..500_000_u64,
        slow_us in prop::array::uniform2(1..500_u64),
        patience_ms in 1_000..6_000_u64,
        clock_ms in prop::sample::select(vec![1_u64, 4, 10]),
        hops in 1..=2_usize,
        merges: bool,
        alive: bool,
        letters in 0..100_usize,
    ) {
        let mut guard = guard();
        guard.clock_ns = clock_ms * MS;
        let mut network = Network::new(&mut guard, 0, Stand::Loopback, 1, seed);
        network.name(Name::with_letters(letters, &mut guard_sim::random::Random(seed)));
        let servers = [RESOLVER, SECOND];
        for hop in 0..hops {
            let next = if hop + 1 == hops { UPSTREAM } else { servers[hop + 1] };
            if merges {
                let mut node = Dnsmasq::new(servers[hop].address, next);
                node.service_ns = slow_us[hop] * US;
                network.add(node, &[servers[hop]]);
            } else {
                let mut node = Naive::new(servers[hop].address, next);
                node.service_ns = slow_us[hop] * US;
                network.add(node, &[servers[hop]]);
            }
        }
        let answers = Upstream::says(Kind::Answer, 900 * MS);
        network.add(if alive { answers } else { Upstream::DEAD }, &[UPSTREAM]);
        crowd(&mut network, count, spread_us * US, &[patience_ms * MS, patience_ms * MS]);
        network.run(60 * S, 100_000);
        prop_assert!(network.tally.trips.is_empty(), "{:?}", network.tally);
        prop_assert_eq!(network.tally.mangled, 0);
    }
}
