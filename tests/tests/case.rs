//! What forwarders do with the case of a name: the guard's mark is nothing else.
//!
//! Each program forwards to a name server of ours that takes down every spelling, [`Scribe`]. What comes of it is the
//! table in `docs/FORWARDERS.md`, byte for byte.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{
    Namespace, Question,
    programs::{self, DNSMASQ_0X20},
    question::RecordType,
    resolver::{
        Bind9, Consul, Dnsdist, Dnsmasq, Duties, Forward, KnotResolver, PdnsRecursor, Resolved, Resolver, Unbound,
    },
    scribe::{Reply, Scribe, owner, spelled},
};

const FORWARDER: ([u8; 4], u16) = ([127, 0, 0, 1], 5300);
const SCRIBE: ([u8; 4], u16) = ([127, 0, 0, 9], 53);

/// How long what is sure to come may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer may take that may also be refused in silence; each that came, came within 10 ms.
const OPINION: Duration = Duration::from_secs(4);
/// How long after a later query has got through an earlier one may.
const GRACE: Duration = Duration::from_millis(200);

/// The table is between these lines.
const BEGIN: &str = "<!-- measured by tests/tests/case.rs -->\n";
const END: &str = "<!-- end -->\n";

/// A program, set up in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forwarder {
    Bind9,
    Consul,
    Dnsdist,
    Dnsmasq,
    DnsmasqNewer,
    DnsmasqRandom,
    KnotResolver,
    KnotResolverPlain,
    PdnsRecursor,
    PdnsRecursorLower,
    Resolved,
    Unbound,
    UnboundCaps,
}

impl Forwarder {
    const ALL: [Self; 13] = [
        Self::Bind9,
        Self::Consul,
        Self::Dnsdist,
        Self::Dnsmasq,
        Self::DnsmasqNewer,
        Self::DnsmasqRandom,
        Self::KnotResolver,
        Self::KnotResolverPlain,
        Self::PdnsRecursor,
        Self::PdnsRecursorLower,
        Self::Resolved,
        Self::Unbound,
        Self::UnboundCaps,
    ];

    /// Its name, the file name of its program, and how it is set up where that is not the default.
    const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Bind9 => ("bind9", "named", ""),
            Self::Consul => ("consul", "consul", ""),
            Self::Dnsdist => ("dnsdist", "dnsdist", ""),
            Self::Dnsmasq => ("dnsmasq", "dnsmasq", ""),
            Self::DnsmasqNewer => ("dnsmasq", DNSMASQ_0X20, ""),
            Self::DnsmasqRandom => ("dnsmasq", DNSMASQ_0X20, "do-0x20-encode"),
            Self::KnotResolver => ("knot-resolver", "kresd", ""),
            Self::KnotResolverPlain => ("knot-resolver", "kresd", "NO_0X20"),
            Self::PdnsRecursor => ("pdns-recursor", "pdns_recursor", ""),
            Self::PdnsRecursorLower => ("pdns-recursor", "pdns_recursor", "lowercase-outgoing"),
            Self::Resolved => ("systemd-resolved", "systemd-resolved", ""),
            Self::Unbound => ("unbound", "unbound", ""),
            Self::UnboundCaps => ("unbound", "unbound", "use-caps-for-id"),
        }
    }

    fn start(self, namespace: &Namespace) -> Result<Resolver> {
        let listen = vec![SocketAddr::from(FORWARDER)];
        let server = SocketAddr::from(SCRIBE);
        let duties = Duties {
            listen,
            forwards: vec![Forward::new("", server)],
            answers: Vec::new(),
        };
        let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect();
        // They ask again when an answer is late, and it is late here on purpose: none must do so meanwhile.
        match self {
            Self::Bind9 => Bind9 {
                duties,
                options: Vec::new(),
                blocks: Vec::new(),
            }
            .start(namespace),
            Self::Consul => Consul {
                dns: FORWARDER.into(),
                recursors: vec![server],
                alias: None,
            }
            .start(namespace),
            Self::Dnsdist => Dnsdist {
                duties,
                extra: Vec::new(),
            }
            .start(namespace),
            Self::Dnsmasq | Self::DnsmasqNewer | Self::DnsmasqRandom => {
                let random: &[&str] = match self {
                    Self::DnsmasqRandom => &["do-0x20-encode"],
                    _ => &[],
                };
                let dnsmasq = Dnsmasq {
                    duties,
                    extra: lines(random),
                };
                match self {
                    Self::Dnsmasq => dnsmasq.start(namespace),
                    _ => dnsmasq.start_newer(namespace),
                }
            }
            Self::KnotResolver | Self::KnotResolverPlain => {
                let plain: &[&str] = match self {
                    Self::KnotResolverPlain => &["policy.add(policy.all(policy.FLAGS('NO_0X20')))"],
                    _ => &[],
                };
                KnotResolver {
                    duties,
                    extra: lines(plain),
                }
                .start(namespace)
            }
            Self::PdnsRecursor | Self::PdnsRecursorLower => {
                let lower: &[&str] = match self {
                    Self::PdnsRecursorLower => &["lowercase-outgoing=yes"],
                    _ => &[],
                };
                PdnsRecursor {
                    duties,
                    extra: lines(lower),
                }
                .start(namespace)
            }
            Self::Resolved => {
                // Without a link to the world it asks nobody.
                namespace.ip("link add near type veth peer name far")?;
                namespace.ip("address add 10.53.0.1/24 dev near")?;
                namespace.ip("link set near up")?;
                namespace.ip("link set far up")?;
                Resolved { server }.start(namespace)
            }
            Self::Unbound => Unbound {
                duties,
                extra: lines(&["infra-cache-min-rtt: 2000"]),
            }
            .start(namespace),
            Self::UnboundCaps => Unbound {
                duties,
                extra: lines(&["infra-cache-min-rtt: 2000", "use-caps-for-id: yes"]),
            }
            .start(namespace),
        }
    }
}

