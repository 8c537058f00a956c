//! The loops people really build, made of real programs.
//!
//! **Invariant: a loop only runs inside its own namespaces, and no longer than its [`Loop`] lives.** Some of them
//! take whole cores without end: hold one for as long as it is watched.
//!
//! Each has the same parts: one question that goes round, names that must keep answering meanwhile, and a mend
//! that corrects one forwarding rule and restarts that resolver.

mod burn;
mod consul;
mod forwarders;
mod wire;

use std::{fmt, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};

pub use self::burn::Burn;
pub use self::forwarders::Forwarder;
pub use self::wire::Wire;

use crate::{
    Namespace,
    client::{Reply, ask},
    question::Question,
    resolver::{Recipe, Resolver},
    upstream::Upstream,
};

/// How the one client asks: `dig +time=2 +tries=3`.
const TRIES: u32 = 3;
const TRY_TIMEOUT: Duration = Duration::from_secs(2);

/// A loop that can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Forwarders in a circle, each sending `consul.` to the next and the last one to the first.
    Circle {
        /// What each of them is.
        forwarder: Forwarder,
        /// How many, 2 or more; 2 exactly over a veth.
        hops: usize,
        /// What lies between them.
        wire: Wire,
    },
    /// Two consul on `lo`, ports 8600 and 8700, each the other's recursor.
    ConsulPair,
    /// The incident: dnsmasq sends `consul.` to consul, and consul recurses to that dnsmasq.
    Incident {
        /// What lies between them.
        wire: Wire,
    },
}

impl Topology {
    /// Two dnsmasq on `lo`: the loop of the demo.
    pub const DEMO: Self = Self::Circle {
        forwarder: Forwarder::Dnsmasq,
        hops: 2,
        wire: Wire::Loopback,
    };

    /// The incident itself, on `lo`.
    pub const INCIDENT: Self = Self::Incident { wire: Wire::Loopback };

    /// The programs it needs, as [`crate::programs::provide`] takes them.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Circle {
                forwarder: Forwarder::Dnsmasq,
                ..
            } => &["ip", "dnsmasq"],
            Self::Circle {
                forwarder: Forwarder::Dnsdist,
                ..
            } => &["ip", "dnsdist"],
            Self::ConsulPair => &["ip", "consul"],
            Self::Incident { .. } => &["ip", "dnsmasq", "consul"],
        }
    }

    /// Builds it: namespaces, resolvers that answer, and the name servers behind them. Nothing loops yet.
    pub fn start(self) -> Result<Loop> {
        let built = match self {
            Self::Circle { forwarder, hops, wire } => forwarders::start(forwarder, hops, wire),
            Self::ConsulPair => consul::pair(),
            Self::Incident { wire } => consul::incident(wire),
        };
        built.with_context(|| format!("build {self}"))
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Circle {
                forwarder,
                hops: 2,
                wire,
            } => write!(out, "{forwarder} <-> {forwarder} on {wire}"),
            Self::Circle { forwarder, hops, wire } => write!(out, "ring of {hops} {forwarder} on {wire}"),
            Self::ConsulPair => write!(out, "consul <-> consul on {}", Wire::Loopback),
            Self::Incident { wire } => write!(out, "dnsmasq <-> consul on {wire}"),
        }
    }
}

/// A loop that is built.
#[derive(Debug)]
pub struct Loop {
    topology: Topology,
    namespaces: Vec<Namespace>,
    hops: Vec<Hop>,
    upstreams: Vec<Upstream>,
    question: Question,
    bystanders: Vec<String>,
    ports: Vec<u16>,
    mended: Recipe,
}

/// One resolver of a loop.
#[derive(Debug)]
struct Hop {
    namespace: Namespace,
    /// Always there but for the moment in which it is replaced.
    resolver: Option<Resolver>,
}

impl Hop {
    fn start(namespace: &Namespace, recipe: &Recipe) -> Result<Self> {
        let resolver = Some(recipe.start(namespace)?);
        Ok(Self {
            namespace: namespace.clone(),
            resolver,
        })
    }
}

impl Loop {
    /// What was built.
    pub fn topology(&self) -> Topology {
        self.topology
    }

    /// Where the client is, and where a guard goes.
    pub fn namespace(&self) -> &Namespace {
        &self.namespaces[0]
    }

    /// Every namespace of it, the client's first.
    pub fn namespaces(&self) -> &[Namespace] {
        &self.namespaces
    }

    /// The interface that the loop goes over, in every one of its namespaces.
    pub fn device(&self) -> &'static str {
        match self.topology {
            Topology::Circle { wire, .. } | Topology::Incident { wire } => wire.device(),
            Topology::ConsulPair => Wire::Loopback.device(),
        }
    }

    /// The DNS ports that its resolvers listen on.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// The server that clients ask.
    pub fn server(&self) -> SocketAddr {
        self.resolvers()
            .next()
            .map_or_else(|| ([127, 0, 0, 1], 53).into(), Resolver::address)
    }

    /// The question that goes round.
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// Names that must keep answering, A records, as [`crate::Prober::run`] takes them.
    ///
    /// The first is forwarded by the very rule that loops, and answered by a later hop.
    pub fn bystanders(&self) -> &[String] {
        &self.bystanders
    }

    /// The resolvers in the order in which a query meets them.
    pub fn resolvers(&self) -> impl Iterator<Item = &Resolver> {
        self.hops.iter().filter_map(|hop| hop.resolver.as_ref())
    }

    /// The name servers that answer what does not loop.
    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    /// Sends the one client query with the retries of `dig +time=2 +tries=3`; takes up to 6 s.
    pub fn ignite(&self) -> Result<Reply> {
        ask(self.namespace(), self.server(), &self.question, TRIES, TRY_TIMEOUT)
    }

    /// Packets that went between the resolvers so far, each counted once.
    pub fn packets(&self) -> Result<u64> {
        let device = self.device();
        self.namespaces.iter().map(|namespace| namespace.packets(device)).sum()
    }

    /// Processor time that the resolvers used so far, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        self.resolvers().map(|resolver| resolver.process().cpu_seconds()).sum()
    }

    /// Ends the cause: the last hop is restarted with its forwarding rule corrected, and answers.
    ///
    /// From then on the looped question has an answer. The other hops are left alone, with what they remember.
    pub fn mend(&mut self) -> Result<()> {
        let hop = self.hops.last_mut().context("a loop has hops")?;
        if let Some(old) = hop.resolver.take() {
            // One that spins may be too busy to listen; then it is killed, and the restart goes on.
            drop(old.process().stop());
        }
        hop.resolver = Some(self.mended.start(&hop.namespace).context("restart the mended hop")?);
        Ok(())
    }

    /// Kills every resolver at once.
    pub fn kill(&self) {
        self.resolvers().for_each(|resolver| resolver.process().kill());
    }
}
