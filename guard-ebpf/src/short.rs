//! The short way: a query that says nothing, read, judged and passed in one go.
//!
//! It is for what comes most often: a plain datagram over IPv4 or IPv6 from another host to a DNS port, under a policy that
//! leaves all to the judge, whose key nobody suspects and which goes where the last one went. Its headers lie where they
//! always lie. All others take the long way (`hook::walk`), which decides the same of these.

use core::arch::asm;

use guard_common::{
    abi::{flow_line, key_bucket},
    address::Address,
    bytes::Bytes as _,
    case::{Ends, LOOPBACK_IFINDEX, NAMESPACE_SHIFT},
    counter::Counter,
    flow::{Place, Sighting},
    judge::Hop,
    key::Hashed,
    policy::Control,
    question::{HEADER_LEN, Question, name_len},
    sample::Kind,
    time::Ticks,
};

use crate::{
    bench,
    door::Door,
    frame::Frame,
    maps::{DeviceCounters, FLOWS, KEYS},
};

/// What [`pass`] returns of a query that it has passed.
pub(crate) const PASSED: u32 = 0;
/// What it returns of a packet that it leaves alone. Anything else is what a query that it has passed stands for, if the
/// agent is shown it.
pub(crate) const LEFT: u32 = 1 << 31;

const IP_AT: usize = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Passes a query that says nothing.
#[inline(always)]
pub(crate) fn pass<D: Door>(door: &D, control: *const Control) -> u32 {
    // SAFETY: the callers pass references; the verifier wants the check for null.
    let Some(control) = (unsafe { control.as_ref() }) else {
        return LEFT;
    };
    if control.is_short == 0 {
        return LEFT;
    }
    let frame = door.frame();
    let headers = match frame.be16(IP_AT - 2) {
        Some(IPV4) => v4(&frame, control),
        Some(IPV6) => v6(&frame, control),
        _ => None,
    };
    let asked = headers.and_then(|headers| headers.question(&frame, control));
    asked.and_then(|asked| judge(door, control, &asked)).unwrap_or(LEFT)
}

/// A datagram by its IP header: its addresses are folded.
struct Datagram {
    source: u32,
    destination: u32,
    udp_at: usize,
    /// Where the IP packet ends.
    end: usize,
    /// The counter of such queries.
    counter: usize,
}

#[inline(always)]
fn v4(frame: &Frame, control: &Control) -> Option<Datagram> {
    let [first, second, third] = frame.le64s(IP_AT)?;
    // Version 4, five words of header, no fragment; UDP.
    if first & 0xff3f_0000_0000_00ff != 0x45 || (second >> 8) as u8 != 17 {
        return None;
    }
    let (source, destination) = (((second >> 32) as u32).to_le(), (third as u32).to_le());
    if source == destination {
        return None;
    }
    Some(Datagram {
        source: Address::fold_v4(source, &control.secret),
        destination: Address::fold_v4(destination, &control.secret),
        udp_at: IP_AT + 20,
        end: IP_AT + ((first >> 16) as u16).swap_bytes() as usize,
        counter: Counter::QueriesV4 as usize,
    })
}

#[inline(always)]
fn v6(frame: &Frame, control: &Control) -> Option<Datagram> {
    let [first, a, b, c, d] = frame.le64s(IP_AT)?;
    if first as u8 >> 4 != 6 || (first >> 48) as u8 != 17 || (a ^ c) | (b ^ d) == 0 {
        return None;
    }
    Some(Datagram {
        source: Address::v6(a, b).fold(&control.secret),
        destination: Address::v6(c, d).fold(&control.secret),
        udp_at: IP_AT + 40,
        end: IP_AT + 40 + ((first >> 32) as u16).swap_bytes() as usize,
        counter: Counter::QueriesV6 as usize,
    })
}

/// A query with one question to a DNS port.
struct Asked {
    ends: Ends,
    hashed: Hashed,
    id: u16,
    counter: usize,
}

impl Datagram {
    #[inline(always)]
    fn question(&self, frame: &Frame, control: &Control) -> Option<Asked> {
        let udp_at = control.blur(self.udp_at) & 0x7f;
        let [udp, dns] = frame.le64s(udp_at)?;
        let [source_port, destination_port, length] =
            [udp, udp >> 16, udp >> 32].map(|half| (half as u16).swap_bytes());
        let end = udp_at + length as usize;
        // QR and OPCODE are zero, QDCOUNT is one.
        let is_query = dns & 0xffff_00f8_0000 == 0x0100_0000_0000;
        if !is_query || end > self.end || !control.has_port(destination_port) {
            return None;
        }
        let name_at = udp_at + 8 + HEADER_LEN;
        let name_len = control.blur(name_len(frame, name_at).ok()?) & 0xff;
        let question = Question::read(frame, name_at, name_len, end).ok()?;
        Some(Asked {
            ends: Ends::new((self.source, source_port), (self.destination, destination_port)),
            hashed: Hashed::read(frame, &question, &control.secret)?,
            id: (dns as u16).swap_bytes(),
            counter: self.counter,
        })
    }
}

/// Judges a query: [`PASSED`], or what it stands for, if it says nothing.
#[inline(always)]
fn judge<D: Door>(door: &D, control: &Control, asked: &Asked) -> Option<u32> {
    let device = door.device();
    if device & ((1 << NAMESPACE_SHIFT) - 1) == LOOPBACK_IFINDEX {
        return None;
    }
    let key = asked.hashed.key.within(device >> NAMESPACE_SHIFT);
    let flow = asked.ends.flow(key, asked.id, &control.secret);
    let (bucket, line) = (KEYS.get_ptr_mut(key_bucket(key))?, FLOWS.get_ptr_mut(flow_line(flow))?);
    // Both are far away in memory: the one is on its way here while the other is looked at.
    // SAFETY: a live slot of the array.
    unsafe { line.cast::<u64>().read_volatile() };
    let now_ns = bench::coarse_now_ns();
    if now_ns >= control.lease_until_ns {
        return None;
    }
    let now = Ticks::from_ns(now_ns);
    let hop = Hop {
        client: asked.ends.client(),
        server: asked.ends.server(),
        id: asked.id,
        same_host: false,
        plain: control.blur(asked.hashed.plain as usize) & 1 != 0,
        egress: D::EGRESS,
        sighting: Sighting::New,
    };
    // SAFETY: a live slot of the array. What another CPU changes meanwhile came later.
    let mut slot = control.blur(unsafe { (*bucket).repeats(key, &hop, now) }?);
    // Bounded where the optimiser cannot take the bound for something else, which verifiers before Linux 6.12 do not follow.
    // SAFETY: a mask.
    unsafe { asm!("{0} &= 7", inout(reg) slot, options(pure, nomem, nostack)) };
    let place = Place::new(device, D::EGRESS);
    // SAFETY: a live slot of the array. CPUs that race for it write whole words.
    let sighting = unsafe { (*line).sight(flow as u32, place, hop.plain, now, control.rapid_ticks) };
    if matches!(sighting, Sighting::Elsewhere) {
        // The long way finds the same.
        return None;
    }
    // SAFETY: as for the look.
    unsafe { (*bucket).note_repeat(slot, &hop, now) };
    let counters = DeviceCounters::of(device)?;
    counters.count_at(control.blur(asked.counter));
    if matches!(sighting, Sighting::Retransmit) {
        counters.count(Counter::Retransmits);
    }
    Some(bench::draw_at(Kind::Query, now, flow, control.sample_quota))
}
