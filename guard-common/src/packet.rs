//! The walk from an Ethernet frame to the ports of its datagram.
//!
//! Ethernet II with up to two VLAN tags (802.1Q, 802.1ad), IPv4 with options, IPv6 with up to four extension headers,
//! UDP and TCP. Whatever else there is passes: the walk says why it stopped, and the caller counts it.

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

use crate::{address::Address, bytes::Bytes};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_8021Q: u16 = 0x8100;
const ETHERTYPE_8021AD: u16 = 0x88a8;
const VLAN_TAG_LEN: usize = 4;
const MAX_VLAN_TAGS: usize = 2;

const PROTOCOL_HOP_BY_HOP: u8 = 0;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ROUTING: u8 = 43;
const PROTOCOL_FRAGMENT: u8 = 44;
const PROTOCOL_DESTINATION_OPTIONS: u8 = 60;
const MAX_EXTENSION_HEADERS: usize = 4;

/// In the first eight bytes of an IPv4 header, the first byte least significant: more fragments to come, or an offset into a
/// datagram that began elsewhere (RFC 791 section 3.1).
const FRAGMENT_V4: u64 = 0xff3f << 48;
/// The same in bytes 6 to 9 of the header, and what these are, beside the TTL, of a datagram and of a segment that are no
/// fragments.
const FRAGMENT: u32 = (FRAGMENT_V4 >> 48) as u32;
const WHOLE_UDP: u32 = (PROTOCOL_UDP as u32) << 24;
const WHOLE_TCP: u32 = (PROTOCOL_TCP as u32) << 24;
/// Type and first byte, the first one least significant, of IPv4 with five words of header.
const PLAIN_V4: u32 = 0x45 << 16 | ETHERTYPE_IPV4.swap_bytes() as u32;
/// Of IPv6: of the first byte only the upper half counts.
const PLAIN_V6: u32 = 0x60 << 16 | ETHERTYPE_IPV6.swap_bytes() as u32;

const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// Bytes of the longest headers that the walk accepts in front of a DNS message, and of the longest question: what has
/// to be readable for a packet to be judged.
pub const MAX_WALK: usize = EthHdr::LEN + MAX_VLAN_TAGS * VLAN_TAG_LEN + 128 + UdpHdr::LEN + 12 + 255 + 4 + 11;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// UDP or TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// RFC 768.
    Udp,
    /// RFC 9293.
    Tcp,
}

/// Where the headers of a datagram lie; offsets are counted from the first byte of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The family of the IP header.
    pub family: Family,
    /// What the IP header carries.
    pub transport: Transport,
    /// The IP header.
    pub ip_at: usize,
    /// The UDP or TCP header.
    pub transport_at: usize,
    /// Bytes from the IP header to the end of the IP packet, as the header says.
    pub ip_len: usize,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// Why there are no ports to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Not IP, or neither UDP nor TCP: nothing that could be DNS.
    Other,
    /// A fragment of a UDP datagram: the question may not be in it.
    Fragment,
    /// A header that contradicts itself or is cut short.
    Malformed,
}

/// What a glance at a frame tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// It is nothing that could be DNS.
    Other,
    /// It is a segment with these ports.
    Segment(Ports),
    /// It is a datagram with these ports, whose headers have neither options nor extensions.
    Datagram(Family, Ports),
    /// Only a walk tells.
    Unclear,
}

/// Source and destination port as they lie in a packet, the first of the four bytes least significant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports(pub u32);

impl Ports {
    /// The ports of these numbers.
    #[inline(always)]
    pub const fn new(source: u16, destination: u16) -> Self {
        Self(source.swap_bytes() as u32 | (destination.swap_bytes() as u32) << 16)
    }

    /// Both modulo 64.
    #[inline(always)]
    pub const fn modulo_64(self) -> [u32; 2] {
        [self.0 >> 8 & 63, self.0 >> 24 & 63]
    }
}

/// Tells in a few steps what most frames are. A walk says the same.
#[inline(always)]
pub fn glance<B: Bytes + ?Sized>(frame: &B) -> Glance {
    // The type, and the first two bytes of what follows it; bytes 6 to 9 of that; the ports over IPv4.
    let places = [EthHdr::LEN - 2, EthHdr::LEN + 6, EthHdr::LEN + Ipv4Hdr::LEN];
    let Some([kind, middle, ports]) = frame.le32s_at(places) else {
        return Glance::Unclear;
    };
    if kind & 0x00ff_ffff == PLAIN_V4 {
        // Whether it is a fragment, and the protocol, in one look.
        return match middle & (FRAGMENT | 0xff << 24) {
            WHOLE_UDP => Glance::Datagram(Family::V4, Ports(ports)),
            WHOLE_TCP => Glance::Segment(Ports(ports)),
            other if other & FRAGMENT == 0 => Glance::Other,
            _ => Glance::Unclear,
        };
    }
    if kind & 0x00f0_ffff == PLAIN_V6 {
        let Some([ports]) = frame.le32s_at([EthHdr::LEN + Ipv6Hdr::LEN]) else {
            return Glance::Unclear;
        };
        return match middle as u8 {
            PROTOCOL_UDP => Glance::Datagram(Family::V6, Ports(ports)),
            PROTOCOL_TCP => Glance::Segment(Ports(ports)),
            PROTOCOL_HOP_BY_HOP | PROTOCOL_ROUTING | PROTOCOL_FRAGMENT | PROTOCOL_DESTINATION_OPTIONS => {
                Glance::Unclear
            }
            _ => Glance::Other,
        };
    }
    match (kind as u16).swap_bytes() {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 | ETHERTYPE_8021Q | ETHERTYPE_8021AD => Glance::Unclear,
        _ => Glance::Other,
    }
}

