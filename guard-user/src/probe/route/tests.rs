use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const PROBE: &str = "127.0.0.1:40000";

/// 127.0.0.0/8 and 10.0.0.1 are local; ports belong to processes.
#[derive(Default)]
struct Lab {
    listeners: BTreeMap<SocketAddr, (u64, u32)>,
    senders: BTreeMap<u16, u32>,
}

impl Lab {
    /// Servers, each a process and a socket of its own, numbered from 1.
    fn new(servers: &[&str]) -> Self {
        let mut lab = Self::default();
        for (number, server) in (1..).zip(servers) {
            lab.listeners
                .insert(server.parse().unwrap(), (u64::from(number), number));
        }
        lab
    }

    /// This source port is that process's.
    fn sends(mut self, port: u16, pid: u32) -> Self {
        self.senders.insert(port, pid);
        self
    }

    fn owned(inode: Option<u64>, pid: Option<u32>) -> Owned {
        let process = |pid| Process {
            pid,
            name: format!("p{pid}"),
        };
        Owned {
            inode,
            processes: pid.into_iter().map(process).collect(),
        }
    }
}

impl World for Lab {
    fn is_local(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || ip.to_string() == "10.0.0.1"
    }

    fn listener(&self, address: SocketAddr) -> Owned {
        let known = self.listeners.get(&address);
        Self::owned(known.map(|known| known.0), known.map(|known| known.1))
    }

    fn sender(&self, address: SocketAddr) -> Owned {
        Self::owned(None, self.senders.get(&address.port()).copied())
    }
}

/// A route with these hops, each "from to", every one with an ID of its own; the first is the probe's.
fn route(lab: &Lab, hops: &[&str]) -> Route {
    let mut route = Route::new(PROBE.parse().unwrap(), 0, vec![0]);
    for (id, hop) in (0..).zip(hops) {
        route.add(seen(hop, id, 64), lab);
    }
    route
}

fn seen(hop: &str, id: u16, ttl: u8) -> Seen {
    let (from, to) = hop.split_once(' ').unwrap();
    Seen {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        ttl,
        id,
        message: id.to_be_bytes().to_vec(),
        at: Duration::ZERO,
        ifindex: 1,
    }
}

/// The ways that are shown; `~>` where the sender is not certain.
fn shown(route: &Route) -> Vec<String> {
    let paths = route.paths().into_iter();
    paths
        .map(|path| {
            let mut text = String::new();
            for step in path {
                if !text.is_empty() {
                    text += if step.sure { " > " } else { " ~> " };
                }
                text += &route.server_at(step.server).address.to_string();
            }
            text
        })
        .collect()
}

const A: &str = "127.0.0.1:53";
const B: &str = "127.0.0.1:8600";
const C: &str = "127.0.0.3:53";

#[test]
fn what_comes_back_to_the_server_that_was_asked_went_round() {
    // Nothing is known of any socket.
    let lab = Lab::default();
    let route = route(
        &lab,
        &[
            "127.0.0.1:40000 127.0.0.1:53",
            "127.0.0.1:50001 127.0.0.1:8600",
            "127.0.0.1:50002 127.0.0.1:53",
        ],
    );
    assert_eq!(route.proof(), Some(2));
    assert_eq!(shown(&route), [format!("{A} > {B} > {A}")]);
}

#[test]
fn a_server_that_sends_to_itself_goes_round() {
    let route = route(
        &Lab::new(&[A]),
        &["127.0.0.1:40000 127.0.0.1:53", "127.0.0.1:50001 127.0.0.1:53"],
    );
    assert_eq!(route.proof(), Some(1));
    assert_eq!(shown(&route), [format!("{A} > {A}")]);
}

#[test]
fn the_probes_own_query_seen_twice_is_one() {
    let lab = Lab::new(&[A]);
    let mut route = route(&lab, &["127.0.0.1:40000 127.0.0.1:53"]);
    route.add(seen("127.0.0.1:40000 127.0.0.1:53", 0, 64), &lab);
    assert_eq!((route.proof(), route.hops().len()), (None, 1));
}

