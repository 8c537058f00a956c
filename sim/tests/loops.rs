//! Real loops, in simulated time: each is proven within eight recirculated queries where forwarders hand marks on, and cut
//! within 32 where they do not, for the right reason.

use guard_common::{judge::Evidence, policy::Action};
use guard_sim::{
    Guard, MS, Native, Network, S, Socket, US, at,
    guard::{Trip, policy},
    name::Name,
    network::Stand,
    nodes::{Client, Consul, Dnsmasq, Forwarder, Naive, Spells, Upstream},
};
use proptest::prelude::*;

/// The promise of the design.
const MOST_RECIRCULATED: u32 = 32;
/// The same where a mark proves it.
const MOST_BEFORE_PROOF: u32 = 8;
/// Far beyond the promise: a run that gets this far was not cut.
const ENOUGH: u64 = 5_000;
/// A client that tries three times, 2 s apart.
const RETRIES: [u64; 2] = [2 * S, 2 * S];

/// The name that goes round: seven letters.
const NAME: &str = "x.consul";

/// With marks, or without.
fn guard(marks: bool) -> Native {
    Native::new(policy(marks, Action::Drop))
}

fn network(guard: &mut dyn Guard, stand: Stand, name: Name, seed: u64) -> Network<'_> {
    let mut network = Network::new(guard, 0, stand, 1, seed);
    network.name(name);
    network
}

fn on_lo(guard: &mut dyn Guard, seed: u64) -> Network<'_> {
    network(guard, Stand::Loopback, Name::new(NAME), seed)
}

/// The guard is on the host with address 2; its own client is not seen.
fn on_host_2(guard: &mut dyn Guard, seed: u64) -> Network<'_> {
    let mut network = network(guard, Stand::Host(vec![2]), Name::new(NAME), seed);
    network.unseen = [(9, 2), (9, 3)].into();
    network
}

fn client(network: &mut Network<'_>, at_ns: u64, server: Socket) {
    let port = 40_000 + network.random.below(20_000) as u16;
    // Nobody listens there, and nothing else comes from there.
    let socket = at(9, port);
    network.add(Client::new(socket, server, 0, RETRIES.to_vec()), &[socket]);
    network.wake_at(at_ns, socket, 0);
}

const PAIR: [Socket; 2] = [at(1, 53), at(1, 54)];
const HOSTS: [Socket; 2] = [at(2, 53), at(3, 53)];

#[track_caller]
fn is_cut(network: &mut Network<'_>, until_ns: u64) -> Trip {
    let trip = network.run_until_trip(until_ns, ENOUGH);
    let tally = &network.tally;
    let recirculated = tally.recirculated;
    let Some(trip) = trip else {
        panic!(
            "not cut after {} queries, {recirculated} of them recirculated",
            tally.queries
        );
    };
    assert!(
        recirculated <= MOST_RECIRCULATED,
        "{recirculated} recirculated: {trip:?}"
    );
    assert!(u32::from(trip.recirculated) <= MOST_RECIRCULATED, "{trip:?}");
    assert_eq!(trip.bits > 0, trip.evidence == Evidence::Mark);
    trip
}

#[track_caller]
fn is_proven(network: &mut Network<'_>, until_ns: u64) {
    let trip = is_cut(network, until_ns);
    assert_eq!(trip.evidence, Evidence::Mark);
    assert!(trip.bits >= 16, "{trip:?}");
    let recirculated = network.tally.recirculated.max(trip.recirculated.into());
    assert!(
        recirculated <= MOST_BEFORE_PROOF,
        "{recirculated} recirculated: {trip:?}"
    );
}

#[test]
fn two_dnsmasq_play_ping_pong_after_one_retry() {
    for clock_ns in [MS, 4 * MS, 10 * MS] {
        for marks in [true, false] {
            let mut guard = guard(marks);
            guard.clock_ns = clock_ns;
            let mut network = on_lo(&mut guard, 1);
            Forwarder::Dnsmasq.ring(&mut network, &PAIR);
            client(&mut network, 0, PAIR[0]);
            if marks {
                is_proven(&mut network, 3 * S);
            } else {
                assert_eq!(is_cut(&mut network, 3 * S).evidence, Evidence::Pace);
            }
        }
    }
}

