//! Which queries would go round: each resolver's rules are followed from one to the next until one comes again.
//!
//! Names that no rule tells apart are the same here: so one name directly below each domain that some rule names stands
//! for all of them, once for DS and once for every other type.

use std::net::{IpAddr, SocketAddr};

use super::node::{Action, Node, Place, Zone};

/// Circles that are told; nobody reads more.
const MOST: usize = 16;
/// Resolvers in a circle at most: what is longer is found by its shorter ways, too.
const LONGEST: usize = 8;

/// Resolvers that send a query on to one another for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Circle {
    /// The widest domain whose queries go round.
    pub(super) zone: Zone,
    /// Whether only queries for DS records do.
    pub(super) only_ds: bool,
    /// In the order in which a query comes by.
    pub(super) hops: Vec<Hop>,
    /// Further domains of which the same holds.
    pub(super) also: Vec<Zone>,
}

/// One resolver of a circle, and how it sends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    /// Its index.
    pub(super) node: usize,
    /// The domain of the rule.
    pub(super) zone: Zone,
    /// Where the next resolver listens: all addresses at which this one asks it.
    pub(super) to: Vec<SocketAddr>,
    /// Where the first of them is written.
    pub(super) place: Place,
}

impl Hop {
    /// Where the next resolver listens, in a line.
    pub(super) fn addresses(&self) -> String {
        let told: Vec<_> = self.to.iter().map(ToString::to_string).collect();
        told.join(", ")
    }
}

/// Finds them. `is_own` says which addresses are the host's, beside loopback.
pub(super) fn circles(nodes: &[Node], is_own: &dyn Fn(IpAddr) -> bool) -> Vec<Circle> {
    let rules = nodes.iter().flat_map(|node| &node.rules);
    let mut zones: Vec<_> = rules.map(|rule| rule.zone.clone()).collect();
    zones.sort_by_key(|zone| (zone.labels(), zone.clone()));
    zones.dedup();
    let mut circles: Vec<Circle> = Vec::new();
    for zone in &zones {
        for only_ds in [false, true] {
            let graph = Graph::new(nodes, zone, only_ds, is_own);
            for hops in graph.circles() {
                note(&mut circles, zone, only_ds, hops);
            }
        }
    }
    circles.truncate(MOST);
    circles
}

/// Adds a circle, unless it is one that is known: by a wider domain, or for more types.
fn note(circles: &mut Vec<Circle>, zone: &Zone, only_ds: bool, hops: Vec<Hop>) {
    let is_same = |known: &Circle| {
        known
            .hops
            .iter()
            .map(|hop| hop.node)
            .eq(hops.iter().map(|hop| hop.node))
    };
    let mut known = circles.iter_mut().filter(|known| is_same(known));
    let covering = |known: &Circle| known.only_ds <= only_ds;
    match known.find(|known| covering(known)) {
        Some(known) => {
            let is_told = known.zone.contains(zone) || known.also.iter().any(|also| also.contains(zone));
            // A wider rule may not reach this far down; where it does, there is nothing new.
            if !(is_told && known.hops == hops) && known.only_ds == only_ds && known.zone != *zone {
                known.also.push(zone.clone());
            }
        }
        None => circles.push(Circle {
            zone: zone.clone(),
            only_ds,
            hops,
            also: Vec::new(),
        }),
    }
}

/// Who sends queries for one domain on to whom.
struct Graph {
    edges: Vec<Vec<Hop>>,
    /// The node behind each edge.
    heads: Vec<Vec<usize>>,
}

impl Graph {
    fn new(nodes: &[Node], zone: &Zone, is_ds: bool, is_own: &dyn Fn(IpAddr) -> bool) -> Self {
        let mut graph = Self {
            edges: vec![Vec::new(); nodes.len()],
            heads: vec![Vec::new(); nodes.len()],
        };
        for (index, node) in nodes.iter().enumerate() {
            for rule in node.decide(zone, is_ds) {
                let Action::Forward(targets) = &rule.action else {
                    continue;
                };
                for target in targets {
                    let Some(head) = listener(nodes, node.network, *target, is_own) else {
                        continue;
                    };
                    if head == index && node.program.ignores_itself() {
                        continue;
                    }
                    if let Some(known) = graph.heads[index].iter().position(|known| *known == head) {
                        graph.edges[index][known].to.push(*target);
                        continue;
                    }
                    graph.heads[index].push(head);
                    graph.edges[index].push(Hop {
                        node: index,
                        zone: rule.zone.clone(),
                        to: vec![*target],
                        place: rule.place.clone(),
                    });
                }
            }
        }
        graph
    }

    /// Every circle once, from its first node on.
    fn circles(&self) -> Vec<Vec<Hop>> {
        let mut found = Vec::new();
        for start in 0..self.edges.len() {
            self.walk(start, start, &mut Vec::new(), &mut found);
        }
        found
    }

    fn walk(&self, start: usize, at: usize, path: &mut Vec<Hop>, found: &mut Vec<Vec<Hop>>) {
        for (hop, &head) in self.edges[at].iter().zip(&self.heads[at]) {
            path.push(hop.clone());
            if head == start {
                found.push(path.clone());
            } else if head > start && path.len() < LONGEST && !path.iter().any(|hop| hop.node == head) {
                self.walk(start, head, path, found);
            }
            path.pop();
            if found.len() >= MOST {
                return;
            }
        }
    }
}

/// Who gets what is sent to an address in a network. Whoever runs goes before whoever does not.
fn listener(nodes: &[Node], network: u64, target: SocketAddr, is_own: &dyn Fn(IpAddr) -> bool) -> Option<usize> {
    let of = |runs| listener_of(nodes, network, target, is_own, runs);
    of(true).or_else(|| of(false))
}

/// Whoever listens on just this address, else on all addresses.
fn listener_of(
    nodes: &[Node],
    network: u64,
    target: SocketAddr,
    is_own: &dyn Fn(IpAddr) -> bool,
    runs: bool,
) -> Option<usize> {
    let listens = |fits: &dyn Fn(IpAddr) -> bool| {
        nodes.iter().position(|node| {
            let mut listens = node.listens.iter();
            node.network == network
                && node.pid.is_some() == runs
                && listens.any(|listen| listen.port() == target.port() && fits(listen.ip()))
        })
    };
    // Sent to no address, a packet goes to this host.
    let ip = target.ip();
    if ip.is_unspecified() {
        return listens(&|_| true);
    }
    let exact = listens(&|listen| listen == ip);
    // An IPv6 socket for all addresses gets what is sent by IPv4, too.
    let all = |listen: IpAddr| listen.is_unspecified() && (listen.is_ipv4() == ip.is_ipv4() || listen.is_ipv6());
    exact.or_else(|| {
        let is_own = ip.is_loopback() || is_own(ip);
        is_own.then(|| listens(&all)).flatten()
    })
}

#[cfg(test)]
mod tests;
