//! The agent and the interfaces that come and go: what it tells of them, and what hangs on them.

use std::sync::PoisonError;

use guard_common::counter::Counters;
use tracing::warn;

use super::Agent;
use crate::{events::Event, interfaces::Change};

impl Agent {
    /// Takes in what the thread that follows the interfaces has done.
    pub(super) fn follow_interfaces(&mut self, change: Change) {
        let Change {
            attached,
            detached,
            failed,
            attachments,
            devices,
            failing,
            ..
        } = change;
        let mut events: Vec<_> = detached
            .iter()
            .map(|(one, reason)| Event::detach(one, reason.clone()))
            .collect();
        events.extend(attached.iter().map(Event::attach));
        events.extend(failed.iter().filter(|one| one.is_news).map(Event::attach_error));
        self.teller.tell_all(&events);

        let kernel = &self.kernel;
        let counted = self.ledger.follow(&devices, |ifindex| {
            kernel.counters(ifindex).map(|cpus| Counters::sum(&cpus))
        });
        if let Err(error) = counted {
            warn!("{error}");
        }
        {
            let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
            snapshot.note_hooks(&attached, detached.iter().map(|(one, _)| one));
            for one in &failed {
                snapshot.add_attach_error(&one.device, one.hook);
            }
            snapshot.forget_attach_errors(|name| devices.iter().any(|device| device.name == name));
            snapshot.hooks_failing = failing;
            snapshot.attachments.clone_from(&attachments);
        }
        self.attachments = attachments;
        self.drivers.watch(&devices);
        self.host.look_again(devices);
    }

    /// Puts the policy in force for what the host has now, if that has changed. What cannot be worked out leaves the policy
    /// as it is.
    pub(super) async fn follow_host(&mut self) {
        let Some(found) = self.host.news() else { return };
        let followed = match found {
            Ok(facts) if facts == *self.host.facts() => Ok(()),
            Ok(facts) => {
                let config = self.host.config().clone();
                let (config, before) = self.host.adopt(config, facts);
                let switched = self.put_in_force().await;
                switched.inspect_err(|_| {
                    self.host.adopt(config, before);
                })
            }
            Err(error) => Err(error),
        };
        self.host.note(&followed);
        if followed.is_ok() {
            let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
            snapshot.policy_generation = self.generation;
        }
    }
}