#[test]
fn the_first_try_of_a_dnsmasq_pair_is_merged_and_no_loop() {
    let mut guard = guard(true);
    let mut network = on_lo(&mut guard, 1);
    Forwarder::Dnsmasq.ring(&mut network, &PAIR);
    client(&mut network, 0, PAIR[0]);
    assert_eq!(network.run_until_trip(2 * S - 1, ENOUGH), None);
    assert_eq!(network.tally.queries, 3);
}

/// Where clients ask a server to which the others come at another address.
const ENTRY: Socket = at(4, 53);

#[test]
fn a_ring_that_is_entered_at_another_address_is_cut() {
    for forwarder in [Forwarder::Dnsmasq, Forwarder::Dnsdist, Forwarder::Consul] {
        for servers in [&PAIR[..], &HOSTS, &[at(1, 53), at(1, 54), at(1, 55)]] {
            for marks in [true, false] {
                for retries in 1..4 {
                    let mut guard = guard(marks);
                    let mut network = on_lo(&mut guard, 5);
                    forwarder.ring(&mut network, servers);
                    network.listen_too(servers[0], ENTRY);
                    let socket = at(9, 40_000);
                    network.add(Client::new(socket, ENTRY, 0, vec![S / 2; retries]), &[socket]);
                    network.wake_at(0, socket, 0);
                    if marks {
                        is_proven(&mut network, 8 * S);
                    } else {
                        is_cut(&mut network, 8 * S);
                    }
                }
            }
        }
    }
}

/// So many packets in the circle, which is seen late, that each mark is overtaken before it comes back; `spells` is how
/// their clients spelled them.
fn storm_that_is_seen_late(clients: u16, spells: Spells) -> Option<Trip> {
    let mut guard = guard(true);
    let mut network = on_lo(&mut guard, 1);
    Forwarder::Dnsmasq.ring(&mut network, &HOSTS);
    network.listen_too(HOSTS[0], ENTRY);
    network.unseen = [(2, 3), (3, 2)].into();
    for number in 0..clients {
        let socket = at(9, 41_000 + number);
        let mut client = Client::new(socket, ENTRY, 0, vec![S / 2; 3]);
        client.spells = spells;
        network.add(client, &[socket]);
        network.wake_at(0, socket, 0);
    }
    network.run(S + S / 2 + MS, u64::MAX);
    network.unseen.clear();
    let seen = network.tally.queries;
    network.run_until_trip(20 * S, seen + 200_000)
}

#[track_caller]
fn storms_are_cut(clients: [u16; 3], spells: Spells) {
    for clients in clients {
        assert!(storm_that_is_seen_late(clients, spells).is_some(), "{clients} clients");
    }
}

#[test]
fn a_storm_in_which_marks_are_lost_is_cut_all_the_same() {
    storms_are_cut([10, 40, 120], Spells::Plainly);
}

/// As another guard leaves it behind, which has marked all of it and is gone. Of some twenty, none is proven.
#[test]
fn a_storm_that_is_spelled_at_random_is_cut_all_the_same() {
    storms_are_cut([2, 4, 10], Spells::AtRandom);
    storms_are_cut([20, 40, 120], Spells::AtRandom);
}

/// A guard that starts late finds one packet for each retry in the circle.
#[test]
fn several_packets_in_a_dnsmasq_pair_are_cut_when_the_guard_comes_late() {
    for marks in [true, false] {
        for retries in 2..=3_usize {
            for seed in 0..20 {
                let mut guard = guard(marks);
                let mut network = on_lo(&mut guard, seed);
                Forwarder::Dnsmasq.ring(&mut network, &PAIR);
                network.unseen = [(1, 1), (9, 1)].into();
                let socket = at(9, 40_000);
                let patience = vec![2 * S + network.random.below(10) * US; retries];
                network.add(Client::new(socket, PAIR[0], 0, patience), &[socket]);
                network.wake_at(0, socket, 0);
                // One packet for each retry circulates by now.
                network.run(2 * S * retries as u64 + 5 * MS, u64::MAX);
                network.unseen.clear();
                let trip = is_cut(&mut network, 20 * S);
                assert!(
                    marks || trip.evidence == Evidence::Pace,
                    "{retries} packets, seed {seed}"
                );
            }
        }
    }
}