/// One client of the forwarder: a socket, and the query that it has sent.
struct Client {
    socket: UdpSocket,
    name: &'static str,
}

/// What a client got.
struct Answer {
    /// How the question is spelled in it.
    question: String,
    /// How the name is spelled in its record, if there is one.
    owner: Option<String>,
}

impl Client {
    fn ask(namespace: &Namespace, server: SocketAddr, name: &'static str) -> Result<Self> {
        let socket = namespace.udp(([127, 0, 0, 1], 0).into())?;
        socket.connect(server)?;
        socket.send(&Question::new(name, RecordType::A)?.query(0x0705)?)?;
        Ok(Self { socket, name })
    }

    /// The answer, if one comes.
    fn answer(&self, patience: Duration) -> Result<Option<Answer>> {
        self.socket.set_read_timeout(Some(patience))?;
        let mut buffer = [0; 4096];
        let Ok(length) = self.socket.recv(&mut buffer) else {
            return Ok(None);
        };
        let response = &buffer[..length];
        let question = spelled(response).context("a response has a question")?;
        Ok(Some(Answer {
            question,
            owner: owner(response),
        }))
    }
}

/// The program's row of the table.
fn row(forwarder: Forwarder) -> Result<String> {
    let (name, program, setting) = forwarder.names();
    let namespace = Namespace::new()?;
    let scribe = Scribe::start(&namespace, SCRIBE.into(), |name| {
        let name = name.to_ascii_lowercase();
        match () {
            () if name.starts_with("held") => Reply::Held,
            () if name.starts_with("turned") => Reply::Turned,
            () => Reply::Asked,
        }
    })?;
    let resolver = forwarder.start(&namespace)?;
    let server = resolver.address();
    let (query, answer) = one_client(&namespace, server, &scribe)?;
    let both = two_clients(&namespace, server, &scribe)?;
    // At the end: after this kresd does not ask such a server for a while.
    let other = another_spelling(&namespace, server, &scribe)?;
    let version = programs::version(program)?;
    // Two numbers: what follows changes with every correction of a distribution.
    let version: Vec<&str> = version.split('.').take(2).collect();
    let version = match version[..] {
        // systemd has one, and the second is the distribution's.
        [systemd, _] if forwarder == Forwarder::Resolved => systemd.to_owned(),
        _ => version.join("."),
    };
    let setting = match setting {
        "" => String::new(),
        setting => format!(", `{setting}`"),
    };
    Ok(format!(
        "| {name} {version}{setting} | {query} | {answer} | {both} | {other} |\n"
    ))
}

/// How it spells its own query, and its answer.
fn one_client(namespace: &Namespace, server: SocketAddr, scribe: &Scribe) -> Result<(&'static str, &'static str)> {
    let (mut kept, mut lower, mut own) = (true, true, true);
    for name in [
        "Plain-One-wItH-mAnY-Letters.eXample",
        "pLAIN-two-wItH-mAnY-Letters.exAmpLE",
        "plAIn-thREE-wItH-mAnY-Letters.ExAmpLe",
    ] {
        let client = Client::ask(namespace, server, name)?;
        let answer = client
            .answer(PATIENCE)?
            .with_context(|| format!("{name} has no answer"))?;
        let owner = answer.owner.with_context(|| format!("{name} has no address"))?;
        let asked = scribe.spellings(name);
        ensure!(!asked.is_empty(), "{name} was answered without being asked for");
        kept &= asked.iter().all(|asked| asked == name);
        lower &= asked.iter().all(|asked| *asked == name.to_ascii_lowercase());
        own &= answer.question == name && owner == name;
    }
    let query = match (kept, lower) {
        (true, _) => "kept",
        (_, true) => "lower case",
        _ => "at random",
    };
    Ok((query, if own { "the client's" } else { "not the client's" }))
}

