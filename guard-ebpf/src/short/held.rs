//! What becomes of a held query: the same as in `dns::act`, of one that says nothing new.

use guard_common::{
    bytes::Bytes as _,
    counter::action_index,
    key::Key,
    packet::addresses_at,
    policy::Control,
    question::ANCOUNT_AT,
    remedy::{Held, Reason, Verdict},
    time::Ticks,
};

use super::{DROPPED, IP_AT, PASSED, answered::Answered, family, over, read::Asked};
use crate::{bench, frame::Frame, maps::DeviceCounters};

/// Ends a query whose key is held, or lets it go on under a policy that only watches. `in_hold` says how many have been in
/// this hold, and when that ends.
#[inline(always)]
pub(super) fn end(
    frame: &Frame,
    control: &Control,
    asked: &Asked,
    key: Key,
    in_hold: (u32, Ticks),
    counters: DeviceCounters,
) -> Option<u32> {
    if control.drops_held != 0 {
        counters.count_at(action_index(Verdict::Drop, Reason::Loop));
        return Some(DROPPED);
    }
    let policy = bench::policy(control.active)?;
    let (held_in_hold, until) = in_hold;
    let client = asked.ends.client();
    let (source, _) = addresses_at(frame, IP_AT, family(over(asked.udp_at)))?;
    let held = Held {
        trusted: bench::trusts(&source, policy),
        source_port: client.port,
        answerable: frame.ne32(asked.udp_at + 8 + ANCOUNT_AT)? == 0,
        held_in_hold,
    };
    let (verdict, reason) = bench::sentence(&held, key, client.address, until, policy);
    counters.count_at(action_index(verdict, reason));
    Some(match verdict {
        Verdict::Answer => Answered::pack(asked.udp_at, asked.question_end, policy.rcode),
        Verdict::Drop => DROPPED,
        Verdict::Pass | Verdict::WouldAnswer | Verdict::WouldDrop => PASSED,
    })
}
