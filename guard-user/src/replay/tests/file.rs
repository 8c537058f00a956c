//! Captures as bytes, written by hand after the formats' own descriptions.

/// The order of bytes in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replay) enum Order {
    Little,
    Big,
}

/// A packet that is to be written.
#[derive(Clone, Debug)]
pub(in crate::replay) struct Packet {
    /// Nanoseconds since 1970.
    pub(in crate::replay) at_ns: u64,
    pub(in crate::replay) data: Vec<u8>,
    /// Bytes that are cut off at its end.
    pub(in crate::replay) cut: usize,
}

impl Order {
    pub(in crate::replay) fn u16(self, number: u16) -> [u8; 2] {
        match self {
            Self::Little => number.to_le_bytes(),
            Self::Big => number.to_be_bytes(),
        }
    }

    pub(in crate::replay) fn u32(self, number: u32) -> [u8; 4] {
        match self {
            Self::Little => number.to_le_bytes(),
            Self::Big => number.to_be_bytes(),
        }
    }
}

impl Packet {
    pub(in crate::replay) fn new(at_ns: u64, data: Vec<u8>) -> Self {
        Self { at_ns, data, cut: 0 }
    }

    fn captured(&self) -> &[u8] {
        &self.data[..self.data.len() - self.cut]
    }
}

/// A pcap file; `unit_ns` is 1 or 1000.
pub(in crate::replay) fn pcap(order: Order, unit_ns: u64, link: u32, packets: &[Packet]) -> Vec<u8> {
    let magic = if unit_ns == 1 { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let mut file = order.u32(magic).to_vec();
    file.extend([order.u16(2), order.u16(4)].concat());
    for number in [0, 0, 262_144, link] {
        file.extend(order.u32(number));
    }
    for packet in packets {
        let (seconds, ns) = (packet.at_ns / 1_000_000_000, packet.at_ns % 1_000_000_000);
        let lengths = [packet.captured().len() as u32, packet.data.len() as u32];
        for number in [seconds as u32, (ns / unit_ns) as u32].into_iter().chain(lengths) {
            file.extend(order.u32(number));
        }
        file.extend_from_slice(packet.captured());
    }
    file
}

/// A block of a pcapng file.
pub(in crate::replay) fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let padding = body.len().next_multiple_of(4) - body.len();
    let length = order.u32((12 + body.len() + padding) as u32);
    [&order.u32(kind), &length, body, &[0; 3][..padding], &length].concat()
}

/// The head of a section.
pub(in crate::replay) fn section(order: Order) -> Vec<u8> {
    let body = [&order.u32(0x1a2b_3c4d)[..], &order.u16(1), &order.u16(0), &[0xff; 8]];
    block(order, 0x0a0d_0d0a, &body.concat())
}

/// An option of a block.
pub(in crate::replay) fn option(order: Order, code: u16, value: &[u8]) -> Vec<u8> {
    let padding = value.len().next_multiple_of(4) - value.len();
    [
        &order.u16(code)[..],
        &order.u16(value.len() as u16),
        value,
        &[0; 3][..padding],
    ]
    .concat()
}

/// The description of an interface, with such options.
pub(in crate::replay) fn interface(order: Order, link: u16, options: &[Vec<u8>]) -> Vec<u8> {
    let mut body = [&order.u16(link)[..], &[0; 2], &order.u32(0)].concat();
    body.extend(options.concat());
    body.extend(option(order, 0, &[]));
    block(order, 1, &body)
}

/// An Enhanced Packet Block with a stamp in units of its interface, with such options.
pub(in crate::replay) fn enhanced(order: Order, id: u32, stamp: u64, packet: &Packet, options: &[Vec<u8>]) -> Vec<u8> {
    let data = packet.captured();
    let mut body = Vec::new();
    let lengths = [data.len() as u32, packet.data.len() as u32];
    for number in [id, (stamp >> 32) as u32, stamp as u32].into_iter().chain(lengths) {
        body.extend(order.u32(number));
    }
    body.extend_from_slice(data);
    body.resize(body.len().next_multiple_of(4), 0);
    if !options.is_empty() {
        body.extend(options.concat());
        body.extend(option(order, 0, &[]));
    }
    block(order, 6, &body)
}

/// A Simple Packet Block.
pub(in crate::replay) fn simple(order: Order, packet: &Packet) -> Vec<u8> {
    let body = [&order.u32(packet.data.len() as u32)[..], packet.captured()].concat();
    block(order, 3, &body)
}
