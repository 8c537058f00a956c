//! A copy of the kernel object with maps of its own, and packets put through its programs one at a time.

use std::{
    collections::BTreeSet,
    env, fs, io,
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
    time::Duration,
};

use crate::{
    Namespace,
    frame::Query,
    sys::{ProgramKind, zero_array},
};
use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRunOptions, TestRunResult,
    maps::{Array, Map, MapData, MapInfo, PerCpuArray, PerCpuValues, RingBuf},
    programs::{ProgramInfo, SchedClassifier, TestRun as _, Xdp},
    util::nr_cpus,
};
use guard_common::{
    abi,
    address::{Address, Prefix},
    budget::{LinkBudget, LinkRules, MAX_LINKS, MeterLine},
    counter::{Counter, Counters, RowCount, action_index},
    event::Event,
    flow::FlowLine,
    judge::{KeyBucket, KeyState, Rules},
    key::{Key, Secret},
    local::Local,
    marks::{Look, MarkLine, Room},
    packet::Packet,
    policy::{Action, Control, Mode, Policy},
    question::Message,
    remedy::{Allowance, Reason, Verdict},
    sample::Sample,
    time::{Ticks, ticks_of_ms},
};
use nix::time::{ClockId, clock_gettime};

/// The loopback interface, which packets of a test run seem to be on.
pub const IFINDEX: u32 = 1;

/// What keys and marks are made with.
pub const SECRET: Secret = Secret([
    0x0123_4567_89ab_cdef,
    0xfedc_ba98_7654_3210,
    0x0f1e_2d3c_4b5a_6978,
    0x1357,
]);

/// Far more than a loop needs to give itself away: it does so within 32 recirculated queries.
const ENOUGH: usize = 40;

/// Room for what comes out.
const ROOM: usize = 4_096;

/// An interface that [`beside_wires`] makes.
pub const WIRE: u32 = 20;
/// The other end of [`WIRE`].
pub const OTHER_WIRE: u32 = 30;

/// Runs a test in a network of its own, with two interfaces beside `lo` that packets may seem to be on.
pub fn beside_wires<T: Send>(test: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace = Namespace::new()?;
    namespace.ip(&format!(
        "link add wire index {WIRE} type veth peer name other index {OTHER_WIRE}"
    ))?;
    namespace.run(test)
}

/// One of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// That of XDP.
    Xdp,
    /// That of TC for packets that come in.
    TcIn,
    /// That of TC for packets that go out.
    TcOut,
}

impl Gate {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Xdp, Self::TcIn, Self::TcOut];

    /// The name of its program.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Xdp => abi::PROGRAM_XDP,
            Self::TcIn => abi::PROGRAM_INGRESS,
            Self::TcOut => abi::PROGRAM_EGRESS,
        }
    }

    /// Whom it is for.
    pub(crate) const fn kind(self) -> ProgramKind {
        match self {
            Self::Xdp => ProgramKind::Xdp,
            Self::TcIn | Self::TcOut => ProgramKind::Classifier,
        }
    }

    /// What it returns for a packet that goes on: `XDP_PASS`, `TC_ACT_UNSPEC`.
    pub const fn pass(self) -> u32 {
        if matches!(self, Self::Xdp) { 2 } else { u32::MAX }
    }

    /// What it returns for a packet that ends here: `XDP_DROP`, `TC_ACT_SHOT`; for one that was leaving
    /// `TC_ACT_REDIRECT`, to an interface that does not exist.
    pub const fn drop(self) -> u32 {
        match self {
            Self::Xdp => 1,
            Self::TcIn => 2,
            Self::TcOut => 7,
        }
    }

    /// What it returns for a packet that goes back: `XDP_TX`, `TC_ACT_REDIRECT`.
    pub const fn answer(self) -> u32 {
        if matches!(self, Self::Xdp) { 3 } else { 7 }
    }
}

/// An address as the kernel has it.
pub fn address(ip: IpAddr) -> Address {
    Address::from_octets(match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    })
}

/// How a frame comes to a gate.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    device: u32,
    segments: u32,
    times: u32,
}

impl Way {
    /// Once, as one packet, on this interface.
    pub const fn on(device: u32) -> Self {
        Self {
            device,
            segments: 1,
            times: 1,
        }
    }

    /// As a GSO packet of so many segments. XDP knows none.
    pub const fn in_segments(self, segments: u32) -> Self {
        Self { segments, ..self }
    }

