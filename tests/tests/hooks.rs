//! Every way in which programs hang, on a real wire: what is seen there, what comes back, and who is left alone.
//!
//! [`Ends`] imitates a loop that the judge knows by its pace: one query, always from the same socket with the same ID,
//! comes by on its way to two servers in turns, faster than any client retries. The servers say nothing.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use guard_tests::{
    Namespace,
    client::ask,
    foreign::Foreign,
    frame::{HELD, Query},
    guard::{Guard, GuardOptions, Mode, wait_freed},
    programs,
    question::{Question, RecordType, ResponseCode},
    topology::Topology,
    upstream::{Manner, Upstream},
    veth, wait,
};
use hickory_proto::{
    op::{Message, MessageType},
    rr::rdata::opt::{EdnsCode, EdnsOption},
};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, setsockopt, socket, sockopt},
};

/// The wire, on both sides.
const WIRE: &str = "veth0";
/// The guarded side of it, and the other.
const HERE: [&str; 2] = ["10.53.0.1", "fd53::1"];
const THERE: [&str; 2] = ["10.53.0.2", "fd53::2"];
/// A kernel in a busy emulator verifies the programs within this.
const START: Duration = Duration::from_secs(60);
/// What takes no time is there long before.
const PATIENCE: Duration = Duration::from_secs(10);
/// The ports of the silent servers.
const SILENT: [u16; 2] = [54, 55];
/// A real server's port.
const REAL: u16 = 53;
/// The ID of the query that goes round.
const ID: u16 = 0x1d1d;
/// Times that it comes by at each of the two servers in one go; the judge needs five.
const ROUNDS: usize = 12;

/// One test at a time: they count packets.
static MACHINE: Mutex<()> = Mutex::new(());

fn site() -> Result<[Namespace; 2]> {
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    let pairs = [("10.53.0.1/24", "10.53.0.2/24"), ("fd53::1/64", "fd53::2/64")];
    veth::veth(&here, &there, WIRE, &pairs)?;
    Ok([here, there])
}

fn options(interfaces: &[&str], toml: &str) -> GuardOptions {
    GuardOptions {
        extra_toml: format!("ports = [53, 54, 55]\n[breaker]\nhold_ms = 300000\n{toml}"),
        ..GuardOptions::enforce(interfaces)
    }
}

fn ready(namespace: &Namespace, options: &GuardOptions) -> Result<Guard> {
    let guard = Guard::start(namespace, options)?;
    guard.wait_ready(START)?;
    Ok(guard)
}

/// A silent server on each side, and whoever asks it on the other: what the guard sees of two dnsmasq in a loop.
struct Ends {
    client: UdpSocket,
    /// Whom the client asks, on the other side.
    server: UdpSocket,
    /// Who asks back, from there.
    other: UdpSocket,
    /// Whom that one asks, on the client's side.
    back: UdpSocket,
}

impl Ends {
    fn new(from: (&Namespace, &str), to: (&Namespace, &str)) -> Result<Self> {
        let socket = |(namespace, address): (&Namespace, &str), port| -> Result<UdpSocket> {
            let socket = namespace.udp(SocketAddr::new(address.parse::<IpAddr>()?, port))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Self {
            client: socket(from, 0)?,
            server: socket(to, SILENT[0])?,
            other: socket(to, 0)?,
            back: socket(from, SILENT[1])?,
        })
    }

    fn send(&self, name: &str) -> Result<()> {
        let query = Question::new(name, RecordType::A)?.query(ID)?;
        // An error here is what the sender would see of the guard.
        self.client.send_to(&query, self.server.local_addr()?)?;
        self.other.send_to(&query, self.back.local_addr()?)?;
        Ok(())
    }

