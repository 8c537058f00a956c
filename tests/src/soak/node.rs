//! A node with resolvers and a guard, its clients, and the name servers behind it.
//!
//! ```text
//! clients --in0--> [ unbound, dnsmasq <-- lo --> dnsmasq, dnsmasq <-- lo --> consul ] --out0--> name servers
//!                                         the node
//! ```

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    balance::{self, Judged, Wire},
    count::{self, Count},
    exposition::Exposition,
    footprint,
    pace::Pace,
    sample::Settled,
};
use crate::{
    Namespace,
    guard::{self, Guard, GuardOptions},
    question::Question,
    resolver::{Consul, Dnsmasq, Duties, Forward, Resolver, Unbound},
    upstream::{Manner, Upstream},
    veth,
};

/// What a soak needs, as [`crate::programs::provide`] takes it.
pub const PROGRAMS: [&str; 5] = ["ip", "nft", "dnsmasq", "unbound", "consul"];

/// Where DNS is spoken.
pub(super) const PORTS: [u16; 2] = [53, CONSUL];
/// The port of consul.
const CONSUL: u16 = 8600;

/// The wire to the clients, on both sides.
pub(super) const IN: &str = "in0";
/// The wire to the name servers, on both sides.
const OUT: &str = "out0";
/// The devices of the node at which packets are counted.
const DEVICES: [&str; 3] = ["lo", IN, OUT];

/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(60);
/// For so long nothing moves when all is quiet: no program here waits longer before it asks once more.
const QUIET: Duration = Duration::from_millis(2_500);
/// Programs that wait for an answer have given up by then.
const PATIENCE: Duration = Duration::from_secs(40);
/// The agent reads the kernel's counters once a second; on a busy machine it is late.
const READ: Duration = Duration::from_secs(15);
/// How often is looked.
const POLL: Duration = Duration::from_millis(250);
/// A loop is cut within this, however busy the machine is.
const CUT: Duration = Duration::from_secs(6);
/// So many queries a second go over `lo` only where one is not.
const BURNS: f64 = 1_000.0;

/// Where unbound answers, over both families.
pub(super) const UNBOUND: [&str; 2] = ["10.9.0.1:53", "[fd09::1]:53"];
/// Where the dnsmasq answers that has a loop behind it.
pub(super) const FRONT: &str = "10.9.0.3:53";
/// Where the dnsmasq answers whose consul asks it back.
pub(super) const INCIDENT: &str = "127.0.0.11:53";
/// The other end of the loop.
const BACK: &str = "127.0.0.2:53";

/// What was done, by all who work at a node.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Queries that clients put on [`IN`].
    pub(super) asked: AtomicU64,
    /// Good queries, of those.
    pub(super) good: AtomicU64,
    /// Good queries that were answered.
    pub(super) good_answered: AtomicU64,
    /// Loops that were lit.
    pub(super) lit: AtomicU64,
    /// Loops that were put out, and whose name resolved then.
    pub(super) put_out: AtomicU64,
    /// Interfaces that came and went.
    pub(super) churned: AtomicU64,
    /// Queries that went over some of them, each counted at its own interface.
    pub(super) over_churned: AtomicU64,
    /// Changes of the policy over the control socket.
    pub(super) set: AtomicU64,
    /// Configuration files that were changed.
    pub(super) rewritten: AtomicU64,
    /// Agents that were killed.
    pub(super) killed: AtomicU64,
    /// Agents that were stopped, and left the guard in force.
    pub(super) stopped: AtomicU64,
    /// Agents that were stopped, and took the guard out.
    pub(super) detached: AtomicU64,
}

