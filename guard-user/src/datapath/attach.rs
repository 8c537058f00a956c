//! From an interface to its programs: the ladder of methods, and why each choice was made.
//!
//! ```text
//! incoming   XDP driver -> XDP generic -> TC    on physical NICs; TC elsewhere, and always on lo
//! outgoing   TC, but not on lo, where every packet comes in again
//! TC         tcx (first in the chain, or last) -> clsact (priority and handle of our own)
//! ```
//!
//! A program that hangs there already, pinned by an agent before this one, is replaced in place. Nobody else's program
//! is touched.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, Xdp, XdpMode,
        links::{FdLink, LinkError, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions},
        xdp::XdpLink,
    },
};
use guard_common::abi;
use tracing::warn;

use super::{clsact, ownership::Ours, pins::Pins, refusal};
use crate::{
    attachment::{Attachment, Hook, Method},
    config::{Attach, Tc, TcxOrder, Xdp as XdpPolicy},
    device::Device,
    linux::{TCX, Version},
    neighbours::Surroundings,
};

/// Why a program is not attached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    #[error("the kernel object has no program {0}: it is not the one of this agent; rebuild both")]
    Missing(&'static str),
    #[error("the kernel refuses the program {name}: {}", explain(.source))]
    Load {
        name: &'static str,
        source: Box<ProgramError>,
    },
    #[error("{}", .0.join("; "))]
    NoMethod(Vec<String>),
    #[error("{0}")]
    Object(String),
    #[error(
        "{0} is there, and what it runs is not dnsguard's: it is left alone; remove it, or give dnsguard another \
         directory (--pin-dir)"
    )]
    NotOurs(String),
    #[error(
        "another dnsguard guards it (program {0}): two would take each other's marks for somebody who spells at random, and \
         answers of the one are unseen by the other"
    )]
    Guarded(u32),
}

/// Attaches programs, one hook at a time.
pub(super) struct Attacher<'a> {
    ebpf: &'a mut Ebpf,
    pins: &'a Pins,
    ours: &'a mut Ours,
    xdp: XdpPolicy,
    tc: Tc,
    tcx_order: TcxOrder,
    surroundings: Surroundings<'a>,
}

impl<'a> Attacher<'a> {
    pub(super) const fn new(
        ebpf: &'a mut Ebpf,
        pins: &'a Pins,
        ours: &'a mut Ours,
        attach: &Attach,
        surroundings: Surroundings<'a>,
    ) -> Self {
        Self {
            ebpf,
            pins,
            ours,
            xdp: attach.xdp,
            tc: attach.tc,
            tcx_order: attach.tcx_order,
            surroundings,
        }
    }

    /// Attaches at one hook, by the best method that works. Where XDP does not, the incoming hook is TC's.
    pub(super) fn attach(&mut self, device: &Device, hook: Hook) -> Result<Attachment, AttachError> {
        let mut failed = Vec::new();
        let methods: &[Method] = match (hook, self.xdp, self.tc) {
            (Hook::Xdp, XdpPolicy::Driver, _) => &[Method::Driver],
            (Hook::Xdp, XdpPolicy::Generic, _) => &[Method::Generic],
            (Hook::Xdp, _, _) => &[Method::Driver, Method::Generic],
            (_, _, Tc::Tcx) => &[Method::Tcx],
            (_, _, Tc::Clsact) => &[Method::Clsact],
            (_, _, Tc::Auto) => &[Method::Tcx, Method::Clsact],
        };
        for &method in methods {
            match self.attach_by(device, hook, method) {
                Ok(program_id) => {
                    let reason = reason(device, hook, method, (self.xdp, self.tc), &failed);
                    let Device { name, ifindex, .. } = device;
                    return Ok(Attachment {
                        device: name.clone(),
                        ifindex: *ifindex,
                        hook,
                        method,
                        program_id,
                        reason,
                        neighbours: Vec::new(),
                    });
                }
                Err(Failure::Program(error)) => return Err(error),
                Err(Failure::Method(why)) => {
                    failed.push(format!(
                        "{}: {}",
                        method.word(),
                        lacking(method, Version::running(), why)
                    ));
                }
                Err(Failure::Taken(why)) => failed.push(format!("{}: {why} ({})", method.word(), self.taken(hook))),
            }
        }
        if matches!((hook, self.xdp), (Hook::Xdp, XdpPolicy::Auto)) {
            let mut attachment = self.attach(device, Hook::TcIngress)?;
            attachment.reason = format!("XDP does not attach: {}", failed.join("; "));
            return Ok(attachment);
        }
        Err(AttachError::NoMethod(failed))
    }

    /// Who has the place that was wanted, as far as that can be seen.
    fn taken(&self, hook: Hook) -> String {
        let others = matches!(hook, Hook::Xdp).then(|| self.surroundings.xdp());
        let others = others.unwrap_or_default().into_iter();
        let others: Vec<_> = others.filter(|one| one.name.is_some()).map(|one| one.words()).collect();
        if others.is_empty() {
            "another program has the slot: `bpftool net` names it".to_owned()
        } else {
            format!("taken by {}", others.join(" and "))
        }
    }