/// What it does with two clients that spell one name in two ways, while the first waits.
fn two_clients(namespace: &Namespace, server: SocketAddr, scribe: &Scribe) -> Result<&'static str> {
    const FIRST: &str = "held-FIRST-with-many-letters.example";
    const SECOND: &str = "HELD-first-WITH-many-LETTERS.example";
    const LATER: &str = "later-and-not-held.example";
    let first = Client::ask(namespace, server, FIRST)?;
    scribe.wait(FIRST, PATIENCE)?;
    let before = scribe.spellings(FIRST).len();
    let second = Client::ask(namespace, server, SECOND)?;
    // Once a later query is through, so is the second, if it is ever.
    Client::ask(namespace, server, LATER)?
        .answer(PATIENCE)?
        .context("the later query has no answer")?;
    thread::sleep(GRACE);
    let merged = scribe.spellings(FIRST).len() == before;
    scribe.release();
    let mut spelled = Vec::new();
    for client in [&first, &second] {
        let answer = client
            .answer(PATIENCE)?
            .with_context(|| format!("{} has no answer", client.name))?;
        spelled.push(answer.question);
    }
    Ok(match (merged, spelled[0] == FIRST, spelled[1] == SECOND) {
        (true, true, true) => "one query, each its own",
        (true, true, false) if spelled[1] == FIRST => "one query, both the first's",
        (false, true, true) => "two queries, each its own",
        (true, ..) => "one query, not their own",
        (false, ..) => "two queries, not their own",
    })
}

/// What it does with an answer whose question is not spelled as its query was.
fn another_spelling(namespace: &Namespace, server: SocketAddr, scribe: &Scribe) -> Result<&'static str> {
    const NAME: &str = "turned-WITH-many-letters.example";
    let answer = Client::ask(namespace, server, NAME)?.answer(OPINION)?;
    let asked = scribe.spellings(NAME).len();
    ensure!(asked > 0, "{NAME} was not asked for");
    Ok(match answer {
        None | Some(Answer { owner: None, .. }) => "refused",
        Some(Answer { question, .. }) => match (question == NAME, asked) {
            (true, 1) => "taken, put right",
            (true, _) => "asks again, then taken, put right",
            (false, 1) => "taken, passed on",
            (false, _) => "asks again, then taken, passed on",
        },
    })
}

/// Bytes of named's answer for a name of its zone, asked for in this spelling.
fn size_of_named_s_answer(namespace: &Namespace, server: SocketAddr, name: &'static str) -> Result<usize> {
    let client = Client::ask(namespace, server, name)?;
    client.socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 4096];
    let length = client.socket.recv(&mut buffer)?;
    ensure!(
        spelled(&buffer[..length]).as_deref() == Some(name),
        "named keeps the spelling"
    );
    ensure!(
        owner(&buffer[..length]).as_deref() == Some("host.zone.example"),
        "the zone has its own"
    );
    Ok(length)
}

/// It does not compress a name against a question in another spelling: the answer to a marked query is longer.
#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn named_s_answer_grows_if_the_question_is_spelled_otherwise_than_its_zone() -> Result<()> {
    programs::provide(&["ip", "named"])?;
    let namespace = Namespace::new()?;
    let records =
        "@ 0 SOA ns host 1 3600 600 86400 0\n@ 0 NS ns\nns 0 A 192.0.2.1\nhost 0 A 192.0.2.2\nhost 0 A 192.0.2.3\n";
    let file = namespace.file("zone.example", records)?;
    let named = Bind9 {
        duties: Duties {
            listen: vec![FORWARDER.into()],
            ..Duties::default()
        },
        options: Vec::new(),
        blocks: vec![format!(
            "zone \"zone.example\" {{ type primary; file \"{}\"; }};",
            file.display()
        )],
    }
    .start(&namespace)?;
    let plain = size_of_named_s_answer(&namespace, named.address(), "host.zone.example")?;
    let marked = size_of_named_s_answer(&namespace, named.address(), "hOsT.zOnE.eXample")?;
    println!("named: {plain} bytes in the zone's spelling, {marked} in another");
    ensure!(marked > plain, "{plain} bytes plain, {marked} marked");
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn the_table_of_forwarders_is_what_they_do() -> Result<()> {
    let mut needed = vec!["ip"];
    needed.extend(Forwarder::ALL.map(|forwarder| forwarder.names().1));
    programs::provide(&needed)?;
    let rows = thread::scope(|scope| {
        let rows = Forwarder::ALL.map(|forwarder| (forwarder, scope.spawn(move || row(forwarder))));
        let rows = rows.map(|(forwarder, row)| {
            row.join()
                .expect("a row does not panic")
                .with_context(|| format!("{forwarder:?}"))
        });
        rows.into_iter().collect::<Result<Vec<_>>>()
    })?;
    let table = format!(
        "| forwarder | its query | its answer | two spellings at once | an answer in another spelling |\n\
         |---|---|---|---|---|\n{}",
        rows.concat()
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/FORWARDERS.md");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let written = text
        .split_once(BEGIN)
        .and_then(|(_, rest)| rest.split_once(END))
        .map(|(table, _)| table)
        .with_context(|| format!("docs/FORWARDERS.md has no lines {BEGIN}and {END}"))?;
    ensure!(
        written == table,
        "docs/FORWARDERS.md says something else than was measured. If these are the versions it should speak of, put \
         this in its place:\n{table}"
    );
    Ok(())
}
