//! Which pod is behind an address or an interface, from the container runtime of this node.
//!
//! ```text
//! runtime (CRI socket) --> sandbox -.
//!                                    +-> directory --> Names --> events, snapshot
//! kernel (links, routes) -----------'
//! ```
//!
//! Nobody else is asked: no API server, and no DNS. A thread of its own ([`follow`]) asks, so that a runtime which hangs
//! or lies holds nobody up; whoever looks a pod up finds the last [`Directory`] or, where that is too old, nothing, and
//! shows the address as if there were no pods.

mod directory;
mod follow;
mod pod;
mod runtime;
mod sandbox;
mod ways;

use std::{
    collections::HashSet,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tracing::warn;

pub(crate) use self::{
    directory::{Directory, Known},
    pod::Pod,
};
use crate::config;

/// For how long a directory holds without a word from the runtime. In that time it has been asked at least three times.
const VALID: Duration = Duration::from_secs(15);

/// Addresses that are remembered for being no pod's.
const MAX_STRANGERS: usize = 4_096;

/// Where a runtime may have its socket, the likeliest first.
type Sockets = Vec<PathBuf>;

/// Where everybody looks pods up; clones share it. Without a runtime to ask there are none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Option<Arc<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Somebody wants an address that is not in the directory.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    directory: Arc<Directory>,
    /// When the runtime was asked for it.
    asked: Option<Instant>,
    /// Addresses that were wanted and are no pod's, as far as is known.
    strangers: HashSet<IpAddr>,
    failures: u64,
    error: Option<String>,
}

/// What is known of pods at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sight {
    /// The pods; none where there is nobody to ask, or he does not answer.
    pub(crate) directory: Arc<Directory>,
    /// How asking goes; none where nobody is asked.
    pub(crate) source: Option<SourceState>,
}

/// How asking the runtime goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SourceState {
    /// Attempts to ask it that failed.
    pub(crate) failures: u64,
    /// Why the last one did.
    pub(crate) error: Option<String>,
}

/// Asks the runtime that the configuration names, as long as the process lives.
pub(crate) fn watch(config: &config::Pods) -> Names {
    let sockets = match config.source {
        config::PodSource::Off => return Names::default(),
        config::PodSource::Cri => runtime::sockets(config.socket.as_ref()),
    };
    let shared = Arc::new(Shared::default());
    let inside = Arc::clone(&shared);
    let follow = move || follow::follow(&inside, sockets);
    match thread::Builder::new().name("pods".to_owned()).spawn(follow) {
        Ok(_) => Names(Some(shared)),
        Err(error) => {
            warn!("pods are not named: {error}; the guard goes on and shows addresses");
            Names::default()
        }
    }
}

impl Names {
    /// The pods that are known now, for somebody who is about to name these addresses. If one of them is new, the runtime
    /// is asked again soon.
    pub(crate) fn among(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Arc<Directory> {
        let Some(shared) = &self.0 else {
            return Arc::default();
        };
        let mut state = shared.lock();
        if state.misses(addresses) {
            shared.wanted.notify_one();
        }
        state.current(Instant::now())
    }

    /// The same as [`Self::among`], and how asking goes.
    pub(crate) fn sight(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Sight {
        let directory = self.among(addresses);
        let Some(shared) = &self.0 else {
            return Sight::default();
        };
        let state = shared.lock();
        Sight {
            directory,
            source: Some(SourceState {
                failures: state.failures,
                error: state.error.clone(),
            }),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The runtime was asked at this moment, and answered this.
    fn publish(&self, directory: Directory, asked: Instant) {
        let mut state = self.lock();
        state.directory = Arc::new(directory);
        state.asked = Some(asked);
        state.error = None;
    }

    /// The runtime did not answer.
    fn fail(&self, error: String) {
        let mut state = self.lock();
        state.failures += 1;
        state.error = Some(error);
    }
}

impl State {
    fn current(&self, now: Instant) -> Arc<Directory> {
        let is_valid = |asked| now.saturating_duration_since(asked) <= VALID;
        if self.asked.is_some_and(is_valid) {
            Arc::clone(&self.directory)
        } else {
            Arc::default()
        }
    }

    /// Whether one of these addresses is in neither list. It is remembered, so that this is said of it once.
    fn misses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> bool {
        let mut misses = false;
        for address in addresses {
            if self.directory.at(address).is_some() {
                continue;
            }
            if self.strangers.len() >= MAX_STRANGERS {
                self.strangers.clear();
            }
            misses |= self.strangers.insert(address);
        }
        misses
    }
}

/// A handle that knows this, for the tests of those who look up.
#[cfg(test)]
pub(crate) fn fixed(directory: Directory) -> Names {
    let shared = Shared::default();
    shared.publish(directory, Instant::now());
    Names(Some(Arc::new(shared)))
}

/// One that knows this pod, for the same.
#[cfg(test)]
pub(crate) fn one(pod: &str, address: &str, device: &str) -> Names {
    let (namespace, name) = pod.split_once('/').unwrap();
    fixed(Directory::new([Known {
        pod: Pod::new(namespace.as_bytes(), name.as_bytes()).unwrap(),
        addresses: vec![address.parse().unwrap()],
        devices: vec![device.to_owned()],
    }]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(address: &str) -> Directory {
        Directory::new([Known {
            pod: Pod::new(b"default", b"web-1").unwrap(),
            addresses: vec![address.parse().unwrap()],
            devices: Vec::new(),
        }])
    }

    #[test]
    fn what_a_silent_runtime_said_holds_for_a_while_and_then_addresses_are_shown() {
        let asked = Instant::now();
        let shared = Shared::default();
        shared.publish(directory("10.0.0.7"), asked);
        shared.fail("it hangs".to_owned());
        let state = shared.lock();
        let at = |after| state.current(asked + after).at([10, 0, 0, 7].into()).is_some();
        assert!(at(VALID));
        assert!(!at(VALID + Duration::from_millis(1)));
        assert_eq!((state.failures, state.error.as_deref()), (1, Some("it hangs")));
    }

    #[test]
    fn an_address_that_is_no_pods_is_asked_for_once() {
        let names = fixed(directory("10.0.0.7"));
        let shared = names.0.as_ref().unwrap();
        let mut state = shared.lock();
        assert!(!state.misses([[10, 0, 0, 7].into()]));
        assert!(state.misses([[10, 0, 0, 8].into()]));
        assert!(!state.misses([[10, 0, 0, 8].into()]));
        for number in 0..3 * MAX_STRANGERS as u32 {
            state.misses([IpAddr::V4(number.into())]);
            assert!(state.strangers.len() <= MAX_STRANGERS);
        }
    }

    #[test]
    fn without_a_source_nobody_is_named_and_nothing_is_said() {
        let names = watch(&config::Pods::default());
        assert!(names.among([[10, 0, 0, 7].into()]).at([10, 0, 0, 7].into()).is_none());
        assert_eq!(names.sight([]), Sight::default());
    }
}
