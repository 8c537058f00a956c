//! Real resolvers, started, asked until they answer, and stopped.
//!
//! **Invariant: a [`Resolver`] that exists answers.** Every configuration holds a zone that it answers itself
//! (`ready.test`; consul a service), and starting one means asking it there until the answer comes.

mod bind9;
mod consul;
mod dnsdist;
mod dnsmasq;
mod knot_resolver;
mod pdns_recursor;
mod resolved;
mod unbound;

use std::{
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

pub use bind9::Bind9;
pub use consul::{Consul, SERVICE};
pub use dnsdist::Dnsdist;
pub use dnsmasq::Dnsmasq;
pub use knot_resolver::KnotResolver;
pub use pdns_recursor::PdnsRecursor;
pub use resolved::Resolved;
pub use unbound::Unbound;

use crate::{
    Namespace, Process,
    client::ask,
    question::{Question, RecordType},
};

/// The zone that every resolver of the lab answers itself (RFC 6761 keeps `test.` for such use).
const READY: &str = "ready.test";

/// The address that resolvers of the lab give for names they answer themselves (RFC 5737, documentation).
pub const LOCAL_ANSWER: &str = "192.0.2.10";

/// consul elects itself first; the others need milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which server a zone's queries are forwarded to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The zone without a dot at its end; empty for everything else.
    pub zone: String,
    /// The server's address and port.
    pub to: SocketAddr,
}

impl Forward {
    /// Queries for `zone` and below go to `to`.
    pub fn new(zone: &str, to: SocketAddr) -> Self {
        Self {
            zone: zone.to_owned(),
            to,
        }
    }
}

/// What a resolver listens on, forwards, and answers itself, whichever program it is.
#[derive(Clone, Debug, Default)]
pub struct Duties {
    /// Addresses to listen on; the first is the one it is asked at.
    pub listen: Vec<SocketAddr>,
    /// What is forwarded; a zone may stand here with several servers.
    pub forwards: Vec<Forward>,
    /// Zones for which it gives [`LOCAL_ANSWER`] to every A query itself, without a dot at the end.
    pub answers: Vec<String>,
}

/// How to start one resolver, whichever program it is.
#[derive(Clone, Debug)]
pub enum Recipe {
    /// See [`Consul`].
    Consul(Consul),
    /// See [`Dnsdist`].
    Dnsdist(Dnsdist),
    /// See [`Dnsmasq`].
    Dnsmasq(Dnsmasq),
    /// See [`Unbound`].
    Unbound(Unbound),
}

impl Recipe {
    /// Starts the program in `namespace` and waits until it answers.
    pub fn start(&self, namespace: &Namespace) -> Result<Resolver> {
        match self {
            Self::Consul(consul) => consul.start(namespace),
            Self::Dnsdist(dnsdist) => dnsdist.start(namespace),
            Self::Dnsmasq(dnsmasq) => dnsmasq.start(namespace),
            Self::Unbound(unbound) => unbound.start(namespace),
        }
    }

    /// The program's name.
    pub fn program(&self) -> &'static str {
        match self {
            Self::Consul(_) => "consul",
            Self::Dnsdist(_) => "dnsdist",
            Self::Dnsmasq(_) => "dnsmasq",
            Self::Unbound(_) => "unbound",
        }
    }
}

/// A running resolver that has answered at least once.
#[derive(Debug)]
pub struct Resolver {
    process: Process,
    address: SocketAddr,
}

impl Resolver {
    /// Waits until `process` answers on `address`.
    ///
    /// Each question asks for a name of its own: the same name over and over is not how anything here behaves.
    fn ready(
        namespace: &Namespace,
        process: Process,
        address: SocketAddr,
        question: impl Fn(u32) -> String,
    ) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let mut wait = Duration::from_millis(10);
        for number in 0.. {
            if let Some(status) = process.ended() {
                bail!("{} ended ({status}):\n{}", process.name(), process.last_words());
            }
            let question = Question::new(&question(number), RecordType::A)?;
            let reply = ask(namespace, address, &question, 1, wait)?;
            if reply.answered() && reply.message.is_some_and(|message| !message.answers.is_empty()) {
                break;
            }
            if Instant::now() > deadline {
                bail!("{} does not answer:\n{}", process.name(), process.last_words());
            }
            // A refusal comes at once.
            sleep(wait.saturating_sub(reply.waited));
            wait = (wait * 2).min(Duration::from_millis(200));
        }
        Ok(Self { process, address })
    }

    /// The address it is asked at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The running program.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// The first address of `duties`, which every resolver needs.
fn first(duties: &Duties) -> Result<SocketAddr> {
    match duties.listen.first() {
        Some(address) => Ok(*address),
        None => bail!("a resolver needs an address to listen on"),
    }
}

/// The text of a master file in which every name of the zone has [`LOCAL_ANSWER`], for servers that want a file.
fn everything_local() -> String {
    format!("@ 0 SOA ns.{READY}. host.{READY}. 1 3600 600 86400 0\n@ 0 NS ns.{READY}.\n* 0 A {LOCAL_ANSWER}\n")
}

fn ready_name(number: u32) -> String {
    format!("q{number}.{READY}")
}