#[test]
fn a_chain_of_forwarders_does_not_go_round() {
    let lab = Lab::new(&[A, B, C]).sends(50_001, 1).sends(50_002, 2);
    let route = route(
        &lab,
        &[
            "127.0.0.1:40000 127.0.0.1:53",
            "127.0.0.1:50001 127.0.0.1:8600",
            "127.0.0.1:50002 127.0.0.3:53",
        ],
    );
    assert_eq!((route.proof(), route.came_again()), (None, false));
    assert_eq!(shown(&route), [format!("{A} > {B} > {C}")]);
}

#[test]
fn a_forwarder_that_tries_again_does_not_go_round() {
    // With the sockets known and unknown, to one upstream and to two.
    for lab in [
        Lab::new(&[A, B, C]),
        Lab::new(&[A, B, C]).sends(50_001, 1).sends(50_002, 1).sends(50_003, 1),
    ] {
        let route = route(
            &lab,
            &[
                "127.0.0.1:40000 127.0.0.1:53",
                "127.0.0.1:50001 127.0.0.1:8600",
                "127.0.0.1:50002 127.0.0.1:8600",
                "127.0.0.1:50002 127.0.0.3:53",
                "127.0.0.1:50003 127.0.0.3:53",
            ],
        );
        assert_eq!((route.proof(), route.came_again()), (None, true));
    }
}

#[test]
fn a_loop_behind_the_first_server_needs_known_sockets() {
    let hops = [
        "127.0.0.1:40000 127.0.0.1:53",
        "127.0.0.1:50001 127.0.0.1:8600",
        "127.0.0.1:50002 127.0.0.3:53",
        "127.0.0.1:50003 127.0.0.1:8600",
    ];
    let known = Lab::new(&[A, B, C]).sends(50_001, 1).sends(50_002, 2).sends(50_003, 3);
    let proven = route(&known, &hops);
    assert_eq!(proven.proof(), Some(3));
    assert_eq!(shown(&proven), [format!("{A} > {B} > {C} > {B}")]);
    let unknown = route(&Lab::new(&[A, B, C]), &hops);
    assert_eq!((unknown.proof(), unknown.came_again()), (None, true));
    // Some was lost: another way may have led there.
    let mut incomplete = proven;
    incomplete.incomplete = true;
    assert_eq!(incomplete.proof(), None);
}

#[test]
fn two_ways_to_one_upstream_do_not_go_round() {
    // A asks B and C; B asks C.
    let lab = Lab::new(&[A, B, C]).sends(50_001, 1).sends(50_002, 2);
    let route = route(
        &lab,
        &[
            "127.0.0.1:40000 127.0.0.1:53",
            "127.0.0.1:50001 127.0.0.1:8600",
            "127.0.0.1:50001 127.0.0.3:53",
            "127.0.0.1:50002 127.0.0.3:53",
        ],
    );
    assert_eq!(route.proof(), None);
}

#[test]
fn a_process_with_two_parts_that_ask_each_other_does_not_go_round() {
    // One process listens at B and C. It got the query where nobody saw it, and asks itself, twice.
    let mut lab = Lab::new(&[A, B, C]).sends(50_001, 2).sends(50_002, 2);
    lab.listeners.insert(C.parse().unwrap(), (3, 2));
    let hidden = route(
        &lab,
        &[
            "127.0.0.1:40000 127.0.0.1:53",
            "127.0.0.1:50001 127.0.0.3:53",
            "127.0.0.1:50002 127.0.0.3:53",
        ],
    );
    assert_eq!(hidden.proof(), None);
    // It was asked at B, asks itself at C, and again.
    let seen = route(
        &lab,
        &[
            "127.0.0.1:40000 127.0.0.1:8600",
            "127.0.0.1:50001 127.0.0.3:53",
            "127.0.0.1:50002 127.0.0.3:53",
        ],
    );
    assert_eq!(seen.proof(), None);
}

