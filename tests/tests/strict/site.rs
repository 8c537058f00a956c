//! One host: a strict client, the guard on `lo`, and a named with a zone for it.
//!
//! ```text
//!  herd of 15  --+
//!                +-- 127.0.0.9:53, the relay -- 127.0.0.1:5310, named
//!  strict client-+
//! ```
//!
//! The guard marks a query of a name that one server of this host has been asked for 16 times without an answer. So the
//! relay holds what comes until the herd has asked, and the strict client's query is the one that is marked.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{
    Namespace, Question,
    guard::{Guard, GuardOptions},
    programs,
    question::RecordType,
    resolver::{Bind9, Duties, Resolver},
};

use super::relay::{Relay, Seen};

/// Where the server is, as far as its clients know.
pub(crate) const SERVER: ([u8; 4], u16) = ([127, 0, 0, 9], 53);
/// Where it is. The guard does not look at this port.
const NAMED: ([u8; 4], u16) = ([127, 0, 0, 1], 5_310);
/// Where a strict resolver listens, whose clients the guard does not see.
pub(crate) const RESOLVER: ([u8; 4], u16) = ([127, 0, 0, 1], 5_300);

/// The zone that named serves unless a test has its own.
pub(crate) const ZONE: &str = "strict.example";
/// The secret of the key `lab` (TSIG, HMAC-SHA256).
pub(crate) const SECRET: &str = "bm9ib2R5IGhhcyB0byBrZWVwIHRoaXMgc2VjcmV0ISE=";
/// What is in each zone.
pub(crate) const RECORDS: &str = "@ 0 SOA ns host 1 3600 600 86400 0\n@ 0 NS ns\nns 0 A 127.0.0.9\n\
                                  host 0 A 192.0.2.21\nother 0 A 192.0.2.22\n*.wild 0 A 192.0.2.23\n";

/// For an unbound that must not ask again because we are slow.
pub(crate) const PATIENT: &str = "infra-cache-min-rtt: 3000";

/// Queries after which the next one to the same server is marked.
pub(crate) const HERD: usize = 15;

/// How long the agent may take to start, and to read its counters once.
const PATIENCE: Duration = Duration::from_secs(20);

/// The host.
pub(crate) struct Site {
    pub(crate) namespace: Namespace,
    pub(crate) relay: Relay,
    pub(crate) guard: Guard,
    _named: Resolver,
}

/// Clients that have asked, and wait.
pub(crate) struct Herd {
    name: String,
    sockets: Vec<UdpSocket>,
}

impl Site {
    /// Starts it with [`ZONE`], which whoever has the key may update, and with `programs` at hand and further `options`
    /// of named.
    pub(crate) fn start(programs: &[&str], options: &[&str]) -> Result<Self> {
        programs::provide(&["ip", "named"])?;
        programs::provide(programs)?;
        let namespace = Namespace::new()?;
        let file = namespace.file("strict.zone", RECORDS)?;
        let key = format!("key \"lab\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};");
        let zone = format!(
            "zone \"{ZONE}\" {{ type primary; file \"{}\"; allow-update {{ key lab; }}; }};",
            file.display()
        );
        let options = options.iter().map(|&line| line.to_owned()).collect();
        Self::start_in(namespace, options, vec![key, zone])
    }

    /// Starts it with the zones that are in `blocks`.
    pub(crate) fn start_in(namespace: Namespace, options: Vec<String>, blocks: Vec<String>) -> Result<Self> {
        let named = Bind9 {
            duties: Duties {
                listen: vec![NAMED.into()],
                ..Duties::default()
            },
            options,
            blocks,
        }
        .start(&namespace)?;
        let relay = Relay::start(&namespace, SERVER.into(), NAMED.into())?;
        let guard = Guard::start(&namespace, &GuardOptions::enforce(&["lo"]))?;
        guard.wait_ready(PATIENCE)?;
        Ok(Self {
            namespace,
            relay,
            guard,
            _named: named,
        })
    }

    /// Has a herd ask for `name`. Nobody is answered until `strict` more queries have come.
    pub(crate) fn herd(&self, name: &str, kind: RecordType, strict: usize) -> Result<Herd> {
        let before = self.relay.seen(name).len();
        self.relay.hold(name, kind.into(), HERD + strict);
        let mut herd = Herd {
            name: name.to_owned(),
            sockets: Vec::new(),
        };
        for _ in 0..HERD {
            herd.sockets.push(self.ask(name, kind)?);
        }
        self.relay.wait(name, before + HERD)?;
        Ok(herd)
    }

    /// One client that asks, plainly.
    pub(crate) fn ask(&self, name: &str, kind: RecordType) -> Result<UdpSocket> {
        let socket = self.namespace.udp(([127, 0, 0, 1], 0).into())?;
        socket.connect(SocketAddr::from(SERVER))?;
        socket.send(&Question::new(name, kind)?.query(0x0705)?)?;
        Ok(socket)
    }

    /// Queries for `name` that are not of the herd.
    pub(crate) fn strict(&self, herd: &Herd) -> Result<Vec<Seen>> {
        let ours = herd
            .sockets
            .iter()
            .map(UdpSocket::local_addr)
            .collect::<Result<Vec<_>, _>>()?;
        let (herds, strict): (Vec<_>, Vec<_>) = self
            .relay
            .seen(&herd.name)
            .into_iter()
            .partition(|seen| ours.contains(&seen.client));
        for seen in herds {
            ensure!(seen.name == herd.name, "one of the herd was marked: {seen:?}");
        }
        Ok(strict)
    }

    /// Waits until the guard has counted so many marks, or more, and as many restorations.
    pub(crate) fn marked(&self, marks: u64) -> Result<()> {
        let restorations = "dnsguard_mark_restorations_total";
        self.guard
            .wait_counter("dnsguard_marks_total", &["result=\"marked\""], marks, PATIENCE)?;
        self.guard.wait_counter(restorations, &[], marks, PATIENCE)?;
        let trips = self.guard.events_of("trip")?;
        ensure!(trips.is_empty(), "taken for a loop: {trips:?}");
        Ok(())
    }

    /// Runs a program that asks, and returns what it says.
    pub(crate) fn say(&self, program: &str, arguments: &str) -> Result<String> {
        let start = Instant::now();
        let said = self.namespace.tool(program, arguments)?;
        println!("{program} {arguments}: {:?}", start.elapsed());
        Ok(said)
    }
}

/// The words that have to be in what a program says.
pub(crate) fn says(said: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(said.contains(word), "{word} is not in:\n{said}");
    }
    for bad in [
        "WARNING",
        "Warning",
        "mismatch",
        "could not be",
        ";; ->>HEADER<<- opcode: QUERY, status: SERVFAIL",
    ] {
        ensure!(!said.contains(bad), "{bad} is in:\n{said}");
    }
    Ok(())
}

/// The first query of a strict client.
pub(crate) fn first(queries: Vec<Seen>) -> Result<Seen> {
    queries.into_iter().next().context("it did not ask")
}

/// The one query of a strict client, which asked once and was content.
pub(crate) fn only(queries: Vec<Seen>) -> Result<Seen> {
    ensure!(queries.len() == 1, "it asked {} times: {queries:?}", queries.len());
    first(queries)
}
