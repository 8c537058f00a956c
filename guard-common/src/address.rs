//! Addresses of either family in one form.

use crate::{choice, key::Secret};

/// An IPv6 address, or an IPv4 address mapped into `::ffff:0:0/96` (RFC 4291 section 2.5.5.2): four words that hold
/// the sixteen bytes in the order in which they go over the wire.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address(pub [u32; 4]);

/// The word `00 00 ff ff` that marks a mapped IPv4 address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    /// An IPv4 address from its four bytes as they lie in the packet.
    #[inline(always)]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// An IPv6 address from its two halves, the first byte of each least significant.
    #[inline(always)]
    pub const fn v6(first: u64, second: u64) -> Self {
        Self([
            (first as u32).to_le(),
            ((first >> 32) as u32).to_le(),
            (second as u32).to_le(),
            ((second >> 32) as u32).to_le(),
        ])
    }

    /// Whether it is a mapped IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let [a, b, c, _] = self.0;
        a | b | (c ^ MAPPED) == 0
    }

    /// Whether it is the same address, by one comparison (see `choice`).
    #[inline(always)]
    pub fn is(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        choice::is_zero((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3])) != 0
    }

    /// The sixteen bytes in network order.
    pub const fn octets(self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let (a, b, c, d) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes());
        [
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3],
        ]
    }

    /// The address whose sixteen bytes in network order these are.
    pub const fn from_octets(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// 32 bits that stand for the address, each of whose bits depends on all of it (multilinear hashing: Lemire and Kaser,
    /// Strongly universal string hashing is fast, 2014, section 3).
    #[inline(always)]
    pub const fn fold(&self, secret: &Secret) -> u32 {
        let [a, b, c, d] = self.0;
        if a | b | (c ^ MAPPED) == 0 {
            return Self::fold_v4(d, secret);
        }
        let [_, second, third, fourth] = secret.0;
        let rest = (a as u64)
            .wrapping_mul(second | 1)
            .wrapping_add((b as u64).wrapping_mul(third | 1))
            .wrapping_add((c as u64).wrapping_mul(fourth.rotate_left(17) | 1));
        (rest.wrapping_add(Self::last_product(d, secret)) >> 32) as u32
    }

    /// The same for an IPv4 address, from its four bytes as they lie in the packet: one multiplication.
    #[inline(always)]
    pub const fn fold_v4(word: u32, secret: &Secret) -> u32 {
        (Self::last_product(word, secret) >> 32) as u32
    }

    #[inline(always)]
    const fn last_product(word: u32, secret: &Secret) -> u64 {
        (word as u64).wrapping_mul(secret.0[0] | 1).wrapping_add(secret.0[2])
    }

    /// 64 bits that stand for the address, in a form that whoever does not know the secret cannot steer.
    #[inline(always)]
    pub fn digest(&self, secret: &Secret) -> u64 {
        let [a, b, c, d] = self.0;
        let high = (a as u64) << 32 | b as u64;
        let low = (c as u64) << 32 | d as u64;
        secret.mix(high ^ secret.0[1], low ^ secret.0[2])
    }
}

/// An address range: the first `bits` bits of the sixteen bytes count. An IPv4 /24 has 96 + 24 of them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    address: [u32; 4],
    mask: [u32; 4],
}

impl Prefix {
    /// The range of all addresses that share the first `bits` (0 to 128) bits with `octets`.
    pub const fn new(octets: [u8; 16], bits: u8) -> Self {
        let mut mask = [0u8; 16];
        let mut at = 0;
        while at < 16 {
            let left = (bits as usize).saturating_sub(at * 8);
            mask[at] = if left >= 8 { 0xff } else { !(0xff_u8 >> left) };
            at += 1;
        }
        let mask = Address::from_octets(mask).0;
        let address = Address::from_octets(octets).0;
        Self {
            address: [
                address[0] & mask[0],
                address[1] & mask[1],
                address[2] & mask[2],
                address[3] & mask[3],
            ],
            mask,
        }
    }

    /// The bits that count.
    pub const fn mask(&self) -> Address {
        Address(self.mask)
    }

    /// Whether the range holds this address, by one comparison.
    #[inline(always)]
    pub fn contains(&self, address: &Address) -> bool {
        self.bit_of(address) != 0
    }

    /// The same, as 1 or 0 (see `choice`).
    #[inline(always)]
    pub(crate) fn bit_of(&self, address: &Address) -> u64 {
        let Self { address: a, mask: m } = self;
        let b = &address.0;
        let differing =
            ((b[0] & m[0]) ^ a[0]) | ((b[1] & m[1]) ^ a[1]) | ((b[2] & m[2]) ^ a[2]) | ((b[3] & m[3]) ^ a[3]);
        choice::is_zero(differing)
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv6Addr;

    use super::*;

    fn address(text: &str) -> Address {
        let v6: Ipv6Addr = text.parse().unwrap();
        Address::from_octets(v6.octets())
    }

    #[test]
    fn a_prefix_holds_its_range_and_no_more() {
        let ten = Prefix::new(address("::ffff:10.0.0.0").octets(), 96 + 8);
        assert!(ten.contains(&address("::ffff:10.255.1.2")));
        assert!(!ten.contains(&address("::ffff:11.0.0.0")));
        let odd = Prefix::new(address("fe80::").octets(), 10);
        assert!(odd.contains(&address("febf::1")));
        assert!(!odd.contains(&address("fec0::1")));
        assert!(Prefix::new([0; 16], 0).contains(&address("2001:db8::1")));
        assert!(!Prefix::new(address("::1").octets(), 128).contains(&address("::2")));
    }

    #[test]
    fn octets_keep_their_order() {
        let address = address("2001:db8::7");
        assert_eq!(Address::from_octets(address.octets()), address);
        assert_eq!(
            Address::v4(u32::from_ne_bytes([127, 0, 0, 1])).octets()[12..],
            [127, 0, 0, 1]
        );
    }
}