impl Packet {
    /// Walks the headers of an Ethernet frame.
    #[inline(always)]
    pub fn walk<B: Bytes + ?Sized>(frame: &B) -> Result<Self, Stop> {
        let (ethertype, at) = ip_header(frame).ok_or(Stop::Other)?;
        match ethertype {
            ETHERTYPE_IPV4 => Self::walk_v4(frame, at),
            ETHERTYPE_IPV6 => Self::walk_v6(frame, at),
            _ => Err(Stop::Other),
        }
    }

    #[inline(always)]
    fn walk_v4<B: Bytes + ?Sized>(frame: &B, ip_at: usize) -> Result<Self, Stop> {
        // The fixed header and, where nothing lies between, the ports.
        let Some([first, second, third]) = frame.le64s::<3>(ip_at) else {
            return Err(Self::short_v4(frame, ip_at));
        };
        let protocol = (second >> 8) as u8;
        let transport = transport(protocol).ok_or(Stop::Other)?;
        let header_len = (first & 0x0f) as usize * 4;
        if first as u8 >> 4 != 4 || header_len < Ipv4Hdr::LEN {
            return Err(Stop::Malformed);
        }
        if first & FRAGMENT_V4 != 0 {
            return Err(fragment(transport));
        }
        let mut packet = Self {
            family: Family::V4,
            transport,
            ip_at,
            transport_at: ip_at + header_len,
            ip_len: ((first >> 16) as u16).swap_bytes() as usize,
            source_port: ((third >> 32) as u16).swap_bytes(),
            destination_port: ((third >> 48) as u16).swap_bytes(),
        };
        if header_len != Ipv4Hdr::LEN {
            packet.read_ports(frame)?;
        }
        Ok(packet)
    }

    /// Why a packet is not walked that ends in front of its ports.
    #[inline(always)]
    fn short_v4<B: Bytes + ?Sized>(frame: &B, ip_at: usize) -> Stop {
        let (Some(first), Some(protocol)) = (frame.le64(ip_at), frame.u8(ip_at + 9)) else {
            return Stop::Malformed;
        };
        match transport(protocol) {
            None => Stop::Other,
            // The last fragment of a datagram may be that short.
            Some(transport) if first as u8 >= 0x45 && first as u8 >> 4 == 4 && first & FRAGMENT_V4 != 0 => {
                fragment(transport)
            }
            Some(_) => Stop::Malformed,
        }
    }

    #[inline(always)]
    fn walk_v6<B: Bytes + ?Sized>(frame: &B, ip_at: usize) -> Result<Self, Stop> {
        let mut next = frame.u8(ip_at + 6).ok_or(Stop::Malformed)?;
        if frame.u8(ip_at).ok_or(Stop::Malformed)? >> 4 != 6 {
            return Err(Stop::Malformed);
        }
        let mut at = ip_at + Ipv6Hdr::LEN;
        for _ in 0..MAX_EXTENSION_HEADERS {
            if !matches!(
                next,
                PROTOCOL_HOP_BY_HOP | PROTOCOL_ROUTING | PROTOCOL_DESTINATION_OPTIONS
            ) {
                break;
            }
            next = frame.u8(at).ok_or(Stop::Malformed)?;
            at += (frame.u8(at + 1).ok_or(Stop::Malformed)? as usize + 1) * 8;
        }
        if next == PROTOCOL_FRAGMENT {
            let carried = frame.u8(at).ok_or(Stop::Malformed)?;
            return Err(transport(carried).map_or(Stop::Other, fragment));
        }
        let transport = transport(next).ok_or(Stop::Other)?;
        let ip_len = frame.be16(ip_at + 4).ok_or(Stop::Malformed)? as usize + Ipv6Hdr::LEN;
        let mut packet = Self {
            family: Family::V6,
            transport,
            ip_at,
            transport_at: at,
            ip_len,
            source_port: 0,
            destination_port: 0,
        };
        packet.read_ports(frame)?;
        Ok(packet)
    }