    /// Lets the query go round until the guard finds it.
    fn trip(&self, guard: &Guard, name: &str) -> Result<serde_json::Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for _ in 0..ROUNDS {
                self.send(name)?;
            }
            let trips = guard.events_of("trip")?;
            if let Some(trip) = trips.into_iter().find(|trip| trip["name"] == name) {
                return Ok(trip);
            }
            ensure!(Instant::now() < deadline, "{name} does not trip:\n{}", guard.metrics()?);
        }
    }

    /// What the servers have got since they were last asked.
    fn arrived(&self) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        for server in [&self.server, &self.back] {
            messages.extend(drain(server)?);
        }
        Ok(messages)
    }

    /// A query that nobody holds gets there and back: all that was sent before has had its chance.
    fn settle(&self, name: &str) -> Result<(Vec<Message>, Vec<Message>)> {
        let server = &self.server;
        let question = Question::new(name, RecordType::A)?;
        self.client.send_to(&question.query(ID)?, server.local_addr()?)?;
        let deadline = Instant::now() + PATIENCE;
        let (mut there, mut back) = (Vec::new(), Vec::new());
        let is_mark = |message: &Message| message.queries.iter().any(|query| *query.name() == question.name);
        while !there.iter().any(is_mark) {
            ensure!(Instant::now() < deadline, "{name} does not get there");
            there.extend(self.arrived()?);
        }
        let mark = Message::response(ID, hickory_proto::op::OpCode::Query);
        server.send_to(&mark.to_vec()?, self.client.local_addr()?)?;
        while !back.iter().any(|message: &Message| message.queries.is_empty()) {
            ensure!(Instant::now() < deadline, "nothing comes back for {name}");
            back.extend(drain(&self.client)?);
        }
        there.retain(|message| !is_mark(message));
        back.retain(|message| !message.queries.is_empty());
        Ok((there, back))
    }
}

fn drain(socket: &UdpSocket) -> Result<Vec<Message>> {
    let mut buffer = [0; 2048];
    let mut messages = Vec::new();
    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
        messages.push(Message::from_vec(&buffer[..length]).context("no DNS message")?);
    }
    Ok(messages)
}

/// A SERVFAIL that says why, as RFC 8914 has it, to the question that was asked.
fn is_answer(message: &Message, name: &str, info_code: u16) -> Result<()> {
    let question = Question::new(name, RecordType::A)?;
    assert_eq!(message.metadata.message_type, MessageType::Response);
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    assert_eq!((message.metadata.id, message.metadata.recursion_desired), (ID, true));
    ensure!(
        message.metadata.recursion_available && !message.metadata.authoritative,
        "{message:?}"
    );
    assert_eq!(message.queries.len(), 1);
    assert_eq!(
        (message.queries[0].name(), message.queries[0].query_type()),
        (&question.name, RecordType::A)
    );
    let edns = message.edns.as_ref().context("the query had an OPT")?;
    let Some(EdnsOption::Unknown(_, option)) = edns.option(EdnsCode::Unknown(15)) else {
        anyhow::bail!("no EDE: {message:?}");
    };
    assert_eq!(option[..2], info_code.to_be_bytes());
    assert_eq!(&option[2..], HELD.1.as_bytes());
    Ok(())
}

/// Trips a key and looks at what its sender gets.
fn is_answered(guard: &Guard, ends: &Ends, name: &str, hook: &str) -> Result<()> {
    let trip = ends.trip(guard, name).with_context(|| hook.to_owned())?;
    assert_eq!(
        (&trip["hook"], &trip["evidence"]),
        (&hook.into(), &"pace".into()),
        "{trip}"
    );
    assert_eq!(
        (&trip["device"], &trip["verdict"]),
        (&WIRE.into(), &"answer".into()),
        "{trip}"
    );
    let (_, answers) = ends
        .settle(&format!("open-{name}"))
        .with_context(|| format!("{hook} {name}"))?;
    let first = answers
        .first()
        .with_context(|| format!("{hook}: nothing came back for {name}"))?;
    is_answer(first, name, 0)?;
    for later in &answers[1..] {
        is_answer(later, name, 13)?;
    }
    ensure!(
        answers.len() <= 16,
        "{hook}: {} answers for one client in one hold",
        answers.len()
    );

    // The client has had its answers: from now on, silence, and nothing gets through.
    for _ in 0..ROUNDS {
        ends.send(name)?;
    }
    ends.settle(&format!("between-{name}"))?;
    for _ in 0..ROUNDS {
        ends.send(name)?;
    }
    let (there, back) = ends.settle(&format!("after-{name}"))?;
    ensure!(
        there.is_empty(),
        "{hook}: {} held queries got through in silence",
        there.len()
    );
    ensure!(back.is_empty(), "{hook}: {} answers too many", back.len());
    Ok(())
}

