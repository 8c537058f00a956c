//! What the kernel tells the agent through the ring buffer.

/// Bytes that an event has for a name in wire form.
pub const NAME_ROOM: usize = 256;

/// One event; the bytes of the ring buffer entry are this struct.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Nanoseconds of the monotonic clock (coarse).
    pub at_ns: u64,
    /// The key.
    pub key: u64,
    /// The interface on which the packet was seen.
    pub ifindex: u32,
    /// Ticks since the first hop that spoke for a loop.
    pub age_ticks: u32,
    /// Length of the hold in ticks.
    pub hold_ticks: u32,
    /// Queries held in the hold.
    pub held: u32,
    /// A [`crate::judge::Note`].
    pub note: u8,
    /// A [`crate::judge::Evidence`].
    pub evidence: u8,
    /// A [`crate::remedy::Verdict`].
    pub verdict: u8,
    /// 1 where the packet was leaving.
    pub egress: u8,
    /// Hops that nobody had answered.
    pub hops: u16,
    /// Those of them that went to a server which already had the question.
    pub recirculated: u16,
    /// Source port of the packet.
    pub source_port: u16,
    /// Destination port of the packet.
    pub destination_port: u16,
    /// The DNS ID.
    pub id: u16,
    /// The QTYPE.
    pub qtype: u16,
    /// The QCLASS.
    pub qclass: u16,
    /// Bytes of the name that count.
    pub name_len: u16,
    /// Bits of the proof, if it is one.
    pub bits: u16,
    /// 1 where the pace speaks for a loop as well.
    pub rapid: u16,
    /// Source address of the packet, IPv4 mapped.
    pub source: [u32; 4],
    /// Destination address of the packet, IPv4 mapped.
    pub destination: [u32; 4],
    /// The name in wire form, as the packet had it. What follows `name_len` is left over from earlier events.
    pub name: [u8; NAME_ROOM],
}

const _: () = assert!(size_of::<Event>() == 344 && align_of::<Event>() == 8);

impl Event {
    /// Reads an event from the bytes of a ring buffer entry. `None` unless the length fits.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut words = bytes.chunks_exact(8);
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        let mut word = || {
            let chunk = words.next().and_then(|chunk| chunk.first_chunk::<8>());
            chunk.copied().unwrap_or_default()
        };
        let half =
            |bytes: [u8; 8], at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let quarter = |bytes: [u8; 8], at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let (at_ns, key) = (u64::from_ne_bytes(word()), u64::from_ne_bytes(word()));
        let (first, second) = (word(), word());
        let (third, fourth, fifth) = (word(), word(), word());
        let addresses = [word(), word(), word(), word()];
        let mut name = [0; NAME_ROOM];
        for chunk in name.chunks_exact_mut(8) {
            chunk.copy_from_slice(&word());
        }
        Some(Self {
            at_ns,
            key,
            ifindex: half(first, 0),
            age_ticks: half(first, 4),
            hold_ticks: half(second, 0),
            held: half(second, 4),
            note: third[0],
            evidence: third[1],
            verdict: third[2],
            egress: third[3],
            hops: quarter(third, 4),
            recirculated: quarter(third, 6),
            source_port: quarter(fourth, 0),
            destination_port: quarter(fourth, 2),
            id: quarter(fourth, 4),
            qtype: quarter(fourth, 6),
            qclass: quarter(fifth, 0),
            name_len: quarter(fifth, 2),
            bits: quarter(fifth, 4),
            rapid: quarter(fifth, 6),
            source: [
                half(addresses[0], 0),
                half(addresses[0], 4),
                half(addresses[1], 0),
                half(addresses[1], 4),
            ],
            destination: [
                half(addresses[2], 0),
                half(addresses[2], 4),
                half(addresses[3], 0),
                half(addresses[3], 4),
            ],
            name,
        })
    }

    /// The name in wire form.
    pub fn wire_name(&self) -> &[u8] {
        self.name.get(..self.name_len as usize).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests;