#[test]
fn a_ring_of_three_is_proven_whatever_it_is_made_of() {
    for forwarder in [
        Forwarder::Dnsmasq,
        Forwarder::Dnsdist,
        Forwarder::Consul,
        Forwarder::Naive,
    ] {
        for servers in [[at(1, 53), at(1, 54), at(1, 55)], [at(1, 53), at(2, 53), at(3, 53)]] {
            let mut guard = guard(true);
            let mut network = on_lo(&mut guard, 3);
            forwarder.ring(&mut network, &servers);
            client(&mut network, 0, servers[0]);
            if forwarder == Forwarder::Naive {
                // Nothing speaks for a loop beside its mark, and each round has three hops.
                assert_eq!(is_cut(&mut network, 3 * S).evidence, Evidence::Mark);
            } else {
                is_proven(&mut network, 3 * S);
            }
        }
    }
}

/// As measured: "20 clients at once: 666,000 queries/s, no end".
#[test]
fn twenty_clients_that_retry_at_once_through_a_dnsmasq_pair_are_cut() {
    for marks in [true, false] {
        for seed in 0..20 {
            let mut guard = guard(marks);
            let mut network = on_lo(&mut guard, seed);
            Forwarder::Dnsmasq.ring(&mut network, &PAIR);
            for _ in 0..20 {
                let start = network.random.below(200) * US;
                client(&mut network, start, PAIR[0]);
            }
            is_cut(&mut network, 3 * S);
        }
    }
}

#[test]
fn two_consul_hand_the_same_id_round() {
    let servers = [at(1, 860), at(1, 870)];
    for marks in [true, false] {
        let mut guard = guard(marks);
        let mut network = on_lo(&mut guard, 4);
        Forwarder::Consul.ring(&mut network, &servers);
        client(&mut network, 0, servers[0]);
        if marks {
            is_proven(&mut network, S);
        } else {
            assert_eq!(is_cut(&mut network, S).evidence, Evidence::Identity);
        }
    }
}

/// dnsmasq sends everything for `consul.` to consul, whose three recursors are all that dnsmasq.
fn incident(network: &mut Network<'_>) {
    let dnsmasq = [at(1, 53), at(2, 53), at(3, 53)];
    network.add(Dnsmasq::new(1, at(1, 860)), &dnsmasq);
    network.add(Consul::new(1, &dnsmasq), &[at(1, 860)]);
    client(network, 0, dnsmasq[0]);
}

#[test]
fn the_incident_of_dnsmasq_and_consul_is_cut_at_the_first_retry() {
    for marks in [true, false] {
        for seed in 0..50 {
            let mut guard = guard(marks);
            let mut network = network(&mut guard, Stand::Loopback, Name::new("consul"), seed);
            incident(&mut network);
            let trip = is_cut(&mut network, 4 * S - 1);
            if marks {
                assert_eq!(trip.evidence, Evidence::Mark, "seed {seed}: {:?}", network.tally);
                assert!(
                    network.tally.recirculated <= MOST_BEFORE_PROOF,
                    "seed {seed}: {:?}",
                    network.tally
                );
            } else {
                assert_eq!(trip.evidence, Evidence::Identity, "seed {seed}: {:?}", network.tally);
            }
        }
    }
}

#[test]
fn the_incident_stays_cut_while_its_client_goes_on() {
    for action in [Action::Drop, Action::Answer] {
        for marks in [true, false] {
            let mut guard = Native::new(policy(marks, action));
            let mut network = network(&mut guard, Stand::Loopback, Name::new("consul"), 1);
            incident(&mut network);
            network.run(60 * S, ENOUGH);
            assert_eq!(network.tally.trips.len(), 1, "{action:?}, marks {marks}");
            let passed = network.tally.queries - network.tally.held;
            assert!(passed < 100, "{action:?}: {passed} passed in a minute");
            assert_eq!(network.tally.mangled, 0);
        }
    }
}

