//! Frames: Ethernet up to UDP and TCP, with tags, options, extension headers, fragments, and lengths that do not fit.

use guard_sim::random::Random;

use super::Chance as _;

/// Ports that a policy knows, those of clients, and those of systems.
const PORTS: [u16; 8] = [53, 53, 53, 8_600, 40_000, 1_024, 1_023, 5_353];

/// Who sends, and who receives: the last byte of an address, and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// Whether over IPv6.
    pub(crate) v6: bool,
    /// The sender.
    pub(crate) from: (u8, u16),
    /// The receiver.
    pub(crate) to: (u8, u16),
}

impl Ends {
    /// Those of the response.
    pub(crate) const fn back(self) -> Self {
        Self {
            v6: self.v6,
            from: self.to,
            to: self.from,
        }
    }
}

/// The frame of a datagram, plain and right in every respect.
pub(crate) fn frame_between(ends: Ends, payload: &[u8]) -> Vec<u8> {
    Layers {
        ends,
        ..Layers::default()
    }
    .around(payload)
}

/// A frame with this payload, with whatever may lie in front of it.
pub(crate) fn frame(random: &mut Random, payload: &[u8]) -> Vec<u8> {
    let mut frame = Layers::draw(random).around(payload);
    match random.below(12) {
        0 => super::spoil(random, &mut frame),
        1 => {
            // Ethernet pads short frames.
            let count = random.between(1, 40);
            let padding = random.bytes(count);
            frame.extend(padding);
        }
        2 => {
            let at = random.below(frame.len() as u64 + 1) as usize;
            frame.truncate(at);
        }
        _ => {}
    }
    frame
}

/// What stands in the place of the UDP checksum.
#[derive(Clone, Copy, Debug)]
enum Sum {
    Right,
    /// There is none.
    Zero,
    /// Of the pseudo header: the card is to add the rest.
    Partial,
    Wrong(u16),
}

/// What lies in front of a payload.
#[derive(Clone, Debug)]
struct Layers {
    /// EtherType and tag of each VLAN.
    tags: Vec<(u16, u16)>,
    ends: Ends,
    /// Bytes of IPv4 options: a multiple of four up to 40.
    options: usize,
    /// Extension headers: the kind, and eight bytes more than one.
    extensions: Vec<(u8, u8)>,
    /// The flags and offset of a fragment.
    fragment: u16,
    /// The protocol, if it is not UDP.
    protocol: u8,
    /// By how much the lengths of IP and UDP are off.
    off: (i16, i16),
    sum: Sum,
}

impl Default for Layers {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            ends: Ends {
                v6: false,
                from: (1, 40_000),
                to: (2, 53),
            },
            options: 0,
            extensions: Vec::new(),
            fragment: 0,
            protocol: 17,
            off: (0, 0),
            sum: Sum::Right,
        }
    }
}

impl Layers {
    fn draw(random: &mut Random) -> Self {
        let mut layers = Self {
            ends: Ends {
                v6: random.once_in(2),
                from: (random.pick(&[1, 2, 3, 9]), random.pick(&PORTS)),
                to: (random.pick(&[1, 2, 3, 9]), random.pick(&PORTS)),
            },
            ..Self::default()
        };
        if random.once_in(3) {
            let count = random.pick(&[1, 1, 2, 2, 3]);
            layers.tags = (0..count)
                .map(|_| (random.pick(&[0x8100, 0x88a8]), random.next() as u16))
                .collect();
        }
        if random.once_in(5) {
            layers.options = random.between(1, 10) * 4;
            let count = random.between(1, 5);
            layers.extensions = (0..count)
                .map(|_| (random.pick(&[0, 43, 60, 60, 51, 44]), random.pick(&[0, 0, 1, 4, 255])))
                .collect();
        }
        match random.below(24) {
            0 => layers.fragment = random.pick(&[0x2000, 1, 0x2005, 0x4000]),
            1 => layers.protocol = random.pick(&[6, 6, 1, 47, 132]),
            2 => layers.off.0 = random.pick(&[-40, -8, -1, 1, 8, 100]),
            3 => layers.off.1 = random.pick(&[-40, -8, -1, 1, 8, 100]),
            4 => layers.sum = Sum::Zero,
            5 => layers.sum = Sum::Partial,
            6 => layers.sum = Sum::Wrong(random.next() as u16),
            _ => {}
        }
        layers
    }

