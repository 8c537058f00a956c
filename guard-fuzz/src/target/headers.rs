//! The walk from Ethernet to the ports, against etherparse.

use std::net::IpAddr;

use etherparse::{LaxPacketHeaders, NetHeaders, PacketHeaders, TransportHeader};
use guard_common::{
    address::Address,
    packet::{Family, Packet, Stop, Transport, destination},
};
use guard_sim::random::Random;

use super::Target;
use crate::{
    draw,
    driver::{Verdict, wrong},
};

/// Extension headers that the guard goes through.
const MAX_EXTENSIONS: usize = 4;

/// The target. A case is a frame.
pub(super) struct Headers;

impl Target for Headers {
    fn draw(&self, random: &mut Random) -> Vec<u8> {
        draw::any_frame(random)
    }

    fn check(&mut self, case: &[u8]) -> Verdict {
        let ours = Packet::walk(case);
        if let Ok(packet) = &ours {
            is_within(case, packet)?;
        }
        let Ok(theirs) = PacketHeaders::from_ethernet_slice(case) else {
            return against_a_lax_reading(case, ours);
        };
        let theirs = Theirs::of(theirs.net, theirs.transport, theirs.link_exts.len(), case);
        match (&ours, &theirs) {
            (Ok(packet), Some(theirs)) if theirs.is_walked() => agrees(case, packet, theirs),
            (Err(Stop::Fragment), Some(theirs)) if theirs.fragments => Ok("a fragment, to both"),
            (Err(Stop::Other), Some(theirs)) if theirs.fragments => Ok("a fragment of something else, to both"),
            (Err(stop), Some(theirs)) if !theirs.is_walked() => match stop {
                Stop::Other => Ok("passed: headers that the guard does not go through"),
                _ => wrong(format!("{stop:?} for what etherparse reads as {theirs:?}")),
            },
            (Err(Stop::Other | Stop::Fragment), None) => Ok("no ports, to both"),
            // etherparse leaves what comes after its own limits to others.
            (Err(Stop::Malformed), None) => Ok("malformed: cut behind what etherparse reads"),
            (Ok(packet), None) => against_a_payload(case, packet),
            (ours, theirs) => wrong(format!("the guard finds {ours:?}, etherparse {theirs:?}")),
        }
    }
}

/// What etherparse found.
#[derive(Debug)]
struct Theirs {
    transport: Transport,
    ports: (u16, u16),
    addresses: (IpAddr, IpAddr),
    ip_header: Family,
    fragments: bool,
    /// Tags, and extension headers that the guard knows and that it does not know.
    tags: usize,
    extensions: usize,
    strange: bool,
}

impl Theirs {
    fn of(net: Option<NetHeaders>, transport: Option<TransportHeader>, tags: usize, frame: &[u8]) -> Option<Self> {
        let (addresses, family, fragments, extensions, strange) = match net? {
            NetHeaders::Ipv4(ip, extensions) => (
                (IpAddr::from(ip.source), IpAddr::from(ip.destination)),
                Family::V4,
                ip.is_fragmenting_payload(),
                0,
                extensions.auth.is_some(),
            ),
            NetHeaders::Ipv6(ip, extensions) => {
                let routing = extensions.routing.as_ref();
                let count = usize::from(extensions.hop_by_hop_options.is_some())
                    + usize::from(extensions.destination_options.is_some())
                    + routing.map_or(0, |routing| {
                        1 + usize::from(routing.final_destination_options.is_some())
                    });
                (
                    (IpAddr::from(ip.source), IpAddr::from(ip.destination)),
                    Family::V6,
                    extensions.fragment.is_some(),
                    count,
                    extensions.auth.is_some(),
                )
            }
            NetHeaders::Arp(_) => return None,
        };
        let (transport, ports) = match transport {
            Some(TransportHeader::Udp(udp)) => (Transport::Udp, (udp.source_port, udp.destination_port)),
            Some(TransportHeader::Tcp(tcp)) => (Transport::Tcp, (tcp.source_port, tcp.destination_port)),
            _ if fragments => (Transport::Udp, (0, 0)),
            _ => return None,
        };
        Some(Self {
            transport,
            ports,
            addresses,
            ip_header: family,
            fragments,
            tags,
            extensions,
            strange: strange || has_strange_tag(frame),
        })
    }

    /// Whether the guard goes through all of these headers.
    const fn is_walked(&self) -> bool {
        !self.fragments && !self.strange && self.tags <= 2 && self.extensions <= MAX_EXTENSIONS
    }
}

