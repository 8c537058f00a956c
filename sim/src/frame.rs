//! Packets as frames: Ethernet, IPv4, UDP, DNS.

use crate::{
    name::{Caps, Name},
    packet::{Kind, Packet},
};

/// Where the name lies: behind 14 bytes of Ethernet, 20 of IPv4, 8 of UDP and 12 of DNS.
const NAME_AT: usize = 14 + 20 + 8 + 12;

/// Writes a packet for `name`, type A, into `frame`. Addresses are in the /16 that begins with `network`.
pub fn write(frame: &mut Vec<u8>, packet: &Packet, name: &Name, network: [u8; 2]) {
    let udp_len = (8 + 12 + name.wire().len() + 4) as u16;
    frame.clear();
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&(20 + udp_len).to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    for end in [packet.from, packet.to] {
        frame.extend_from_slice(&network);
        frame.extend_from_slice(&end.address.to_be_bytes());
    }
    frame.extend_from_slice(&packet.from.port.to_be_bytes());
    frame.extend_from_slice(&packet.to.port.to_be_bytes());
    frame.extend_from_slice(&udp_len.to_be_bytes());
    // No checksum: nobody on this network looks at it.
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(&packet.id.to_be_bytes());
    let flags: u16 = match packet.kind {
        Kind::Query => 0x0100,
        Kind::Answer => 0x8180,
        Kind::Error => 0x8182,
    };
    frame.extend_from_slice(&flags.to_be_bytes());
    frame.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    name.write(packet.caps, frame);
    frame.extend_from_slice(&[0, 1, 0, 1]);
}

/// How the name in a frame is spelled.
pub fn caps(frame: &[u8], name: &Name) -> Caps {
    name.read(&frame[NAME_AT..NAME_AT + name.wire().len()])
}
