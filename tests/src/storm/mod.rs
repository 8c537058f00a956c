//! A storm on a node of a cloud that polices what it may send: with and without a guard.
//!
//! AWS drops, without a word, what an interface sends to link-local services above 1,024 packets per second: DNS, instance
//! metadata and time together. So one client that sweeps takes the name service from all others. This is that picture:
//! [`network`] and [`vpc`] are the place, [`policer`] is the limit, [`sweep`] is the storm, [`stub`] and [`libc`] are the
//! clients that do nothing wrong, and the [`StormReport`] says what each of them got.
//!
//! **Invariant: a storm is bounded.** It ends with the good clients that are watched, or a moment after they should have
//! been done; and it never leaves its namespaces.

mod imds;
mod libc;
mod naming;
mod network;
mod ntp;
mod policer;
mod series;
mod stub;
mod sweep;
mod tally;
mod vpc;

use std::{
    collections::BTreeMap,
    fmt,
    net::Ipv4Addr,
    panic::resume_unwind,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::{task::JoinSet, time::sleep_until};

use self::{
    libc::{Libc, Program},
    network::{NODE, NODE_FOR_PODS, Network, RESOLVER, RESOLVER_LINK_LOCAL, dns},
    policer::{Meter, Policer},
    stub::{Stub, ZONE},
    sweep::Sweep,
    tally::Lookup,
    vpc::Vpc,
};
pub use self::{
    naming::Named,
    network::UPLINK,
    policer::{LIMIT_PPS, Policed, Service},
    series::Sample,
    sweep::{SWEPT, Swept},
    tally::Tally,
};
use crate::{
    Namespace,
    client::inside,
    guard::{Guard, GuardOptions, Mode},
    prober::gather,
    programs,
    question::random_id,
    resolver::{Dnsmasq, Duties, Forward, Resolved, Resolver, Unbound},
};

/// The programs that a storm needs, as [`programs::provide`] takes them.
pub const PROGRAMS: [&str; 4] = ["ip", "nft", "dnsmasq", "unbound"];
/// Programs whose clients take part where they are to be had.
pub const WELCOME: [&str; 2] = ["musl-gcc", "systemd-resolved"];

/// Clients that do nothing wrong, of all kinds together.
pub const GOOD_CLIENTS: u8 = 50;
/// Of these, clients of each kind that is not [`Kind::Stub`].
const REAL_CLIENTS: u8 = 4;

/// Queries per second of the sweep.
const SWEEP_PPS: u32 = 5_000;
/// How often the node asks for metadata and for the time: five times a second each.
const NODE_ASKS: Duration = Duration::from_millis(200);

/// Good traffic before anything counts, so that every path has been used.
const WARM_UP: Duration = Duration::from_millis(700);
/// How long the sweep may go on for the last answers of good clients.
const TAIL: Duration = Duration::from_secs(12);
/// A debug build verifies its programs within this on a busy machine.
const READY: Duration = Duration::from_secs(20);

/// Brings what a storm needs, and what it can use. Says on stderr what it goes on without.
pub fn provide() -> Result<()> {
    programs::provide(&PROGRAMS)?;
    for program in WELCOME {
        if let Err(why) = programs::provide(&[program]) {
            eprintln!("programs: going on without {program} ({why:#})");
        }
    }
    Ok(())
}

/// The version of every program and library that takes part.
pub fn versions() -> Result<BTreeMap<&'static str, String>> {
    let mut versions = BTreeMap::from([
        ("dnsmasq", programs::version("dnsmasq")?),
        ("unbound", programs::version("unbound")?),
        ("glibc", programs::version("getent")?),
    ]);
    if takes_part("musl-gcc") {
        versions.insert("musl", libc::musl_version()?);
    }
    if takes_part("systemd-resolved") {
        versions.insert("systemd-resolved", programs::version("systemd-resolved")?);
    }
    Ok(versions)
}

