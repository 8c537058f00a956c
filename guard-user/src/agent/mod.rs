//! The agent while it runs: one task that renews the lease, drains the events, keeps the snapshot, and does what commands
//! ask for.
//!
//! If this task hangs or the process dies, nobody renews the lease; the kernel holds on to the last policy until it is
//! over, and from then on passes everything.

mod configure;
mod deeds;
mod explain;
mod file_watch;
mod interfaces;
mod ledger;
mod reload;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use guard_common::{
    counter::{Counter, Counters},
    event::Event as KernelEvent,
    remedy::{Reason, Verdict},
    sample::{Kind, Sample},
    time::Ticks,
};
use nix::time::{ClockId, clock_gettime};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::Signal,
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, warn};

use self::{configure::Configuring, deeds::Allowing, ledger::Ledger};
use crate::{
    attachment::{Attachment, Hook},
    config::AtStop,
    control::ask::Ask,
    datapath::{Datapath, Kernel},
    drivers::Drivers,
    events::{Event, Teller, feed::Query},
    host_policy::HostPolicy,
    interfaces::{Change, Interfaces},
    loops::Loops,
    name, offenders,
    service::Watchdog,
    settings::{Loaded, Settings},
    snapshot::Snapshot,
    watch::Watch,
};

/// How often samples and counts are looked at: who makes a storm is told within a second.
const TICK: Duration = Duration::from_millis(250);
/// Ticks after which the open breakers and the host's addresses are looked at, and the metrics brought up to date.
const TICKS_PER_LOOK: u32 = 4;
/// Renewals that fit into a lease.
const RENEWALS: u32 = 3;

/// What the agent works with.
pub(crate) struct Parts {
    pub(crate) kernel: Kernel,
    pub(crate) watch: Watch,
    pub(crate) samples: RingBuf<MapData>,
    pub(crate) host: HostPolicy,
    pub(crate) drivers: Drivers,
    pub(crate) teller: Teller,
    pub(crate) attachments: Vec<Attachment>,
    pub(crate) interfaces: Interfaces,
    pub(crate) snapshot: Arc<Mutex<Snapshot>>,
    pub(crate) settings: Settings,
    pub(crate) loaded: Loaded,
    /// Counts the policies.
    pub(crate) generation: u32,
    pub(crate) lease_until_ns: u64,
    #[cfg(feature = "kernel-log")]
    pub(crate) kernel_log: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
}

/// The running agent.
pub(crate) struct Agent {
    kernel: Kernel,
    watch: Watch,
    samples: RingBuf<MapData>,
    host: HostPolicy,
    drivers: Drivers,
    /// Ticks since the last look.
    ticks: u32,
    loops: Loops,
    teller: Teller,
    attachments: Vec<Attachment>,
    interfaces: Interfaces,
    ledger: Ledger,
    snapshot: Arc<Mutex<Snapshot>>,
    generation: u32,
    lease: Duration,
    lease_until_ns: u64,
    /// Events that the kernel had lost when they were last counted.
    ring_losses: Option<u64>,
    /// Those that it has lost since the agent is there.
    events_lost: u64,
    configuring: Configuring,
    allowing: Allowing,
    watchdog: Watchdog,
    #[cfg(feature = "kernel-log")]
    kernel_log: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
}

impl Agent {
    /// With these parts, under the configuration that `host` has.
    pub(crate) fn new(parts: Parts) -> Self {
        let config = parts.host.config();
        let (lease, top) = (config.lease, config.metrics.top);
        let ledger = Ledger::begin(parts.host.devices());
        let mut agent = Self {
            kernel: parts.kernel,
            watch: parts.watch,
            samples: parts.samples,
            host: parts.host,
            drivers: parts.drivers,
            // The first tick looks at everything: the metrics are there before anybody is told that the guard is ready.
            ticks: TICKS_PER_LOOK - 1,
            loops: Loops::new(top),
            teller: parts.teller,
            attachments: parts.attachments,
            interfaces: parts.interfaces,
            ledger,
            snapshot: parts.snapshot,
            generation: parts.generation,
            lease,
            lease_until_ns: parts.lease_until_ns,
            ring_losses: None,
            events_lost: 0,
            configuring: Configuring::new(parts.settings, parts.loaded),
            allowing: Allowing::default(),
            watchdog: Watchdog::new(),
            #[cfg(feature = "kernel-log")]
            kernel_log: parts.kernel_log,
        };
        agent.note_allowed();
        agent.show_settings();
        agent.count();
        agent
    }

