//! One look after the other: what is there, what is to be guarded, what is.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, PipeReader, Read as _},
    mem,
    os::fd::AsFd as _,
    sync::mpsc::Receiver,
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use super::{
    Change, Failed,
    namespaces::{self, Elsewhere, Found},
    retry::{LONGEST, LONGEST_REFUSED, Retries},
};
use crate::{
    attachment::{Attachment, Hook},
    config::Config,
    datapath::{AttachError, Datapath},
    descriptors,
    device::Device,
    neighbours::{Names, Surroundings},
    netlink::{Changes, Link, Monitor, Netlink},
    selection::{Chosen, Selection},
};

/// Between two looks without news: news can be lost.
const POLL: Duration = Duration::from_secs(10);
/// Between two checks of what was attached: nobody tells who has taken it out. What was, hangs again 10 s later at most.
const CHECK: Duration = Duration::from_secs(5);
/// From one look to the next at least: many interfaces that come at once are looked at together.
const PAUSE: Duration = Duration::from_millis(50);

/// What it takes to follow the interfaces of this network namespace.
#[derive(Debug)]
pub(crate) struct Follower {
    datapath: Datapath,
    selection: Selection,
    netlink: Netlink,
    monitor: Monitor,
    /// What is to be guarded, by index.
    devices: BTreeMap<u32, Device>,
    retries: Retries,
    elsewhere: Elsewhere,
    /// The `lo` of each namespace that is guarded beside the agent's own.
    loopbacks: Vec<Found>,
    /// The names of programs that hang where the guard does.
    names: Names,
    /// When other namespaces are looked at again.
    next_elsewhere: Instant,
    /// When what is attached is checked again.
    next_check: Instant,
    /// Whether the last listing failed, which was told then.
    is_blind: bool,
}

impl Follower {
    /// Hears of changes from now on; attaches nothing yet.
    ///
    /// # Errors
    ///
    /// There is no netlink socket to be had.
    pub(crate) fn new(datapath: Datapath, config: &Config) -> io::Result<Self> {
        let elsewhere = Elsewhere::new(config.attach.namespaces.clone(), config.ports.iter().copied());
        Ok(Self {
            datapath,
            selection: config.attach.selection.clone(),
            elsewhere,
            loopbacks: Vec::new(),
            names: Names::default(),
            next_elsewhere: Instant::now(),
            next_check: Instant::now() + CHECK,
            netlink: Netlink::open()?,
            monitor: Monitor::open()?,
            devices: BTreeMap::new(),
            retries: Retries::default(),
            is_blind: false,
        })
    }

    /// What is attached.
    pub(crate) const fn datapath(&self) -> &Datapath {
        &self.datapath
    }

