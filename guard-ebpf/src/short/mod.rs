//! The short way: a query that says nothing, or whose key is held, from the first byte to the verdict in one go.
//!
//! It is for what comes most often: a plain datagram over IPv4 or IPv6 from another host to a DNS port, under a policy that
//! leaves all to the judge, whose key nobody suspects and which goes where the last one went; and for what comes fastest,
//! a storm that the breaker holds. Its headers lie where they always lie. All others take the long way (`hook::walk`),
//! which decides the same of these.
//!
//! ```text
//! pass
//!  |-> read      headers, question, key                        left: whatever lies elsewhere
//!  '-> judge     lease, key, flow                              left: what is new, suspect, on lo, seen elsewhere
//!       |-> held       the breaker is open: dropped, answered ([`answered`]), or only counted
//!       '-> charge     under a policy with budgets, after `pass`: within them, or shed
//! ```

mod answered;
mod charge;
mod held;
mod judge;
mod read;

use guard_common::packet::Family;

pub(crate) use self::{answered::Answered, charge::charge};
use crate::{door::Door, maps::control, step::late};

/// What [`pass`] returns of a query that it has passed.
pub(crate) const PASSED: u32 = 0;
/// What it returns of a packet that it leaves alone.
pub(crate) const LEFT: u32 = 1 << 31;
/// What it returns of a query that ends here.
pub(crate) const DROPPED: u32 = 1 << 30;
/// The bit of a query that is answered; the others are those of [`Answered`].
pub(crate) const ANSWERED: u32 = 1 << 29;
/// The bit of a query that budgets have no room for, or would not have; what it was shed for lies on the desk. The others,
/// and those of a query that passes, are what it stands for, if the agent is shown it.
pub(crate) const SHED: u32 = 1 << 28;
/// The bit of a query that [`charge`] is to charge the budgets with; the others are those that it takes.
pub(crate) const CHARGED: u32 = 1 << 27;
/// The bit of a query over IPv6, where it is answered or charged.
const OVER_V6: u32 = 1 << 26;

/// The Ethernet header has no tags.
const IP_AT: usize = 14;
/// Nor has the IPv4 header options.
const V4_LEN: usize = 20;
/// Nor has the IPv6 header extensions.
const V6_LEN: usize = 40;

/// Takes a datagram of this family, whose headers a glance has found plain, the short way: what becomes of it, in one of
/// the numbers above.
#[inline(always)]
pub(crate) fn pass<D: Door>(door: &D, family: u32) -> u32 {
    let control = control();
    if control.is_short == 0 {
        return LEFT;
    }
    let frame = door.frame();
    let passed =
        read::query(door, &frame, control, family).and_then(|asked| judge::judge(door, &frame, control, &asked));
    match passed {
        Some(passed) => passed,
        None => late::<LEFT>(),
    }
}

/// The bit that tells the family of a datagram by where its UDP header is.
#[inline(always)]
const fn over(udp_at: usize) -> u32 {
    if udp_at == IP_AT + V4_LEN { 0 } else { OVER_V6 }
}

/// The family that it tells.
#[inline(always)]
const fn family(number: u32) -> Family {
    if number & OVER_V6 == 0 { Family::V4 } else { Family::V6 }
}