    /// Tells an event.
    pub(crate) fn tell(&mut self, event: &Event) {
        self.teller.tell(event);
    }

    /// The names of the interfaces that are guarded.
    pub(crate) fn guarded(&self) -> Vec<String> {
        let mut names: Vec<_> = self.attachments.iter().map(|one| one.device.clone()).collect();
        names.dedup();
        names
    }

    /// Ends the following of interfaces; gives back what is in the kernel.
    ///
    /// # Errors
    ///
    /// The thread that follows them has panicked.
    pub(crate) fn stop(self) -> anyhow::Result<(Datapath, Teller)> {
        Ok((self.interfaces.stop()?, self.teller))
    }

    /// What becomes of the guard when the agent is told to stop.
    pub(crate) const fn at_stop(&self) -> AtStop {
        self.host.config().attach.at_stop
    }

    /// Renews the lease a last time; returns the seconds that it has now.
    pub(crate) fn leave(&mut self) -> u64 {
        self.renew();
        let left_ns = self.lease_until_ns.saturating_sub(monotonic_ns().unwrap_or_default());
        left_ns.div_ceil(1_000_000_000)
    }

    /// Works until something breaks that it cannot do without.
    pub(crate) async fn work(
        &mut self,
        mut ring: AsyncFd<RingBuf<MapData>>,
        mut asks: mpsc::Receiver<Ask>,
        mut changes: mpsc::UnboundedReceiver<Change>,
        mut hangups: Signal,
    ) -> anyhow::Result<()> {
        let mut renewals = interval(self.lease / RENEWALS);
        let mut ticks = interval(TICK);
        for timer in [&mut renewals, &mut ticks] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            let lease = self.lease;
            tokio::select! {
                _ = renewals.tick() => self.renew(),
                _ = ticks.tick() => self.tick().await,
                readable = ring.readable_mut() => {
                    let mut guard = readable.context("cannot wait for the ring buffer")?;
                    self.drain(guard.get_inner_mut());
                    guard.clear_ready();
                }
                // One after the other: what changes the configuration is done before the next is looked at.
                Some(ask) = asks.recv(), if !self.configuring.is_busy() => self.answer(ask),
                change = changes.recv() => match change {
                    Some(change) => self.follow_interfaces(change),
                    None => anyhow::bail!("the thread that follows interfaces has ended"),
                },
                Some(()) = hangups.recv() => self.reload_for_signal(),
                prepared = self.configuring.prepared() => self.configure(prepared).await,
            }
            if self.lease != lease {
                renewals = interval(self.lease / RENEWALS);
                renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
        self.teller.tell(&Event::Lease { seconds_left, reason });
    }

    fn drain(&mut self, ring: &mut RingBuf<MapData>) {
        let mut is_told = false;
        while let Some(entry) = ring.next() {
            let Some(event) = KernelEvent::read(&entry) else {
                warn!("an event of {} bytes is not one of this version", entry.len());
                continue;
            };
            let (device, hook) = self.place(event.ifindex, event.egress == 1);
            if let Some(event) = self.loops.on_event(&event, &device, hook) {
                self.teller.tell(&event);
                is_told = true;
            }
        }
        // Whoever has heard of a loop finds it in the list.
        if is_told {
            let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
            snapshot.loops = self.loops.rows();
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

    /// Looks at samples and counts, and at the host; every so often at everything else.
    async fn tick(&mut self) {
        self.count();
        self.follow_host().await;
    }

    fn count(&mut self) {
        self.watchdog.beat();
        let Ok(now_ns) = monotonic_ns() else { return };
        while let Some(sample) = self.next_sample() {
            self.watch.on_sample(&sample, now_ns);
            if self.teller.feed().wants_queries() {
                self.show(&sample);
            }
        }
        let looks = self.ticks + 1 >= TICKS_PER_LOOK;
        let devices = self.device_counters(|watch, ifindex| looks || watch.wants(ifindex));
        let rows = (0..self.watch.row_count()).map(|index| self.kernel.row(index));
        match rows.collect::<Result<Vec<_>, _>>() {
            Ok(rows) => {
                let attachments = &self.attachments;
                let name = |ifindex| device_name(attachments, ifindex).map(str::to_owned);
                let events = self.watch.on_counts(&rows, &devices, name, now_ns);
                self.teller.tell_all(&events);
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
    fn device_counters(&mut self, is_wanted: impl Fn(&Watch, u32) -> bool) -> Vec<(u32, Counters)> {
        let owners: Vec<_> = self
            .ledger
            .owners()
            .filter(|owner| is_wanted(&self.watch, *owner))
            .collect();
        let mut found = Vec::new();
        for ifindex in owners {
            match self.kernel.counters(ifindex) {
                Ok(cpus) => found.push((ifindex, self.ledger.count(ifindex, Counters::sum(&cpus)))),
                Err(error) => warn!("{error}"),
            }
        }
        found
    }

    fn next_sample(&mut self) -> Option<Sample> {
        while let Some(entry) = self.samples.next() {
            match Sample::read(&entry) {
                Some(sample) => return Some(sample),
                None => warn!("a sample of {} bytes is not one of this version", entry.len()),
            }
        }
        None
    }

    /// Shows a sampled query to those who look on.
    fn show(&self, sample: &Sample) {
        let verdict = Verdict::from_u8(sample.verdict);
        let is_shed = Kind::from_u8(sample.kind) == Kind::Shed;
        // What is shed is among all queries as well: it is shown once, with the reason.
        if !is_shed && sample.reason != 0 {
            return;
        }
        let (device, _) = self.place(sample.ifindex, sample.egress == 1);
        let (client, server) = (offenders::client(sample), offenders::server(sample));
        let pods = self.teller.names().among([client, server]);
        let query = Query {
            client,
            pod: pods.at(client).cloned(),
            server,
            server_pod: pods.at(server).cloned(),
            name: name::text(sample.wire_name()),
            qtype: name::qtype(sample.qtype).into_owned(),
            device_pod: pods.behind(&device).cloned(),
            device,
            direction: if sample.egress == 1 { "out" } else { "in" },
            verdict: verdict.word(),
            why: match (is_shed, verdict) {
                (true, _) => Some(Reason::from_u8(sample.reason).word()),
                (false, Verdict::Pass) => None,
                (false, _) => Some(Reason::Loop.word()),
            },
            weight: sample.weight,
        };
        self.teller.feed().show(&query, SystemTime::now());
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
        events.extend(self.drivers.news());
        let counted = devices.iter().map(|(_, counters)| counters).chain([self.ledger.gone()]);
        let lost = counted.map(|counters| counters.get(Counter::EventsLost)).sum();
        // Maps may be those of an agent before this one: what they count already was lost on another watch.
        let before = self.ring_losses.replace(lost).unwrap_or(lost);
        if lost > before {
            self.events_lost += lost - before;
            events.push(Event::lost(lost - before));
        }
        self.teller.tell_all(&events);
        let pressure = self.kernel.pressure(Ticks::from_ns(now_ns));
        self.end_allowances(now_ns);
        self.look_at_file();

        let mut counted = Snapshot::default();
        for (ifindex, counters) in devices {
            if let Some(device) = device_name(&self.attachments, *ifindex) {
                counted.add_counters(device, counters);
            }
        }
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        snapshot.devices = counted.devices;
        snapshot.gone = *self.ledger.gone();
        snapshot.policy_generation = self.generation;
        snapshot.lease_seconds = self.lease_until_ns.saturating_sub(now_ns) as f64 / 1e9;
        snapshot.lines_lost = self.teller.lost();
        snapshot.loops = self.loops.rows();
        snapshot.open = self.loops.open_by_name();
        snapshot.held = self.loops.held();
        match pressure {
            Ok(pressure) => snapshot.map_pressure = pressure.into(),
            Err(error) => debug!("{error}"),
        }
        snapshot.events_lost = self.events_lost;
        self.watch.show(&mut snapshot, now_ns);
        snapshot.pods = self.teller.names().sight(snapshot.addresses());
        snapshot.date(now_ns, SystemTime::now());
    }
}

/// The name of an interface that the guard is attached to.
fn device_name(attachments: &[Attachment], ifindex: u32) -> Option<&str> {
    let found = attachments.iter().find(|one| one.ifindex == ifindex);
    found.map(|attachment| attachment.device.as_str())
}

/// Now, on the clock that the kernel's programs read.
pub(crate) fn monotonic_ns() -> anyhow::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the monotonic clock")?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
