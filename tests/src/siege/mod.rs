//! A node under siege: real resolvers behind a guard, 100,000 packets/s on its wire, and whoever asks meanwhile.
//!
//! ```text
//!  outside                          node
//!  flood ----------- siege0 ------- guard ---- 10.53.0.3, where nobody is: 1,000 a second may get there
//!  Patrons --------- siege0 ------- guard ---- unbound, 10.53.0.2
//!                                   guard on lo: Patrons ---- dnsmasq ---- dnsmasq
//!                                                Watch   ---- dnsmasq <--> dnsmasq, the loop that is held
//! ```
//!
//! **Invariant: what is lost, the guard has lost.** The flood has a queue of its own (the 256 packets of a veth with
//! GRO); what a socket sends goes around it, because its side does TSO (`veth_skb_is_eligible_for_gro` in
//! drivers/net/veth.c). Patrons ask a few hundred questions a second and have room for all answers, so has unbound.
//!
//! Read in this order: [`Siege`] (what is built), [`Load`] (what is going on while something breaks), [`Toll`] (what it
//! came to), [`Patrons`] (who must not lose anything), [`Watch`] (who sees whether the guard is there).

mod load;
mod memory;
mod patrons;
mod watch;
mod worker;

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use guard_common::{abi, policy::Control};
use nix::time::{ClockId, clock_gettime};

pub use self::{
    load::{Load, Toll},
    memory::MemoryLimit,
    patrons::Patrons,
    watch::{Sample, Seen, Watch},
};
use crate::{
    Namespace,
    flood::{Asked, FLOODED, Flooding, Pace, Stream},
    frame::Query,
    guard::{Guard, GuardOptions, binary, pins},
    knob, programs,
    question::{Question, RecordType},
    resolver::{Duties, Resolver, Unbound},
    topology::{Loop, Topology},
    veth::{self, add, veth},
};

/// The wire, on both sides.
pub const WIRE: &str = "siege0";
/// What the flood asks for in a second, unless `DNSGUARD_PPS` says otherwise.
const FLOOD_PPS: u64 = 100_000;
/// What the guard lets through of it in a second, and at once.
pub const LIMIT: u32 = 1_000;
/// A debug build verifies its programs within this on a busy machine.
pub const START: Duration = Duration::from_secs(30);

/// Where unbound is asked.
pub(crate) const RESOLVER: ([u8; 4], u16) = ([10, 53, 0, 2], 53);
/// Where the flood goes.
const SINK: &str = "10.53.0.3";
/// A hold that outlasts every test.
const HOLD_MS: u32 = 300_000;

/// What is besieged. It has no guard of its own: guards come and go.
#[derive(Debug)]
pub struct Siege {
    lease: Duration,
    looped: Loop,
    outside: Namespace,
    resolver: Resolver,
    query: Query,
}

impl Siege {
    /// The programs it needs, as [`crate::programs::provide`] takes them.
    pub const PROGRAMS: &[&str] = &["dnsmasq", "ethtool", "ip", "tc", "unbound"];

    /// Builds it; its resolvers answer. Guards hold for `lease` without their agents.
    pub fn lay(lease: Duration) -> Result<Self> {
        programs::provide(Self::PROGRAMS)?;
        let looped = Topology::DEMO.start()?;
        let outside = Namespace::new()?;
        let node = looped.namespace();
        veth(&outside, node, WIRE, &[("10.53.0.1/24", "10.53.0.2/24")])?;
        add(node, WIRE, &format!("{SINK}/32"))?;
        // With it, the wire has a queue for the flood.
        node.tool("ethtool", &format!("-K {WIRE} gro on"))?;
        let resolver = Unbound {
            duties: Duties {
                listen: vec![SocketAddr::from(RESOLVER)],
                answers: vec!["example".to_owned()],
                ..Duties::default()
            },
            extra: vec!["so-rcvbuf: 4m".to_owned(), "so-sndbuf: 4m".to_owned()],
        };
        let resolver = resolver.start(node)?;
        let mut query = Query::new(FLOODED, "10.53.0.1:40000", &format!("{SINK}:53"))?;
        query.envelope.stations = [veth::station(&outside, WIRE)?, veth::station(node, WIRE)?];
        Ok(Self {
            lease,
            looped,
            outside,
            resolver,
            query,
        })
    }

    /// Where guard and resolvers are.
    pub fn node(&self) -> &Namespace {
        self.looped.namespace()
    }

    /// Where the flood comes from.
    pub fn outside(&self) -> &Namespace {
        &self.outside
    }

    /// The loop on the node's `lo`.
    pub fn looped(&self) -> &Loop {
        &self.looped
    }

    /// The resolver behind the wire.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// How its guards run, with further lines of configuration; the first of them belong to `[attach]`.
    pub fn options(&self, attach: &str) -> GuardOptions {
        self.options_for(&["lo", WIRE], attach)
    }

