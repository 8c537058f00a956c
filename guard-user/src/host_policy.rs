//! The part of a policy that hangs on the host: addresses come and go while the agent runs.
//!
//! The kernel lists addresses under a lock that others may hold for seconds, and the agent has a lease to renew: so a
//! thread looks at the host, and the agent takes up what it has seen.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
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
    _wanted: Arc<()>,
}

impl HostPolicy {
    /// For a host as it is now.
    ///
    /// # Errors
    ///
    /// Addresses cannot be read, or what the configuration says does not fit the host.
    pub(crate) fn new(config: &Config, devices: Vec<Device>) -> anyhow::Result<Self> {
        let facts = gather(config, &devices)?;
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
        if self.config.link_local.is_none() && !self.config.hygiene.names_own_addresses() {
            return Ok(());
        }
        let (sender, facts) = mpsc::channel();
        let wanted = Arc::new(());
        let is_wanted = Arc::downgrade(&wanted);
        let (config, devices) = (self.config.clone(), self.devices.clone());
        let mut last = Some(self.facts.clone());
        thread::Builder::new().name("host".to_owned()).spawn(move || {
            while is_wanted.strong_count() > 0 {
                thread::sleep(PERIOD);
                let found = gather(&config, &devices);
                let seen = found.as_ref().ok().cloned();
                if (seen.is_none() || seen != last) && sender.send(found).is_err() {
                    return;
                }
                last = seen;
            }
        })?;
        self.news = Some(News { facts, _wanted: wanted });
        Ok(())
    }

    /// The policy for the host as it was last seen.
    ///
    /// # Errors
    ///
    /// What the configuration says does not fit the host.
    pub(crate) fn compile(&self, kernel: &Kernel) -> anyhow::Result<Compiled> {
        self.compile_for(&self.facts, kernel)
    }

    fn compile_for(&self, facts: &Facts, kernel: &Kernel) -> anyhow::Result<Compiled> {
        let secret = kernel.secret()?;
        let mut compiled = self.config.policy(facts, &secret)?;
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
        let facts = gather(config, devices)?;
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

    /// Puts the policy in force for the addresses that the host has now, if they have changed; returns its generation.
    /// What cannot be worked out leaves the policy as it is, and is told once.
    pub(crate) fn refresh(&mut self, kernel: &mut Kernel) -> Option<u32> {
        let found = self.news.as_ref()?.facts.try_iter().last()?;
        let switched = found.and_then(|facts| {
            if facts == self.facts {
                return Ok(None);
            }
            let compiled = self.compile_for(&facts, kernel)?;
            let generation = kernel.switch(&compiled.policy)?;
            self.facts = facts;
            Ok(Some(generation))
        });
        match switched {
            Ok(generation) => {
                self.failing = false;
                generation
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(
                        "the policy goes by the addresses that this host had before: {error:#}; it follows as soon as \
                         that is mended"
                    );
                }
                None
            }
        }
    }
}

fn gather(config: &Config, devices: &[Device]) -> anyhow::Result<Facts> {
    let host = Host::read().context("cannot read the addresses of this host")?;
    Ok(Facts::gather(config, devices, &host)?)
}
