//! The start of the agent, and its end.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, bail};
use aya::maps::{MapData, RingBuf};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tracing::{info, warn};

use crate::{
    agent::{Agent, Parts, monotonic_ns, nanoseconds},
    cli::EventFormat,
    config::{AtStop, Config},
    control::{self, ask::Line, socket::Socket},
    datapath::{Datapath, Kernel},
    drivers::Drivers,
    events::{Event, Output, Teller, feed::Feed},
    host::resolv_confs,
    host_policy::HostPolicy,
    http::{Endpoint, Server},
    interfaces::{self, Follower, Interfaces},
    metrics::Metrics,
    page::Page,
    pods, privileges,
    search::Suffixes,
    service,
    settings::{Loaded, Settings},
    snapshot::Snapshot,
    sys,
    watch::Watch,
};

/// Runs the guard until SIGTERM or SIGINT, then takes it out of the kernel, or leaves it there.
pub(crate) fn run(
    settings: Settings,
    loaded: Loaded,
    format: EventFormat,
    object: Option<&Path>,
) -> anyhow::Result<()> {
    privileges::renounce();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(settings, loaded, format, object))
}

async fn serve(settings: Settings, loaded: Loaded, format: EventFormat, object: Option<&Path>) -> anyhow::Result<()> {
    let config = &loaded.config.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Taken from now on: a reload that is asked for too early must not end the agent.
    let hangups = signal(SignalKind::hangup())?;
    // Taken before anything is attached: a taken port must not cost a half-started guard.
    let server = match config.metrics.listen {
        Some(address) => Some(Server::bind(address, "metrics").await?),
        None => None,
    };
    let page = match config.page.listen {
        Some(address) => Some(Server::bind(address, "page").await?),
        None => None,
    };

    // Looked up before anything is loaded: a wrong name must not cost what an agent before this one left in force.
    let devices = interfaces::choose(&config.attach.selection)?;

    // So is what does not fit this host.
    let host = HostPolicy::new(config, devices)?;

    let (datapath, mut kernel) = Datapath::open(config, object)?;
    // Whoever may not load anything has heard of that, and of another agent, by now.
    let socket = match Socket::bind(&config.control) {
        Ok(socket) => socket,
        Err(error) => {
            datapath.give_up()?;
            return Err(error.into());
        }
    };
    // There is one thread yet, and all that is to be written to is there.
    privileges::confine(&config.attach, socket.as_ref().map(Socket::path));
    let feed = Feed::new();
    let mut teller = Teller::new(Output::new(format), feed.clone(), pods::watch(&config.pods));
    let snapshot = Arc::new(Mutex::new(Snapshot::default()));
    let mut follower = Follower::new(datapath, config).context("cannot follow interfaces")?;
    let started = match start(config, host, &mut follower, &mut kernel, &mut teller, &snapshot) {
        Ok(started) => started,
        Err(error) => {
            follower.into_datapath().detach()?;
            return Err(error);
        }
    };

    privileges::keep(&config.attach, settings.file().map(PathBuf::as_path));
    privileges::forbid(&config.attach);

    let (ready, is_ready) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let source = || {
        let shared = Arc::clone(&snapshot);
        move || shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    };
    let until_stopped = || {
        let mut stopped = stopped.clone();
        async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    };
    let http = server.map(|server| {
        let metrics = Metrics::new(source());
        info!("metrics at http://{}/metrics", server.address());
        tokio::spawn(server.serve(Endpoint::new(metrics, is_ready), until_stopped()))
    });
    let page = page.map(|server| {
        let page = Page::new(source());
        info!("page at http://{}/", server.address());
        tokio::spawn(server.serve(page, until_stopped()))
    });

    let (line, asks) = Line::new();
    let control = socket.map(|socket| {
        let metrics = Metrics::new(source());
        info!("commands at {}", socket.path().display());
        let server = control::Server::new(socket, metrics, feed, line);
        tokio::spawn(server.serve(until_stopped()))
    });

    let drivers = Drivers::start(started.host.devices(), Arc::clone(&snapshot)).unwrap_or_else(|error| {
        warn!("what network drivers drop is not known: {error}; the guard goes on without");
        Drivers::none()
    });
    let attachments = follower.datapath().attachments().to_vec();
    #[cfg(feature = "kernel-log")]
    let kernel_log = follower.datapath_mut().take_log();
    let (change, changes) = mpsc::unbounded_channel();
    let interfaces = Interfaces::follow(follower, change).context("cannot follow interfaces")?;

    let mut agent = Agent::new(Parts {
        kernel,
        watch: started.watch,
        samples: started.samples,
        host: started.host,
        drivers,
        teller,
        attachments,
        interfaces,
        snapshot,
        settings,
        loaded,
        generation: started.generation,
        lease_until_ns: started.lease_until_ns,
        #[cfg(feature = "kernel-log")]
        kernel_log,
    });
    agent.tell(&Event::ready(config.mode, agent.guarded()));
    ready.send_replace(true);
    service::ready(&agent.status());

    let result = tokio::select! {
        result = agent.work(started.events, asks, changes, hangups) => result,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };

    stop.send_replace(true);
    let stays = matches!(agent.at_stop(), AtStop::Stay);
    service::stopping(if stays {
        "leaving the guard in force for the next agent"
    } else {
        "taking the guard out of the kernel"
    });
    let seconds = stays.then(|| agent.leave());
    let (datapath, mut teller) = agent.stop()?;
    match seconds {
        Some(seconds) => teller.tell(&Event::stay(&datapath.stay(), seconds)),
        None => {
            for attachment in &datapath.detach()? {
                teller.tell(&Event::detach(attachment, "told to stop"));
            }
        }
    }
    for server in http.into_iter().chain(page).chain(control) {
        let _ = server.await;
    }
    teller.finish();
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
    follower: &mut Follower,
    kernel: &mut Kernel,
    teller: &mut Teller,
    snapshot: &Mutex<Snapshot>,
) -> anyhow::Result<Started> {
    let compiled = host.compile(kernel)?;
    // In this order: a policy of long ago must not come back to life with the lease, and what was counted till now
    // belongs to other rows.
    let generation = kernel.begin(&compiled.policy)?;
    let lease_until_ns = monotonic_ns()? + nanoseconds(config.lease);
    kernel.lease(lease_until_ns)?;
    let datapath = follower.datapath_mut();
    let samples = datapath.take_samples()?;
    let events = sys::wait_for(datapath.take_events()?).context("cannot wait for the ring buffer")?;
    teller.tell(&Event::policy(generation, config.mode));
    let suffixes = Suffixes::new(&config.search_suffixes, &resolv_confs().collect::<Vec<_>>());
    let watch = Watch::new(config, &compiled, host.facts(), suffixes);

    let change = follower.begin().context("cannot list the interfaces")?;
    let mut snapshot = snapshot.lock().unwrap_or_else(PoisonError::into_inner);
    snapshot.mode = config.mode;
    snapshot.policy_generation = generation;
    snapshot.map_bytes = Kernel::map_bytes().collect();
    snapshot.note_hooks(&change.attached, std::iter::empty());
    snapshot.hooks_failing = change.failing;
    snapshot.attachments.clone_from(&change.attachments);
    if let Some(takeover) = follower.datapath().takeover() {
        teller.tell(&Event::takeover(takeover));
    }
    for attachment in &change.attached {
        teller.tell(&Event::attach(attachment));
    }
    for failed in &change.failed {
        teller.tell(&Event::attach_error(failed));
        snapshot.add_attach_error(&failed.device, failed.hook);
    }
    if change.attachments.is_empty() && !change.failed.is_empty() {
        let reasons: Vec<_> = change
            .failed
            .iter()
            .map(|failed| format!("{}: {}", failed.device, failed.error))
            .collect();
        bail!("nothing could be attached: {}", reasons.join("; "));
    }
    if change.devices.is_empty() {
        warn!(
            "no interface is there that {} chooses: the guard waits for one",
            config.attach.selection.words()
        );
    }
    host.look_again(change.devices);
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