fn takes_part(program: &str) -> bool {
    programs::locate(program).is_ok()
}

/// A guard with the preset for AWS, on the node's uplink.
pub fn link_local(mode: Mode) -> GuardOptions {
    GuardOptions {
        mode,
        interfaces: vec![UPLINK.to_owned()],
        extra_toml: "[[budget]]\npreset = \"aws-link-local\"\n".to_owned(),
    }
}

/// How a good client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// By itself, from a pod of its own: three tries in 5 s.
    Stub,
    /// Through glibc, A and AAAA together.
    Glibc,
    /// Through musl, A and AAAA together.
    Musl,
    /// A systemd-resolved in its pod.
    Resolved,
    /// A dnsmasq on the node.
    Dnsmasq,
    /// An unbound on the node.
    Unbound,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Stub => "stub",
            Self::Glibc => "glibc",
            Self::Musl => "musl",
            Self::Resolved => "resolved",
            Self::Dnsmasq => "dnsmasq",
            Self::Unbound => "unbound",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Resolved => "systemd-resolved",
            kind => kind.word(),
        })
    }
}

/// What the good clients of one kind got.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// How they ask.
    pub kind: Kind,
    /// How many they are.
    pub clients: u8,
    /// What they got.
    pub tally: Tally,
}

/// All that was seen of a storm.
#[derive(Clone, Debug)]
pub struct StormReport {
    /// Good clients by kind, without those that were not to be had.
    pub crowds: Vec<Crowd>,
    /// Instance metadata for the node: token and ID within 1 s.
    pub imds: Tally,
    /// Time for the node: an answer within 1 s.
    pub ntp: Tally,
    /// Packets that the node wanted to send to link-local services, before a guard.
    pub offered: u64,
    /// What the policer did, by service.
    pub policed: BTreeMap<Service, Policed>,
    /// Packets over time.
    pub series: Vec<Sample>,
    /// The sweep.
    pub sweep: Swept,
    /// Who it was, if the guard said so.
    pub named: Option<Named>,
    /// Every event of the guard; none without one.
    pub events: Vec<Value>,
    /// What went wrong when the guard was stopped.
    pub unclean: Option<String>,
}

impl StormReport {
    /// All good clients together.
    pub fn good(&self) -> Tally {
        Tally::sum(self.crowds.iter().map(|crowd| &crowd.tally))
    }

    /// Metadata and time together.
    pub fn imds_ntp(&self) -> Tally {
        Tally::sum([&self.imds, &self.ntp])
    }

    /// Packets that the policer dropped, of all services.
    pub fn dropped(&self) -> u64 {
        self.policed.values().map(|policed| policed.dropped).sum()
    }

    /// Packets that did not leave the node, though they wanted to: what a guard dropped. Not one too many.
    pub fn shed(&self) -> u64 {
        let left = |policed: &Policed| policed.passed + policed.dropped;
        self.offered.saturating_sub(self.policed.values().map(left).sum())
    }
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Storm {
    guard: Option<GuardOptions>,
    sweep_pps: u32,
    length: Duration,
}

impl Storm {
    /// Good traffic alone.
    pub fn calm(length: Duration) -> Self {
        Self {
            guard: None,
            sweep_pps: 0,
            length,
        }
    }

    /// The storm, and nobody who would do anything about it.
    pub fn free(length: Duration) -> Self {
        Self {
            sweep_pps: SWEEP_PPS,
            ..Self::calm(length)
        }
    }

    /// The storm, and a guard on the node.
    pub fn guarded(guard: GuardOptions, length: Duration) -> Self {
        Self {
            guard: Some(guard),
            ..Self::free(length)
        }
    }

