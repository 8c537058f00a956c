//! The kernel's side, seen from the agent: what is loaded, what is attached, and the maps between.
//!
//! Maps and links are pinned, so that the last policy stays in force without a gap when the agent dies; what it does
//! then ends with its lease. A restart takes over maps and links and replaces the programs in place.

mod attach;
mod clsact;
mod object;
mod ownership;
mod pins;
mod pressure;
mod refusal;
mod tables;
mod versions;

use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
    fs::File,
    io,
    path::Path,
};

use aya::Ebpf;
use guard_common::abi;
use guard_common::case::NAMESPACE_SHIFT;
use tracing::warn;

use self::{
    attach::Attacher,
    ownership::Ours,
    pins::{Pins, Whereabouts},
};
pub(crate) use self::{
    attach::{AttachError, incoming},
    pins::{PinError, guarded, is_on_bpffs, remove_all},
    tables::{Kernel, MapFault},
    versions::Takeover,
};
use crate::{
    attachment::{Attachment, Hook},
    config::{Attach, Config, Tc, Xdp},
    device::Device,
    neighbours::Surroundings,
};

/// The kernel object that the agent carries.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("DNSGUARD_KERNEL_OBJECT"));

/// What the interfaces of the agent's own network namespace have on top of their index.
const OWN_NAMESPACE: u32 = 0;

