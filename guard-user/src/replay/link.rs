//! Link types: from what a packet was captured with to the Ethernet frame that the judge walks.
//!
//! <https://www.tcpdump.org/linktypes.html> has the numbers and the layouts. What lies behind a link header stays as it is,
//! VLAN tags too.

const NULL: u32 = 0;
const ETHERNET: u32 = 1;
/// DLT_RAW, which is 12 or 14 where it is no link type.
const RAW_IP: [u32; 3] = [12, 14, 101];
const LOOP: u32 = 108;
const LINUX_SLL: u32 = 113;
const IPV4: u32 = 228;
const IPV6: u32 = 229;
const LINUX_SLL2: u32 = 276;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// The addresses in an Ethernet header, which say nothing here.
const NO_STATIONS: [u8; 12] = [0; 12];
/// AF_INET is 2 everywhere. AF_INET6: Linux, NetBSD and OpenBSD, FreeBSD, macOS.
const AF_INET: u32 = 2;
const AF_INET6: [u32; 4] = [10, 24, 28, 30];
/// `ARPHRD_LOOPBACK` and `PACKET_OUTGOING` of Linux.
const LOOPBACK_DEVICE: [u8; 2] = [0x03, 0x04];
const OUTGOING: u8 = 4;

/// What a link header tells beside what is in the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Whether the interface is a loopback interface.
    pub(super) loopback: bool,
    /// The index that the interface had.
    pub(super) ifindex: Option<u32>,
    /// Whether the packet was leaving.
    pub(super) outgoing: Option<bool>,
}

/// Makes an Ethernet frame of a captured packet; it is empty if the packet is cut off within its link header. `None` for a
/// link type that is not known.
pub(super) fn ethernet(link: u32, data: &[u8], frame: &mut Vec<u8>) -> Option<Told> {
    frame.clear();
    let told = match link {
        ETHERNET => {
            frame.extend_from_slice(data);
            Some(Told {
                loopback: data.starts_with(&NO_STATIONS),
                ..Told::default()
            })
        }
        NULL | LOOP => null(link, data, frame),
        LINUX_SLL => sll(data, frame),
        LINUX_SLL2 => sll2(data, frame),
        IPV4 => Some(wrap(ETHERTYPE_IPV4, data, frame)),
        IPV6 => Some(wrap(ETHERTYPE_IPV6, data, frame)),
        raw if RAW_IP.contains(&raw) => data.first().map(|first| match first >> 4 {
            6 => wrap(ETHERTYPE_IPV6, data, frame),
            _ => wrap(ETHERTYPE_IPV4, data, frame),
        }),
        _ => return None,
    };
    Some(told.unwrap_or_default())
}

/// The name of a link type, as far as it is one that people meet.
pub(super) fn name(link: u32) -> String {
    let name = match link {
        6 => "token ring",
        9 | 50 | 51 => "PPP",
        105 => "802.11",
        127 => "802.11 with radiotap",
        147..=162 => "reserved for private use",
        192 => "PPI",
        239 => "NFLOG",
        249 | 189 | 220 => "USB",
        252 => "exported by Wireshark",
        253 => "netlink",
        _ => return format!("link type {link}"),
    };
    format!("link type {link} ({name})")
}

/// Four bytes of an address family, in the order of the host that captured it, which may be another one's.
fn null(link: u32, data: &[u8], frame: &mut Vec<u8>) -> Option<Told> {
    let (family, packet) = data.split_first_chunk::<4>()?;
    let family = match u32::from_be_bytes(*family) {
        // No family is that high.
        swapped if link == NULL && swapped > 0xffff => swapped.swap_bytes(),
        family => family,
    };
    let ethertype = match family {
        AF_INET => ETHERTYPE_IPV4,
        v6 if AF_INET6.contains(&v6) => ETHERTYPE_IPV6,
        _ => return None,
    };
    Some(Told {
        loopback: true,
        ..wrap(ethertype, packet, frame)
    })
}

/// Packet type, device type, length of the address, address (8), EtherType.
fn sll(data: &[u8], frame: &mut Vec<u8>) -> Option<Told> {
    let (header, packet) = data.split_first_chunk::<16>()?;
    wrap([header[14], header[15]], packet, frame);
    Some(Told {
        loopback: header[2..4] == LOOPBACK_DEVICE,
        ifindex: None,
        outgoing: Some(header[..2] == [0, OUTGOING]),
    })
}

/// EtherType, nothing (2), interface index, device type, packet type, length of the address, address (8).
fn sll2(data: &[u8], frame: &mut Vec<u8>) -> Option<Told> {
    let (header, packet) = data.split_first_chunk::<20>()?;
    wrap([header[0], header[1]], packet, frame);
    Some(Told {
        loopback: header[8..10] == LOOPBACK_DEVICE,
        ifindex: Some(u32::from_be_bytes([header[4], header[5], header[6], header[7]])),
        outgoing: Some(header[10] == OUTGOING),
    })
}

fn wrap(ethertype: [u8; 2], packet: &[u8], frame: &mut Vec<u8>) -> Told {
    frame.extend_from_slice(&NO_STATIONS);
    frame.extend_from_slice(&ethertype);
    frame.extend_from_slice(packet);
    Told::default()
}
