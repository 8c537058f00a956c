//! Headers and question of a datagram that has them where they always are.

use guard_common::{
    address::Address,
    bytes::{Bytes as _, Cursor as _},
    case::Ends,
    counter::Counter,
    key::Hashed,
    local::Local,
    packet::Family,
    policy::Control,
    question::HEADER_LEN,
};

use super::{IP_AT, V4_LEN, V6_LEN};
use crate::{door::Door, frame::Frame, maps::LOCALS};

/// Where the name of a message lies, counted from the UDP header in front of it.
const NAME_AT: usize = 8 + HEADER_LEN;

/// Reads a query in a datagram of this family. `None` if it is none.
#[inline(always)]
pub(super) fn query<D: Door>(door: &D, frame: &Frame, control: &Control, family: u32) -> Option<Asked> {
    let datagram = if family == Family::V4 as u32 {
        v4(frame, control)?
    } else {
        v6(frame, control)?
    };
    datagram.question(door, frame, control)
}

/// A datagram with the first half of a message.
struct Datagram {
    /// The folded addresses.
    source: u32,
    destination: u32,
    udp_at: usize,
    /// The UDP header.
    udp: u64,
    /// ID, flags, QDCOUNT, and ANCOUNT.
    dns: u64,
    /// Bytes in front of its UDP header that the IP header counts, and bytes that it counts in all.
    counted: usize,
    ip_len: usize,
    /// The counter of such queries.
    counter: usize,
}

#[inline(always)]
fn v4(frame: &Frame, control: &Control) -> Option<Datagram> {
    let [before, _, addresses, udp, dns] = frame.le64s_from::<{ IP_AT - 4 }, 5>()?;
    let (source, destination) = ((addresses as u32).to_le(), ((addresses >> 32) as u32).to_le());
    if source == destination {
        return None;
    }
    Some(Datagram {
        source: Address::fold_v4(source, &control.secret),
        destination: Address::fold_v4(destination, &control.secret),
        udp_at: IP_AT + V4_LEN,
        udp,
        dns,
        counted: V4_LEN,
        ip_len: ((before >> 48) as u16).swap_bytes() as usize,
        counter: Counter::QueriesV4 as usize,
    })
}

#[inline(always)]
fn v6(frame: &Frame, control: &Control) -> Option<Datagram> {
    let [first, a, b, c, d, udp, dns] = frame.le64s_from::<IP_AT, 7>()?;
    if (a ^ c) | (b ^ d) == 0 {
        return None;
    }
    Some(Datagram {
        source: Address::v6(a, b).fold(&control.secret),
        destination: Address::v6(c, d).fold(&control.secret),
        udp_at: IP_AT + V6_LEN,
        udp,
        dns,
        counted: 0,
        ip_len: ((first >> 32) as u16).swap_bytes() as usize,
        counter: Counter::QueriesV6 as usize,
    })
}

/// A query with one question to a DNS port.
pub(super) struct Asked {
    pub(super) ends: Ends,
    pub(super) hashed: Hashed,
    /// What this CPU keeps for itself.
    pub(super) local: *mut Local,
    /// The DNS ID.
    pub(super) id: u16,
    /// The counter of such queries.
    pub(super) counter: usize,
    pub(super) udp_at: usize,
    pub(super) question_end: usize,
    pub(super) qtype: u16,
}

impl Asked {
    /// Where its name begins.
    #[inline(always)]
    pub(super) const fn name_at(&self) -> usize {
        self.udp_at + NAME_AT
    }
}

impl Datagram {
    #[inline(always)]
    fn question<D: Door>(&self, door: &D, frame: &Frame, control: &Control) -> Option<Asked> {
        let Self { udp, dns, .. } = *self;
        let [source_port, destination_port, length] =
            [udp, udp >> 16, udp >> 32].map(|half| (half as u16).swap_bytes());
        // QR and OPCODE are zero, QDCOUNT is one.
        let is_query = dns & 0xffff_00f8_0000 == 0x0100_0000_0000;
        if !is_query || self.counted + length as usize > self.ip_len || !control.has_port(destination_port) {
            return None;
        }
        let udp_at = control.blur(self.udp_at) & 0x7f;
        let local = LOCALS.get_ptr_mut(0)?;
        // SAFETY: the slot of this CPU, on which no other of our programs runs now.
        let recent = unsafe { &mut (*local).recent };
        let type_and_class = match recent.recall(frame.cursor(udp_at).forward(NAME_AT)) {
            Some(type_and_class) => type_and_class,
            None => door.learn(udp_at + NAME_AT, recent)?,
        };
        let name_len = recent.name_len();
        if NAME_AT + name_len + 4 > length as usize {
            return None;
        }
        Some(Asked {
            ends: Ends::new((self.source, source_port), (self.destination, destination_port)),
            hashed: recent.asked(type_and_class, &control.secret),
            local,
            id: (dns as u16).swap_bytes(),
            counter: self.counter,
            udp_at,
            question_end: udp_at + NAME_AT + name_len + 4,
            qtype: (type_and_class as u16).swap_bytes(),
        })
    }
}
