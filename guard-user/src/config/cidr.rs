//! An address range as an operator writes it: `10.0.0.0/8`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use guard_common::address::Prefix;

/// Bits that an IPv4 range gets in front when it is mapped into `::ffff:0:0/96` (RFC 4291 section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// An address range without bits behind its prefix length; IPv4 is kept mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    address: Ipv6Addr,
    bits: u8,
}

impl Cidr {
    /// The range of this address and so many bits; IPv4 mapped, with 96 bits more.
    pub(super) const fn mapped(address: Ipv6Addr, bits: u8) -> Self {
        Self { address, bits }
    }

    /// The range of one address.
    pub(crate) fn host(address: IpAddr) -> Self {
        let mapped = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Self::mapped(mapped, 128)
    }

    /// Reads a range; an address alone is a range of one. The error says what is allowed.
    pub(crate) fn or_address(text: &str) -> Result<Self, String> {
        text.parse()
            .map_or_else(|_| text.parse(), |address| Ok(Self::host(address)))
    }

    /// Base and prefix length, if the range is an IPv4 one.
    pub(crate) fn v4(&self) -> Option<(Ipv4Addr, u8)> {
        let base = self.address.to_ipv4_mapped()?;
        Some((base, self.bits.checked_sub(MAPPED_BITS)?))
    }

    /// Whether the two have an address in common: then one is in the other.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let bits = self.bits.min(other.bits);
        let first = |range: &Self| Self { bits, ..*range }.masked();
        first(self) == first(other)
    }

    /// Whether every address of the other one is in this one.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        other.bits >= self.bits && self.overlaps(other)
    }

    /// The range in the form in which the kernel reads it.
    pub(crate) fn prefix(&self) -> Prefix {
        Prefix::new(self.address.octets(), self.bits)
    }

    fn masked(self) -> Self {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
        Self {
            address: (u128::from(self.address) & mask).into(),
            bits: self.bits,
        }
    }
}

/// The error says what is allowed.
impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || "an address range such as 10.0.0.0/8 or fc00::/7".to_owned();
        let (address, bits) = text.split_once('/').ok_or_else(shape)?;
        let address: IpAddr = address.parse().map_err(|_| shape())?;
        let (mapped, lead, most) = match address {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped(), MAPPED_BITS, 32),
            IpAddr::V6(v6) => (v6, 0, 128),
        };
        let is_number = bits.bytes().all(|digit| digit.is_ascii_digit());
        let bits = bits.parse().ok().filter(|bits: &u8| is_number && *bits <= most);
        let bits = bits.ok_or_else(|| format!("a prefix length of 0 to {most}"))?;
        let range = Self {
            address: mapped,
            bits: lead + bits,
        };
        let masked = range.masked();
        if range == masked {
            Ok(range)
        } else {
            Err(format!("no bits behind the prefix length: {masked}"))
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address.to_ipv4_mapped() {
            Some(v4) if self.bits >= MAPPED_BITS => write!(f, "{v4}/{}", self.bits - MAPPED_BITS),
            _ => write!(f, "{}/{}", self.address, self.bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_read_back_as_they_were_written() {
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "127.0.0.1/32",
            "::1/128",
            "fe80::/10",
            "::/0",
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_ipv4_range_is_mapped() {
        let range: Cidr = "10.0.0.0/8".parse().unwrap();
        assert_eq!(range, Cidr::mapped("::ffff:10.0.0.0".parse().unwrap(), 104));
    }

    #[test]
    fn two_ranges_overlap_if_one_is_in_the_other() {
        let overlap = |one: &str, other: &str| {
            let (one, other): (Cidr, Cidr) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(one.overlaps(&other), other.overlaps(&one), "{one} {other}");
            one.overlaps(&other)
        };
        assert!(overlap("10.0.0.0/8", "10.9.0.0/16") && overlap("10.0.0.0/8", "10.0.0.0/8"));
        assert!(overlap("0.0.0.0/0", "192.0.2.1/32") && overlap("::/0", "192.0.2.1/32"));
        assert!(!overlap("10.0.0.0/9", "10.128.0.0/9") && !overlap("0.0.0.0/0", "2001:db8::/32"));
    }

    #[test]
    fn an_ipv4_range_is_known_as_one() {
        let v4 = |text: &str| text.parse::<Cidr>().unwrap().v4();
        assert_eq!(v4("10.1.0.0/16"), Some((Ipv4Addr::new(10, 1, 0, 0), 16)));
        assert_eq!((v4("::/0"), v4("fd00::/8")), (None, None));
        assert_eq!(Cidr::host([10, 0, 0, 2].into()), "10.0.0.2/32".parse().unwrap());
        assert_eq!(Cidr::host("::1".parse().unwrap()), "::1/128".parse().unwrap());
    }

    #[test]
    fn whatever_else_is_refused_with_what_is_allowed() {
        for (text, allowed) in [
            ("10.0.0.0", "an address range such as 10.0.0.0/8 or fc00::/7"),
            ("localhost/8", "an address range such as 10.0.0.0/8 or fc00::/7"),
            ("10.0.0.0/33", "a prefix length of 0 to 32"),
            ("::/129", "a prefix length of 0 to 128"),
            ("::/+8", "a prefix length of 0 to 128"),
            ("10.1.2.3/8", "no bits behind the prefix length: 10.0.0.0/8"),
            ("fe80::1/10", "no bits behind the prefix length: fe80::/10"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap_err(), allowed, "{text}");
        }
    }
}