    #[inline(always)]
    fn read_ports<B: Bytes + ?Sized>(&mut self, frame: &B) -> Result<(), Stop> {
        self.source_port = frame.be16(self.transport_at).ok_or(Stop::Malformed)?;
        self.destination_port = frame.be16(self.transport_at + 2).ok_or(Stop::Malformed)?;
        Ok(())
    }

    /// Whether this TCP segment opens a connection: SYN without ACK (RFC 9293 section 3.1).
    #[inline(always)]
    pub fn opens_connection<B: Bytes + ?Sized>(&self, frame: &B) -> bool {
        matches!(frame.u8(self.transport_at + 13), Some(flags) if flags & (TCP_SYN | TCP_ACK) == TCP_SYN)
    }

    /// The offsets of the first byte of the UDP payload and of the byte after its last one. `None` where the lengths
    /// in the headers contradict each other.
    #[inline(always)]
    pub fn payload<B: Bytes + ?Sized>(&self, frame: &B) -> Option<(usize, usize)> {
        let udp_len = frame.be16(self.transport_at + 4)? as usize;
        let start = self.transport_at + UdpHdr::LEN;
        if udp_len < UdpHdr::LEN || self.transport_at + udp_len > self.ip_at + self.ip_len {
            return None;
        }
        Some((start, self.transport_at + udp_len))
    }

    /// Bytes of TCP payload in this segment.
    #[inline(always)]
    pub fn segment_len<B: Bytes + ?Sized>(&self, frame: &B) -> Option<usize> {
        let header_len = (frame.u8(self.transport_at + 12)? >> 4) as usize * 4;
        if header_len < TcpHdr::LEN {
            return None;
        }
        (self.ip_at + self.ip_len).checked_sub(self.transport_at + header_len)
    }

    /// Its ports.
    #[inline(always)]
    pub const fn ports(&self) -> Ports {
        Ports::new(self.source_port, self.destination_port)
    }

    /// Source and destination address.
    #[inline(always)]
    pub fn addresses<B: Bytes + ?Sized>(&self, frame: &B) -> Option<(Address, Address)> {
        addresses_at(frame, self.ip_at, self.family)
    }

    /// Whether anything lies between the fixed IP header and the transport header.
    #[inline(always)]
    pub const fn has_ip_options(&self) -> bool {
        let fixed = match self.family {
            Family::V4 => Ipv4Hdr::LEN,
            Family::V6 => Ipv6Hdr::LEN,
        };
        self.transport_at != self.ip_at + fixed
    }
}

/// Source and destination address in an IP header of this family that begins at `at`.
#[inline(always)]
pub fn addresses_at<B: Bytes + ?Sized>(frame: &B, at: usize, family: Family) -> Option<(Address, Address)> {
    match family {
        Family::V4 => {
            let both = frame.le64(at + 12)?;
            Some((
                Address::v4((both as u32).to_le()),
                Address::v4(((both >> 32) as u32).to_le()),
            ))
        }
        Family::V6 => {
            let [first, second, third, fourth] = frame.le64s(at + 8)?;
            Some((Address::v6(first, second), Address::v6(third, fourth)))
        }
    }
}

/// Where an IP packet goes, whatever it carries, fragments too. `None` if it is no IP packet.
#[inline(always)]
pub fn destination<B: Bytes + ?Sized>(frame: &B) -> Option<Address> {
    let (ethertype, at) = ip_header(frame)?;
    match ethertype {
        ETHERTYPE_IPV4 => Some(Address::v4(frame.ne32(at + 16)?)),
        ETHERTYPE_IPV6 => Some(Address([
            frame.ne32(at + 24)?,
            frame.ne32(at + 28)?,
            frame.ne32(at + 32)?,
            frame.ne32(at + 36)?,
        ])),
        _ => None,
    }
}

/// The EtherType behind the VLAN tags, and where what it announces begins.
#[inline(always)]
fn ip_header<B: Bytes + ?Sized>(frame: &B) -> Option<(u16, usize)> {
    let mut at = EthHdr::LEN;
    let mut ethertype = frame.be16(at - 2)?;
    for _ in 0..MAX_VLAN_TAGS {
        if ethertype != ETHERTYPE_8021Q && ethertype != ETHERTYPE_8021AD {
            break;
        }
        ethertype = frame.be16(at + 2)?;
        at += VLAN_TAG_LEN;
    }
    Some((ethertype, at))
}

/// What a fragment is to the walk: of a datagram, a question may be in another one.
#[inline(always)]
const fn fragment(transport: Transport) -> Stop {
    match transport {
        Transport::Udp => Stop::Fragment,
        Transport::Tcp => Stop::Other,
    }
}

#[inline(always)]
const fn transport(protocol: u8) -> Option<Transport> {
    match protocol {
        PROTOCOL_UDP => Some(Transport::Udp),
        PROTOCOL_TCP => Some(Transport::Tcp),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
