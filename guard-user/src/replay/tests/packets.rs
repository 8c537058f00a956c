//! DNS packets, and a loop made of them.

use super::file::Packet;

/// When the captures here begin.
pub(in crate::replay) const START_NS: u64 = 1_795_000_000_000_000_000;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replay) enum Family {
    V4,
    V6,
}

/// A query in its IP packet. Hosts are numbers: 127.0.0.N or fd00::N.
pub(in crate::replay) fn query(family: Family, from: (u8, u16), to: (u8, u16), id: u16, name: &str) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    udp(family, from, to, &message)
}

/// A UDP datagram in its IP packet.
pub(in crate::replay) fn udp(family: Family, from: (u8, u16), to: (u8, u16), payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let host = |number: u8| match family {
        Family::V4 => vec![127, 0, 0, number],
        Family::V6 => {
            let mut address = vec![0xfd];
            address.resize(15, 0);
            address.push(number);
            address
        }
    };
    let mut packet = match family {
        Family::V4 => {
            let mut header = vec![0x45, 0];
            header.extend((20 + length).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            header
        }
        Family::V6 => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([17, 64]);
            header
        }
    };
    packet.extend([host(from.0), host(to.0)].concat());
    for number in [from.1, to.1, length, 0] {
        packet.extend(number.to_be_bytes());
    }
    packet.extend_from_slice(payload);
    packet
}

/// A client asks, and two forwarders send the question to each other, with one ID and from one socket each: an IP packet
/// every 200 us.
pub(in crate::replay) fn looped(family: Family, hops: usize) -> Vec<Packet> {
    let client = query(family, (1, 40_000), (1, 53), 7, "x.consul.");
    let hop = |number: usize| {
        let (from, to) = if number.is_multiple_of(2) { (1, 2) } else { (2, 1) };
        query(family, (from, 50_000 + u16::from(from)), (to, 53), 0xbeef, "x.consul.")
    };
    let all = [client].into_iter().chain((0..hops).map(hop));
    (START_NS..)
        .step_by(200_000)
        .zip(all)
        .map(|(at_ns, data)| Packet::new(at_ns, data))
        .collect()
}