    /// Builds all of it, watches good clients for the length, and some seconds more if some wait for answers.
    pub fn run(&self) -> Result<StormReport> {
        let site = Site::start().context("build the node and its VPC")?;
        let guard = self.guard.as_ref().map(|options| site.guard(options)).transpose()?;
        site.good(WARM_UP)?;
        let mut report = site.watch(self, guard.as_ref())?;
        if let Some(guard) = guard {
            report.unclean = guard.stop().err().map(|error| format!("{error:#}"));
            report.events = guard.events()?;
        }
        Ok(report)
    }
}

/// The place, with everything running that answers.
#[derive(Debug)]
struct Site {
    /// dnsmasq and unbound on the node; systemd-resolved in its pod. They answer as long as they are held.
    _resolvers: Vec<Resolver>,
    resolved: Option<Namespace>,
    programs: Vec<(Kind, Program)>,
    sweep: Sweep,
    policer: Policer,
    meter: Meter,
    network: Network,
    _vpc: Vpc,
}

impl Site {
    fn start() -> Result<Self> {
        let mut network = Network::lay()?;
        let vpc = Vpc::start(&network.aws)?;
        let mut resolvers = vec![
            Dnsmasq {
                duties: forwarder(NODE_FOR_PODS),
                extra: vec!["cache-size=0".to_owned()],
            }
            .start(&network.node)?,
            Unbound {
                duties: forwarder(NODE),
            }
            .start(&network.node)?,
        ];
        let mut programs = vec![(Kind::Glibc, Program::build(&mut network, Libc::Glibc)?)];
        if takes_part("musl-gcc") {
            programs.push((Kind::Musl, Program::build(&mut network, Libc::Musl)?));
        }
        let mut resolved = None;
        if takes_part("systemd-resolved") {
            let pod = network.pod()?;
            let server = dns(RESOLVER);
            resolvers.push(Resolved { server }.start(&pod)?);
            resolved = Some(pod);
        }
        Ok(Self {
            _resolvers: resolvers,
            resolved,
            programs,
            sweep: Sweep::new(&network.pods)?,
            policer: Policer::install(&network.aws)?,
            meter: Meter::install(&network.node)?,
            network,
            _vpc: vpc,
        })
    }

    fn guard(&self, options: &GuardOptions) -> Result<Guard> {
        let guard = Guard::start(&self.network.node, options)?;
        guard.wait_ready(READY).context("the guard does not start")?;
        Ok(guard)
    }

    /// The storm, with everybody looking.
    fn watch(&self, storm: &Storm, guard: Option<&Guard>) -> Result<StormReport> {
        let before = self.policer.counts()?;
        let offered = self.meter.offered()?;
        let over = AtomicBool::new(false);
        let start = Instant::now();
        thread::scope(|scope| {
            let sweep = scope.spawn(|| self.sweep.run(storm.sweep_pps, storm.length + TAIL, &over));
            let series = scope.spawn(|| series::record(&self.meter, &self.policer, &over));
            let named = scope.spawn(|| guard.map_or(Ok(None), |guard| naming::watch(guard, start, &over)));
            let good = self.good(storm.length);
            over.store(true, Ordering::Relaxed);
            let (sweep, series, named) = (join(sweep)?, join(series)?, join(named)?);
            let good = good?;
            // Read the other way round than before: resolvers go on for a while, and what they send between the two must
            // not look as if it had been shed.
            let offered = self.meter.offered()? - offered;
            let policed = self.policer.counts()?.into_iter();
            Ok(StormReport {
                crowds: good.crowds,
                imds: good.imds,
                ntp: good.ntp,
                offered,
                policed: policed
                    .map(|(service, now)| (service, now.since(before[&service])))
                    .collect(),
                series,
                sweep,
                named,
                events: Vec::new(),
                unclean: None,
            })
        })
    }

