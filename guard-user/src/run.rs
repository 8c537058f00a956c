//! The agent while it runs: one task that renews the lease, drains the events and keeps the snapshot.
//!
//! If this task hangs or the process dies, nobody renews the lease; the kernel holds on to the last policy until it is
//! over, and from then on passes everything.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow, bail};
use aya::maps::{MapData, RingBuf};
use guard_common::{counter::Counter, event::Event as KernelEvent};
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
    events::{Event, Output},
    facts::Facts,
    host::Host,
    http::Server,
    loops::Loops,
    metrics::Metrics,
    snapshot::Snapshot,
    sys,
};

/// How often the counters are read and the open breakers looked at.
const TICK: Duration = Duration::from_secs(1);
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
    let devices = Device::find_all(&config.attach.interfaces).map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        anyhow!("{}", lines.join("; "))
    })?;

    let (mut datapath, mut kernel) = Datapath::open(config, object)?;
    let mut output = Output::new(format);
    let snapshot = Arc::new(Mutex::new(Snapshot::default()));
    let ring = match start(config, &devices, &mut datapath, &mut kernel, &mut output, &snapshot) {
        Ok(ring) => ring,
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

    let mut agent = Agent {
        kernel,
        loops: Loops::new(config.metrics.top),
        output,
        attachments: datapath.attachments().to_vec(),
        snapshot,
        lease: config.lease,
        lease_until_ns: monotonic_ns()? + nanoseconds(config.lease),
        ring_losses: None,
        #[cfg(feature = "kernel-log")]
        kernel_log: datapath.take_log(),
    };
    agent.observe();
    let interfaces = config.attach.interfaces.clone();
    agent
        .output
        .tell(&Event::ready(config.mode, interfaces), SystemTime::now());
    ready.send_replace(true);

    let result = tokio::select! {
        result = agent.work(ring) => result,
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

/// Puts the policy in force, attaches everywhere and tells of each choice. It fails if nothing could be attached at all.
fn start(
    config: &Config,
    devices: &[Device],
    datapath: &mut Datapath,
    kernel: &mut Kernel,
    output: &mut Output,
    snapshot: &Mutex<Snapshot>,
) -> anyhow::Result<AsyncFd<RingBuf<MapData>>> {
    // In this order: a policy of long ago must not come back to life with the lease.
    let host = Host::read().context("cannot read the addresses of this host")?;
    let facts = Facts::gather(config, devices, &host)?;
    let compiled = config.policy(&facts, &kernel.secret()?)?;
    let generation = kernel.switch(&compiled.policy)?;
    kernel.lease(monotonic_ns()? + nanoseconds(config.lease))?;
    let ring = sys::wait_for(datapath.take_events()?).context("cannot wait for the ring buffer")?;
    output.tell(&Event::policy(generation, config.mode), SystemTime::now());

    let failures = datapath.attach(devices, config);
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
    Ok(ring)
}

/// What the running agent works on.
struct Agent {
    kernel: Kernel,
    loops: Loops,
    output: Output,
    attachments: Vec<Attachment>,
    snapshot: Arc<Mutex<Snapshot>>,
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
                _ = ticks.tick() => self.observe(),
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

    /// Reads what the kernel counted and looks after the open breakers.
    fn observe(&mut self) {
        #[cfg(feature = "kernel-log")]
        if let Some(log) = &mut self.kernel_log {
            log.flush();
        }
        let Ok(now_ns) = monotonic_ns() else { return };
        let keys: Vec<_> = self.loops.keys().collect();
        for key in keys {
            match self.kernel.held(key) {
                Ok(Some(held)) => self.loops.on_held(key, held, now_ns),
                Ok(None) => {}
                Err(error) => debug!("{error}"),
            }
        }
        for event in self.loops.tick(now_ns) {
            self.output.tell(&event, SystemTime::now());
        }

        let mut counted = Snapshot::default();
        let mut slots = BTreeSet::new();
        for attachment in &self.attachments {
            let Attachment { device, ifindex, .. } = attachment;
            // Interfaces whose indexes share a slot are counted together, under the name of the first.
            if !slots.insert(guard_common::abi::device_slot(*ifindex)) {
                continue;
            }
            match self.kernel.counters(*ifindex) {
                Ok(cpus) => cpus.iter().for_each(|counters| counted.add_counters(device, counters)),
                Err(error) => warn!("{error}"),
            }
        }
        let lost = counted
            .devices
            .values()
            .map(|counters| counters.get(Counter::EventsLost))
            .sum();
        match self.ring_losses.replace(lost) {
            Some(before) if lost > before => self.output.tell(&Event::lost(lost - before), SystemTime::now()),
            _ => {}
        }

        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        snapshot.devices = counted.devices;
        snapshot.lease_seconds = self.lease_until_ns.saturating_sub(now_ns) as f64 / 1e9;
        snapshot.lines_lost = self.output.lost();
        snapshot.loops = self.loops.rows();
        snapshot.held = self.loops.held();
    }
}

/// Now, on the clock that the kernel's programs read.
fn monotonic_ns() -> anyhow::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the monotonic clock")?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
