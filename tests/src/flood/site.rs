//! Two hosts and the wire between them.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr},
    net::{SocketAddr, SocketAddrV4, UdpSocket},
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;

use super::{
    Asked, FloodedCounter, Flooding, Pace, Place, Protection, Stream, cpu,
    protection::{self, Shield},
};
use crate::{
    Namespace,
    frame::Query,
    guard::Guard,
    process, sys,
    veth::{add, station, veth},
};

/// The device on both sides.
pub(super) const DEVICE: &str = "flood0";

/// Where the good clients and the flood ask.
pub(super) const SERVER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 53, 0, 2), 53));

/// The port that the flood comes from.
const FLOOD_PORT: u16 = 20_053;

/// A server behind a protection, and those who ask it.
#[derive(Debug)]
pub struct Site {
    shield: Shield,
    /// Takes the answers to the flood, as far as there is room: nobody would send errors for those either.
    _sink: UdpSocket,
    flooding: Flooding,
    /// Those that poll the server's receive queue.
    threads: BTreeSet<i32>,
    client: Namespace,
    server: Namespace,
}

impl Site {
    /// The programs it needs, as [`crate::programs::provide`] takes them.
    pub const PROGRAMS: &[&str] = &["dnsmasq", "ethtool", "ip"];

    /// Builds it; the server answers.
    pub fn start(protection: Protection, asked: Asked) -> Result<Self> {
        let (client, server) = (Namespace::new()?, Namespace::new()?);
        let threads = lay(&client, &server)?;
        let shield = protection::raise(protection, asked, &server).with_context(|| format!("set up: {protection}"))?;
        shield.pin(cpu::RECEIVER)?;
        // Attaching an XDP program may start the receive queue anew.
        let threads: BTreeSet<i32> = cpu::queue_threads(DEVICE).difference(&threads).copied().collect();
        ensure!(
            !threads.is_empty(),
            "the receive queue of {DEVICE} has no thread of its own"
        );
        for &thread in &threads {
            cpu::pin(thread, cpu::RECEIVER)?;
        }
        let flood = SocketAddr::new(Place::SameAddress.address().into(), FLOOD_PORT);
        let mut query = Query::new(&asked.name(), &flood.to_string(), &SERVER.to_string())?;
        query.envelope.stations = [station(&client, DEVICE)?, station(&server, DEVICE)?];
        Ok(Self {
            shield,
            _sink: client.udp(flood)?,
            flooding: asked.flooding(&query)?,
            threads,
            client,
            server,
        })
    }

    /// Starts the flood.
    ///
    /// The threads of the receive queue do as the kernel does without them: work on packets goes before every program's
    /// work, until there is no end to it; then it becomes a thread among others (ksoftirqd).
    pub fn flood(&self, pace: Pace) -> Result<Stream> {
        for &thread in &self.threads {
            let thread = Pid::from_raw(thread);
            match pace {
                Pace::PerSecond(_) => sys::go_first(thread),
                Pace::Full => sys::go_soon(thread),
            }
            .context("put the receive queue before the server")?;
        }
        Stream::start(&self.client, DEVICE, self.flooding.clone(), pace)
    }

    /// Packets that the server's device has taken in so far.
    pub fn taken(&self) -> Result<u64> {
        self.server.packets(DEVICE)
    }

    /// Processor time that the server's receive queue has had so far, in seconds, to 1/100. What the kernel does with a
    /// packet until a program reads it is all done there.
    pub fn receive_seconds(&self) -> Result<f64> {
        self.threads
            .iter()
            .map(|&thread| process::cpu_seconds(thread.unsigned_abs()))
            .sum()
    }

    /// Counts the flood's packets that get as far as the server's programs, from now on. Needs nft.
    pub fn count_flooded(&self) -> Result<FloodedCounter<'_>> {
        FloodedCounter::start(&self.server)
    }

    /// Where the flood and the good clients are.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// Where the server and its protection are.
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// The guard, if it is the protection.
    pub fn guard(&self) -> Option<&Guard> {
        self.shield.guard()
    }
}

/// Joins the two, and returns the threads of receive queues that were there before and are others'.
fn lay(client: &Namespace, server: &Namespace) -> Result<BTreeSet<i32>> {
    let others = cpu::queue_threads(DEVICE);
    let near = format!("{}/24", Place::SameAddress.address());
    veth(client, server, DEVICE, &[(&near, &format!("{}/24", SERVER.ip()))])?;
    for place in [Place::SameNetwork, Place::OtherNetwork] {
        add(client, DEVICE, &format!("{}/32", place.address()))?;
    }
    server.ip(&format!("route add {}/32 dev {DEVICE}", Place::OtherNetwork.address()))?;

    // Neighbours are known: under a flood nobody finds them.
    let known = |from: &Namespace, address: IpAddr, station: [u8; 6]| {
        let station = station.map(|byte| format!("{byte:02x}")).join(":");
        from.ip(&format!(
            "neighbour replace {address} lladdr {station} dev {DEVICE} nud permanent"
        ))
    };
    known(client, SERVER.ip(), station(server, DEVICE)?)?;
    for place in Place::ALL {
        known(server, place.address().into(), station(client, DEVICE)?)?;
    }

    // A veth has a receive queue once GRO is on; then its packets are polled, here by a thread. The other side has to
    // do without TSO, else what it sends goes around the queue (veth_skb_is_eligible_for_gro in drivers/net/veth.c).
    client.tool("ethtool", &format!("-K {DEVICE} tso off"))?;
    server.tool("ethtool", &format!("-K {DEVICE} gro on"))?;
    let threaded = format!("/sys/class/net/{DEVICE}/threaded");
    server
        .run(|| fs::write(&threaded, "1"))
        .with_context(|| format!("write {threaded}"))?;
    Ok(others)
}
