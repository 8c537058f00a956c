//! The agent while it runs: one task that renews the lease, drains the events and keeps the snapshot.
//!
//! If this task hangs or the process dies, nobody renews the lease; the kernel holds on to the last policy until it is
//! over, and from then on passes everything.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver},
    },
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use aya::maps::{MapData, RingBuf};
use guard_common::{
    abi::device_slot,
    counter::{Counter, Counters},
    event::Event as KernelEvent,
    sample::Sample,
};
use nix::time::{ClockId, clock_gettime};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, info, warn};

use crate::{
    attachment::{Attachment, Hook},
    cli::EventFormat,
    config::Config,
    datapath::{Datapath, Kernel},
    device::Device,
    drivers,
    events::{Event, Output},
    host::resolv_confs,
    host_policy::HostPolicy,
    http::Server,
    loops::Loops,
    metrics::Metrics,
    search::Suffixes,
    snapshot::Snapshot,
    sys,
    watch::Watch,
};

/// How often samples and counts are looked at: who makes a storm is told within a second.
const TICK: Duration = Duration::from_millis(250);
/// Ticks after which the open breakers and the host's addresses are looked at, and the metrics brought up to date.
const TICKS_PER_LOOK: u32 = 4;
/// Renewals that fit into a lease.
const RENEWALS: u32 = 3;

/// Runs the guard until SIGTERM or SIGINT, then takes it out of the kernel.
pub(crate) fn run(config: &Config, format: EventFormat, object: Option<&Path>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(config, format, object))
}

async fn serve(config: &Config, format: EventFormat, object: Option<&Path>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Taken before anything is attached: a taken port must not cost a half-started guard.
    let server = match config.metrics.listen {
        Some(address) => Some(Server::bind(address).await?),
        None => None,
    };

    // Looked up before anything is loaded: a wrong name must not cost what an agent before this one left in force.
    let devices = Device::find_all(&config.attach.interfaces)?;

    let with_drivers = devices.iter().filter(|device| !device.loopback);
    let with_drivers = with_drivers.map(|device| device.name.clone()).collect();

    // So is what does not fit this host.
    let host = HostPolicy::new(config, devices)?;

    let (mut datapath, mut kernel) = Datapath::open(config, object)?;
    let mut output = Output::new(format);
    let snapshot = Arc::new(Mutex::new(Snapshot::default()));
    let started = match start(config, host, &mut datapath, &mut kernel, &mut output, &snapshot) {
        Ok(started) => started,
        Err(error) => {
            datapath.detach()?;
            return Err(error);
        }
    };

    let (ready, is_ready) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let http = server.map(|server| {
        let shared = Arc::clone(&snapshot);
        let metrics = Metrics::new(move || shared.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let mut stopped = stopped.clone();
        info!("metrics at http://{}/metrics", server.address());
        tokio::spawn(server.serve(metrics, is_ready, async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }))
    });

    let drivers = drivers::watch(with_drivers, Arc::clone(&snapshot)).unwrap_or_else(|error| {
        warn!("what network drivers drop is not known: {error}; the guard goes on without");
        mpsc::channel().1
    });

    let mut agent = Agent {
        kernel,
        watch: started.watch,
        samples: started.samples,
        host: started.host,
        drivers,
        // The first tick looks at everything: the metrics are there before anybody is told that the guard is ready.
        ticks: TICKS_PER_LOOK - 1,
        loops: Loops::new(config.metrics.top),
        output,
        attachments: datapath.attachments().to_vec(),
        snapshot,
        generation: started.generation,
        lease: config.lease,
        lease_until_ns: started.lease_until_ns,
        ring_losses: None,
        #[cfg(feature = "kernel-log")]
        kernel_log: datapath.take_log(),
    };
    agent.tick();
    let interfaces = config.attach.interfaces.clone();
    agent
        .output
        .tell(&Event::ready(config.mode, interfaces), SystemTime::now());
    ready.send_replace(true);

    let result = tokio::select! {
        result = agent.work(started.events) => result,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };

    stop.send_replace(true);
    let detached = datapath.detach()?;
    for attachment in &detached {
        agent
            .output
            .tell(&Event::detach(attachment, "told to stop"), SystemTime::now());
    }
    if let Some(http) = http {
        let _ = http.await;
    }
    agent.output.finish();
    result
}

/// What the start brings.
struct Started {
    samples: RingBuf<MapData>,
    lease_until_ns: u64,
    events: AsyncFd<RingBuf<MapData>>,
    watch: Watch,
    host: HostPolicy,
    generation: u32,
}

