//! The place with everything in it, and everybody who takes part.

use std::{
    net::Ipv4Addr,
    panic::resume_unwind,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{task::JoinSet, time::sleep_until};

use super::{
    imds,
    libc::{Libc, Program},
    naming,
    network::{NODE, NODE_FOR_PODS, Network, RESOLVER, RESOLVER_LINK_LOCAL, dns},
    ntp,
    policer::{Meter, Policer},
    report::{Crowd, Kind, StormReport},
    series,
    stub::{Stub, ZONE},
    sweep::Sweep,
    takes_part,
    tally::{Lookup, Tally},
    vpc::Vpc,
};
use crate::{
    Namespace,
    client::inside,
    guard::{Guard, GuardOptions},
    prober::gather,
    question::random_id,
    resolver::{Dnsmasq, Duties, Forward, Resolved, Resolver, Unbound},
};

/// Clients that do nothing wrong, of all kinds together.
pub const GOOD_CLIENTS: u8 = 50;
/// Of these, clients of each kind that is not [`Kind::Stub`].
const REAL_CLIENTS: u8 = 4;
/// How often the node asks for metadata and for the time: five times a second each.
const NODE_ASKS: Duration = Duration::from_millis(200);
/// How long good traffic takes that does not count.
const WARM_UP: Duration = Duration::from_millis(700);
/// How long the sweep may go on for the last answers of good clients.
const TAIL: Duration = Duration::from_secs(12);
/// A debug build verifies its programs within this on a busy machine.
const READY: Duration = Duration::from_secs(20);

/// The place, with everything running that answers.
#[derive(Debug)]
pub(super) struct Site {
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
    pub(super) fn start() -> Result<Self> {
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
                extra: Vec::new(),
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

    pub(super) fn guard(&self, options: &GuardOptions) -> Result<Guard> {
        let guard = Guard::start(&self.network.node, options)?;
        guard.wait_ready(READY).context("the guard does not start")?;
        Ok(guard)
    }

    /// Good traffic that does not count, so that every path has been used.
    pub(super) fn warm_up(&self) -> Result<()> {
        self.good(WARM_UP).map(drop)
    }

    /// The storm, with everybody looking.
    pub(super) fn watch(&self, sweep_pps: u32, length: Duration, guard: Option<&Guard>) -> Result<StormReport> {
        let before = self.policer.counts()?;
        let offered = self.meter.offered()?;
        let over = AtomicBool::new(false);
        let start = Instant::now();
        thread::scope(|scope| {
            let sweep = scope.spawn(|| self.sweep.run(sweep_pps, length + TAIL, &over));
            let series = scope.spawn(|| series::record(&self.meter, &self.policer, &over));
            let named = scope.spawn(|| guard.map_or(Ok(None), |guard| naming::watch(guard, start, &over)));
            // Also when something in here panics: the others end by it.
            let ends = SetAtEnd(&over);
            let good = self.good(length);
            drop(ends);
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

/// Sets its flag when it goes.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
