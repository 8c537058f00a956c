//! Loads that look busy and are no loop.

use crate::{
    Guard, MS, Network, S, Socket, Tally, US, at,
    name::Name,
    network::Stand,
    nodes::{Client, Forwarder, Naive, Router, Spells, Upstream},
    packet::Kind,
    random::Random,
};

/// What a load is, in all that is drawn of it.
#[derive(Clone, Debug)]
pub struct Load {
    shape: Shape,
    letters: usize,
    clients: u64,
    spread_ns: u64,
    upstream: Says,
    crowd: Crowd,
    stand: Stand,
}

/// Who is between the clients and the name server.
#[derive(Clone, Debug)]
enum Shape {
    /// Forwarders that merge nothing, in a row.
    Chain(Vec<Forwarder>),
    /// Forwarders that join equal queries, in a row.
    Merging(Vec<Forwarder>),
    /// Two hosts that are each other's client and server, for different zones.
    Mutual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Answer(u64),
    Error(u64),
    Nothing,
}

/// How clients behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crowd {
    /// As glibc: the same query again after seconds.
    Patient,
    /// The same query again after 300 ms, and again.
    Impatient,
    /// From a new socket each time.
    Fresh,
    /// As musl: again at once after an error.
    Musl,
    /// Each spells at random.
    Random,
    /// Every third spells at random, every third in capitals.
    Mixed,
}

impl Crowd {
    /// How long each of them waits before he asks again.
    fn patience(self) -> Vec<u64> {
        match self {
            Self::Impatient => vec![300 * MS; 6],
            Self::Fresh => vec![S; 4],
            Self::Musl => vec![5 * S / 2],
            Self::Patient | Self::Random | Self::Mixed => vec![5 * S],
        }
    }

    /// How often each of them asks at the most.
    fn tries(self) -> u64 {
        let after_errors = if self == Self::Musl { MUSL_RETRIES } else { 0 };
        1 + self.patience().len() as u64 + u64::from(after_errors)
    }
}

/// Repeats after an error.
const MUSL_RETRIES: u32 = 4;
/// Servers listen there; the clients ask the first.
const SERVERS: [Socket; 3] = [at(1, 53), at(2, 53), at(3, 53)];
const UPSTREAM: Socket = at(9, 53);
const CLIENTS: u16 = 8;
/// Queries that clients make of all that a load is asked for at the most.
const MOST_QUERIES: u64 = 100_000;

/// A number between the two, small ones as often as large ones.
fn log_uniform(random: &mut Random, least: u64, most: u64) -> u64 {
    let (least, most) = ((least as f64).ln(), (most as f64).ln());
    let unit = random.below(1 << 53) as f64 / (1_u64 << 53) as f64;
    (least + unit * (most - least)).exp() as u64
}

impl Load {
    /// One that is drawn.
    pub fn drawn(random: &mut Random) -> Self {
        let letters = match random.below(10) {
            0 => 0,
            1..4 => random.below(12),
            4..8 => random.below(40),
            _ => random.below(201),
        } as usize;
        let upstream = match random.below(10) {
            0..6 => Says::Answer(log_uniform(random, MS, 3 * S)),
            6 => Says::Error(log_uniform(random, 1, S)),
            _ => Says::Nothing,
        };
        let crowd = random.pick(&[
            Crowd::Patient,
            Crowd::Patient,
            Crowd::Patient,
            Crowd::Impatient,
            Crowd::Fresh,
            Crowd::Musl,
            Crowd::Random,
            Crowd::Mixed,
        ]);
        let clients = log_uniform(random, 1, 1_500);
        let spread_ns = match random.below(4) {
            0 => 0,
            _ => log_uniform(random, 10 * US, 10 * S),
        };
        let mut load = Self {
            shape: Shape::Mutual,
            letters,
            clients,
            spread_ns,
            upstream,
            crowd,
            stand: Stand::Loopback,
        };
        match random.below(10) {
            0..5 => {
                let kinds = [
                    Forwarder::Naive,
                    Forwarder::Naive,
                    Forwarder::Dnsdist,
                    Forwarder::Consul,
                    Forwarder::Shuffler,
                ];
                let length = 1 + random.below(3);
                load.shape = Shape::Chain((0..length).map(|_| random.pick(&kinds)).collect());
            }
            5..8 => {
                let length = 1 + random.below(2);
                let merges = (0..length).map(|_| random.pick(&[Forwarder::Dnsmasq, Forwarder::Unbound]));
                load.shape = Shape::Merging(merges.collect());
            }
            _ => load = load.mutual(random),
        }
        if !matches!(load.shape, Shape::Mutual) {
            // Of a host further up, the clients are not seen.
            load.stand = match random.below(6) {
                0 => Stand::Node(3),
                1 => Stand::Host(vec![1]),
                2 => Stand::Host(vec![2]),
                _ => Stand::Loopback,
            };
        }
        load
    }