/// Whether among the tags is one that etherparse takes for a tag and the guard does not: MACsec, and the 0x9100 of before
/// there was a standard.
fn has_strange_tag(frame: &[u8]) -> bool {
    let mut types = frame.get(12..).unwrap_or_default().chunks_exact(4);
    let first = types.find(|tag| !matches!(tag, [0x81, 0, ..] | [0x88, 0xa8, ..]));
    matches!(first, Some([0x88, 0xe5, ..] | [0x91, 0, ..]))
}

fn agrees(case: &[u8], ours: &Packet, theirs: &Theirs) -> Verdict {
    let same = ours.transport == theirs.transport
        && ours.family == theirs.ip_header
        && (ours.source_port, ours.destination_port) == theirs.ports;
    let Some((source, to)) = ours.addresses(case) else {
        return wrong("ports without addresses");
    };
    let mapped = |address: IpAddr| match address {
        IpAddr::V4(address) => Address::from_octets(address.to_ipv6_mapped().octets()),
        IpAddr::V6(address) => Address::from_octets(address.octets()),
    };
    let addresses = (mapped(theirs.addresses.0), mapped(theirs.addresses.1));
    if !same || (source, to) != addresses || destination(case) != Some(addresses.1) {
        return wrong(format!("the guard finds {ours:?}, etherparse {theirs:?}"));
    }
    Ok(match (ours.family, ours.transport) {
        (Family::V4, Transport::Udp) => "UDP over IPv4, read by both",
        (Family::V6, Transport::Udp) => "UDP over IPv6, read by both",
        (_, Transport::Tcp) => "TCP, read by both",
    })
}

/// etherparse read it, and found no UDP or TCP header: an extension header that it takes for the end.
fn against_a_payload(case: &[u8], ours: &Packet) -> Verdict {
    if ours.family == Family::V6 && ours.has_ip_options() {
        // It takes each kind of extension header once, in the order of RFC 8200 section 4.1.
        return Ok("read by the guard: extension headers in an order that etherparse does not take");
    }
    wrong(format!("the guard finds {ours:?} in {case:02x?}, etherparse nothing"))
}

/// A strict reading failed, because a length says more or less than there is. The guard looks at lengths later.
fn against_a_lax_reading(case: &[u8], ours: Result<Packet, Stop>) -> Verdict {
    let Ok(packet) = ours else {
        return Ok("refused by both");
    };
    let Ok(lax) = LaxPacketHeaders::from_ethernet(case) else {
        return wrong(format!("the guard finds {packet:?}, etherparse no Ethernet header"));
    };
    let tags = lax.link_exts.len();
    match Theirs::of(lax.net, lax.transport, tags, case) {
        Some(theirs) if theirs.is_walked() => agrees(case, &packet, &theirs),
        Some(theirs) => wrong(format!("the guard finds {packet:?}, etherparse {theirs:?}")),
        None if packet.has_ip_options() && packet.family == Family::V6 => {
            Ok("read by the guard: extension headers in an order that etherparse does not take")
        }
        // The ports are there and the rest of the header is not, or not according to a length.
        None if fits(case, &packet) => wrong(format!("the guard finds {packet:?}, etherparse nothing")),
        None => Ok("read by the guard: ports in a datagram that is cut"),
    }
}

/// Whether the whole transport header lies within frame and packet.
fn fits(case: &[u8], packet: &Packet) -> bool {
    let end = match packet.transport {
        Transport::Udp => packet.payload(case).map(|(start, _)| start),
        Transport::Tcp => packet.segment_len(case).map(|len| packet.ip_at + packet.ip_len - len),
    };
    end.is_some_and(|end| end <= case.len())
}

/// What the guard makes of lengths never leads out of the packet.
fn is_within(case: &[u8], packet: &Packet) -> Verdict {
    if packet.transport_at + 4 > case.len() || packet.ip_at + 20 > packet.transport_at {
        return wrong(format!("ports outside of the frame: {packet:?}"));
    }
    if let Some((start, end)) = packet.payload(case)
        && (start > end || start != packet.transport_at + 8 || end > packet.ip_at + packet.ip_len)
    {
        return wrong(format!("a payload from {start} to {end} of {packet:?}"));
    }
    if let Some(length) = packet.segment_len(case)
        && packet.transport_at + 20 + length > packet.ip_at + packet.ip_len
    {
        return wrong(format!("a segment of {length} bytes in {packet:?}"));
    }
    Ok("")
}