#[test]
fn two_dnsdist_on_lo_take_turns() {
    for marks in [true, false] {
        let mut guard = guard(marks);
        let mut network = on_lo(&mut guard, 5);
        Forwarder::Dnsdist.ring(&mut network, &PAIR);
        client(&mut network, 0, PAIR[0]);
        if marks {
            is_proven(&mut network, S);
        } else {
            assert_eq!(is_cut(&mut network, S).evidence, Evidence::Ladder);
        }
    }
}

/// On one host, a pair whose queries share neither socket nor ID looks like a herd behind a forwarder that merges
/// nothing: only the mark tells them apart.
#[test]
fn two_forwarders_that_only_forward_are_told_from_a_herd_by_the_mark_alone() {
    for marks in [true, false] {
        let mut guard = guard(marks);
        let mut network = on_lo(&mut guard, 6);
        Forwarder::Naive.ring(&mut network, &PAIR);
        client(&mut network, 0, PAIR[0]);
        if marks {
            is_proven(&mut network, S);
        } else {
            network.run(S, ENOUGH);
            assert!(network.tally.trips.is_empty());
        }
    }
}

/// It asks itself, at the address and port that it is asked at: every hop goes to the same server.
#[test]
fn a_server_that_forwards_to_itself_is_proven() {
    for forwarder in [Forwarder::Dnsdist, Forwarder::Naive, Forwarder::Consul] {
        let mut guard = guard(true);
        let mut network = on_lo(&mut guard, 6);
        forwarder.add(&mut network, PAIR[0], PAIR[0]);
        client(&mut network, 0, PAIR[0]);
        let trip = is_cut(&mut network, S);
        assert_eq!(trip.evidence, Evidence::Mark, "{forwarder:?}");
        assert!(network.tally.recirculated <= 24, "{forwarder:?}: {:?}", network.tally);
    }
}

#[test]
fn between_hosts_the_direction_tells_or_the_mark() {
    for forwarder in [Forwarder::Dnsdist, Forwarder::Naive, Forwarder::Consul] {
        for marks in [true, false] {
            let mut guard = guard(marks);
            let mut network = on_host_2(&mut guard, 7);
            forwarder.ring(&mut network, &HOSTS);
            client(&mut network, 0, HOSTS[0]);
            if marks {
                is_proven(&mut network, S);
            } else {
                assert_eq!(is_cut(&mut network, S).evidence, Evidence::Direction, "{forwarder:?}");
            }
        }
    }
}

#[test]
fn two_dnsmasq_on_two_hosts_are_cut_by_a_guard_on_one_of_them() {
    for marks in [true, false] {
        let mut guard = guard(marks);
        let mut network = on_host_2(&mut guard, 9);
        Forwarder::Dnsmasq.ring(&mut network, &HOSTS);
        client(&mut network, 0, HOSTS[0]);
        if marks {
            is_proven(&mut network, 3 * S);
        } else {
            assert_eq!(is_cut(&mut network, 3 * S).evidence, Evidence::Pace);
        }
    }
}

#[test]
fn the_incident_between_two_hosts_is_cut() {
    for marks in [true, false] {
        let mut guard = guard(marks);
        let mut network = network(&mut guard, Stand::Host(vec![2, 4, 5]), Name::new("consul"), 10);
        network.unseen = [(9, 2)].into();
        let dnsmasq = [at(2, 53), at(4, 53), at(5, 53)];
        network.add(Dnsmasq::new(2, at(3, 860)), &dnsmasq);
        network.add(Consul::new(3, &dnsmasq), &[at(3, 860)]);
        client(&mut network, 0, dnsmasq[0]);
        let trip = is_cut(&mut network, 5 * S);
        if marks {
            assert_eq!(trip.evidence, Evidence::Mark);
            assert!(network.tally.recirculated <= MOST_BEFORE_PROOF, "{:?}", network.tally);
        } else {
            // consul asks one recursor after the other, with one ID.
            assert_eq!(trip.evidence, Evidence::Identity);
        }
    }
}