impl Tally {
    /// One more.
    pub(super) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    /// Agents that came to their end.
    pub(super) fn restarts(&self) -> u64 {
        let ends = [&self.killed, &self.stopped, &self.detached];
        ends.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// What everything is counted from.
#[derive(Clone, Debug)]
struct Baseline {
    wires: BTreeMap<&'static str, Wire>,
    judged: BTreeMap<&'static str, Judged>,
    over: u64,
    shed: u64,
    asked: u64,
    client_queries: u64,
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    /// What it is called in samples.
    pub(super) name: &'static str,
    /// The node itself.
    pub(super) host: Namespace,
    /// Where its clients are.
    pub(super) clients: Namespace,
    servers: Namespace,
    /// Who works and who rests.
    pub(super) pace: Pace,
    /// What was done.
    pub(super) tally: Tally,
    guard: RwLock<Guard>,
    baseline: Mutex<Baseline>,
    back: Mutex<Option<Resolver>>,
    _resolvers: Vec<Resolver>,
    _upstreams: Vec<Upstream>,
}

impl Node {
    /// Builds it, and starts its guard with this configuration; `with_consul` says whether the incident is there, too.
    pub(super) fn start(name: &'static str, with_consul: bool, config: &str) -> Result<Self> {
        let [host, clients, servers] = [Namespace::new()?, Namespace::new()?, Namespace::new()?];
        let over_in = [("10.9.0.1/24", "10.9.0.2/24"), ("fd09::1/64", "fd09::2/64")];
        let over_out = [("10.8.0.1/24", "10.8.0.2/24"), ("fd08::1/64", "fd08::2/64")];
        veth::veth(&host, &clients, IN, &over_in)?;
        veth::veth(&host, &servers, OUT, &over_out)?;
        veth::add(&host, IN, "10.9.0.3/24")?;
        veth::add(&servers, OUT, "10.8.0.4/24")?;
        let far: [SocketAddr; 3] = ["10.8.0.2:53".parse()?, "[fd08::2]:53".parse()?, "10.8.0.4:53".parse()?];
        let serve = |address| Upstream::start(&servers, address, Manner::Answers(Duration::from_millis(2)));
        let upstreams = far.into_iter().map(serve).collect::<Result<Vec<_>>>()?;
        let mut resolvers = vec![unbound(far).start(&host)?, front(far).start(&host)?];
        if with_consul {
            let listen = ["127.0.0.11:53", "127.0.0.12:53", "127.0.0.13:53"];
            let listen = listen.map(str::parse).into_iter().collect::<Result<Vec<_>, _>>()?;
            let consul = SocketAddr::from(([127, 0, 0, 1], CONSUL));
            let dnsmasq = Dnsmasq {
                duties: Duties {
                    listen: listen.clone(),
                    forwards: vec![Forward::new("consul", consul)],
                    answers: Vec::new(),
                },
                extra: Vec::new(),
            };
            resolvers.push(dnsmasq.start(&host)?);
            let consul = Consul {
                dns: consul,
                recursors: listen,
                alias: None,
            };
            resolvers.push(consul.start(&host)?);
        }
        for (namespace, devices) in [(&host, &DEVICES[..]), (&clients, &[IN][..]), (&servers, &[OUT][..])] {
            count::begin(namespace, devices)?;
        }
        let guard = Self::guard_of(&host, config)?;
        let node = Self {
            name,
            clients,
            servers,
            pace: Pace::default(),
            tally: Tally::default(),
            guard: RwLock::new(guard),
            baseline: Mutex::new(Baseline {
                wires: BTreeMap::new(),
                judged: BTreeMap::new(),
                over: 0,
                shed: 0,
                asked: 0,
                client_queries: 0,
            }),
            back: Mutex::new(None),
            _resolvers: resolvers,
            _upstreams: upstreams,
            host,
        };
        node.restart_back(true)?;
        node.begin_to_count()?;
        Ok(node)
    }

    fn guard_of(host: &Namespace, config: &str) -> Result<Guard> {
        let options = GuardOptions {
            extra_toml: config.to_owned(),
            ..GuardOptions::enforce(&["lo", IN, OUT, "ch*"])
        };
        let guard = Guard::start(host, &options)?;
        guard.wait_ready(START)?;
        Ok(guard)
    }

    /// The agent; it is not replaced for as long as this is held.
    pub(super) fn guard(&self) -> RwLockReadGuard<'_, Guard> {
        self.guard.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the agent like this, and starts the next one with this configuration. Nobody else looks at it meanwhile.
    pub(super) fn replace_guard(&self, config: &str, end: impl FnOnce(&Guard) -> Result<()>) -> Result<()> {
        let mut guard = self.guard.write().unwrap_or_else(PoisonError::into_inner);
        end(&guard)?;
        *guard = Self::guard_of(&self.host, config)?;
        Ok(())
    }

    /// Restarts the other end of the loop; its rule goes round, or is mended.
    pub(super) fn restart_back(&self, loops: bool) -> Result<()> {
        let to = if loops { "127.0.0.1:53" } else { "10.8.0.2:53" };
        let recipe = Dnsmasq {
            duties: Duties {
                listen: vec![BACK.parse()?],
                forwards: vec![Forward::new("consul", to.parse()?)],
                answers: vec!["ok.consul".to_owned()],
            },
            extra: Vec::new(),
        };
        let mut back = self.back.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = back.take() {
            old.process().stop()?;
        }
        *back = Some(recipe.start(&self.host)?);
        Ok(())
    }

    /// Its metrics now.
    pub(super) fn metrics(&self) -> Result<Exposition> {
        Exposition::read(&guard::page(&self.host, "/metrics")?)
    }

    /// What went over each wire.
    fn wires(&self) -> Result<BTreeMap<&'static str, Wire>> {
        let host = count::read(&self.host, &DEVICES)?;
        let clients = count::read(&self.clients, &[IN])?;
        let servers = count::read(&self.servers, &[OUT])?;
        let ends = |device: &str| -> Vec<Count> {
            let all = [&host, &clients, &servers];
            all.into_iter()
                .filter_map(|counts| counts.get(device).copied())
                .collect()
        };
        Ok(DEVICES.map(|device| (device, Wire::of(&ends(device)))).into())
    }

    /// The queries that clients put on [`IN`].
    fn client_queries(&self) -> Result<u64> {
        let counts = count::read(&self.clients, &[IN])?;
        Ok(counts.get(IN).context("the clients have a wire")?.queries_out)
    }

    /// Waits until no packet moves; whoever works rests already.
    fn wait_quiet(&self) -> Result<BTreeMap<&'static str, Wire>> {
        let deadline = Instant::now() + PATIENCE;
        let (mut since, mut last) = (Instant::now(), self.wires()?);
        while since.elapsed() < QUIET {
            sleep(POLL);
            let now = self.wires()?;
            if now != last {
                (since, last) = (Instant::now(), now);
            }
            if Instant::now() >= deadline {
                let counted = footprint::counted(&self.host).unwrap_or_else(|error| format!("{error:#}"));
                bail!(
                    "packets move on {} long after everybody stopped: {last:?}; the kernel has counted {counted}",
                    self.name
                );
            }
        }
        Ok(last)
    }

