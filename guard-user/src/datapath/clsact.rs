//! Filters at the clsact qdisc, for kernels before tcx (6.6).
//!
//! Such a filter has no link: it stays when its owner dies, and it is found again by a priority and a handle of our own.
//! The qdisc stays as well; others may have filters there.

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
};
use nix::net::if_::if_indextoname;
use tracing::{debug, warn};

use crate::{
    attachment::Hook,
    neighbours::is_name_of_ours,
    netlink::{Filter, Netlink},
};

/// Priority of our filters: behind whoever must be first, and nobody's default.
const PRIORITY: u16 = 53;
/// Handle of our filters.
const HANDLE: u32 = 0xd53;

/// Refuses a place in which a filter is that somebody else has put there: the error says whose place it is.
pub(super) fn refuse_foreign(netlink: &Netlink, ifindex: u32, hook: Hook) -> Result<(), String> {
    match standing(netlink, ifindex, hook) {
        Some(filter) if !is_ours(&filter) => Err(format!(
            "the filter of priority {PRIORITY} and handle {HANDLE:#x} is {} (program {}), which is not dnsguard's: it is \
             left alone; remove it, or set tc = \"tcx\" in [attach]",
            filter.name, filter.program
        )),
        _ => Ok(()),
    }
}

/// The filter in our place, whoever has put it there; none, where there is no clsact qdisc.
fn standing(netlink: &Netlink, ifindex: u32, hook: Hook) -> Option<Filter> {
    let filters = netlink.filters(ifindex, hook).unwrap_or_default();
    filters
        .into_iter()
        .find(|filter| (filter.priority, filter.handle) == (PRIORITY, HANDLE))
}

/// Whether a filter in our place is ours: it is called like our program.
fn is_ours(filter: &Filter) -> bool {
    is_name_of_ours(&filter.name)
}

/// Puts the program into our filter at a hook of an interface, in place of the one in it if there is one. It stays there
/// until it is deleted.
pub(super) fn replace(program: &mut SchedClassifier, device: &str, hook: Hook) -> Result<(), ProgramError> {
    if let Err(error) = qdisc_add_clsact(device) {
        // It is there already, or the filter cannot be added either.
        debug!("{device}: no clsact qdisc added: {error}");
    }
    let standing = SchedClassifierLink::attached(device, direction(hook), PRIORITY, handle(), None);
    let link = match standing
        .map_err(ProgramError::from)
        .and_then(|link| program.attach_to_link(link))
    {
        Ok(link) => link,
        Err(_) => {
            let options = NlOptions {
                priority: PRIORITY,
                handle: handle(),
                ..NlOptions::default()
            };
            program.attach_with_options(device, direction(hook), TcAttachOptions::Netlink(options))?
        }
    };
    // Dropped, it would delete the filter.
    std::mem::forget(program.take_link(link)?);
    Ok(())
}

/// Deletes our filter at a hook of an interface. The caller has the proof that it is ours: the pinned program.
pub(super) fn delete(ifindex: u32, hook: Hook) {
    let Some(name) = if_indextoname(ifindex).ok().and_then(|name| name.into_string().ok()) else {
        return;
    };
    let found = Netlink::open()
        .ok()
        .and_then(|netlink| standing(&netlink, ifindex, hook));
    if let Some(filter) = found.filter(|filter| !is_ours(filter)) {
        warn!(
            "{name}: the {} filter in dnsguard's place is {}, which is not its own: it stays",
            hook.word(),
            filter.name
        );
        return;
    }
    match SchedClassifierLink::attached(&name, direction(hook), PRIORITY, handle(), None) {
        // Dropping the link deletes the filter.
        Ok(link) => drop(link),
        Err(error) => warn!("{name}: cannot delete the {} filter: {error}", hook.word()),
    }
}

/// The side of an interface that a hook is on.
pub(super) const fn direction(hook: Hook) -> TcAttachType {
    if matches!(hook, Hook::TcEgress) {
        TcAttachType::Egress
    } else {
        TcAttachType::Ingress
    }
}

fn handle() -> TcHandle {
    TcHandle::from(HANDLE)
}