    /// So many times in a row; what a program makes of the frame is what comes next.
    pub const fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// The program's context, if it is not what a test run makes up.
    pub(crate) fn context(self, gate: Gate, frame: &[u8]) -> Option<Vec<u8>> {
        if self.device == IFINDEX && self.segments == 1 {
            return None;
        }
        let words = |words: &[(usize, u32)], len: usize| {
            let mut context = vec![0; len];
            for (at, word) in words {
                context[*at..at + 4].copy_from_slice(&word.to_ne_bytes());
            }
            Some(context)
        };
        // `data_end` and `ingress_ifindex` of `struct xdp_md`, `ifindex` and `gso_segs` of `struct __sk_buff`
        // (include/uapi/linux/bpf.h).
        match gate {
            Gate::Xdp => words(&[(4, frame.len() as u32), (12, self.device)], 24),
            Gate::TcIn | Gate::TcOut => words(&[(40, self.device), (164, self.segments)], 192),
        }
    }
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the program returned.
    pub returned: u32,
    /// What it left of the packet.
    pub frame: Vec<u8>,
}

/// How a loop ended.
#[derive(Debug)]
pub struct Cut {
    /// The query that gave it away.
    pub query: Query,
    /// What became of it.
    pub outcome: Outcome,
    /// Queries that went before it.
    pub passed: usize,
}

/// The kernel object, loaded.
pub struct Bench {
    ebpf: Ebpf,
    events: RingBuf<MapData>,
    samples: RingBuf<MapData>,
    control: Control,
}

/// Enforces, answers everybody in 192.0.2.0/24, 127.0.0.0/8 and 2001:db8::/32, looks at ports 53 and 8600.
fn policy() -> Policy {
    let hold_ticks = ticks_of_ms(60_000);
    let rules = Rules {
        hold_ticks,
        hold_max_ticks: 4 * hold_ticks,
        test_ticks: hold_ticks,
        marks: 0,
    };
    let mut policy = Policy::new(Mode::Enforce, Action::Answer, rules);
    // A busy machine may take its time between two test runs.
    policy.rapid_ticks = ticks_of_ms(10_000);
    policy.limit_answers(1_000, 1_000);
    policy.add_port(53);
    policy.add_port(8_600);
    let mapped = |a, b, c| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, 0];
    policy.trust(Prefix::new(mapped(192, 0, 2), 96 + 24));
    policy.trust(Prefix::new(mapped(127, 0, 0), 96 + 8));
    policy.trust(Prefix::new(
        [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        32,
    ));
    policy
}

/// The same, but with that mode and action.
pub fn policy_of(mode: Mode, action: Action) -> Policy {
    let plain = policy();
    let mut policy = Policy::new(mode, action, plain.rules);
    policy.rapid_ticks = plain.rapid_ticks;
    policy.limit_answers(plain.answers_per_client, plain.answers_per_hold);
    policy.add_port(53);
    policy.trust(Prefix::new([0; 16], 0));
    policy
}

fn object() -> PathBuf {
    env::var_os("DNSGUARD_OBJECT").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../guard-ebpf/prebuilt/dnsguard.bpf.o"),
        PathBuf::from,
    )
}