    /// Waits until nothing goes round on `lo`, where a loop with this question was lit. An agent is there all the time.
    pub(super) fn cut(&self, question: &Question) -> Result<()> {
        let guard = self.guard();
        let deadline = Instant::now() + CUT;
        loop {
            let (start, before) = (Instant::now(), self.looped()?);
            sleep(POLL);
            let seconds = start.elapsed().as_secs_f64();
            let looped = self.looped()? - before;
            if looped as f64 / seconds < BURNS || self.pace.is_over() {
                return Ok(());
            }
            if Instant::now() < deadline {
                continue;
            }
            let counted = footprint::counted(&self.host).unwrap_or_else(|error| format!("{error:#}"));
            let (name, kind) = (question.name.to_string(), question.kind.to_string());
            let explained = guard.say(&["explain", &name, &kind, "-o", "json"])?;
            let status = guard.say(&["status", "-o", "json"])?;
            bail!(
                "{question}: {looped} queries in {seconds:.1} s, {CUT:?} after its loop was lit; the kernel has counted \
                 {counted}; the agent says {}{} and {}{}",
                explained.out,
                explained.err,
                status.out,
                status.err
            );
        }
    }

    /// Queries that came over `lo` so far.
    fn looped(&self) -> Result<u64> {
        Ok(count::read(&self.host, &["lo"])?["lo"].queries_in)
    }

    /// Everything is counted from now on; whoever works rests.
    pub(super) fn begin_to_count(&self) -> Result<()> {
        let wires = self.wait_quiet()?;
        let metrics = self.metrics()?;
        let judged = DEVICES.map(|device| (device, Judged::of(device, &metrics)));
        let baseline = Baseline {
            wires,
            judged: judged.into(),
            over: over(&metrics),
            shed: shed(&metrics),
            asked: self.tally.asked.load(Ordering::Relaxed),
            client_queries: self.client_queries()?,
        };
        *self.baseline.lock().unwrap_or_else(PoisonError::into_inner) = baseline;
        Ok(())
    }

    /// Compares all counts; whoever works rests.
    pub(super) fn settle(&self) -> Result<Settled> {
        let wires = self.wait_quiet()?;
        let deadline = Instant::now() + READ;
        loop {
            let mut settled = self.compare(&wires)?;
            let late = Instant::now() >= deadline;
            if late && !settled.wrong.is_empty() {
                settled
                    .wrong
                    .push(format!("the kernel has counted {}", footprint::counted(&self.host)?));
            }
            if late || settled.wrong.is_empty() {
                return Ok(settled);
            }
            sleep(POLL);
        }
    }

