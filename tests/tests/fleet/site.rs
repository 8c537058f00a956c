//! Two nodes with an agent and a loop each, and a Prometheus that scrapes both, in namespaces.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener},
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::Duration,
};

use anyhow::Result;
use guard_tests::{
    Namespace, Prometheus, Question,
    foreign::Foreign,
    guard::{Guard, GuardOptions},
    programs,
    question::RecordType,
    topology::{Loop, Topology},
    veth,
};

use super::files::{ALERTS, ENA, RECORDING};

/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);
/// How often somebody asks for what loops.
const BETWEEN: Duration = Duration::from_millis(200);
/// How often a client asks that has too much to ask: 100 times a second at the most, its budget is 20.
const BUSY: Duration = Duration::from_millis(10);

/// Where agents and node_exporter serve their metrics.
const AGENT: u16 = 9_533;
const EXPORTER: u16 = 9_100;
/// A resolver of a cloud, which is not there: what is sent to it is counted where it leaves.
const LINK_LOCAL: ([u8; 4], u16) = ([169, 254, 169, 253], 53);
/// The interface that it leaves by.
pub(crate) const LINK: &str = "link0";
/// The address of the busy client.
const CLIENT: ([u8; 4], u16) = ([127, 0, 0, 66], 0);

/// Both agents and a node_exporter are scraped each second.
const SCRAPE: &str = "\
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
scrape_configs:
  - job_name: dnsguard
    static_configs: [{targets: ['10.90.1.2:9533', '10.90.2.2:9533']}]
  - job_name: node
    static_configs: [{targets: ['10.90.1.2:9100']}]
";

/// A node.
pub(crate) struct Node {
    pub(crate) built: Loop,
    pub(crate) guard: Guard,
    /// As Prometheus names it.
    pub(crate) host: String,
    /// Its configuration.
    pub(crate) configuration: String,
    /// Sits on its link where the agent wants to.
    _foreign: Option<Foreign>,
}

impl Node {
    /// The node of this number, 1 or 2, with a wire to whoever watches it. The first one has a link to a cloud, on which
    /// one hook cannot be had.
    fn start(watcher: &Namespace, number: u8) -> Result<Self> {
        let built = Topology::DEMO.start()?;
        let namespace = built.namespace();
        let host = format!("10.90.{number}.2");
        let (near, far) = (format!("10.90.{number}.1/24"), format!("{host}/24"));
        veth::veth(watcher, namespace, &format!("node{number}"), &[(&near, &far)])?;
        let mut configuration = format!("[metrics]\nlisten = \"{host}:{AGENT}\"\n");
        let (mut devices, mut foreign) = (vec!["lo"], None);
        if number == 1 {
            veth::lay_link_local(namespace)?;
            foreign = Some(Foreign::xdp(namespace, LINK, "foreign")?);
            devices.push(LINK);
            configuration += BUDGETS;
        }
        let options = GuardOptions {
            extra_toml: configuration.clone(),
            ..GuardOptions::enforce(&devices)
        };
        let guard = Guard::start(namespace, &options)?;
        guard.wait_ready(START)?;
        Ok(Self {
            built,
            guard,
            host,
            configuration,
            _foreign: foreign,
        })
    }

    /// Where its agent serves its metrics.
    pub(crate) fn metrics(&self) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.host.parse::<IpAddr>()?, AGENT))
    }
}

const BUDGETS: &str = "\
[attach]
xdp = \"driver\"
[[budget]]
preset = \"aws-link-local\"
limit = 40
interfaces = [\"link0\"]
[[budget]]
name = \"each client\"
scope = \"client\"
types = [\"TXT\"]
limit = 20
[[budget]]
name = \"everything\"
scope = \"all\"
limit = 100000
";

/// All of it.
pub(crate) struct Site {
    pub(crate) prometheus: Prometheus,
    pub(crate) nodes: [Node; 2],
    /// Whether the loops of the nodes are lit.
    lit: [AtomicBool; 2],
    over: AtomicBool,
}

/// Ends what goes on meanwhile, also when an assertion fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Site {
    /// Starts it, and runs `work` while a client of the first node asks for more than its budgets allow.
    pub(crate) fn run(work: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        programs::provide(&[Topology::DEMO.programs(), Prometheus::PROGRAMS].concat())?;
        let watcher = Namespace::new()?;
        let nodes = [Node::start(&watcher, 1)?, Node::start(&watcher, 2)?];
        let exporter: SocketAddr = format!("{}:{EXPORTER}", nodes[0].host).parse()?;
        let exporter = nodes[0].built.namespace().run(|| TcpListener::bind(exporter))?;
        exporter.set_nonblocking(true)?;
        let alerts = hasty(ALERTS);
        let site = Self {
            prometheus: Prometheus::start(&watcher, SCRAPE, &[&alerts, RECORDING])?,
            nodes,
            lit: [AtomicBool::new(false), AtomicBool::new(false)],
            over: AtomicBool::new(false),
        };
        let site = &site;
        thread::scope(|scope| {
            for (node, lit) in site.nodes.iter().zip(&site.lit) {
                scope.spawn(move || {
                    while !site.over.load(Ordering::Relaxed) {
                        if lit.load(Ordering::Relaxed) {
                            // A failure shows as an alert that does not fire.
                            drop(node.built.ignite());
                        }
                        sleep(BETWEEN);
                    }
                });
            }
            scope.spawn(|| {
                while !site.over.load(Ordering::Relaxed) {
                    serve(&exporter);
                    sleep(BUSY);
                }
            });
            scope.spawn(|| site.ask_too_much());
            let _end = End(&site.over);
            work(site)
        })
    }

    /// Lights the loop of a node.
    pub(crate) fn ignite(&self, node: usize) {
        self.lit[node].store(true, Ordering::Relaxed);
    }

    fn ask_too_much(&self) -> Result<()> {
        let node = &self.nodes[0].built;
        let client = node.namespace().udp(CLIENT.into())?;
        let cloud = node.namespace().udp(SocketAddr::from(([0, 0, 0, 0], 0)))?;
        for id in (1..=u16::MAX).cycle() {
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            // A zone stands out by names that are all different.
            let query = Question::new(&format!("q{id}.example."), RecordType::TXT)?.query(id)?;
            client.send_to(&query, node.server())?;
            cloud.send_to(&query, SocketAddr::from(LINK_LOCAL))?;
            sleep(BUSY);
        }
        Ok(())
    }
}

/// The alerts, with each `for` of a minute or more made one of two seconds: nobody waits for longer here.
fn hasty(alerts: &str) -> String {
    let lines = alerts.lines().map(|line| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 2s\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// Serves what node_exporter says on a host with an ENA driver to whoever has come.
fn serve(listener: &TcpListener) {
    let Ok((mut stream, _)) = listener.accept() else { return };
    let response = format!(
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n{ENA}",
        ENA.len()
    );
    // A scraper that went away comes again.
    drop(stream.set_nonblocking(false));
    drop(stream.set_read_timeout(Some(BETWEEN)));
    drop(stream.read(&mut [0; 4_096]));
    drop(stream.write_all(response.as_bytes()));
}