/// Everything that must hold for one way of attaching.
fn hangs_and_works(xdp: &str, tc: &str, expected: [[&str; 3]; 2]) -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, there] = site()?;
    // Native XDP_TX is lost where the other side of a veth has no NAPI; a program there brings it.
    let _napi = (expected[0][1] == "driver")
        .then(|| Foreign::xdp(&there, WIRE, "foreign"))
        .transpose()?;
    let guard = ready(
        &here,
        &options(&[WIRE], &format!("[attach]\nxdp = \"{xdp}\"\ntc = \"{tc}\"\n")),
    )?;

    let attached = guard.events_of("attach")?;
    assert_eq!(attached.len(), 2, "{attached:?}");
    for (event, [hook, method, reason]) in attached.iter().zip(expected) {
        assert_eq!(
            (&event["hook"], &event["method"]),
            (&hook.into(), &method.into()),
            "{event}"
        );
        let told = event["reason"].as_str().context("no reason")?;
        ensure!(told.contains(reason), "the reason is `{told}`, and not `{reason}`");
    }

    for family in [0, 1] {
        let word = ["ipv4", "ipv6"][family];
        for (client, server, address) in [(&there, &here, HERE[family]), (&here, &there, THERE[family])] {
            let address = SocketAddr::new(address.parse::<IpAddr>()?, REAL);
            let _upstream = Upstream::start(server, address, Manner::Answers(Duration::ZERO))?;
            let question = Question::new(&format!("{word}.example."), RecordType::A)?;
            ensure!(
                ask(client, address, &question, 3, PATIENCE / 5)?.answered(),
                "a query is answered"
            );
        }
        let labels = [format!("device=\"{WIRE}\""), format!("family=\"{word}\"")];
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        guard.wait_counter("dnsguard_dns_queries_total", &labels, 2, PATIENCE)?;

        let incoming = Ends::new((&there, THERE[family]), (&here, HERE[family]))?;
        is_answered(&guard, &incoming, &format!("in.{word}."), expected[0][0])?;
        let outgoing = Ends::new((&here, HERE[family]), (&there, THERE[family]))?;
        is_answered(&guard, &outgoing, &format!("out.{word}."), expected[1][0])?;
    }
    guard.stop()
}

macro_rules! ways {
    ($($name:ident: $xdp:literal, $tc:literal => $expected:expr;)*) => {
        $(
            #[test]
            #[ignore = "needs root and real resolvers: cargo xtask test"]
            fn $name() -> Result<()> {
                hangs_and_works($xdp, $tc, $expected)
            }
        )*
    };
}

ways! {
    a_veth_is_guarded_by_tc_on_its_own_accord: "auto", "auto" =>
        [["tc-ingress", "tcx", "no hardware"], ["tc-egress", "tcx", ""]];
    a_veth_is_guarded_by_tcx: "off", "tcx" =>
        [["tc-ingress", "tcx", "xdp is off"], ["tc-egress", "tcx", ""]];
    a_veth_is_guarded_by_clsact: "off", "clsact" =>
        [["tc-ingress", "clsact", "clsact"], ["tc-egress", "clsact", "clsact"]];
    a_veth_is_guarded_by_generic_xdp: "generic", "tcx" =>
        [["xdp", "generic", "generic"], ["tc-egress", "tcx", ""]];
    a_veth_is_guarded_by_xdp_in_its_driver: "driver", "clsact" =>
        [["xdp", "driver", "driver"], ["tc-egress", "clsact", "clsact"]];
}