impl Bench {
    /// Loads the object, with maps that nobody else sees, under a policy that `change` may alter.
    pub fn new(change: impl FnOnce(&mut Policy)) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "needs root to load programs: run cargo xtask test with sudo"
        );
        let path = object();
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let mut ebpf = EbpfLoader::new()
            .load(&bytes)
            .with_context(|| format!("load {}", path.display()))?;
        for gate in Gate::ALL {
            let program = ebpf.program_mut(gate.program()).context("no such program")?;
            if gate == Gate::Xdp {
                <&mut Xdp>::try_from(program)?.load()?;
            } else {
                <&mut SchedClassifier>::try_from(program)?.load()?;
            }
        }
        let events = RingBuf::try_from(ebpf.take_map(abi::EVENTS).context("no events")?)?;
        let samples = RingBuf::try_from(ebpf.take_map(abi::SAMPLES).context("no samples")?)?;
        let control = Control {
            lease_until_ns: u64::MAX,
            active: 0,
            generation: 0,
            secret: SECRET,
            sample_quota: 8,
            ..Control::default()
        };
        let mut bench = Self {
            ebpf,
            events,
            samples,
            control,
        };
        let mut policy = policy();
        change(&mut policy);
        bench.set_policy(policy)?;
        Ok(bench)
    }

    /// Puts a policy in force as the agent does: into the slot that is not in use, which is used from then on.
    pub fn set_policy(&mut self, policy: Policy) -> Result<()> {
        let map = self.ebpf.map_mut(abi::POLICIES).context("no policies")?;
        let slot = self.control.active ^ 1;
        Array::<_, Policy>::try_from(map)?.set(slot, policy, 0)?;
        self.set_control(|control| {
            control.summarise(&policy);
            control.active = slot;
            control.generation += 1;
        })
    }

    /// Changes what is read first.
    pub fn set_control(&mut self, change: impl FnOnce(&mut Control)) -> Result<()> {
        change(&mut self.control);
        let map = self
            .ebpf
            .map_mut(abi::map_in_object(abi::CONTROL))
            .context("no control")?;
        Ok(Array::<_, Control>::try_from(map)?.set(0, self.control, 0)?)
    }

    /// Whether what says nothing goes the short way.
    pub fn is_short(&self) -> bool {
        self.control.is_short != 0
    }

    /// Lets the agent be silent from this moment of the monotonic clock on.
    pub fn set_lease(&mut self, lease_until_ns: u64) -> Result<()> {
        self.set_control(|control| control.lease_until_ns = lease_until_ns)
    }

    /// Puts one frame through a program.
    pub fn run(&self, gate: Gate, frame: &[u8]) -> Result<Outcome> {
        self.run_by(Way::on(IFINDEX), gate, frame)
    }

    /// Puts a frame through a program.
    pub fn run_by(&self, way: Way, gate: Gate, frame: &[u8]) -> Result<Outcome> {
        let mut out = vec![0; ROOM];
        let result = self.program(gate)?.test_run(way, frame, Some(&mut out))?;
        out.truncate(result.data_size_out as usize);
        Ok(Outcome {
            returned: result.return_value,
            frame: out,
        })
    }

    /// The same, without a look at what the frame has become: what the program returns.
    pub fn push(&self, way: Way, gate: Gate, frame: &[u8]) -> Result<u32> {
        self.program(gate)?.push(way, frame)
    }

    /// One of its programs.
    pub fn program(&self, gate: Gate) -> Result<Program<'_>> {
        let program = self.ebpf.program(gate.program()).context("no such program")?;
        Ok(Program { gate, program })
    }

    /// Puts a query through a program.
    pub fn ask(&self, gate: Gate, query: &Query) -> Result<Outcome> {
        self.run(gate, &query.frame()?)
    }

    /// Lets the question of `query` go round between its server and another one, over two fixed sockets as dnsmasq has
    /// them, until one of the two queries does not pass unchanged.
    pub fn cut(&mut self, gate: Gate, query: &Query) -> Result<Cut> {
        self.go_round(gate, query, ENOUGH, |outcome, _| outcome.returned != gate.pass())
    }

    /// The same, until a breaker opens.
    pub fn trip(&mut self, gate: Gate, query: &Query) -> Result<Cut> {
        let before = self.count(Counter::Trips)?;
        self.go_round(gate, query, ENOUGH, |_, trips| trips > before)
    }

    fn go_round(
        &mut self,
        gate: Gate,
        query: &Query,
        most: usize,
        is_over: impl Fn(&Outcome, u64) -> bool,
    ) -> Result<Cut> {
        let back = back(query);
        for passed in 0..most {
            let query = if passed % 2 == 0 { query } else { &back };
            let outcome = self.ask(gate, query)?;
            if is_over(&outcome, self.count(Counter::Trips)?) {
                return Ok(Cut {
                    query: query.clone(),
                    outcome,
                    passed,
                });
            }
            ensure!(
                outcome
                    == Outcome {
                        returned: gate.pass(),
                        frame: query.frame()?
                    },
                "{gate:?} changed {query:?}"
            );
        }
        anyhow::bail!("{gate:?}: {query:?} went round {most} times")
    }

    /// The counters of the loopback interface, of all CPUs.
    pub fn counters(&self) -> Result<Counters> {
        self.counters_of(IFINDEX)
    }

    /// The counters of an interface, of all CPUs.
    pub fn counters_of(&self, ifindex: u32) -> Result<Counters> {
        let map = self.ebpf.map(abi::COUNTERS).context("no counters")?;
        let map = PerCpuArray::<_, Counters>::try_from(map)?;
        let mut total = Counters::default();
        for counters in map.get(&abi::device_slot(ifindex), 0)?.iter() {
            total
                .0
                .iter_mut()
                .zip(counters.0)
                .for_each(|(total, count)| *total += count);
        }
        Ok(total)
    }

    /// A counter of the loopback interface, of all CPUs.
    pub fn count(&self, counter: Counter) -> Result<u64> {
        Ok(self.counters()?.get(counter))
    }

    /// How often that interface saw this done for this reason.
    pub fn actions(&self, verdict: Verdict, reason: Reason) -> Result<u64> {
        Ok(self.counters()?.0[action_index(verdict, reason)])
    }

    /// What a row counted, CPU by CPU.
    pub fn row_by_cpu(&self, row: u32) -> Result<Vec<RowCount>> {
        let map = self.ebpf.map(abi::ROWS).context("no rows")?;
        Ok(PerCpuArray::<_, RowCount>::try_from(map)?.get(&row, 0)?.to_vec())
    }

    /// What a row counted, on all CPUs.
    pub fn row(&self, row: u32) -> Result<RowCount> {
        let counts = self.row_by_cpu(row)?;
        Ok(RowCount {
            within: counts.iter().map(|count| count.within).sum(),
            over: counts.iter().map(|count| count.over).sum(),
        })
    }

    /// Empties all tables: what is remembered of keys, flows and marks, what clients were answered, and what was charged.
    pub fn forget(&mut self) -> Result<()> {
        let tables = [
            (abi::KEYS, size_of::<KeyBucket>(), abi::KEY_BUCKETS),
            (abi::FLOWS, size_of::<FlowLine>(), abi::FLOW_LINES),
            (abi::MARKS, size_of::<MarkLine>(), abi::MARK_LINES),
            (abi::ALLOWANCES, size_of::<Allowance>(), abi::ALLOWANCE_SLOTS),
            (abi::METERS, size_of::<MeterLine>(), abi::METER_LINES),
            (abi::LINKS, size_of::<LinkBudget>(), MAX_LINKS),
        ];
        for (name, size, entries) in tables {
            let Some(Map::Array(table)) = self.ebpf.map(name) else {
                anyhow::bail!("no {name}")
            };
            zero_array(table.fd().as_fd(), size, entries as u32).with_context(|| format!("empty {name}"))?;
        }
        Ok(())
    }

    /// Has each CPU choose what it shows, and read names, as if nothing had come lately.
    pub fn forget_locals(&mut self) -> Result<()> {
        let map = self.ebpf.map_mut(abi::LOCALS).context("no locals")?;
        let mut locals = PerCpuArray::<_, Local>::try_from(map)?;
        let values = vec![Local::default(); nr_cpus().map_err(|(_, error)| error)?];
        locals.set(0, PerCpuValues::try_from(values)?, 0)?;
        Ok(())
    }

    /// Empties the table of buckets and shares.
    pub fn forget_meters(&mut self) -> Result<()> {
        let map = self.ebpf.map_mut(abi::METERS).context("no meters")?;
        let mut meters = Array::<_, MeterLine>::try_from(map)?;
        for line in 0..meters.len() {
            meters.set(line, MeterLine::default(), 0)?;
        }
        Ok(())
    }

    /// Takes all the room for marks, with marks of names that nobody asks for.
    pub fn fill_marks(&mut self) -> Result<()> {
        let mut full = MarkLine::default();
        let now = Ticks::from_ns(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?).as_nanos() as u64);
        let mut name = 0;
        loop {
            name += 1;
            let look = Look::new(name, Key(name << 1 | 1));
            if full.remember(look, 0, 0, now) != Room::Found {
                break;
            }
        }
        let map = self.ebpf.map_mut(abi::MARKS).context("no marks")?;
        let mut marks = Array::<_, MarkLine>::try_from(map)?;
        for line in 0..marks.len() {
            marks.set(line, full, 0)?;
        }
        Ok(())
    }

    /// What is remembered of a key.
    pub fn state(&self, key: Key) -> Result<Option<KeyState>> {
        let map = self.ebpf.map(abi::KEYS).context("no keys")?;
        let bucket = Array::<_, KeyBucket>::try_from(map)?.get(&abi::key_bucket(key), 0)?;
        Ok(bucket.state(key).copied())
    }

    /// Whether anything is remembered of what a query asks for.
    pub fn knows(&self, query: &Query) -> Result<bool> {
        let frame = query.frame()?;
        let packet = Packet::walk(frame.as_slice()).ok().context("no packet")?;
        let (start, end) = packet.payload(frame.as_slice()).context("no payload")?;
        let message = Message::read(frame.as_slice(), start, end).ok().context("no message")?;
        let key = Key::of(frame.as_slice(), &message.question, &SECRET).context("no key")?;
        Ok(self.state(key)?.is_some())
    }

    /// The marks that are out in the line of a spelling with this digest.
    pub fn marks(&self, digest: u64) -> Result<MarkLine> {
        let map = self.ebpf.map(abi::MARKS).context("no marks")?;
        Ok(Array::<_, MarkLine>::try_from(map)?.get(&abi::mark_line(digest), 0)?)
    }

    /// What is left of a link-local budget at this moment, in sixteenths of a packet.
    pub fn link_level(&self, link: u32, rules: &LinkRules, at_ns: u64) -> Result<u64> {
        let map = self.ebpf.map(abi::LINKS).context("no links")?;
        Ok(Array::<_, LinkBudget>::try_from(map)?
            .get(&link, 0)?
            .level(rules, at_ns))
    }

    /// The queries that the programs have shown since the last call.
    pub fn samples(&mut self) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        while let Some(entry) = self.samples.next() {
            samples.push(Sample::read(&entry).context("an entry that is no sample")?);
        }
        Ok(samples)
    }

    /// What the programs have told since the last call.
    pub fn events(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        while let Some(entry) = self.events.next() {
            events.push(Event::read(&entry).context("an entry that is no event")?);
        }
        Ok(events)
    }

    /// Every map that one of its programs uses.
    pub fn maps(&self) -> Result<Vec<MapInfo>> {
        let mut ids = BTreeSet::new();
        for gate in Gate::ALL {
            ids.extend(self.program(gate)?.program.info()?.map_ids()?.unwrap_or_default());
        }
        ids.into_iter().map(|id| Ok(MapInfo::from_id(id)?)).collect()
    }

    /// Instructions that the verifier looked at; `None` before Linux 5.16.
    pub fn verified_instructions(&self, gate: Gate) -> Result<Option<u32>> {
        let info: ProgramInfo = self.program(gate)?.program.info()?;
        Ok(info.verified_instruction_count())
    }
}

