//! The agent and its configuration: what asks for another one, and how it comes into force.

use std::{
    sync::PoisonError,
    time::{SystemTime, UNIX_EPOCH},
};

use guard_common::policy::MAX_ALLOWED;
use tokio::{sync::oneshot, task::JoinHandle};
use tracing::info;

use super::{
    Agent,
    file_watch::FileWatch,
    reload::{self, Prepared, Trigger},
};
use crate::{
    control::{
        api::{Change, Done},
        ask::{Answer, Refusal},
        socket::Peer,
    },
    events::Event,
    host::resolv_confs,
    search::Suffixes,
    service,
    settings::{Loaded, Origin, Settings},
    snapshot::{Reload, Setting, SettingsShown},
};

type Reply = oneshot::Sender<Answer<Done>>;

/// Where the configuration comes from, and what is on its way.
#[derive(Debug)]
pub(super) struct Configuring {
    settings: Settings,
    loaded: Loaded,
    file: FileWatch,
    reload: Reload,
    work: Option<Work>,
    /// Asked for while another one is on its way.
    again: Option<Trigger>,
}

/// A configuration on its way.
#[derive(Debug)]
struct Work {
    prepared: JoinHandle<Result<Prepared, String>>,
    settings: Settings,
    trigger: Trigger,
    /// Only look whether it would be right.
    dry_run: bool,
    reply: Option<Reply>,
}

impl Configuring {
    /// With the settings that the agent has started with.
    pub(super) fn new(settings: Settings, loaded: Loaded) -> Self {
        Self {
            file: FileWatch::new(settings.file().cloned()),
            settings,
            loaded,
            reload: Reload {
                successful: true,
                success_seconds: unix_seconds(),
                error: None,
            },
            work: None,
            again: None,
        }
    }

    /// Whether one is on its way.
    pub(super) const fn is_busy(&self) -> bool {
        self.work.is_some()
    }

    /// Waits for the one that is on its way; forever, if there is none.
    pub(super) async fn prepared(&mut self) -> Result<Prepared, String> {
        match &mut self.work {
            Some(work) => match (&mut work.prepared).await {
                Ok(prepared) => prepared,
                Err(error) => Err(format!("the configuration could not be read: {error}")),
            },
            None => std::future::pending().await,
        }
    }
}

impl Agent {
    /// SIGHUP.
    pub(super) fn reload_for_signal(&mut self) {
        self.reload(Trigger::Signal, None);
    }

    /// Looks whether the file has changed.
    pub(super) fn look_at_file(&mut self) {
        if self.configuring.file.has_changed() {
            self.reload(Trigger::File, None);
        }
    }

    /// Reads the file again.
    pub(super) fn reload(&mut self, trigger: Trigger, reply: Option<Reply>) {
        let settings = self.configuring.settings.clone();
        self.prepare(settings, trigger, false, reply);
    }

    /// Changes a key by hand, or takes changes back.
    pub(super) fn change(&mut self, change: &Change, resets: bool, peer: Peer, reply: Reply) {
        let mut settings = self.configuring.settings.clone();
        let edits = settings.by_hand_mut();
        let edited = match (&change.key, &change.value) {
            (Some(key), Some(value)) if !resets => edits.set(key, value).map_err(|error| error.to_string()),
            (Some(key), None) if resets => match edits.unset(key) {
                Ok(true) => Ok(()),
                Ok(false) => Err(format!("{key} is not set by hand; dnsguard policy get shows what is")),
                Err(error) => Err(error.to_string()),
            },
            (None, None) if resets => {
                edits.clear();
                Ok(())
            }
            _ => Err("a change has a key and a value, a reset at most a key".to_owned()),
        };
        match edited {
            Ok(()) => self.prepare(settings, Trigger::Command(peer), change.dry_run, Some(reply)),
            // Whoever asked may be gone.
            Err(error) => drop(reply.send(Err(Refusal::Bad(error)))),
        }
    }

    fn prepare(&mut self, settings: Settings, trigger: Trigger, dry_run: bool, reply: Option<Reply>) {
        if self.configuring.is_busy() {
            self.configuring.again = Some(trigger);
            return;
        }
        self.configuring.file.is_loaded();
        if !dry_run {
            service::reloading();
        }
        let (current, devices) = (self.host.config().clone(), self.host.devices().to_vec());
        self.configuring.work = Some(Work {
            prepared: reload::prepare(settings.clone(), current, devices),
            settings,
            trigger,
            dry_run,
            reply,
        });
    }

    /// Puts a configuration in force, or tells why it cannot be; the one before it stays in force then, whole.
    pub(super) async fn configure(&mut self, prepared: Result<Prepared, String>) {
        let Some(work) = self.configuring.work.take() else {
            return;
        };
        let is_change = work.settings.by_hand() != self.configuring.settings.by_hand();
        let outcome = match prepared {
            Ok(prepared) if work.dry_run => Ok(self.would_change(&prepared)),
            Ok(prepared) => self.apply(prepared, &work).await,
            Err(error) => Err(Refusal::Bad(error)),
        };
        // A command that changes a key says itself that it was refused: the file has nothing to do with it.
        let is_told = !is_change || outcome.is_ok();
        if is_told && !work.dry_run {
            self.note_reload(&outcome, &work.trigger, is_change);
        }
        if !work.dry_run {
            service::ready(&self.status());
        }
        if let Some(reply) = work.reply {
            let _ = reply.send(outcome.map(|done| self.done(done)));
        }
        if let Some(trigger) = self.configuring.again.take() {
            self.reload(trigger, None);
        }
    }