    /// A name that is asked both ways, and cannot be marked, looks like a loop if it comes fast enough (LIMITATIONS.md):
    /// such names come 20 times a second, everybody's repeats included.
    fn mutual(mut self, random: &mut Random) -> Self {
        self.stand = Stand::Host(vec![1]);
        let cannot_be_marked = self.letters < 3 || matches!(self.crowd, Crowd::Random | Crowd::Mixed);
        if cannot_be_marked {
            self.clients = log_uniform(random, 1, 200);
            self.spread_ns = self.clients * self.crowd.tries() * 50 * MS;
        }
        self
    }

    /// In a word.
    pub const fn word(&self) -> &'static str {
        match (&self.shape, self.crowd) {
            (Shape::Mutual, _) => "mutual",
            (_, Crowd::Random | Crowd::Mixed) => "random_case",
            (_, Crowd::Impatient | Crowd::Fresh | Crowd::Musl) => "retries",
            (Shape::Chain(_), Crowd::Patient) => "chain",
            (Shape::Merging(_), Crowd::Patient) => "merging",
        }
    }

    /// Puts it before the guard; tells what came of it, and how long it took on the guard's clock.
    pub fn run(&self, guard: &mut dyn Guard, start_ns: u64, number: u8, seed: u64) -> (Tally, u64) {
        let mut network = Network::new(guard, start_ns, self.stand.clone(), number, seed);
        self.lay(&mut network);
        let until_ns = self.until_ns();
        network.run(until_ns, MOST_QUERIES);
        let mut tally = network.tally.clone();
        if self.mangles_anyway() {
            tally.mangled = 0;
        }
        (tally, until_ns)
    }

    /// Puts its nodes on a network.
    pub fn lay(&self, network: &mut Network<'_>) {
        let name = Name::with_letters(self.letters, &mut network.random);
        let shouted = name.shouted();
        network.name(name);
        match &self.shape {
            Shape::Chain(forwarders) | Shape::Merging(forwarders) => {
                for (place, forwarder) in forwarders.iter().enumerate() {
                    let next = next(place, forwarders.len());
                    forwarder.add(network, SERVERS[place], next);
                }
                network.add(self.upstream(), &[UPSTREAM]);
            }
            Shape::Mutual => {
                // The name is the first host's own; its clients, and those of the other one, ask the other one.
                let (here, there) = (SERVERS[0], SERVERS[1]);
                network.add(Router::new(1, self.upstream(), Naive::new(1, there)), &[here]);
                network.add(Naive::new(2, here), &[there]);
            }
        }
        for number in 0..self.clients {
            self.add_client(network, number, shouted);
        }
    }

    fn add_client(&self, network: &mut Network<'_>, number: u64, shouted: crate::name::Caps) {
        let (address, server) = match self.shape {
            // Half of them are on the host whose name it is.
            Shape::Mutual => (if number.is_multiple_of(2) { 1 } else { 2 }, SERVERS[1]),
            _ => (CLIENTS, SERVERS[0]),
        };
        let socket = at(address, 20_000 + number as u16);
        let mut client = Client::new(socket, server, 0, self.crowd.patience());
        match self.crowd {
            Crowd::Fresh => client.fresh = true,
            Crowd::Musl => client.error_retries = MUSL_RETRIES,
            Crowd::Random => client.spells = Spells::AtRandom,
            Crowd::Mixed => {
                client.spells = match number % 3 {
                    0 => Spells::Plainly,
                    1 => Spells::AtRandom,
                    _ => Spells::Like(shouted),
                }
            }
            Crowd::Patient | Crowd::Impatient => {}
        }
        network.add(client, &[socket]);
        let start_ns = network.random.below(self.spread_ns.max(1));
        network.wake_at(start_ns, socket, 0);
    }

    fn upstream(&self) -> Upstream {
        match self.upstream {
            Says::Answer(after_ns) => Upstream::says(Kind::Answer, after_ns),
            Says::Error(after_ns) => Upstream::says(Kind::Error, after_ns),
            Says::Nothing => Upstream::DEAD,
        }
    }

    /// The moment by which everybody has given up.
    pub const fn until_ns(&self) -> u64 {
        self.spread_ns + 20 * S
    }

    /// Whether clients that spell otherwise get each other's spelling also without a guard: dnsmasq answers all whom it
    /// joins in one.
    fn mangles_anyway(&self) -> bool {
        let Shape::Merging(merges) = &self.shape else {
            return false;
        };
        matches!(self.crowd, Crowd::Random | Crowd::Mixed) && merges.contains(&Forwarder::Dnsmasq)
    }
}

const fn next(place: usize, length: usize) -> Socket {
    if place + 1 == length {
        UPSTREAM
    } else {
        SERVERS[place + 1]
    }
}
