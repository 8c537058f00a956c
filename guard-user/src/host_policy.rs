//! The part of a policy that hangs on the host: addresses and interfaces come and go while the agent runs.
//!
//! The kernel lists addresses under a lock that others may hold for seconds, and the agent has a lease to renew: so a
//! thread looks at the host, and the agent takes up what it has seen.

use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use guard_common::{key::Secret, policy::Mode};
use tracing::warn;

use crate::{
    config::{Compiled, Config},
    datapath::Kernel,
    device::Device,
    facts::Facts,
    host::Host,
    question::Question,
};

/// How often the host is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// A configuration, and what it needs to know of the host it is for.
pub(crate) struct HostPolicy {
    config: Config,
    devices: Vec<Device>,
    facts: Facts,
    /// What is only watched, whatever the mode.
    allowed: Vec<Question>,
    news: Option<News>,
    failing: bool,
}

/// A thread that looks at the host for as long as this is there.
struct News {
    facts: Receiver<anyhow::Result<Facts>>,
    /// Has it look at once, for these interfaces from now on.
    look: Sender<Vec<Device>>,
}

impl HostPolicy {
    /// For a host as it is now.
    ///
    /// # Errors
    ///
    /// Addresses cannot be read, or what the configuration says does not fit the host.
    pub(crate) fn new(config: &Config, devices: Vec<Device>) -> anyhow::Result<Self> {
        let facts = gather(config, &devices, None)?;
        // Whatever the kernel's secret will be.
        config.policy(&facts, &Secret::default())?;
        Ok(Self {
            config: config.clone(),
            devices,
            facts,
            allowed: config.allow.clone(),
            news: None,
            failing: false,
        })
    }

    /// Begins to look at the host once a second, if the policy hangs on it.
    ///
    /// # Errors
    ///
    /// There is no room for a thread.
    pub(crate) fn follow(&mut self) -> std::io::Result<()> {
        self.news = None;
        let config = self.config.clone();
        if config.link_local.is_none() && !config.hygiene.names_own_addresses() && !config.names_interfaces() {
            return Ok(());
        }
        let (sender, facts) = mpsc::channel();
        let (look, wanted) = mpsc::channel();
        let mut devices = self.devices.clone();
        let mut last = self.facts.clone();
        thread::Builder::new().name("host".to_owned()).spawn(move || {
            loop {
                match wanted.recv_timeout(PERIOD) {
                    Ok(now) => devices = wanted.try_iter().last().unwrap_or(now),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                let found = gather(&config, &devices, Some(&last));
                let is_news = found.as_ref().map_or(true, |found| *found != last);
                if let Ok(found) = &found {
                    last.clone_from(found);
                }
                if is_news && sender.send(found).is_err() {
                    return;
                }
            }
        })?;
        self.news = Some(News { facts, look });
        Ok(())
    }

    /// Has the host looked at without waiting for the next second; its guarded interfaces are these.
    pub(crate) fn look_again(&mut self, devices: Vec<Device>) {
        self.devices = devices;
        if let Some(news) = &self.news {
            // A thread that has ended has said why.
            let _ = news.look.send(self.devices.clone());
        }
    }

    /// What has been seen of the host since the last call, if that is news.
    pub(crate) fn news(&self) -> Option<anyhow::Result<Facts>> {
        self.news.as_ref()?.facts.try_iter().last()
    }

    /// Notes whether the policy could follow the host. That it cannot is told once.
    pub(crate) fn note(&mut self, followed: &anyhow::Result<()>) {
        match followed {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(
                        "the policy goes by what this host had before: {error:#}; it follows as soon as that is mended"
                    );
                }
            }
        }
    }

    /// The policy for the host as it was last seen.
    ///
    /// # Errors
    ///
    /// What the configuration says does not fit the host.
    pub(crate) fn compile(&self, kernel: &Kernel) -> anyhow::Result<Compiled> {
        let secret = kernel.secret()?;
        let mut compiled = self.config.policy(&self.facts, &secret)?;
        for question in &self.allowed {
            let has_room = compiled.policy.allow(question.key(&secret));
            debug_assert!(has_room, "whoever allows a key looks whether there is room");
        }
        Ok(compiled)
    }

    /// Looks whether another configuration fits the host, which takes as long as the kernel likes.
    ///
    /// # Errors
    ///
    /// Addresses cannot be read, or what the configuration says does not fit the host.
    pub(crate) fn look_with(config: &Config, devices: &[Device]) -> anyhow::Result<Facts> {
        let facts = gather(config, devices, None)?;
        config.policy(&facts, &Secret::default())?;
        Ok(facts)
    }

    /// The same for another configuration, which was looked at with [`Self::look_with`]; returns the one before it.
    pub(crate) fn adopt(&mut self, config: Config, facts: Facts) -> (Config, Facts) {
        let config = std::mem::replace(&mut self.config, config);
        (config, std::mem::replace(&mut self.facts, facts))
    }

    /// These are only watched from the next policy on.
    pub(crate) fn allow(&mut self, allowed: Vec<Question>) {
        self.allowed = allowed;
    }

    /// The configuration.
    pub(crate) const fn config(&self) -> &Config {
        &self.config
    }

    /// What was last seen of the host.
    pub(crate) const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The interfaces that are guarded.
    pub(crate) fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Watch, or act.
    pub(crate) const fn mode(&self) -> Mode {
        self.config.mode
    }
}

fn gather(config: &Config, devices: &[Device], before: Option<&Facts>) -> anyhow::Result<Facts> {
    let host = Host::read().context("cannot read the addresses of this host")?;
    Ok(Facts::gather(config, devices, &host, before)?)
}