    fn around(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, self.ends.to.0, 2, 0, 0, 0, 0, self.ends.from.0];
        for (kind, tag) in &self.tags {
            frame.extend_from_slice(&kind.to_be_bytes());
            frame.extend_from_slice(&tag.to_be_bytes());
        }
        let transport = self.transport(payload);
        if self.ends.v6 {
            self.v6(&mut frame, transport.len());
        } else {
            self.v4(&mut frame, transport.len());
        }
        frame.extend_from_slice(&transport);
        frame
    }

    fn v4(&self, frame: &mut Vec<u8>, carried: usize) {
        frame.extend_from_slice(&[8, 0]);
        let at = frame.len();
        let total = ((20 + self.options + carried) as u16).wrapping_add_signed(self.off.0);
        frame.extend_from_slice(&[0x45 + (self.options / 4) as u8, 0]);
        frame.extend_from_slice(&total.to_be_bytes());
        frame.extend_from_slice(&[0x12, 0x34]);
        frame.extend_from_slice(&self.fragment.to_be_bytes());
        frame.extend_from_slice(&[63, self.protocol, 0, 0]);
        let (source, destination) = self.addresses();
        frame.extend_from_slice(&source);
        frame.extend_from_slice(&destination);
        frame.extend(vec![1; self.options]);
        let sum = !folded(total_of(&frame[at..]));
        frame[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
    }

    fn v6(&self, frame: &mut Vec<u8>, carried: usize) {
        let mut chain = Vec::new();
        let fragments = (self.fragment != 0).then_some((44, 0));
        let headers: Vec<(u8, u8)> = self.extensions.iter().copied().chain(fragments).collect();
        for (index, (kind, more)) in headers.iter().enumerate() {
            let next = headers.get(index + 1).map_or(self.protocol, |(kind, _)| *kind);
            chain.extend_from_slice(&[next, *more]);
            let rest = if *kind == 44 { 6 } else { 6 + usize::from(*more) * 8 };
            chain.extend(vec![0; rest]);
        }
        frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
        let carried = ((chain.len() + carried) as u16).wrapping_add_signed(self.off.0);
        frame.extend_from_slice(&carried.to_be_bytes());
        frame.extend_from_slice(&[headers.first().map_or(self.protocol, |(kind, _)| *kind), 63]);
        let (source, destination) = self.addresses();
        frame.extend_from_slice(&source);
        frame.extend_from_slice(&destination);
        frame.extend(chain);
    }

    fn transport(&self, payload: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(payload.len() + 20);
        datagram.extend_from_slice(&self.ends.from.1.to_be_bytes());
        datagram.extend_from_slice(&self.ends.to.1.to_be_bytes());
        if self.protocol == 6 {
            datagram.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0x50, self.ends.from.0, 2, 0, 0, 0, 0, 0]);
            datagram.extend_from_slice(payload);
            return datagram;
        }
        let length = (8 + payload.len()) as u16;
        datagram.extend_from_slice(&length.wrapping_add_signed(self.off.1).to_be_bytes());
        datagram.extend_from_slice(&[0, 0]);
        datagram.extend_from_slice(payload);
        let (source, destination) = self.addresses();
        let pseudo = total_of(&source) + total_of(&destination) + u64::from(length) + 17;
        let sum = match self.sum {
            Sum::Right => match !folded(pseudo + total_of(&datagram)) {
                0 => 0xffff,
                sum => sum,
            },
            Sum::Zero => 0,
            Sum::Partial => folded(pseudo),
            Sum::Wrong(sum) => sum,
        };
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        datagram
    }

    fn addresses(&self) -> (Vec<u8>, Vec<u8>) {
        let address = |last: u8| {
            if self.ends.v6 {
                vec![0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
            } else if last == 9 {
                // In no range that is trusted.
                vec![198, 51, 100, 9]
            } else {
                vec![192, 0, 2, last]
            }
        };
        (address(self.ends.from.0), address(self.ends.to.0))
    }
}

/// The sum of 16-bit words (RFC 1071).
fn total_of(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u64::from(*byte)))
        .sum()
}

fn folded(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}
