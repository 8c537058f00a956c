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
        let protocol = frame.u8(ip_at + 9).ok_or(Stop::Malformed)?;
        let transport = transport(protocol).ok_or(Stop::Other)?;
        let first = frame.u8(ip_at).ok_or(Stop::Malformed)?;
        let header_len = (first & 0x0f) as usize * 4;
        if first >> 4 != 4 || header_len < Ipv4Hdr::LEN {
            return Err(Stop::Malformed);
        }
        // More fragments to come, or an offset into a datagram that began elsewhere (RFC 791 section 3.1).
        if frame.be16(ip_at + 6).ok_or(Stop::Malformed)? & 0x3fff != 0 {
            return Err(if protocol == PROTOCOL_UDP {
                Stop::Fragment
            } else {
                Stop::Other
            });
        }
        let ip_len = frame.be16(ip_at + 2).ok_or(Stop::Malformed)? as usize;
        Self::ports(frame, Family::V4, transport, ip_at, ip_at + header_len, ip_len)
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
            return Err(if carried == PROTOCOL_UDP {
                Stop::Fragment
            } else {
                Stop::Other
            });
        }
        let transport = transport(next).ok_or(Stop::Other)?;
        let ip_len = frame.be16(ip_at + 4).ok_or(Stop::Malformed)? as usize + Ipv6Hdr::LEN;
        Self::ports(frame, Family::V6, transport, ip_at, at, ip_len)
    }

    #[inline(always)]
    fn ports<B: Bytes + ?Sized>(
        frame: &B,
        family: Family,
        transport: Transport,
        ip_at: usize,
        transport_at: usize,
        ip_len: usize,
    ) -> Result<Self, Stop> {
        Ok(Self {
            family,
            transport,
            ip_at,
            transport_at,
            ip_len,
            source_port: frame.be16(transport_at).ok_or(Stop::Malformed)?,
            destination_port: frame.be16(transport_at + 2).ok_or(Stop::Malformed)?,
        })
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

    /// Source and destination address.
    #[inline(always)]
    pub fn addresses<B: Bytes + ?Sized>(&self, frame: &B) -> Option<(Address, Address)> {
        let at = self.ip_at;
        match self.family {
            Family::V4 => Some((Address::v4(frame.ne32(at + 12)?), Address::v4(frame.ne32(at + 16)?))),
            Family::V6 => Some((
                Address([
                    frame.ne32(at + 8)?,
                    frame.ne32(at + 12)?,
                    frame.ne32(at + 16)?,
                    frame.ne32(at + 20)?,
                ]),
                Address([
                    frame.ne32(at + 24)?,
                    frame.ne32(at + 28)?,
                    frame.ne32(at + 32)?,
                    frame.ne32(at + 36)?,
                ]),
            )),
        }
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
