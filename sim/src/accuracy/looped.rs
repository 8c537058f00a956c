//! Loops, of every kind that was seen in the wild.

use guard_common::judge::Evidence;

use crate::{
    Guard, MS, Network, S, Socket, at,
    name::Name,
    network::Stand,
    nodes::{Client, Consul, Dnsmasq, Forwarder},
    random::Random,
};

/// The promise of the design.
const MOST_RECIRCULATED: u32 = 32;
/// The same for names of so few letters that a round brings little, and that most spellings were a mark before long.
const MOST_RECIRCULATED_OF_SHORT_NAMES: u32 = 256;
/// Letters of the longest such name.
const SHORT_NAME: usize = 4;
/// Far beyond the promise: a loop that gets this far is not cut.
const ENOUGH: u64 = 5_000;
/// A loop that a retry makes, 2 s after the first try, has begun by then.
const UNTIL_NS: u64 = 9 * S;

/// What a loop is, in all that is drawn of it.
#[derive(Clone, Debug)]
pub struct Loop {
    shape: Shape,
    letters: usize,
    stand: Stand,
    clients: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// So many of these, each asking the next.
    Ring(Forwarder, usize),
    /// dnsmasq, and a consul whose three recursors are all that dnsmasq.
    Incident,
    /// A forwarder that asks itself.
    Self_(Forwarder),
}

/// How a loop was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Whether a mark proved it.
    pub proven: bool,
    /// Queries that went round before.
    pub recirculated: u32,
}

const SERVERS: [Socket; 4] = [at(1, 53), at(2, 53), at(3, 53), at(4, 53)];

impl Loop {
    /// One that is drawn.
    pub fn drawn(random: &mut Random) -> Self {
        let letters_below = random.pick(&[13, 203]);
        let letters = 3 + random.below(letters_below - 3) as usize;
        let kinds = [
            Forwarder::Dnsmasq,
            Forwarder::Dnsdist,
            Forwarder::Consul,
            Forwarder::Naive,
        ];
        let mut looped = Self {
            shape: Shape::Ring(random.pick(&kinds), 2 + random.below(3) as usize),
            letters,
            stand: if random.below(2) == 0 {
                Stand::Loopback
            } else {
                Stand::Host(vec![1])
            },
            clients: 1 + random.below(3),
        };
        match random.below(10) {
            0 => looped.shape = Shape::Incident,
            1 => {
                looped.shape = Shape::Self_(random.pick(&[Forwarder::Naive, Forwarder::Dnsdist]));
                looped.stand = Stand::Loopback;
            }
            2 => {
                looped.shape = Shape::Ring(random.pick(&[Forwarder::Naive, Forwarder::Dnsdist]), 2);
                looped.letters = random.below(3) as usize;
                looped.stand = Stand::Host(vec![1]);
                looped.clients = 1;
            }
            3 => {
                looped.shape = Shape::Ring(Forwarder::Shuffler, 2);
                looped.stand = Stand::Host(vec![1]);
                looped.clients = 1;
            }
            _ => {}
        }
        looped
    }

    /// Letters of its name.
    pub const fn letters(&self) -> usize {
        self.letters
    }

    /// Queries that may go round before it is cut.
    pub const fn most_recirculated(&self) -> u32 {
        if self.can_be_proven() && self.letters <= SHORT_NAME {
            MOST_RECIRCULATED_OF_SHORT_NAMES
        } else {
            MOST_RECIRCULATED
        }
    }

    /// Whether its name has letters enough, and its forwarders keep their case.
    pub const fn can_be_proven(&self) -> bool {
        self.letters >= 3 && !matches!(self.shape, Shape::Ring(Forwarder::Shuffler, _))
    }

    /// Puts it before the guard; tells how it was cut, and how long that took on the guard's clock.
    pub fn run(&self, guard: &mut dyn Guard, start_ns: u64, number: u8, seed: u64) -> (Option<Cut>, u64) {
        let mut network = Network::new(guard, start_ns, self.stand.clone(), number, seed);
        self.lay(&mut network);
        let trip = network.run_until_trip(UNTIL_NS, ENOUGH);
        let cut = trip.map(|trip| Cut {
            // The pace is evidence of its own.
            proven: matches!(trip.evidence, Evidence::Mark | Evidence::Pace),
            recirculated: network.tally.recirculated,
        });
        (cut, UNTIL_NS)
    }

    /// Puts its nodes on a network.
    pub fn lay(&self, network: &mut Network<'_>) {
        let name = Name::with_letters(self.letters, &mut network.random);
        network.name(name);
        let mut first = SERVERS[0];
        match self.shape {
            Shape::Ring(forwarder, length) => {
                forwarder.ring(network, &SERVERS[..length]);
            }
            Shape::Self_(forwarder) => forwarder.add(network, first, first),
            Shape::Incident => {
                let (dnsmasq, consul) = ([at(1, 53), at(5, 53), at(6, 53)], at(2, 860));
                network.add(Dnsmasq::new(1, consul), &dnsmasq);
                network.add(Consul::new(2, &dnsmasq), &[consul]);
                first = dnsmasq[0];
            }
        }
        for number in 0..self.clients {
            let socket = at(9, 40_000 + number as u16);
            network.add(Client::new(socket, first, 0, vec![2 * S, 2 * S]), &[socket]);
            let start_ns = network.random.below(MS);
            network.wake_at(start_ns, socket, 0);
        }
    }
}
