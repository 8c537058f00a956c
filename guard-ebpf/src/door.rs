//! From a packet at a hook to its ports.
//!
//! This much is done for every packet, in line. What speaks DNS goes on to `dns`, through functions of their own: the
//! verifier checks such a function once, for all headers that may have led to it, where it would check straight code
//! again for each of them.

use guard_common::{
    answer::Checksum,
    counter::Counter,
    judge::Ruling,
    key::Key,
    packet::{Family, Packet, Stop, Transport},
    question::{Question, Unreadable},
};

use crate::{
    bench::{self, Case, NO_CASE, NO_RULING},
    dns,
    frame::Frame,
    maps::{CONTROL, DeviceCounters, POLICIES},
};

/// How a hook reaches its packet.
pub(crate) trait Door {
    /// Whether packets leave through it.
    const EGRESS: bool;

    /// The packet, as far as it can be read at once.
    fn frame(&self) -> Frame;

    /// The packet, with everything that a question needs readable.
    fn whole_frame(&self) -> Frame;

    /// The interface.
    fn ifindex(&self) -> u32;

    /// Bytes of the name at an offset.
    fn name_len(&self, name_at: usize) -> Result<usize, Unreadable>;

    /// The key of a question.
    fn key(&self, question: &Question) -> Option<Key>;

    /// Whether the UDP checksum in the packet is complete.
    fn checksum(&self, frame: &Frame, packet: &Packet, udp_len: usize) -> Checksum;

    /// What the program is to return for a packet that goes on.
    const PASS: u32;

    /// What it is to return for a packet that ends here.
    const DROP: u32;

    /// `dns::read` behind a function call.
    fn read(&self, headers: Headers, case: &mut Case) -> u32;

    /// `dns::act` behind a function call.
    fn act(&self, headers: Headers, case: &Case, ruling: &Ruling) -> u32;

    /// Makes the packet an answer and sends it back; tells what the program is to return.
    fn answer(&self, headers: Headers, info_code: u32) -> u32;
}

/// A [`Packet`] in two numbers, to hand it to a function.
#[derive(Clone, Copy)]
pub(crate) struct Headers {
    pub(crate) offsets: u64,
    pub(crate) ports: u32,
}

impl Headers {
    #[inline(always)]
    const fn pack(packet: &Packet) -> Self {
        let v6 = matches!(packet.family, Family::V6) as u64;
        let tcp = matches!(packet.transport, Transport::Tcp) as u64;
        Self {
            offsets: packet.ip_len as u64
                | (packet.ip_at as u64) << 32
                | (packet.transport_at as u64) << 40
                | v6 << 62
                | tcp << 63,
            ports: (packet.source_port as u32) << 16 | packet.destination_port as u32,
        }
    }

    #[inline(always)]
    pub(crate) const fn unpack(self) -> Packet {
        let Self { offsets, ports } = self;
        Packet {
            family: if offsets >> 62 & 1 == 1 { Family::V6 } else { Family::V4 },
            transport: if offsets >> 63 == 1 { Transport::Tcp } else { Transport::Udp },
            ip_at: (offsets >> 32 & 0x3f) as usize,
            transport_at: (offsets >> 40 & 0x3ff) as usize,
            ip_len: (offsets & 0x3_ffff) as usize,
            source_port: (ports >> 16) as u16,
            destination_port: ports as u16,
        }
    }
}

/// Judges one packet; tells what the program is to return.
#[inline(always)]
pub(crate) fn judge<D: Door>(door: &D) -> u32 {
    let packet = match Packet::walk(&door.frame()) {
        Ok(packet) => packet,
        Err(Stop::Other) => return D::PASS,
        Err(stop) => {
            if let Some(counters) = DeviceCounters::of(door.ifindex()) {
                counters.count(if matches!(stop, Stop::Fragment) { Counter::Fragments } else { Counter::BadHeader });
            }
            return D::PASS;
        }
    };
    let Some(control) = CONTROL.get(0) else { return D::PASS };
    let Some(policy) = POLICIES.get(control.active & 1) else { return D::PASS };
    if !policy.has_port(packet.destination_port) && !policy.has_port(packet.source_port) {
        return D::PASS;
    }
    // One after the other and not one in the other: together, their variables do not fit the stack of a program.
    let headers = Headers::pack(&packet);
    let (mut case, mut ruling) = (NO_CASE, NO_RULING);
    let worth_acting = match door.read(headers, &mut case) {
        dns::QUERY => bench::query(&case, &mut ruling),
        dns::ANSWER => bench::answered(&case, &mut ruling),
        _ => false,
    };
    if !worth_acting {
        return D::PASS;
    }
    match door.act(headers, &case, &ruling) {
        dns::PASS => D::PASS,
        dns::DROP => D::DROP,
        info_code => door.answer(headers, info_code),
    }
}
