//! Interfaces that come and go: the guard follows them.
//!
//! ```text
//! kernel: news over netlink --,
//! clock: every 10 s, retries -+-> look: list, choose, compare -> datapath: attach, detach -> Change -> agent
//! agent: another selection ---'
//! ```
//!
//! The kernel attaches and lists under a lock (RTNL) that others may hold for seconds, and the agent has a lease to
//! renew: so all of this is a thread of its own, which has the [`Datapath`] until the end. The agent hears what it did.

mod follow;
mod namespaces;
mod retry;

use std::{
    io::{self, PipeWriter, Write as _},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use tokio::sync::mpsc::UnboundedSender;

pub(crate) use self::follow::Follower;
use crate::{
    attachment::{Attachment, Hook},
    datapath::Datapath,
    device::{Device, DeviceErrors},
    netlink::Netlink,
    selection::Selection,
};

/// What is different since the last look.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// What was attached.
    pub(crate) attached: Vec<Attachment>,
    /// What is no longer attached, and why.
    pub(crate) detached: Vec<(Attachment, String)>,
    /// What could not be attached.
    pub(crate) failed: Vec<Failed>,
    /// All that is attached now.
    pub(crate) attachments: Vec<Attachment>,
    /// All interfaces that are guarded now, or would be if they could.
    pub(crate) devices: Vec<Device>,
    /// Hooks that are not attached for want of success.
    pub(crate) failing: usize,
    /// Whether addresses may have changed.
    pub(crate) addresses: bool,
    /// Whether these are other interfaces than before, or have other names.
    is_other: bool,
}

/// A hook that could not be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) device: String,
    pub(crate) hook: Hook,
    /// Why.
    pub(crate) error: String,
    /// Why, and when it is tried again.
    pub(crate) reason: String,
    /// Whether it is news, and not the same as the last time.
    pub(crate) is_news: bool,
}

/// The thread that follows, as long as this is there.
#[derive(Debug)]
pub(crate) struct Interfaces {
    selections: mpsc::Sender<Selection>,
    /// A byte wakes the thread, its end stops it.
    wake: PipeWriter,
    thread: JoinHandle<Datapath>,
}

/// The interfaces of this network namespace that a selection chooses now.
///
/// # Errors
///
/// They cannot be listed, or one that is named is not there or cannot be guarded.
pub(crate) fn choose(selection: &Selection) -> anyhow::Result<Vec<Device>> {
    let netlink = Netlink::open().context("cannot ask the kernel for interfaces")?;
    let links = netlink.links().context("cannot list the interfaces")?;
    let outward = netlink.default_routes().context("cannot list the routes")?;
    let faults = selection.faults(&links);
    if !faults.is_empty() {
        return Err(DeviceErrors(faults).into());
    }
    let chosen = selection.choose(&links, &outward).into_iter();
    Ok(chosen.map(|one| one.device).collect())
}

impl Interfaces {
    /// Has a thread follow; what changes goes to `changes`.
    ///
    /// # Errors
    ///
    /// There is no room for a pipe or a thread.
    pub(crate) fn follow(mut follower: Follower, changes: UnboundedSender<Change>) -> io::Result<Self> {
        let (woken, wake) = io::pipe()?;
        let (selections, selected) = mpsc::channel();
        let thread = thread::Builder::new().name("interfaces".to_owned());
        let thread = thread.spawn(move || {
            follower.work(&woken, &selected, &changes);
            follower.into_datapath()
        })?;
        Ok(Self {
            selections,
            wake,
            thread,
        })
    }

    /// Has it go by another selection from now on.
    pub(crate) fn select(&mut self, selection: Selection) {
        // A thread that is gone is found out at the end.
        let _ = self.selections.send(selection);
        let _ = self.wake.write_all(&[1]);
    }

    /// Ends the thread; what is attached stays.
    ///
    /// # Errors
    ///
    /// It has panicked.
    pub(crate) fn stop(self) -> anyhow::Result<Datapath> {
        let Self { wake, thread, .. } = self;
        drop(wake);
        let ended = thread.join();
        ended.map_err(|_| {
            anyhow::anyhow!("the thread that follows interfaces has panicked; dnsguard detach --all cleans up")
        })
    }
}