    fn attach_by(&mut self, device: &Device, hook: Hook, method: Method) -> Result<u32, Failure> {
        let pin = self.pins.link(device.ifindex, hook, method);
        match method {
            Method::Driver | Method::Generic => {
                let mode = if matches!(method, Method::Driver) {
                    XdpMode::Driver
                } else {
                    XdpMode::Skb
                };
                let standing = self.standing(&pin)?;
                let program = self.xdp_program()?;
                let id = program_id(program.info())?;
                if let Some((path, link)) = standing {
                    match XdpLink::try_from(link).map_err(Failure::link).and_then(|link| {
                        let link = program.attach_to_link(link)?;
                        keep(FdLink::try_from(program.take_link(link)?), &path, &pin)
                    }) {
                        Ok(()) => return Ok(id),
                        Err(error) => unpin(&path, &error),
                    }
                }
                let link = program.attach_to_if_index(device.ifindex, mode)?;
                let link = FdLink::try_from(program.take_link(link)?).map_err(Failure::link)?;
                link.pin(&pin).map_err(|error| Failure::Method(error.to_string()))?;
                Ok(id)
            }
            Method::Tcx => {
                let order = match self.tcx_order {
                    TcxOrder::First => LinkOrder::first(),
                    TcxOrder::Last => LinkOrder::last(),
                };
                let standing = self.standing(&pin)?;
                let program = self.classifier(hook)?;
                let id = program_id(program.info())?;
                if let Some((path, link)) = standing {
                    match SchedClassifierLink::try_from(link)
                        .map_err(Failure::link)
                        .and_then(|link| {
                            let link = program.attach_to_link(link)?;
                            keep(FdLink::try_from(program.take_link(link)?), &path, &pin)
                        }) {
                        Ok(()) => return Ok(id),
                        Err(error) => unpin(&path, &error),
                    }
                }
                let link = program.attach_with_options(
                    &device.name,
                    clsact::direction(hook),
                    TcAttachOptions::TcxOrder(order),
                )?;
                let link = FdLink::try_from(program.take_link(link)?).map_err(Failure::link)?;
                link.pin(&pin).map_err(|error| Failure::Method(error.to_string()))?;
                Ok(id)
            }
            Method::Clsact => {
                if pin.exists() && !self.ours.runs(&pin) {
                    return Err(not_ours(&pin));
                }
                clsact::refuse_foreign(self.surroundings.netlink, device.ifindex, hook).map_err(Failure::Method)?;
                let program = self.classifier(hook)?;
                let id = program_id(program.info())?;
                clsact::replace(program, &device.name, hook)?;
                // Such a filter has no link to pin; the pinned program is the proof that it is ours.
                let _ = fs::remove_file(&pin);
                program.pin(&pin).map_err(|error| Failure::Method(error.to_string()))?;
                Ok(id)
            }
        }
    }

    /// The link that an agent before this one has pinned for this place, if there is one and what it runs is ours.
    fn standing(&self, pin: &Path) -> Result<Option<(PathBuf, FdLink)>, Failure> {
        let Some(path) = self.pins.standing(pin) else {
            return Ok(None);
        };
        if !self.ours.runs(&path) {
            // In the directory of another version it is in nobody's way.
            return if path == pin { Err(not_ours(pin)) } else { Ok(None) };
        }
        let link = PinnedLink::from_pin(&path).map_err(Failure::link)?;
        Ok(Some((path, link.into())))
    }

    fn xdp_program(&mut self) -> Result<&mut Xdp, Failure> {
        let name = abi::PROGRAM_XDP;
        let program: &mut Xdp = self.program(name)?;
        if program.fd().is_err() {
            program.load().map_err(|source| refused(name, source))?;
            self.note_program(name)?;
        }
        self.program(name)
    }

    fn classifier(&mut self, hook: Hook) -> Result<&mut SchedClassifier, Failure> {
        let name = if matches!(hook, Hook::TcEgress) {
            abi::PROGRAM_EGRESS
        } else {
            abi::PROGRAM_INGRESS
        };
        let program: &mut SchedClassifier = self.program(name)?;
        if program.fd().is_err() {
            program.load().map_err(|source| refused(name, source))?;
            self.note_program(name)?;
        }
        self.program(name)
    }

    /// Keeps in mind that a program which was just loaded is ours. Its pin tells the next agent.
    fn note_program(&mut self, name: &'static str) -> Result<(), Failure> {
        let missing = Failure::Program(AttachError::Missing(name));
        let program = self.ebpf.program_mut(name).ok_or(missing)?;
        let id = program_id(program.info())?;
        let pinned = program.pin(self.pins.program(name, id));
        self.ours.add(id);
        if let Err(error) = pinned {
            warn!("cannot pin the program {name}: {error}; the next agent may not take it for ours");
        }
        Ok(())
    }