/// Why the guard cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatapathError {
    #[error(transparent)]
    Pins(#[from] PinError),
    #[error("another dnsguard uses {0}; stop it, or give this one a pin directory of its own (--pin-dir)")]
    Busy(String),
    #[error(
        "{path} is that of a newer dnsguard (maps of version {version}; this one has {}), which holds {holds}: wait, or \
         take it out (dnsguard detach --all)",
        abi::VERSION
    )]
    Newer { path: String, version: u32, holds: String },
    #[error("cannot read the kernel object {path}: {source}")]
    Unreadable { path: String, source: io::Error },
    #[error(transparent)]
    Object(#[from] object::ObjectError),
    #[error(transparent)]
    Map(#[from] MapFault),
}

/// The loaded guard. Dropping it leaves everything in the kernel as it is; [`Datapath::detach`] takes it out.
#[derive(Debug)]
pub(crate) struct Datapath {
    ebpf: Ebpf,
    pins: Pins,
    /// How programs are attached.
    attach: Attach,
    /// The kernel object, for further namespaces.
    object: Cow<'static, [u8]>,
    /// The programs for other network namespaces, by the index of the interface that they are for.
    elsewhere: BTreeMap<u32, Ebpf>,
    /// Programs that are ours.
    ours: Ours,
    takeover: Option<Takeover>,
    attachments: Vec<Attachment>,
    /// The pin directory, locked. While it is open, what is pinned there stays, even where its file system was unmounted.
    lock: File,
    /// Where the pins were when they were looked for.
    whereabouts: Whereabouts,
}

impl Datapath {
    /// Loads the kernel object, over the maps of an agent before this one if there are any that fit, and opens them.
    pub(crate) fn open(config: &Config, object: Option<&Path>) -> Result<(Self, Kernel), DatapathError> {
        let pins = Pins::create(&config.attach.pin_dir)?;
        let lock = pins
            .lock()?
            .ok_or_else(|| DatapathError::Busy(pins.root().display().to_string()))?;
        versions::refuse_newer(&pins).inspect_err(|_| pins.remove_empty())?;
        let takeover = pins.versions().into_iter().find_map(|(abi, folder)| {
            let links = pins::files(&folder.join("links")).len();
            (links > 0).then_some(Takeover {
                abi,
                links: pins.link_count(),
            })
        });
        // Before a map of theirs is replaced, which can be the proof.
        let ours = Ours::find(&pins);
        let object = match object {
            Some(path) => std::fs::read(path)
                .map(Cow::Owned)
                .map_err(|source| DatapathError::Unreadable {
                    path: path.display().to_string(),
                    source,
                })?,
            None => Cow::Borrowed(OBJECT),
        };
        let loaded = object::load(&object, &pins, OWN_NAMESPACE).map_err(DatapathError::from);
        let taken = loaded.and_then(|mut ebpf| Ok((Kernel::take(&mut ebpf)?, ebpf)));
        // Somebody who may not load anything leaves no directories either.
        let (kernel, ebpf) = taken.inspect_err(|_| pins.remove_empty())?;
        Ok((
            Self {
                ebpf,
                pins,
                attach: config.attach.clone(),
                object,
                elsewhere: BTreeMap::new(),
                ours,
                takeover,
                attachments: Vec::new(),
                lock,
                whereabouts: Whereabouts::There,
            },
            kernel,
        ))
    }

    /// The hooks of an interface at which something of ours has to hang and does not.
    pub(crate) fn lacks(&self, device: &Device) -> Vec<Hook> {
        if self.is_removed() {
            return Vec::new();
        }
        let hung = self.attachments.iter().filter(|one| one.ifindex == device.ifindex);
        let hung: Vec<_> = hung.map(|one| one.hook).collect();
        let mut hooks = attach::hooks(device, self.attach.xdp);
        // Where XDP did not attach, TC sees what comes in.
        let side = |hook: Hook| matches!(hook, Hook::TcEgress);
        hooks.retain(|hook| !hung.iter().any(|one| side(*one) == side(*hook)));
        hooks
    }

    /// Attaches at one hook of an interface, which was chosen for the reason `why`, and looks who else hangs there.
    pub(crate) fn attach(
        &mut self,
        device: &Device,
        hook: Hook,
        why: &str,
        surroundings: Surroundings<'_>,
    ) -> Result<Attachment, AttachError> {
        let mut attacher = Attacher::new(&mut self.ebpf, &self.pins, &mut self.ours, &self.attach, surroundings);
        let mut attachment = attacher.attach(device, hook)?;
        let beside = surroundings.beside(attachment.hook, attachment.program_id, |id| self.ours.has(id));
        if let Some(program) = beside.another_guard {
            warn!(
                "{}: {}; stop one of the two, or give both one directory of pins (--pin-dir), and the later one takes over",
                device.name,
                AttachError::Guarded(program)
            );
        }
        let mut reasons = vec![why.to_owned(), attachment.reason];
        reasons.extend(beside.reasons());
        reasons.retain(|reason| !reason.is_empty());
        attachment.reason = reasons.join("; ");
        attachment.neighbours = beside.all();
        self.attachments.push(attachment.clone());
        Ok(attachment)
    }

    /// Attaches to the `lo` of the network namespace that the calling thread is in; `device` is what it is called here.
    pub(crate) fn attach_elsewhere(
        &mut self,
        device: &Device,
        surroundings: Surroundings<'_>,
    ) -> Result<Attachment, AttachError> {
        if let Some(program) = self.another_at_lo() {
            return Err(AttachError::Guarded(program));
        }
        let namespace = device.ifindex & !((1 << NAMESPACE_SHIFT) - 1);
        let ebpf = match self.elsewhere.entry(device.ifindex) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => {
                let loaded = object::load(&self.object, &self.pins, namespace);
                place.insert(loaded.map_err(|error| AttachError::Object(error.to_string()))?)
            }
        };
        // A clsact filter could not be taken out without going back there.
        let attach = Attach {
            xdp: Xdp::Off,
            tc: Tc::Tcx,
            ..self.attach.clone()
        };
        let mut attacher = Attacher::new(ebpf, &self.pins, &mut self.ours, &attach, surroundings);
        let lo = Device {
            name: "lo".to_owned(),
            ..device.clone()
        };
        let mut attachment = attacher.attach(&lo, Hook::TcIngress)?;
        attachment.device.clone_from(&device.name);
        attachment.reason = "the loopback of another network namespace".to_owned();
        self.attachments.push(attachment.clone());
        Ok(attachment)
    }

    /// The program of another dnsguard at the `lo` of the network namespace that the calling thread is in.
    pub(crate) fn another_at_lo(&self) -> Option<u32> {
        self.ours.another_at_lo()
    }

    /// Takes everything out that hangs at an interface, which may be gone; tells what that was.
    pub(crate) fn forget(&mut self, ifindex: u32) -> Vec<Attachment> {
        let forgotten: Vec<_> = self.attachments.extract_if(.., |one| one.ifindex == ifindex).collect();
        self.pins.remove_links(&forgotten);
        self.elsewhere.remove(&ifindex);
        forgotten
    }

    /// Forgets an attachment that somebody else has taken out. Whoever is in its place now stays.
    pub(crate) fn lost(&mut self, attachment: &Attachment) {
        self.attachments.retain(|one| one != attachment);
        self.pins.forget_link(attachment);
    }

    /// Sees to it that what is in force is pinned where the next agent looks for it: the BPF file system may have been
    /// unmounted, and another one mounted. Where somebody has removed the pins, nothing is attached from then on.
    pub(crate) fn look_after_pins(&mut self) {
        let found = self.pins.whereabouts(&self.lock);
        let before = std::mem::replace(&mut self.whereabouts, found);
        let root = self.pins.root().display();
        match found {
            Whereabouts::There => {}
            Whereabouts::Removed if before != found => warn!(
                "{root} was removed, as dnsguard detach --all does: nothing is attached any more; start the agent again \
                 to have a guard"
            ),
            Whereabouts::Removed => {}
            Whereabouts::OutOfReach => match self.pins.move_from(&self.lock) {
                Ok(lock) => {
                    warn!("{root} was unmounted; another one is mounted now, and what is in force is pinned in it");
                    self.lock = lock;
                    self.whereabouts = Whereabouts::There;
                }
                Err(error) if before != found => warn!(
                    "{root} was unmounted: {error}. The guard goes on, but nothing can be attached to further \
                     interfaces, and what is in force ends with this agent; it is tried again"
                ),
                Err(_) => {}
            },
        }
    }

    /// Whether somebody has removed the pins, and all that they kept: he did not want a guard.
    pub(crate) fn is_removed(&self) -> bool {
        self.whereabouts == Whereabouts::Removed
    }

    /// An interface has another name.
    pub(crate) fn rename(&mut self, device: &Device) {
        for attachment in self.attachments.iter_mut().filter(|one| one.ifindex == device.ifindex) {
            attachment.device.clone_from(&device.name);
        }
    }

    /// Detaches what an agent before this one had attached elsewhere.
    pub(crate) fn remove_strangers(&self) {
        let programs = self.ebpf.programs().filter_map(|(_, program)| program.info().ok());
        let programs: Vec<_> = programs.map(|info| info.id()).collect();
        self.pins.remove_strangers(&self.attachments, &self.ours, &programs);
        if let Err(error) = versions::remove_others(&self.pins, &self.attachments, &self.ours) {
            warn!("what another version of dnsguard left is not all gone: {error}");
        }
    }

    /// What was taken over from an agent before this one.
    pub(crate) const fn takeover(&self) -> Option<Takeover> {
        self.takeover
    }

    /// Leaves everything attached, for the next agent to take over.
    pub(crate) fn stay(self) -> Vec<Attachment> {
        // The pins keep all of it.
        self.attachments
    }

    /// The log of a kernel object that was built with one, to be flushed from time to time.
    #[cfg(feature = "kernel-log")]
    pub(crate) fn take_log(&mut self) -> Option<aya_log::EbpfLogger<&'static dyn log::Log>> {
        aya_log::EbpfLogger::init(&mut self.ebpf).ok()
    }

    /// What is attached.
    pub(crate) fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// Leaves the kernel as it was before this was opened: what an agent before this one left in force stays.
    pub(crate) fn give_up(self) -> Result<(), PinError> {
        let Self { ebpf, pins, ours, .. } = self;
        drop(ebpf);
        if pins.has_links() { Ok(()) } else { pins.remove(&ours) }
    }

    /// Takes everything out of the kernel; tells what was attached.
    pub(crate) fn detach(self) -> Result<Vec<Attachment>, PinError> {
        let Self {
            ebpf,
            pins,
            ours,
            attachments,
            lock,
            ..
        } = self;
        drop(ebpf);
        pins.remove(&ours)?;
        drop(lock);
        Ok(attachments)
    }
}
