//! The part of a policy that hangs on the host: addresses come and go while the agent runs.

use anyhow::Context as _;
use guard_common::{key::Secret, policy::Mode};
use tracing::warn;

use crate::{
    config::{Compiled, Config},
    datapath::Kernel,
    device::Device,
    facts::Facts,
    host::Host,
};

/// A configuration, and what it needs to know of the host it is for.
pub(crate) struct HostPolicy {
    config: Config,
    devices: Vec<Device>,
    facts: Facts,
    failing: bool,
}

impl HostPolicy {
    /// For a host as it is now.
    ///
    /// # Errors
    ///
    /// Addresses cannot be read, or what the configuration says does not fit the host.
    pub(crate) fn new(config: &Config, devices: Vec<Device>) -> anyhow::Result<Self> {
        let facts = Self::gather(config, &devices)?;
        // Whatever the kernel's secret will be.
        config.policy(&facts, &Secret::default())?;
        Ok(Self {
            config: config.clone(),
            devices,
            facts,
            failing: false,
        })
    }

    /// The policy for the host as it was last seen.
    ///
    /// # Errors
    ///
    /// What the configuration says does not fit the host.
    pub(crate) fn compile(&self, kernel: &Kernel) -> anyhow::Result<Compiled> {
        Ok(self.config.policy(&self.facts, &kernel.secret()?)?)
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

    fn gather(config: &Config, devices: &[Device]) -> anyhow::Result<Facts> {
        let host = Host::read().context("cannot read the addresses of this host")?;
        Ok(Facts::gather(config, devices, &host)?)
    }

    /// Puts the policy in force for the addresses that the host has now, if they have changed and the policy names them;
    /// returns its generation. What cannot be worked out leaves the policy as it is, and is told once.
    pub(crate) fn refresh(&mut self, kernel: &mut Kernel) -> Option<u32> {
        if self.config.link_local.is_none() && self.config.hygiene.is_empty() {
            return None;
        }
        let switched = Self::gather(&self.config, &self.devices).and_then(|facts| {
            if facts == self.facts {
                return Ok(None);
            }
            let compiled = self.config.policy(&facts, &kernel.secret()?)?;
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
                    warn!("the policy stays as it was before the addresses of this host changed: {error:#}");
                }
                None
            }
        }
    }
}