#[test]
fn between_hosts_addresses_tell() {
    let lab = Lab::new(&[A, "10.0.0.1:53"]).sends(50_001, 1).sends(50_002, 2);
    let hops = [
        "127.0.0.1:40000 127.0.0.1:53",
        "127.0.0.1:50001 10.0.0.1:53",
        "10.0.0.1:50002 10.0.0.2:53",
        "10.0.0.2:50003 10.0.0.1:53",
    ];
    let proven = route(&lab, &hops);
    assert_eq!(proven.proof(), Some(3));
    assert_eq!(
        shown(&proven),
        [format!("{A} > 10.0.0.1:53 > 10.0.0.2:53 > 10.0.0.1:53")]
    );
    // From an address that nobody was asked at it may be anybody, but not to the server that the probe asked.
    let stranger = route(&lab, &[hops[0], hops[1], hops[2], "10.0.0.9:50003 10.0.0.1:53"]);
    assert_eq!(stranger.proof(), None);
    let asked = route(&lab, &[hops[0], hops[1], hops[2], "10.0.0.9:50003 127.0.0.1:53"]);
    assert_eq!(asked.proof(), Some(3));
    // A also asks another host, which asks 10.0.0.1.
    let other = route(
        &lab,
        &[hops[0], hops[1], "10.0.0.1:50001 10.0.0.3:53", hops[2], hops[3]],
    );
    assert_eq!(other.proof(), None);
}

#[test]
fn one_packet_whose_address_is_changed_on_the_way_is_one_hop() {
    let lab = Lab::default();
    let mut route = Route::new("10.0.0.1:40000".parse().unwrap(), 7, vec![0, 7]);
    route.add(seen("10.0.0.1:40000 10.96.0.10:53", 7, 64), &lab);
    route.add(seen("10.0.0.1:61000 10.0.0.5:53", 7, 63), &lab);
    assert_eq!((route.hops().len(), route.proof()), (1, None));
    assert_eq!(shown(&route), ["10.0.0.5:53"]);
    // The same message to the same server, with nobody in between.
    route.add(seen("10.0.0.1:61001 10.0.0.5:53", 7, 63), &lab);
    assert_eq!(route.proof(), None);
}

#[test]
fn a_server_that_keeps_id_and_message_goes_round_through_another() {
    let lab = Lab::new(&[B, "127.0.0.1:8700"]);
    let mut route = Route::new(PROBE.parse().unwrap(), 7, vec![0, 7]);
    for hop in [
        "127.0.0.1:40000 127.0.0.1:8600",
        "127.0.0.1:50001 127.0.0.1:8700",
        "127.0.0.1:50002 127.0.0.1:8600",
    ] {
        route.add(seen(hop, 7, 64), &lab);
    }
    assert_eq!(route.proof(), Some(2));
}

#[test]
fn a_query_whose_own_packet_was_not_seen_proves_nothing() {
    let lab = Lab::default();
    let route = route(&lab, &["127.0.0.1:50000 127.0.0.1:53", "127.0.0.1:50001 127.0.0.1:53"]);
    assert!(!route.has_own() && route.proof().is_none() && route.came_again());
}

#[test]
fn addresses_with_one_socket_are_one_server() {
    let mut lab = Lab::new(&[A]);
    lab.listeners.insert("10.0.0.1:53".parse().unwrap(), (1, 1));
    let route = route(
        &lab,
        &[
            "127.0.0.1:40000 127.0.0.1:53",
            "127.0.0.1:50001 127.0.0.1:8600",
            "127.0.0.1:50002 10.0.0.1:53",
        ],
    );
    assert_eq!(route.proof(), Some(2));
}

#[test]
fn no_route_grows_without_end() {
    let lab = Lab::new(&[A, B]);
    let mut route = route(&lab, &["127.0.0.1:40000 127.0.0.1:53"]);
    for port in 1..1000 {
        route.add(seen(&format!("127.0.0.1:{port} 127.0.0.1:8600"), port, 64), &lab);
    }
    assert_eq!((route.hops().len(), route.proof()), (MAX_HOPS, None));
    assert!(route.incomplete);
}

#[test]
fn of_two_hops_with_one_message_the_nearer_one_is_the_packet_that_a_router_changed() {
    // The probe is on a router. Who is asked keeps ID and message, and what it sends on crosses the router.
    let lab = Lab::default();
    let mut route = Route::new("10.0.0.1:40000".parse().unwrap(), 7, vec![0, 7]);
    route.add(seen("10.0.0.1:40000 10.1.0.2:53", 7, 64), &lab);
    route.add(seen("10.1.0.2:50001 10.96.0.10:53", 7, 64), &lab);
    route.add(seen("10.2.0.1:61000 10.2.0.2:53", 7, 63), &lab);
    // It tries again, with another message.
    route.add(seen("10.1.0.2:50002 10.2.0.2:53", 8, 64), &lab);
    assert_eq!((route.hops().len(), route.proof()), (3, None));
}