/// Puts the policy in force, attaches everywhere and tells of each choice. It fails if nothing could be attached at all.
fn start(
    config: &Config,
    mut host: HostPolicy,
    datapath: &mut Datapath,
    kernel: &mut Kernel,
    output: &mut Output,
    snapshot: &Mutex<Snapshot>,
) -> anyhow::Result<Started> {
    let compiled = host.compile(kernel)?;
    // In this order: a policy of long ago must not come back to life with the lease, and what was counted till now
    // belongs to other rows.
    let (generation, _) = kernel.replace(&compiled.policy, 0)?;
    let lease_until_ns = monotonic_ns()? + nanoseconds(config.lease);
    kernel.lease(lease_until_ns)?;
    let samples = datapath.take_samples()?;
    let events = sys::wait_for(datapath.take_events()?).context("cannot wait for the ring buffer")?;
    output.tell(&Event::policy(generation, config.mode), SystemTime::now());
    let suffixes = Suffixes::new(&config.search_suffixes, &resolv_confs().collect::<Vec<_>>());
    let watch = Watch::new(config, &compiled, host.facts(), suffixes);

    let failures = datapath.attach(host.devices(), config);
    let mut snapshot = snapshot.lock().unwrap_or_else(PoisonError::into_inner);
    snapshot.mode = config.mode;
    snapshot.policy_generation = generation;
    snapshot.map_bytes = Kernel::map_bytes().collect();
    snapshot.attachments = datapath.attachments().to_vec();
    for attachment in datapath.attachments() {
        output.tell(&Event::attach(attachment), SystemTime::now());
        snapshot
            .attach_errors
            .entry((attachment.device.clone(), attachment.hook.word()))
            .or_default();
    }
    for failure in &failures {
        let reason = failure.error.to_string();
        let (device, hook) = (failure.device.clone(), failure.hook.word());
        output.tell(&Event::AttachError { device, hook, reason }, SystemTime::now());
        snapshot.add_attach_error(&failure.device, failure.hook);
    }
    if datapath.attachments().is_empty() {
        let reasons: Vec<_> = failures
            .iter()
            .map(|failure| format!("{}: {}", failure.device, failure.error))
            .collect();
        bail!("nothing could be attached: {}", reasons.join("; "));
    }
    host.follow().context("cannot look at the host's addresses")?;
    Ok(Started {
        samples,
        lease_until_ns,
        events,
        watch,
        host,
        generation,
    })
}

/// What the running agent works on.
struct Agent {
    kernel: Kernel,
    watch: Watch,
    samples: RingBuf<MapData>,
    host: HostPolicy,
    /// News of the network drivers.
    drivers: Receiver<Event>,
    /// Ticks since the last look.
    ticks: u32,
    loops: Loops,
    output: Output,
    attachments: Vec<Attachment>,
    snapshot: Arc<Mutex<Snapshot>>,
    /// Counts the policies.
    generation: u32,
    lease: Duration,
    lease_until_ns: u64,
    /// Events that the kernel had lost when they were last counted.
    ring_losses: Option<u64>,
    #[cfg(feature = "kernel-log")]
    kernel_log: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
}