/// A pod's query crosses its veth, a bridge and the NIC of its node.
#[test]
fn a_loop_that_crosses_three_interfaces_of_a_node_is_cut_all_the_same() {
    for forwarder in [Forwarder::Dnsdist, Forwarder::Dnsmasq, Forwarder::Naive] {
        let mut guard = guard(true);
        let mut network = network(&mut guard, Stand::Node(3), Name::new(NAME), 11);
        forwarder.ring(&mut network, &HOSTS);
        client(&mut network, 0, HOSTS[0]);
        is_proven(&mut network, 3 * S);
    }
}

/// A forwarder that spells every query at random takes the mark off. What is left is what the hops look like.
#[test]
fn a_loop_of_forwarders_that_do_not_keep_the_case_is_cut_by_direction() {
    for (first, second) in [
        (Forwarder::Shuffler, Forwarder::Shuffler),
        (Forwarder::Shuffler, Forwarder::Naive),
        (Forwarder::Naive, Forwarder::Shuffler),
        (Forwarder::Dnsdist, Forwarder::Shuffler),
    ] {
        let mut guard = guard(true);
        let mut network = on_host_2(&mut guard, 12);
        first.add(&mut network, HOSTS[0], HOSTS[1]);
        second.add(&mut network, HOSTS[1], HOSTS[0]);
        client(&mut network, 0, HOSTS[0]);
        let trip = is_cut(&mut network, S);
        assert_eq!(trip.evidence, Evidence::Direction, "{first:?}, {second:?}");
    }
}

/// A forwarder that makes all letters small takes every mark off, and nothing on the wire tells it from a server that is
/// dead. Only when no crowd would have gone on for so long is its loop cut for what its hops look like.
#[test]
fn a_loop_of_forwarders_that_lower_the_case_does_not_go_on_for_ever() {
    for first in [Forwarder::Lowers, Forwarder::Naive, Forwarder::Dnsdist] {
        for second_is_here in [false, true] {
            let mut guard = guard(true);
            let mut network = on_host_2(&mut guard, 12);
            let (there, here) = if second_is_here {
                (Forwarder::Lowers, first)
            } else {
                (first, Forwarder::Lowers)
            };
            there.add(&mut network, HOSTS[0], HOSTS[1]);
            here.add(&mut network, HOSTS[1], HOSTS[0]);
            client(&mut network, 0, HOSTS[0]);
            let trip = network.run_until_trip(60 * S, 100_000).expect("it is cut");
            assert_eq!(trip.evidence, Evidence::Direction, "{there:?}, {here:?}");
            assert!(
                network.tally.queries < 40_000,
                "{there:?}, {here:?}: {:?}",
                network.tally
            );
        }
    }
}

#[test]
fn a_name_without_letters_is_cut_by_what_its_hops_look_like() {
    for name in ["", "12.34", "a.1", "xy"] {
        for (forwarder, evidence) in [
            (Forwarder::Dnsdist, Evidence::Direction),
            (Forwarder::Naive, Evidence::Direction),
            (Forwarder::Dnsmasq, Evidence::Pace),
        ] {
            let mut guard = guard(true);
            let mut network = network(&mut guard, Stand::Host(vec![2]), Name::new(name), 13);
            network.unseen = [(9, 2)].into();
            forwarder.ring(&mut network, &HOSTS);
            client(&mut network, 0, HOSTS[0]);
            assert_eq!(is_cut(&mut network, 3 * S).evidence, evidence, "{name:?} {forwarder:?}");
        }
        for (forwarder, evidence) in [
            (Forwarder::Dnsdist, Evidence::Ladder),
            (Forwarder::Consul, Evidence::Identity),
            (Forwarder::Dnsmasq, Evidence::Pace),
        ] {
            let mut guard = guard(true);
            let mut network = network(&mut guard, Stand::Loopback, Name::new(name), 13);
            forwarder.ring(&mut network, &PAIR);
            client(&mut network, 0, PAIR[0]);
            assert_eq!(is_cut(&mut network, 3 * S).evidence, evidence, "{name:?} {forwarder:?}");
        }
    }
}