    fn compare(&self, wires: &BTreeMap<&'static str, Wire>) -> Result<Settled> {
        let metrics = self.metrics()?;
        let baseline = self.baseline.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut settled = Settled::default();
        for device in DEVICES {
            let wire = wires[device].since(&baseline.wires[device]);
            let now = Judged::of(device, &metrics);
            let Some(judged) = now.since(baseline.judged[device]) else {
                let before = baseline.judged[device];
                settled
                    .wrong
                    .push(format!("{device}: the guard's counters went back: {before:?}, {now:?}"));
                continue;
            };
            settled.wrong.extend(balance::check(device, &wire, &judged));
            settled.add(&wire, &judged);
        }
        let asked = self.tally.asked.load(Ordering::Relaxed) - baseline.asked;
        let counted = self.client_queries()? - baseline.client_queries;
        if asked != counted {
            settled.wrong.push(format!(
                "{IN}: clients sent {asked} queries, and {counted} were counted"
            ));
        }
        let over = over(&metrics).wrapping_sub(baseline.over);
        let shed = shed(&metrics).wrapping_sub(baseline.shed);
        // An agent counts for its budgets from its own beginning on.
        if over != shed && self.tally.restarts() == 0 {
            settled
                .wrong
                .push(format!("budgets had no room for {over} queries, and {shed} were shed"));
        }
        Ok(settled)
    }
}

/// Queries that budgets had no room for.
fn over(metrics: &Exposition) -> u64 {
    metrics.count("dnsguard_budget_packets_total", &["result=\"over\""])
}

/// Queries that were shed for that.
fn shed(metrics: &Exposition) -> u64 {
    metrics.count("dnsguard_actions_total", &["reason=\"budget\""])
}

fn unbound(far: [SocketAddr; 3]) -> Unbound {
    Unbound {
        duties: Duties {
            listen: UNBOUND.iter().filter_map(|address| address.parse().ok()).collect(),
            forwards: vec![Forward::new("", far[0]), Forward::new("six", far[1])],
            answers: Vec::new(),
        },
        extra: Vec::new(),
    }
}

/// The dnsmasq with a loop behind it. It gives a query up after 10 s only, and silent servers are asked much.
fn front(far: [SocketAddr; 3]) -> Dnsmasq {
    let there = |text: &str| text.parse().ok();
    Dnsmasq {
        duties: Duties {
            listen: ["127.0.0.1:53", FRONT].into_iter().filter_map(there).collect(),
            forwards: there(BACK)
                .map(|back| Forward::new("consul", back))
                .into_iter()
                .chain([
                    Forward::new("example", far[0]),
                    Forward::new("refused.example", far[2]),
                    Forward::new("silent.example", far[2]),
                ])
                .collect(),
            answers: Vec::new(),
        },
        extra: vec!["dns-forward-max=10000".to_owned()],
    }
}

/// The configuration with this number; each one differs from the one before it.
pub(super) fn config(number: u64, at_stop: &str) -> String {
    let limit = 20 + number % 7;
    format!(
        "ports = [53, {CONSUL}]\n[attach]\nat_stop = \"{at_stop}\"\n[breaker]\nhold_max_ms = {}\n\
         [[budget]]\nname = \"answered\"\nscope = \"all\"\nzones = [\"answered.example\"]\ninterfaces = [\"{IN}\"]\n\
         limit = {limit}\naction = \"answer\"\n\
         [[budget]]\nname = \"dropped\"\nscope = \"all\"\nzones = [\"dropped.example\"]\ninterfaces = [\"{IN}\"]\n\
         limit = {limit}\n\
         [[budget]]\nname = \"refused\"\nscope = \"all\"\ndirection = \"out\"\nzones = [\"refused.example\"]\n\
         interfaces = [\"{OUT}\"]\nlimit = 5\naction = \"answer\"\n\
         [[budget]]\nname = \"silent\"\nscope = \"all\"\ndirection = \"out\"\nzones = [\"silent.example\"]\n\
         interfaces = [\"{OUT}\"]\nlimit = 5\n\
         [[budget]]\nname = \"clients\"\nscope = \"client\"\nlimit = 100000\n",
        3_000 + number % 5 * 500,
    )
}