/// A network of forwarders: what each sends on to whom, how often, and whether anybody can see it.
#[derive(Clone, Debug)]
struct Net {
    /// Each on a host of its own, or on this one; there its sockets may be known.
    servers: Vec<(bool, bool)>,
    /// From, to, times, seen.
    rules: Vec<(usize, usize, usize, bool)>,
    /// Which of the packets that are on their way comes next.
    order: Vec<prop::sample::Index>,
}

fn net(servers: usize) -> impl Strategy<Value = Net> {
    let rule = (0..servers, 0..servers, 1..4_usize, prop::bool::weighted(0.8));
    (
        prop::collection::vec((prop::bool::weighted(0.7), prop::bool::weighted(0.7)), servers),
        prop::collection::vec(rule, 1..9),
        prop::collection::vec(any::<prop::sample::Index>(), 40),
    )
        .prop_map(|(servers, rules, order)| Net { servers, rules, order })
}

impl Net {
    fn address(&self, server: usize) -> SocketAddr {
        let host = if self.servers[server].0 { "127.0.0" } else { "10.0.1" };
        format!("{host}.{}:53", server + 1).parse().unwrap()
    }

    /// What the probe sees of one query to the first server, each rule carried out once it has the query.
    fn run(&self) -> Route {
        let mut lab = Lab::default();
        for (number, (local, _)) in (0_u32..).zip(&self.servers) {
            if *local {
                let address = self.address(number as usize);
                lab.listeners.insert(address, (number.into(), number));
            }
        }
        let mut route = Route::new(PROBE.parse().unwrap(), 0, vec![0]);
        // From, to, times left, seen.
        let mut waiting = vec![(None, 0, 1, true)];
        let (mut had, mut port) = (BTreeSet::new(), 50_000);
        for index in self.order.iter().cycle().take(200) {
            if waiting.is_empty() {
                break;
            }
            let at = index.index(waiting.len());
            let (from, to, times, is_seen) = waiting[at];
            if times == 1 {
                waiting.remove(at);
            } else {
                waiting[at].2 -= 1;
            }
            port += 1;
            let source: SocketAddr = match from {
                None => PROBE.parse().unwrap(),
                Some(from) => {
                    let (local, known) = self.servers[from];
                    if local && known {
                        lab.senders.insert(port, from as u32);
                    }
                    let ip = if local {
                        [127, 0, 0, 1].into()
                    } else {
                        self.address(from).ip()
                    };
                    SocketAddr::new(ip, port)
                }
            };
            // Between other hosts nobody looks.
            let passes_here = from.is_none_or(|from| self.servers[from].0) || self.servers[to].0;
            if is_seen && passes_here {
                let id = if from.is_none() { 0 } else { port };
                route.add(seen(&format!("{source} {}", self.address(to)), id, 64), &lab);
            }
            if had.insert(to) {
                let rules = self.rules.iter().filter(|rule| rule.0 == to);
                waiting.extend(rules.map(|rule| (Some(to), rule.1, rule.2, rule.3)));
            }
        }
        route
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_network_without_a_circle_is_taken_for_one(mut net in net(6)) {
        for rule in &mut net.rules {
            *rule = (rule.0.min(rule.1), rule.0.max(rule.1), rule.2, rule.3);
        }
        net.rules.retain(|rule| rule.0 != rule.1);
        let route = net.run();
        prop_assert_eq!(route.proof(), None, "{:?}", route);
    }

    #[test]
    fn a_circle_through_the_first_server_is_always_proven(mut net in net(6), length in 1..6_usize) {
        net.rules.retain(|rule| rule.0 != rule.1);
        // A circle of servers of this host, seen all the way.
        for server in 0..length {
            net.servers[server].0 = true;
            net.rules.push((server, (server + 1) % length, 1, true));
        }
        let route = net.run();
        prop_assert!(route.proof().is_some(), "{:?}", route);
        let way = route.paths().remove(0);
        let (last, before) = way.split_last().unwrap();
        let ends_where_it_was = before.iter().any(|step| step.server == last.server);
        prop_assert!(ends_where_it_was, "{:?}", way);
    }
}