/// What is dropped is gone without a sound: the sender sees no error, and the receiver nothing.
fn drops_in_silence(xdp: &str, tc: &str, incoming: &str) -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, there] = site()?;
    let toml = format!("[answer]\naction = \"drop\"\n[attach]\nxdp = \"{xdp}\"\ntc = \"{tc}\"\n");
    let guard = ready(&here, &options(&[WIRE], &toml))?;
    for family in [0, 1] {
        let inward = Ends::new((&there, THERE[family]), (&here, HERE[family]))?;
        let outward = Ends::new((&here, HERE[family]), (&there, THERE[family]))?;
        for (ends, hook) in [(inward, incoming), (outward, "tc-egress")] {
            // glibc's resolver asks to be told of errors, and gives up when the kernel says ENOBUFS.
            if family == 0 {
                setsockopt(&ends.client, sockopt::Ipv4RecvErr, &true)?;
            } else {
                setsockopt(&ends.client, sockopt::Ipv6RecvErr, &true)?;
            }
            let name = format!("{hook}.{family}.");
            let trip = ends.trip(&guard, &name)?;
            assert_eq!(
                (&trip["hook"], &trip["verdict"]),
                (&hook.into(), &"drop".into()),
                "{trip}"
            );
            ends.settle(&format!("open-{name}"))?;
            for _ in 0..ROUNDS {
                ends.send(&name)
                    .with_context(|| format!("{hook} by {tc}: the sender sees an error"))?;
            }
            let (arrived, back) = ends.settle(&format!("after-{name}"))?;
            ensure!(
                arrived.is_empty(),
                "{hook} by {tc}: {} dropped queries arrive",
                arrived.len()
            );
            ensure!(back.is_empty(), "{hook} by {tc}: {} answers in silence", back.len());
        }
    }
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn tcx_drops_in_silence() -> Result<()> {
    drops_in_silence("off", "tcx", "tc-ingress")
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn clsact_drops_in_silence() -> Result<()> {
    drops_in_silence("off", "clsact", "tc-ingress")
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn generic_xdp_drops_in_silence() -> Result<()> {
    drops_in_silence("generic", "tcx", "xdp")
}

/// The programs in the chain of tcx, in their order.
fn chain(namespace: &Namespace, direction: TcAttachType) -> Result<Vec<u32>> {
    let (_, programs) = namespace.run(|| SchedClassifier::query_tcx(WIRE, direction))?;
    Ok(programs.iter().map(|program| program.id()).collect())
}

fn stays_untouched(tc: &str) -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, there] = site()?;
    here.tool("tc", &format!("qdisc add dev {WIRE} clsact"))?;
    for direction in ["ingress", "egress"] {
        // Classic BPF that matches nothing: the packet goes on to the next filter.
        let mut command = programs::locate("tc")?.command();
        command.args([
            "filter", "add", "dev", WIRE, direction, "prio", "1", "handle", "1", "protocol", "all",
        ]);
        command.args(["bpf", "bytecode", "1,6 0 0 0"]);
        let done = here.run(|| command.output())?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let foreign = [TcAttachType::Ingress, TcAttachType::Egress]
        .into_iter()
        .map(|direction| Ok((direction, Foreign::tcx(&here, WIRE, direction, "foreign")?)))
        .collect::<Result<Vec<_>>>()?;
    let look = || -> Result<(String, Vec<Vec<u32>>)> {
        let qdiscs = here.tool("tc", "qdisc show")?;
        let filters = ["ingress", "egress"]
            .map(|direction| here.tool("tc", &format!("filter show dev {WIRE} {direction} prio 1")));
        let [incoming, outgoing] = filters;
        let chains = foreign
            .iter()
            .map(|(direction, _)| chain(&here, *direction))
            .collect::<Result<_>>()?;
        Ok((qdiscs + &incoming? + &outgoing?, chains))
    };
    let before = look()?;
    let is_untouched = |ours: usize| -> Result<()> {
        let (text, chains) = look()?;
        assert_eq!(text, before.0);
        for ((_, foreign), chain) in foreign.iter().zip(chains) {
            assert_eq!(chain.last(), Some(&foreign.id()), "it is still there, behind us");
            assert_eq!(chain.len(), 1 + ours);
        }
        Ok(())
    };

    let options = options(&[WIRE], &format!("[attach]\nxdp = \"off\"\ntc = \"{tc}\"\n"));
    let ours = usize::from(tc == "tcx");
    let guard = ready(&here, &options)?;
    is_untouched(ours)?;
    guard.kill9();
    drop(guard);
    is_untouched(ours)?;
    let guard = ready(&here, &options)?;
    is_untouched(ours)?;
    // With others in the chain the guard still sees and acts.
    let ends = Ends::new((&there, THERE[0]), (&here, HERE[0]))?;
    is_answered(&guard, &ends, "beside.others.", "tc-ingress")?;
    guard.stop()?;
    wait_freed("something of ours is left", || Ok(look()? == before))?;
    is_untouched(0)?;
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn what_others_hang_at_the_hooks_is_untouched_by_tcx() -> Result<()> {
    stays_untouched("tcx")
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn what_others_hang_at_the_hooks_is_untouched_by_clsact() -> Result<()> {
    stays_untouched("clsact")
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_foreign_xdp_program_is_never_replaced() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, _there] = site()?;
    let foreign = Foreign::xdp(&here, WIRE, "foreign")?;
    for xdp in ["driver", "generic"] {
        let guard = ready(&here, &options(&[WIRE], &format!("[attach]\nxdp = \"{xdp}\"\n")))?;
        let failed = guard.events_of("attach_error")?;
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert_eq!(
            (&failed[0]["device"], &failed[0]["hook"]),
            (&WIRE.into(), &"xdp".into())
        );
        let reason = failed[0]["reason"].as_str().context("no reason")?;
        let taken = format!("(taken by foreign (id {}), somebody else's)", foreign.id());
        ensure!(reason.contains(&taken), "{reason}");
        let link = here.tool("ip", &format!("-details link show dev {WIRE}"))?;
        ensure!(
            link.contains(&format!("id {} ", foreign.id())),
            "the program is another one: {link}"
        );
        guard.wait_counter("dnsguard_attach_errors_total", &["hook=\"xdp\""], 1, PATIENCE)?;
        guard.stop()?;
    }
    Ok(())
}

/// Sends whole frames through a device.
fn frame_socket(namespace: &Namespace) -> Result<OwnedFd> {
    namespace.run(|| {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None)?;
        let address = getifaddrs()?
            .filter(|one| one.interface_name == WIRE)
            .find_map(|one| one.address?.as_link_addr().copied())
            .context("the wire has no link address")?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(socket)
    })
}

/// The frames come in with their tags; the host itself has no such VLAN.
fn is_answered_in_its_vlan(xdp: &str, hook: &str) -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(&["tcpdump"])?;
    let [here, there] = site()?;
    let guard = ready(&here, &options(&[WIRE], &format!("[attach]\nxdp = \"{xdp}\"\n")))?;
    let frames = frame_socket(&there)?;
    let mut command = programs::locate("tcpdump")?.command();
    // The kernel keeps a tag beside the frame; tcpdump puts it back. It stays root: the user that Debian's changes to comes
    // with an installed package only.
    command.args([
        "-i",
        WIRE,
        "-Q",
        "in",
        "-e",
        "-n",
        "-l",
        "--immediate-mode",
        "-Z",
        "root",
        "vlan",
    ]);
    let dump = there.spawn(command)?;
    wait("tcpdump listens", PATIENCE, || Ok(dump.log().contains("listening on")))?;
    for vlans in [vec![7], vec![8, 9]] {
        for family in [0, 1] {
            let name = format!("vlan{}.family{family}.", vlans.len());
            let client = SocketAddr::new(THERE[family].parse::<IpAddr>()?, 40_000);
            let server = SocketAddr::new(HERE[family].parse::<IpAddr>()?, SILENT[0]);
            let frame = |from: SocketAddr, to: SocketAddr| -> Result<Vec<u8>> {
                let mut query = Query::new(&name, &from.to_string(), &to.to_string())?;
                query.envelope.vlans.clone_from(&vlans);
                query.frame()
            };
            // The server's side asks back; nobody forwards that frame, but the guard sees it.
            let back = frame(
                SocketAddr::new(server.ip(), 40_001),
                SocketAddr::new(client.ip(), SILENT[1]),
            )?;
            let turns = [frame(client, server)?, back];
            let send_round = || -> Result<()> {
                for frame in &turns {
                    send(frames.as_raw_fd(), frame, MsgFlags::empty())?;
                }
                Ok(())
            };
            let deadline = Instant::now() + PATIENCE;
            let trip = loop {
                for _ in 0..ROUNDS {
                    send_round()?;
                }
                let trips = guard.events_of("trip")?;
                if let Some(trip) = trips.into_iter().find(|trip| trip["name"] == name.as_str()) {
                    break trip;
                }
                ensure!(Instant::now() < deadline, "{name} does not trip:\n{}", guard.metrics()?);
            };
            assert_eq!(
                (&trip["hook"], &trip["verdict"]),
                (&hook.into(), &"answer".into()),
                "{trip}"
            );
            let ends = format!("{}.{} > {}.{}: ", HERE[family], SILENT[0], THERE[family], client.port());
            let is_answer =
                |line: &str| line.contains(&ends) && vlans.iter().all(|vlan| line.contains(&format!("vlan {vlan}, ")));
            // What tripped may have been the last frame, and the server's own: so some more are sent.
            let deadline = Instant::now() + PATIENCE;
            while !dump.output().lines().any(is_answer) {
                ensure!(
                    Instant::now() < deadline,
                    "no answer in {vlans:?} after {trip} among\n{}{}\n{}",
                    dump.output(),
                    dump.log(),
                    guard.metrics()?
                );
                send_round()?;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn tc_answers_in_the_vlan_that_the_query_came_from() -> Result<()> {
    is_answered_in_its_vlan("off", "tc-ingress")
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn generic_xdp_answers_in_the_vlan_that_the_query_came_from() -> Result<()> {
    is_answered_in_its_vlan("generic", "xdp")
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn one_packet_on_three_interfaces_is_one_hop() -> Result<()> {
    const QUERIES: u64 = 60;
    let _machine = MACHINE.lock();
    let (client, router, server) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
    // As in a node with a bridge: pod -> veth in the bridge -> bridge -> routed -> veth -> server.
    veth::veth(&router, &client, "pod0", &[])?;
    veth::veth(&router, &server, "out0", &[("10.62.0.1/24", "10.62.0.2/24")])?;
    for command in [
        "link add br0 type bridge",
        "link set pod0 master br0",
        "link set br0 up",
    ] {
        router.ip(command)?;
    }
    router.ip("address add 10.61.0.1/24 dev br0")?;
    client.ip("address add 10.61.0.2/24 dev pod0")?;
    client.ip("route add default via 10.61.0.1")?;
    server.ip("route add default via 10.62.0.1")?;
    router.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
    let unguarded = SocketAddr::from(([10, 62, 0, 2], 5300));
    let upstream = Upstream::start(&server, unguarded, Manner::Answers(Duration::ZERO))?;
    let question = Question::new("herd.example.", RecordType::A)?;
    ensure!(
        ask(&client, unguarded, &question, 10, PATIENCE / 10)?.answered(),
        "there is no way through"
    );
    drop(upstream);

    let guard = ready(&router, &options(&["pod0", "br0", "out0"], ""))?;
    let silent = server.udp("10.62.0.2:53".parse()?)?;
    silent.set_read_timeout(Some(PATIENCE))?;
    let clients: Vec<_> = (0..QUERIES)
        .map(|_| client.udp("10.61.0.2:0".parse()?))
        .collect::<Result<_>>()?;
    for (id, client) in (1..).zip(&clients) {
        client.send_to(&question.query(id)?, silent.local_addr()?)?;
    }
    for _ in 0..QUERIES {
        silent.recv_from(&mut [0; 512]).context("a query is lost")?;
    }
    let seen = guard.wait_counter("dnsguard_dns_queries_total", &[], QUERIES * 3, PATIENCE)?;
    assert_eq!(seen, QUERIES * 3, "each is seen at three hooks");
    assert_eq!(
        guard.counter("dnsguard_seen_elsewhere_total", &[])?,
        QUERIES * 2,
        "and is one hop"
    );
    for none in ["retransmits", "recirculations", "trips", "actions"] {
        assert_eq!(guard.counter(&format!("dnsguard_{none}_total"), &[])?, 0, "{none}");
    }
    guard.stop()
}

/// Queries for one name that go back and forth between two servers; every so often one of them gets a response with
/// `rcode`, and the others get none. Ends when the name has tripped.
fn back_and_forth(guard: &Guard, sides: [&Namespace; 2], name: &str, rcode: ResponseCode) -> Result<()> {
    let addresses = [HERE[0], THERE[0]].map(|address| address.parse::<IpAddr>());
    let [here, there] = addresses;
    let addresses = [here?, there?];
    let servers = [
        sides[0].udp(SocketAddr::new(addresses[0], REAL))?,
        sides[1].udp(SocketAddr::new(addresses[1], REAL))?,
    ];
    servers[0].set_read_timeout(Some(PATIENCE / 50))?;
    let question = Question::new(name, RecordType::A)?;
    for id in 1..=TURNS {
        for (from, to) in [(1, 0), (0, 1)] {
            let client = sides[from].udp(SocketAddr::new(addresses[from], 0))?;
            client.set_read_timeout(Some(PATIENCE))?;
            client.send_to(&question.query(id)?, servers[to].local_addr()?)?;
            if to != 0 || !id.is_multiple_of(RESPONSE_EVERY) {
                continue;
            }
            let mut buffer = [0; 512];
            // A held query does not arrive; it has been answered already.
            while let Ok((length, asker)) = servers[to].recv_from(&mut buffer) {
                let asked = Message::from_vec(&buffer[..length])?;
                if asked.metadata.id == id {
                    let mut response = Message::response(id, asked.metadata.op_code);
                    response.metadata.response_code = rcode;
                    response.add_query(asked.queries.first().context("no question")?.clone());
                    servers[to].send_to(&response.to_vec()?, asker)?;
                    client.recv_from(&mut buffer).context("the response is lost")?;
                    break;
                }
            }
            if guard.events_of("trip")?.iter().any(|trip| trip["name"] == name) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Queries in each direction.
const TURNS: u16 = 200;
/// Of so many one gets a response: fewer than it takes to trip.
const RESPONSE_EVERY: u16 = 4;

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn an_answer_clears_a_name_and_an_error_does_not() -> Result<()> {
    let _machine = MACHINE.lock();
    let [here, there] = site()?;
    // Nobody here hands marks on.
    let options = GuardOptions {
        extra_toml: "marks = false\n[breaker]\nhold_ms = 300000\n".to_owned(),
        ..GuardOptions::enforce(&[WIRE])
    };
    let guard = ready(&here, &options)?;
    let sides = [&here, &there];
    back_and_forth(&guard, sides, "noerror.", ResponseCode::NoError)?;
    back_and_forth(&guard, sides, "nxdomain.", ResponseCode::NXDomain)?;
    let answers = u64::from(2 * TURNS / RESPONSE_EVERY);
    guard.wait_counter(
        "dnsguard_dns_responses_total",
        &["outcome=\"answer\""],
        answers,
        PATIENCE,
    )?;
    assert_eq!(
        guard.counter("dnsguard_trips_total", &[])?,
        0,
        "answered names are no loops"
    );
    back_and_forth(&guard, sides, "servfail.", ResponseCode::ServFail)?;
    let trip = guard.wait_event("trip", PATIENCE)?;
    assert_eq!(
        (&trip["name"], &trip["evidence"], &trip["proof"]),
        (&"servfail.".into(), &"direction".into(), &"suspected".into()),
        "{trip}"
    );
    guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn observing_tells_of_a_loop_and_touches_no_packet() -> Result<()> {
    const BURN: Duration = Duration::from_secs(1);
    const CAP: Duration = Duration::from_secs(6);
    let _machine = MACHINE.lock();
    programs::provide(Topology::DEMO.programs())?;
    let free = Topology::DEMO.start()?.burn(BURN, CAP)?;

    let built = Topology::DEMO.start()?;
    let observe = GuardOptions {
        mode: Mode::Observe,
        ..GuardOptions::enforce(&["lo"])
    };
    let guard = ready(built.namespace(), &observe)?;
    let watched = built.burn(BURN, CAP)?;
    let trip = guard.wait_event("trip", PATIENCE)?;
    assert_eq!(trip["verdict"], "would_answer", "{trip}");
    ensure!(built.question().name.to_string() == trip["name"], "{trip}");
    guard.wait_counter("dnsguard_actions_total", &["action=\"would_answer\""], 1, PATIENCE)?;
    for action in ["answer", "drop"] {
        assert_eq!(
            guard.counter("dnsguard_actions_total", &[&format!("action=\"{action}\"")])?,
            0
        );
    }
    println!("{} packets/s free, {} watched", free.peak_pps, watched.peak_pps);
    ensure!(
        watched.peak_pps * 3 >= free.peak_pps,
        "the loop is slowed: {free:?}, {watched:?}"
    );
    guard.stop()
}