/// One program of a bench; threads can share it.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    gate: Gate,
    program: &'a aya::programs::Program,
}

impl Program<'_> {
    /// Its descriptor, for who runs it in his own way.
    pub fn descriptor(&self) -> Result<BorrowedFd<'_>> {
        Ok(self.program.fd()?.as_fd())
    }

    /// Puts a frame through it; what it returns.
    pub fn push(self, way: Way, frame: &[u8]) -> Result<u32> {
        Ok(self.test_run(way, frame, None)?.return_value)
    }

    fn test_run(self, way: Way, frame: &[u8], out: Option<&mut [u8]>) -> Result<TestRunResult> {
        let context = way.context(self.gate, frame);
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: out,
            ctx_in: context.as_deref(),
            repeat: way.times,
            ..TestRunOptions::default()
        };
        Ok(if self.gate == Gate::Xdp {
            <&Xdp>::try_from(self.program)?.test_run(options)?
        } else {
            <&SchedClassifier>::try_from(self.program)?.test_run(options)?
        })
    }
}

/// The same question on its way from the server to another one.
fn back(query: &Query) -> Query {
    let mut back = query.clone();
    let (source, destination) = (query.envelope.source, query.envelope.destination);
    back.envelope.source.set_ip(destination.ip());
    back.envelope.source.set_port(source.port().wrapping_add(1));
    back.envelope.destination.set_ip(source.ip());
    back.id = !query.id;
    back
}

/// Writes zeros over the first value of an array map.
///
/// # Errors
///
/// What the kernel says: `EPERM` for a map that is frozen.
pub fn overwrite(map: &MapData) -> io::Result<()> {
    let size = map.info().map_err(io::Error::other)?.value_size();
    zero_array(map.fd().as_fd(), size as usize, 1)
}