    /// Everybody who does nothing wrong, for `length` and until the last is answered or has given up.
    fn good(&self, length: Duration) -> Result<Good> {
        // What one round asks for is new to everybody.
        let zone = &format!("r{}.{ZONE}", random_id());
        thread::scope(|scope| {
            let node = scope.spawn(|| self.node_asks(length));
            let mut real: Vec<(Kind, ScopedJoinHandle<'_, Result<Vec<Lookup>>>)> = Vec::new();
            for (kind, program) in &self.programs {
                let asking = scope.spawn(|| program.ask(REAL_CLIENTS, kind.word(), zone, length));
                real.push((*kind, asking));
            }
            if let Some(pod) = &self.resolved {
                let stubs = stubs(Kind::Resolved, REAL_CLIENTS, zone);
                let asking = move || Ok(Stub::all(pod, stubs, length)?.concat());
                real.push((Kind::Resolved, scope.spawn(asking)));
            }
            // The rest of them is of our own kind.
            let rest = GOOD_CLIENTS - REAL_CLIENTS * (2 + real.len() as u8);
            let pods = [
                (Kind::Stub, rest),
                (Kind::Dnsmasq, REAL_CLIENTS),
                (Kind::Unbound, REAL_CLIENTS),
            ];
            let all = pods
                .iter()
                .flat_map(|&(kind, clients)| stubs(kind, clients, zone))
                .collect();
            let mut asked = Stub::all(&self.network.pods, all, length)?.into_iter();

            let crowd = |kind, clients, lookups: &[Lookup]| Crowd {
                kind,
                clients,
                tally: Tally::of(lookups),
            };
            let mut crowds = Vec::new();
            for (kind, clients) in pods {
                let lookups: Vec<_> = asked.by_ref().take(clients.into()).flatten().collect();
                crowds.push(crowd(kind, clients, &lookups));
            }
            for (kind, asking) in real {
                crowds.push(crowd(kind, REAL_CLIENTS, &join(asking)?));
            }
            crowds.sort_unstable_by_key(|crowd| crowd.kind);
            let (imds, ntp) = join(node)?;
            Ok(Good { crowds, imds, ntp })
        })
    }

    /// The node's own traffic: metadata and time.
    fn node_asks(&self, length: Duration) -> Result<(Tally, Tally)> {
        let asked = inside(&self.network.node, async {
            let start = Instant::now();
            let (mut metadata, mut time) = (JoinSet::new(), JoinSet::new());
            for number in 0.. {
                let due = NODE_ASKS * number;
                if due >= length {
                    break;
                }
                sleep_until((start + due).into()).await;
                metadata.spawn(async { Ok(imds::fetch().await) });
                time.spawn(async { Ok(ntp::ask().await) });
            }
            anyhow::Ok((gather(metadata).await?, gather(time).await?))
        })?;
        let (metadata, time) = asked?;
        Ok((Tally::of(&metadata), Tally::of(&time)))
    }
}

/// What everybody got who does nothing wrong.
struct Good {
    crowds: Vec<Crowd>,
    imds: Tally,
    ntp: Tally,
}

/// Clients of one kind that send queries themselves.
fn stubs(kind: Kind, clients: u8, zone: &str) -> Vec<Stub> {
    let stub = |number| {
        let pod = |first| Network::pod_address(first + number);
        let (source, server) = match kind {
            // Every fourth asks the resolver by its other address.
            Kind::Stub if number % 4 == 3 => (pod(0), dns(RESOLVER_LINK_LOCAL)),
            Kind::Dnsmasq => (pod(100), dns(NODE_FOR_PODS)),
            Kind::Unbound => (pod(150), dns(NODE)),
            Kind::Resolved => (Ipv4Addr::LOCALHOST.into(), Resolved::ADDRESS.into()),
            _ => (pod(0), dns(RESOLVER)),
        };
        Stub {
            zone: format!("{}{number}.{zone}", kind.word()),
            source,
            server,
        }
    };
    (0..clients).map(stub).collect()
}

/// Everything goes to the VPC's resolver.
fn forwarder(listen: Ipv4Addr) -> Duties {
    Duties {
        listen: vec![dns(listen)],
        forwards: vec![Forward::new("", dns(RESOLVER))],
        answers: Vec::new(),
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}