    /// The same on these interfaces.
    pub fn options_for(&self, interfaces: &[&str], attach: &str) -> GuardOptions {
        let lease = self.lease.as_secs();
        let toml = format!(
            "[attach]\n{attach}\n[breaker]\nhold_ms = {HOLD_MS}\n[lease]\nseconds = {lease}\n[answer]\nper_client = 65535\n\
             per_hold = 65535\n[[budget]]\nname = \"sink\"\nscope = \"destination\"\ndirection = \"in\"\nlimit = {LIMIT}\n\
             burst = {LIMIT}\ndestinations = [\"{SINK}/32\"]\naction = \"drop\"\n"
        );
        GuardOptions {
            extra_toml: toml,
            ..GuardOptions::enforce(interfaces)
        }
    }

    /// Starts a guard and waits until it is ready: [`START`], unless `DNSGUARD_START` says otherwise (seconds).
    pub fn ready(&self, options: &GuardOptions) -> Result<Guard> {
        let guard = Guard::start(self.node(), options)?;
        guard.wait_ready(Duration::from_secs(knob("DNSGUARD_START", START.as_secs())?))?;
        Ok(guard)
    }

    /// Starts a guard, and the loop, which it holds from then on.
    pub fn guarded(&self, options: &GuardOptions) -> Result<Guard> {
        let guard = self.ready(options)?;
        self.ignite(&guard)?;
        Ok(guard)
    }

    /// Starts the loop and waits until it is held.
    pub fn ignite(&self, guard: &Guard) -> Result<()> {
        self.looped.ignite()?;
        guard.wait_event("trip", START)?;
        ensure!(
            self.look()?.seen == Seen::Held,
            "a tripped name is answered by the guard"
        );
        Ok(())
    }

    /// Mends the loop: whoever asks for its name gets an answer from now on, unless the guard holds it.
    pub fn mend(&mut self) -> Result<()> {
        self.looped.mend()
    }

    /// Asks for the name of the loop once.
    pub fn look(&self) -> Result<Sample> {
        watch::look(self.node(), self.looped.server(), self.looped.question())
    }

    /// Puts the load on: a flood of one name, patrons, watch.
    pub fn load(&self) -> Result<Load<'_>> {
        self.load_of(Asked::OneName)
    }

    /// The same, with this flood.
    pub fn load_of(&self, asked: Asked) -> Result<Load<'_>> {
        let arrived = self.arrived()?;
        Load::start(self, arrived, self.flood(asked)?)
    }

    fn flood(&self, asked: Asked) -> Result<Stream> {
        let mut query = self.query.clone();
        query.question = Question::new(&asked.name(), RecordType::A)?;
        let flooding: Flooding = asked.flooding(&query)?;
        let pps = u32::try_from(knob("DNSGUARD_PPS", FLOOD_PPS)?)?;
        Stream::start(&self.outside, WIRE, flooding, Pace::PerSecond(pps))
    }

    /// Packets of the flood that got to where they were sent.
    pub fn arrived(&self) -> Result<u64> {
        let table = self.node().run(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
        let mut lines = table.lines().filter(|line| line.starts_with("Udp:"));
        let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
        let at = names.split_whitespace().position(|name| name == "NoPorts");
        let value = values.split_whitespace().nth(at.context("no NoPorts")?);
        Ok(value.context("no value")?.parse()?)
    }

    /// Packets of the flood that came over the wire: nobody else's go through its queue.
    pub fn taken(&self) -> Result<u64> {
        let shown = self.node().tool("ethtool", &format!("-S {WIRE}"))?;
        let counts = shown.lines().filter_map(|line| line.trim().split_once(": "));
        let packets = counts.filter(|(name, _)| name.starts_with("rx_queue_") && name.ends_with("_xdp_packets"));
        packets.map(|(_, count)| Ok(count.parse::<u64>()?)).sum()
    }

    /// Until when the policy holds that is in the kernel.
    pub fn lease_until(&self) -> Result<Duration> {
        let path = pins(abi::VERSION).join("maps").join(abi::CONTROL);
        let control = self.node().run(|| -> Result<Control> {
            let control: Array<MapData, Control> = Map::Array(MapData::from_pin(path)?).try_into()?;
            Ok(control.get(&0, 0)?)
        })?;
        Ok(Duration::from_nanos(control.lease_until_ns))
    }

    /// Copies the agent to a file inside, of this number: another binary, as after an upgrade.
    pub fn another_binary(&self, number: usize) -> Result<PathBuf> {
        let new = PathBuf::from(format!("/run/dnsguard-{number}"));
        // There is room for one, and it is some 150 MB: the one before goes with its last process.
        let old = PathBuf::from(format!("/run/dnsguard-{}", number.wrapping_sub(1)));
        let binary = binary()?;
        self.node()
            .run(|| fs::remove_file(old).or(Ok(())).and_then(|()| fs::copy(binary, &new)))?;
        Ok(new)
    }
}

/// Now, on the clock that leases end by.
pub fn monotonic() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}