impl Agent {
    async fn work(&mut self, mut ring: AsyncFd<RingBuf<MapData>>) -> anyhow::Result<()> {
        let mut renewals = interval(self.lease / RENEWALS);
        let mut ticks = interval(TICK);
        for timer in [&mut renewals, &mut ticks] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                _ = renewals.tick() => self.renew(),
                _ = ticks.tick() => self.tick(),
                readable = ring.readable_mut() => {
                    let mut guard = readable.context("cannot wait for the ring buffer")?;
                    self.drain(guard.get_inner_mut());
                    guard.clear_ready();
                }
            }
        }
    }

    /// Moves the end of the lease on. A failure is told and tried again; at the worst, everything passes.
    fn renew(&mut self) {
        let renewed = monotonic_ns().and_then(|now_ns| {
            let until_ns = now_ns + nanoseconds(self.lease);
            self.kernel.lease(until_ns)?;
            Ok((now_ns, std::mem::replace(&mut self.lease_until_ns, until_ns)))
        });
        let (seconds_left, reason) = match renewed {
            Ok((now_ns, ended_ns)) if ended_ns < now_ns => {
                let seconds = (now_ns - ended_ns) / 1_000_000_000;
                (
                    0,
                    format!(
                        "the lease ran out {seconds} s ago, because the agent did not run: everything passed till now"
                    ),
                )
            }
            Ok(_) => return,
            Err(error) => {
                let left_ns = self
                    .lease_until_ns
                    .saturating_sub(monotonic_ns().unwrap_or(self.lease_until_ns));
                let seconds_left = left_ns / 1_000_000_000;
                (
                    seconds_left,
                    format!("cannot renew the lease: {error:#}; everything passes in {seconds_left} s"),
                )
            }
        };
        self.output
            .tell(&Event::Lease { seconds_left, reason }, SystemTime::now());
    }

    fn drain(&mut self, ring: &mut RingBuf<MapData>) {
        while let Some(entry) = ring.next() {
            let Some(event) = KernelEvent::read(&entry) else {
                warn!("an event of {} bytes is not one of this version", entry.len());
                continue;
            };
            let (device, hook) = self.place(event.ifindex, event.egress == 1);
            if let Some(event) = self.loops.on_event(&event, &device, hook) {
                self.output.tell(&event, SystemTime::now());
            }
        }
    }

    /// The interface and the hook that an event comes from.
    fn place(&self, ifindex: u32, egress: bool) -> (String, Hook) {
        let found = self
            .attachments
            .iter()
            .find(|one| one.ifindex == ifindex && matches!(one.hook, Hook::TcEgress) == egress);
        match found {
            Some(attachment) => (attachment.device.clone(), attachment.hook),
            None if egress => (format!("#{ifindex}"), Hook::TcEgress),
            None => (format!("#{ifindex}"), Hook::TcIngress),
        }
    }

    /// Looks at samples and counts; every so often at everything else.
    fn tick(&mut self) {
        let Ok(now_ns) = monotonic_ns() else { return };
        while let Some(entry) = self.samples.next() {
            match Sample::read(&entry) {
                Some(sample) => self.watch.on_sample(&sample, now_ns),
                None => warn!("a sample of {} bytes is not one of this version", entry.len()),
            }
        }
        let looks = self.ticks + 1 >= TICKS_PER_LOOK;
        let devices = self.device_counters(|ifindex| looks || self.watch.wants(ifindex));
        let rows = (0..self.watch.row_count()).map(|index| self.kernel.row(index));
        match rows.collect::<Result<Vec<_>, _>>() {
            Ok(rows) => {
                let attachments = &self.attachments;
                let name = |ifindex| device_name(attachments, ifindex).map(str::to_owned);
                let events = self.watch.on_counts(&rows, &devices, name, now_ns);
                self.tell_all(&events);
            }
            Err(error) => warn!("{error}"),
        }
        if looks {
            self.ticks = 0;
            self.look(&devices, now_ns);
        } else {
            self.ticks += 1;
        }
    }

    /// What was counted at each interface that is wanted, on all CPUs.
    fn device_counters(&self, is_wanted: impl Fn(u32) -> bool) -> Vec<(u32, Counters)> {
        let mut slots = BTreeSet::new();
        let mut found = Vec::new();
        for attachment in &self.attachments {
            // Interfaces whose indexes share a slot are counted together, under the name of the first.
            if !slots.insert(device_slot(attachment.ifindex)) || !is_wanted(attachment.ifindex) {
                continue;
            }
            match self.kernel.counters(attachment.ifindex) {
                Ok(cpus) => found.push((attachment.ifindex, Counters::sum(&cpus))),
                Err(error) => warn!("{error}"),
            }
        }
        found
    }

    fn tell_all(&mut self, events: &[Event]) {
        for event in events {
            self.output.tell(event, SystemTime::now());
        }
    }

    /// Looks after the open breakers and the host's addresses, and brings the metrics up to date.
    fn look(&mut self, devices: &[(u32, Counters)], now_ns: u64) {
        #[cfg(feature = "kernel-log")]
        if let Some(log) = &mut self.kernel_log {
            log.flush();
        }
        let keys: Vec<_> = self.loops.keys().collect();
        for key in keys {
            match self.kernel.state(key) {
                Ok(Some(state)) if state.is_open() => self.loops.on_held(key, state.held(), now_ns),
                Ok(_) => {}
                Err(error) => debug!("{error}"),
            }
        }
        let mut events = self.loops.tick(now_ns);
        events.extend(self.watch.tick(now_ns));
        events.extend(self.drivers.try_iter());
        if let Some(generation) = self.host.refresh(&mut self.kernel) {
            self.generation = generation;
            events.push(Event::policy(generation, self.host.mode()));
        }
        let lost = devices
            .iter()
            .map(|(_, counters)| counters.get(Counter::EventsLost))
            .sum();
        match self.ring_losses.replace(lost) {
            Some(before) if lost > before => events.push(Event::lost(lost - before)),
            _ => {}
        }
        self.tell_all(&events);

        let mut counted = Snapshot::default();
        for (ifindex, counters) in devices {
            if let Some(device) = device_name(&self.attachments, *ifindex) {
                counted.add_counters(device, counters);
            }
        }
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        snapshot.devices = counted.devices;
        snapshot.policy_generation = self.generation;
        snapshot.lease_seconds = self.lease_until_ns.saturating_sub(now_ns) as f64 / 1e9;
        snapshot.lines_lost = self.output.lost();
        snapshot.loops = self.loops.rows();
        snapshot.held = self.loops.held();
        self.watch.show(&mut snapshot, now_ns);
        snapshot.date(now_ns, SystemTime::now());
    }
}

/// The name of an interface that the guard is attached to.
fn device_name(attachments: &[Attachment], ifindex: u32) -> Option<&str> {
    let found = attachments.iter().find(|one| one.ifindex == ifindex);
    found.map(|attachment| attachment.device.as_str())
}

/// Now, on the clock that the kernel's programs read.
fn monotonic_ns() -> anyhow::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the monotonic clock")?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