    fn would_change(&self, prepared: &Prepared) -> Vec<String> {
        let changes = reload::changes(self.host.config(), &prepared.loaded.config);
        if changes.is_empty() {
            vec!["it is right, and would change nothing".to_owned()]
        } else {
            let would = changes.iter().map(|change| format!("would change {change}"));
            would.collect()
        }
    }

    /// Returns what is different.
    async fn apply(&mut self, prepared: Prepared, work: &Work) -> Answer<Vec<String>> {
        let Prepared { loaded, facts, devices } = prepared;
        let config = &loaded.config;
        let allowed = self.allowing.questions(config);
        if allowed.len() > MAX_ALLOWED {
            return Err(Refusal::Bad(format!(
                "{} names and types are allowed, those by hand included; {MAX_ALLOWED} can be",
                allowed.len()
            )));
        }
        let changes = reload::changes(self.host.config(), config);
        let is_same = *config == *self.host.config() && facts == *self.host.facts();
        let selects = config.attach.selection != self.host.config().attach.selection;
        if !is_same {
            let before = self.host.adopt(config.clone(), facts);
            self.host.allow(allowed);
            if let Err(error) = self.put_in_force().await {
                let (config, facts) = before;
                self.host.adopt(config, facts);
                self.host.allow(self.allowing.questions(self.host.config()));
                return Err(Refusal::Failed(format!("{error:#}")));
            }
            if selects {
                self.interfaces.select(loaded.config.attach.selection.clone());
                self.host.look_again(devices);
            }
            if let Err(error) = self.host.follow() {
                info!("the policy does not follow the host any more: {error}; restart the agent");
            }
        }
        self.configuring.settings = work.settings.clone();
        self.configuring.loaded = loaded;
        Ok(changes)
    }

    /// Switches to the policy of the host's configuration, whose rows may mean something else than before.
    pub(super) async fn put_in_force(&mut self) -> anyhow::Result<()> {
        let compiled = self.host.compile(&self.kernel)?;
        let (generation, ended) = self.kernel.replace(&compiled.policy, self.watch.row_count()).await?;
        self.generation = generation;
        let config = self.host.config();
        let suffixes = Suffixes::new(&config.search_suffixes, &resolv_confs().collect::<Vec<_>>());
        let events = self
            .watch
            .follow(config, &compiled, self.host.facts(), suffixes, &ended);
        self.loops.set_top(config.metrics.top);
        self.lease = config.lease;
        let mode = config.mode;
        self.note_allowed();
        self.teller.tell_all(&events);
        self.teller.tell(&Event::policy(generation, mode));
        Ok(())
    }

    fn note_reload(&mut self, outcome: &Answer<Vec<String>>, trigger: &Trigger, is_change: bool) {
        let reload = &mut self.configuring.reload;
        reload.successful = outcome.is_ok();
        reload.error = outcome.as_ref().err().map(ToString::to_string);
        if outcome.is_ok() {
            reload.success_seconds = unix_seconds();
        }
        let done = if is_change { "changed by hand" } else { "loaded again" };
        let reason = match outcome {
            Ok(changes) if changes.is_empty() => format!("the configuration was {done}; nothing is different"),
            Ok(changes) => format!("the configuration was {done}: {}", changes.join("; ")),
            Err(error) => format!("the configuration was not loaded, the policy of before is in force: {error}"),
        };
        self.teller.tell(&Event::Reload {
            successful: outcome.is_ok(),
            trigger: trigger.word(),
            by: trigger.by(),
            changes: outcome.as_ref().ok().cloned().unwrap_or_default(),
            reason,
        });
        self.show_settings();
    }

    /// What the agent does, in a line.
    pub(crate) fn status(&self) -> String {
        let guarding = Event::guarding(self.host.mode(), &self.guarded());
        match &self.configuring.reload.error {
            Some(error) => format!("{guarding}; the configuration was not loaded: {error}"),
            None => guarding,
        }
    }

    /// Brings what is shown of the configuration up to date.
    pub(super) fn show_settings(&mut self) {
        let Configuring {
            settings,
            loaded,
            reload,
            ..
        } = &self.configuring;
        let rows = loaded.config.settings();
        let by_hand = settings.by_hand().iter();
        let by_hand = by_hand.filter(|(key, _)| rows.iter().all(|(known, _)| known != key));
        let by_hand = by_hand.map(|(key, value)| Setting {
            key: key.to_owned(),
            value: value.to_owned(),
            from: Origin::Hand.word(),
        });
        let shown = SettingsShown {
            file: settings.file().map(|path| path.display().to_string()),
            by_hand: by_hand.collect(),
            limits: loaded.config.limits().collect(),
            rows: rows
                .iter()
                .map(|(key, value)| Setting {
                    key: (*key).to_owned(),
                    value: value.clone(),
                    from: settings.origin(loaded, key).word(),
                })
                .collect(),
        };
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        snapshot.settings = shown;
        snapshot.reload = reload.clone();
        snapshot.mode = self.host.mode();
        snapshot.policy_generation = self.generation;
        snapshot.allowed = self.allowing.shown(self.host.config(), &self.kernel);
        snapshot.loops = self.loops.rows();
    }
}

fn unix_seconds() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs_f64() * 1_000.0).round() / 1_000.0
}