    fn program<'p, P>(&'p mut self, name: &'static str) -> Result<&'p mut P, Failure>
    where
        &'p mut P: TryFrom<&'p mut aya::programs::Program>,
    {
        let program = self.ebpf.program_mut(name).and_then(|program| program.try_into().ok());
        program.ok_or(Failure::Program(AttachError::Missing(name)))
    }
}

/// The hooks at which an interface is guarded.
pub(super) fn hooks(device: &Device, xdp: XdpPolicy) -> Vec<Hook> {
    let incoming = incoming(device, xdp);
    if device.loopback {
        vec![incoming]
    } else {
        vec![incoming, Hook::TcEgress]
    }
}

/// The hook at which an interface's incoming packets are looked at, as far as the policy decides it.
pub(crate) const fn incoming(device: &Device, xdp: XdpPolicy) -> Hook {
    match xdp {
        XdpPolicy::Off => Hook::TcIngress,
        XdpPolicy::Auto if !device.physical => Hook::TcIngress,
        _ if device.loopback => Hook::TcIngress,
        XdpPolicy::Auto | XdpPolicy::Driver | XdpPolicy::Generic => Hook::Xdp,
    }
}

/// What stopped an attempt.
enum Failure {
    /// The program itself: no method will do.
    Program(AttachError),
    /// This method only.
    Method(String),
    /// The same, because another program is in its place.
    Taken(String),
}

impl Failure {
    fn link(error: LinkError) -> Self {
        Self::Method(error.to_string())
    }
}

impl From<ProgramError> for Failure {
    fn from(error: ProgramError) -> Self {
        let why = explain(&error);
        match os_error(&error) {
            Some(nix::libc::EBUSY | nix::libc::EEXIST) => Self::Taken(why),
            _ => Self::Method(why),
        }
    }
}

/// Why a method does not work: because the kernel has not got it, where its version says so.
fn lacking(method: Method, kernel: Option<Version>, why: String) -> String {
    match (method, kernel) {
        (Method::Tcx, Some(version)) if version < TCX => {
            format!("Linux {version} has none, it came with {TCX} ({why})")
        }
        _ => why,
    }
}

fn refused(name: &'static str, source: ProgramError) -> Failure {
    Failure::Program(AttachError::Load {
        name,
        source: Box::new(source),
    })
}

fn program_id(info: Result<aya::programs::ProgramInfo, ProgramError>) -> Result<u32, Failure> {
    Ok(info?.id())
}

/// Leaves a link that was taken over to its pin. One of another version moves to ours.
fn keep(link: Result<FdLink, LinkError>, path: &Path, pin: &Path) -> Result<(), Failure> {
    let link = link.map_err(Failure::link)?;
    if path != pin {
        link.pin(pin).map_err(|error| Failure::Method(error.to_string()))?;
        let _ = fs::remove_file(path);
    }
    Ok(())
}

fn not_ours(pin: &Path) -> Failure {
    Failure::Program(AttachError::NotOurs(pin.display().to_string()))
}

fn unpin(pin: &Path, why: &Failure) {
    if let Failure::Method(why) | Failure::Taken(why) = why {
        warn!("{} is no longer attached ({why}); it is replaced", pin.display());
    }
    let _ = fs::remove_file(pin);
}

fn reason(device: &Device, hook: Hook, method: Method, wanted: (XdpPolicy, Tc), failed: &[String]) -> String {
    let (xdp, tc) = wanted;
    let mut reasons = Vec::new();
    match hook {
        Hook::TcIngress if device.loopback => reasons.push("loopback: every packet is looked at once, as it comes in"),
        Hook::TcIngress if matches!(xdp, XdpPolicy::Off) => reasons.push("xdp is off"),
        Hook::TcIngress if !device.physical => reasons.push("no hardware behind it: XDP could lose answers"),
        _ => {}
    }
    match method {
        Method::Driver => reasons.push("in the driver: before anything else"),
        Method::Generic if matches!(xdp, XdpPolicy::Generic) => reasons.push("xdp is set to generic"),
        Method::Clsact if matches!(tc, Tc::Clsact) => reasons.push("tc is set to clsact"),
        Method::Generic | Method::Clsact | Method::Tcx => {}
    }
    reasons.extend(failed.iter().map(String::as_str));
    reasons.join("; ")
}

/// What the kernel said, if an error of aya has that behind it.
fn os_error(error: &ProgramError) -> Option<i32> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        cause = inner.source();
    }
    None
}

/// An error of aya with the one cause behind it, and what to do about the common ones.
fn explain(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        return refusal::explain(io_error, &verifier_log.to_string());
    }
    let mut text = error.to_string();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        if let Some(io) = inner.downcast_ref::<io::Error>()
            && io.raw_os_error() == Some(nix::libc::EPERM)
        {
            text.push_str(" (it takes CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)");
        }
        cause = inner.source();
    }
    text
}