/// Hops that take a third of a second: too slow for anything but the mark.
#[test]
fn a_slow_loop_is_proven() {
    for forwarder in [Forwarder::Naive, Forwarder::Dnsmasq] {
        let mut guard = guard(true);
        let mut network = on_lo(&mut guard, 14);
        for (server, next) in [(PAIR[0], PAIR[1]), (PAIR[1], PAIR[0])] {
            if forwarder == Forwarder::Naive {
                let mut node = Naive::new(1, next);
                node.service_ns = 300 * MS;
                network.add(node, &[server]);
            } else {
                let mut node = Dnsmasq::new(1, next);
                node.service_ns = 300 * MS;
                network.add(node, &[server]);
            }
        }
        client(&mut network, 0, PAIR[0]);
        assert_eq!(is_cut(&mut network, 9 * S).evidence, Evidence::Mark, "{forwarder:?}");
    }
}

/// Six servers, of which four are remembered.
#[test]
fn a_long_ring_is_proven() {
    let servers: Vec<_> = (0..6).map(|number| at(1, 53 + number)).collect();
    for forwarder in [Forwarder::Dnsdist, Forwarder::Naive, Forwarder::Consul] {
        let mut guard = guard(true);
        let mut network = on_lo(&mut guard, 15);
        forwarder.ring(&mut network, &servers);
        client(&mut network, 0, servers[0]);
        assert_eq!(is_cut(&mut network, S).evidence, Evidence::Mark, "{forwarder:?}");
    }
}

/// Clients that spell at random, and a crowd that spells plainly, ask for the very name that goes round.
#[test]
fn a_loop_is_proven_while_a_crowd_asks_for_its_name() {
    for (seed, spells) in [(1, Spells::AtRandom), (2, Spells::Plainly)] {
        let mut guard = guard(true);
        let mut network = on_lo(&mut guard, seed);
        Forwarder::Naive.ring(&mut network, &PAIR);
        network.add(Upstream::DEAD, &[at(1, 99)]);
        for number in 0..40 {
            let socket = at(9, 20_000 + number);
            let mut client = Client::new(socket, PAIR[0], 0, vec![S; 4]);
            client.spells = spells;
            network.add(client, &[socket]);
            let start = network.random.below(2 * MS);
            network.wake_at(start, socket, 0);
        }
        assert_eq!(is_cut(&mut network, S).evidence, Evidence::Mark, "{spells:?}");
    }
}

/// Whatever the pace of the hosts and the grain of the clock.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Ring(Forwarder, usize),
    Incident,
}

fn shapes() -> impl Strategy<Value = Shape> {
    prop_oneof![
        (2..=4_usize).prop_map(|length| Shape::Ring(Forwarder::Dnsmasq, length)),
        (2..=4_usize).prop_map(|length| Shape::Ring(Forwarder::Dnsdist, length)),
        (2..=4_usize).prop_map(|length| Shape::Ring(Forwarder::Naive, length)),
        Just(Shape::Ring(Forwarder::Consul, 2)),
        Just(Shape::Incident),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_loop_on_lo_is_proven_at_any_pace(
        seed: u64,
        shape in shapes(),
        letters in 3..60_usize,
        slow_us in 1..2_000_u64,
        clock_ms in prop::sample::select(vec![1_u64, 4, 10]),
    ) {
        let mut guard = guard(true);
        guard.clock_ns = clock_ms * MS;
        let name = Name::with_letters(letters, &mut guard_sim::random::Random(seed));
        let mut network = network(&mut guard, Stand::Loopback, name, seed);
        let servers: Vec<Socket> = (0..4).map(|number| at(1, 53 + number)).collect();
        match shape {
            Shape::Ring(Forwarder::Dnsmasq, length) => for (index, server) in servers[..length].iter().enumerate() {
                let mut node = Dnsmasq::new(1, servers[(index + 1) % length]);
                node.service_ns = slow_us * US;
                network.add(node, &[*server]);
            },
            Shape::Ring(forwarder, length) => forwarder.ring(&mut network, &servers[..length]),
            Shape::Incident => incident(&mut network),
        }
        if !matches!(shape, Shape::Incident) {
            client(&mut network, 0, servers[0]);
        }
        let trip = is_cut(&mut network, 5 * S);
        // The pace of a dnsmasq pair is evidence of its own.
        prop_assert!(matches!(trip.evidence, Evidence::Mark | Evidence::Pace));
    }
}