    /// The same, to be worked with.
    pub(crate) const fn datapath_mut(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// Ends following.
    pub(crate) fn into_datapath(self) -> Datapath {
        self.datapath
    }

    /// Looks for the first time, and takes out what an agent before this one had attached elsewhere.
    ///
    /// # Errors
    ///
    /// Interfaces cannot be listed.
    pub(crate) fn begin(&mut self) -> io::Result<Change> {
        let mut change = self.look(&BTreeSet::new(), Instant::now())?;
        self.datapath.remove_strangers();
        // Numbers of namespaces are given anew: what an agent before this one had there is taken out first.
        self.look_elsewhere(Instant::now(), &mut change);
        self.finish(&mut change);
        // Soon nobody may ask any more.
        self.names.ask();
        Ok(change)
    }

    /// Looks whenever there is news, until the other end of `woken` is closed.
    pub(super) fn work(
        &mut self,
        mut woken: &PipeReader,
        selected: &Receiver<Selection>,
        changes: &UnboundedSender<Change>,
    ) {
        loop {
            let looked = Instant::now();
            let due = self
                .retries
                .next()
                .map_or(self.next_check, |due| due.min(self.next_check));
            let next = due.saturating_duration_since(looked).min(POLL);
            let timeout = PollTimeout::try_from(next + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let mut fds = [
                PollFd::new(self.monitor.as_fd(), PollFlags::POLLIN),
                PollFd::new(woken.as_fd(), PollFlags::POLLIN),
            ];
            // A signal, or a timeout: then it is time for a look all the same.
            let _ = poll(&mut fds, timeout);
            let is_woken = fds[1].revents().is_some_and(|events| !events.is_empty());
            if is_woken && !matches!(woken.read(&mut [0; 64]), Ok(1..)) {
                return;
            }
            thread::sleep(PAUSE.saturating_sub(looked.elapsed()));
            if let Some(selection) = selected.try_iter().last() {
                self.selection = selection;
            }
            let mut news = Changes::default();
            self.monitor.read(&mut news);
            let mut change = match self.look(&news.gone, Instant::now()) {
                Ok(change) => change,
                Err(error) => {
                    if !mem::replace(&mut self.is_blind, true) {
                        warn!("cannot list the interfaces: {error}; what is guarded stays so, and it is tried again");
                    }
                    continue;
                }
            };
            self.is_blind = false;
            change.addresses = news.addresses;
            self.look_elsewhere(Instant::now(), &mut change);
            self.finish(&mut change);
            if change.is_something() && changes.send(change).is_err() {
                return;
            }
        }
    }

    /// Compares what is there with what is guarded, and brings them together. The interfaces of `gone` are not the ones
    /// that were guarded under these indexes.
    fn look(&mut self, gone: &BTreeSet<u32>, now: Instant) -> io::Result<Change> {
        let links = self.netlink.links()?;
        let outward = self.netlink.default_routes()?;
        let mut change = Change::default();
        let present: BTreeMap<u32, &Link> = links.iter().map(|link| (link.ifindex, link)).collect();
        let known: Vec<u32> = self.devices.keys().copied().collect();
        for ifindex in known {
            if gone.contains(&ifindex) || !present.contains_key(&ifindex) {
                self.forget(ifindex, "the interface is gone", &mut change);
            }
        }
        let chosen = self.selection.choose(&links, &outward);
        let wanted: BTreeSet<u32> = chosen.iter().map(|one| one.device.ifindex).collect();
        let unwanted: Vec<_> = self
            .devices
            .keys()
            .filter(|known| !wanted.contains(known))
            .copied()
            .collect();
        for ifindex in unwanted {
            let name = present.get(&ifindex).map_or("", |link| link.name.as_str());
            let reason = format!("the configuration does not ask for {name} ({})", self.selection.words());
            self.forget(ifindex, &reason, &mut change);
        }
        if now >= self.next_check {
            self.next_check = now + CHECK;
            self.check(&present, &mut change);
        }
        let names = mem::take(&mut self.names).again();
        for Chosen { device, why } in chosen {
            if let Some(&link) = present.get(&device.ifindex) {
                self.guard(&device, &why, link, &names, now, &mut change);
            }
            self.devices.insert(device.ifindex, device);
        }
        self.names = names;
        Ok(change)
    }

    /// Looks whether what was attached still hangs there, and whether its pins are there. What somebody else has taken out
    /// lacks from now on.
    fn check(&mut self, present: &BTreeMap<u32, &Link>, change: &mut Change) {
        self.datapath.look_after_pins();
        let names = Names::default();
        let is_gone = |attachment: &Attachment| {
            let surroundings = Surroundings {
                link: present.get(&attachment.ifindex)?,
                netlink: &self.netlink,
                names: &names,
            };
            surroundings.has(attachment).map(|hangs| !hangs)
        };
        let attachments = self.datapath.attachments().iter();
        let gone: Vec<_> = attachments.filter(|one| is_gone(one) == Some(true)).cloned().collect();
        let reason = if self.datapath.is_removed() {
            "its pin was removed with all others, as dnsguard detach --all does; start the agent again to have a guard"
        } else {
            "somebody else has taken it out; it is attached again as soon as that works"
        };
        for attachment in gone {
            self.datapath.lost(&attachment);
            change.detached.push((attachment, reason.to_owned()));
        }
    }

    /// Looks into other namespaces from time to time: nobody tells of them.
    fn look_elsewhere(&mut self, now: Instant, change: &mut Change) {
        if now < self.next_elsewhere || self.datapath.is_removed() {
            return;
        }
        self.next_elsewhere = now + POLL;
        let news = self.elsewhere.look();
        for ifindex in news.gone {
            self.loopbacks.retain(|found| found.device.ifindex != ifindex);
            self.forget(ifindex, "nobody is in its network namespace any more", change);
        }
        self.make_way(change);
        for Found { device, entrance } in news.found {
            if !self.retries.is_due(device.ifindex, Hook::TcIngress, now) {
                self.elsewhere.forget(&device);
                continue;
            }
            let surroundings = Surroundings {
                link: &Link::default(),
                netlink: &self.netlink,
                names: &Names::default(),
            };
            let datapath = &mut self.datapath;
            let attached = namespaces::within(&entrance, || datapath.attach_elsewhere(&device, surroundings));
            let attached = match attached {
                Ok(attached) => attached.map_err(|error| error.to_string()),
                Err(error) => Err(format!(
                    "its network namespace cannot be entered: {error}; it takes CAP_SYS_ADMIN"
                )),
            };
            match attached {
                Ok(attachment) => {
                    self.retries.succeeded(device.ifindex, Hook::TcIngress);
                    change.attached.push(attachment);
                    self.loopbacks.push(Found { device, entrance });
                }
                Err(reason) => {
                    self.elsewhere.forget(&device);
                    let failed = self.failed(&device, Hook::TcIngress, reason, LONGEST_REFUSED, now);
                    change.failed.push(failed);
                }
            }
        }
    }

    /// Takes out what hangs at a `lo` that another dnsguard has begun to guard: the one that is in there.
    fn make_way(&mut self, change: &mut Change) {
        let datapath = &self.datapath;
        let is_taken = |found: &mut Found| {
            let another = namespaces::within(&found.entrance, || datapath.another_at_lo());
            another.is_ok_and(|program| program.is_some())
        };
        let taken: Vec<_> = self.loopbacks.extract_if(.., is_taken).collect();
        for Found { device, .. } in taken {
            self.elsewhere.forget(&device);
            self.forget(device.ifindex, "another dnsguard guards it now", change);
        }
    }

    /// Says how everything stands now.
    fn finish(&self, change: &mut Change) {
        change.attachments = self.datapath.attachments().to_vec();
        let loopbacks = self.loopbacks.iter().map(|found| &found.device);
        change.devices = self.devices.values().chain(loopbacks).cloned().collect();
        change.failing = self.retries.len();
    }

    /// Notes that a hook could not be attached.
    fn failed(&mut self, device: &Device, hook: Hook, error: String, longest: Duration, now: Instant) -> Failed {
        let (delay, is_news) = self.retries.failed(device.ifindex, hook, &error, longest, now);
        Failed {
            device: device.name.clone(),
            hook,
            reason: format!("{error}; it is tried again in {} s", delay.as_secs()),
            error,
            is_news,
        }
    }

    /// Attaches what lacks at an interface.
    fn guard(&mut self, device: &Device, why: &str, link: &Link, names: &Names, now: Instant, change: &mut Change) {
        let known = self.devices.get(&device.ifindex);
        if known.is_some_and(|known| known.name != device.name) {
            self.datapath.rename(device);
        }
        change.is_other |= known != Some(device);
        for hook in self.datapath.lacks(device) {
            if !self.retries.is_due(device.ifindex, hook, now) {
                continue;
            }
            let surroundings = Surroundings {
                link,
                netlink: &self.netlink,
                names,
            };
            match self.datapath.attach(device, hook, why, surroundings) {
                Ok(attachment) => {
                    self.retries.succeeded(device.ifindex, hook);
                    change.attached.push(attachment);
                }
                Err(error) => {
                    let longest = if matches!(error, AttachError::Load { .. }) {
                        LONGEST_REFUSED
                    } else {
                        LONGEST
                    };
                    let error = descriptors::shortage().unwrap_or_else(|| error.to_string());
                    let failed = self.failed(device, hook, error, longest, now);
                    change.failed.push(failed);
                }
            }
        }
    }

    /// Takes out what hangs at an interface.
    fn forget(&mut self, ifindex: u32, reason: &str, change: &mut Change) {
        let detached = self.datapath.forget(ifindex);
        change
            .detached
            .extend(detached.into_iter().map(|one| (one, reason.to_owned())));
        change.is_other |= self.devices.remove(&ifindex).is_some();
        self.retries.forget(ifindex);
    }
}

impl Change {
    fn is_something(&self) -> bool {
        let is_hooks = !(self.attached.is_empty() && self.detached.is_empty() && self.failed.is_empty());
        is_hooks || self.is_other || self.addresses
    }
}
