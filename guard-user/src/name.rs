//! Names, types and classes in the words that people read.
//!
//! A name becomes the text that zone files and `dig` use (RFC 1035 section 5.1, RFC 4343 section 2.1), in lower case,
//! made of printable ASCII only: a hostile name cannot break a log line, a terminal, or a label.

use std::{borrow::Cow, fmt::Write as _};

/// Octets of a name at most, the root included (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;

/// A whole name in wire form, in lower case: what can be cut between its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    wire: Vec<u8>,
    /// Where each label begins, and last the root.
    starts: Vec<u8>,
}

impl Name {
    /// Reads a name in wire form. `None` if it breaks off, is compressed or too long, or if something follows it.
    pub(crate) fn read(wire: &[u8]) -> Option<Self> {
        let (mut starts, mut at) = (Vec::new(), 0);
        loop {
            starts.push(u8::try_from(at).ok()?);
            match *wire.get(at)? {
                0 => break,
                length @ 1..=63 => at += 1 + usize::from(length),
                _ => return None,
            }
        }
        // No length reads as a letter: they are below 64.
        (wire.len() == at + 1 && wire.len() <= MAX_NAME).then(|| Self {
            wire: wire.to_ascii_lowercase(),
            starts,
        })
    }

    /// Reads a domain as it stands in a `search` line or in the configuration: labels of printable ASCII between dots,
    /// without escapes. `None` if it is no such thing.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.strip_suffix('.').unwrap_or(text).split('.') {
            if !label.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
                return None;
            }
            wire.push(u8::try_from(label.len()).ok()?);
            wire.extend_from_slice(label.as_bytes());
        }
        wire.push(0);
        Self::read(&wire)
    }

    /// The whole name.
    pub(crate) fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// How many labels it has, the root not counted.
    pub(crate) const fn labels(&self) -> usize {
        self.starts.len() - 1
    }

    /// Its last `labels` labels and the root: a name in wire form. The whole name, if it has no more.
    pub(crate) fn suffix(&self, labels: usize) -> &[u8] {
        &self.wire[self.cut(labels)..]
    }

    /// What stands before its last `labels` labels: labels in wire form, without a root.
    pub(crate) fn stem(&self, labels: usize) -> &[u8] {
        &self.wire[..self.cut(labels)]
    }

    fn cut(&self, labels: usize) -> usize {
        self.starts[self.labels().saturating_sub(labels)].into()
    }
}

/// The presentation form of a name in wire form, final dot included. Reads as far as the labels are whole.
pub(crate) fn text(wire: &[u8]) -> String {
    let mut text = String::with_capacity(wire.len());
    let mut rest = wire;
    while let Some((&length, after)) = rest.split_first()
        && length != 0
        && let Some((label, after)) = after.split_at_checked(length.into())
    {
        label.iter().for_each(|byte| push_escaped(&mut text, *byte));
        text.push('.');
        rest = after;
    }
    if text.is_empty() {
        text.push('.');
    }
    text
}

fn push_escaped(text: &mut String, byte: u8) {
    match byte {
        b'.' | b'\\' | b'"' | b';' | b'@' | b'$' | b'(' | b')' => {
            text.push('\\');
            text.push(byte.into());
        }
        0x21..=0x7e => text.push(byte.to_ascii_lowercase().into()),
        _ => {
            // Writing to a string does not fail.
            let _ = write!(text, "\\{byte:03}");
        }
    }
}

/// The mnemonic of a QTYPE, or `TYPE` and its number (RFC 3597 section 5).
pub(crate) fn qtype(number: u16) -> Cow<'static, str> {
    let mnemonic = match number {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        13 => "HINFO",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        29 => "LOC",
        33 => "SRV",
        35 => "NAPTR",
        37 => "CERT",
        39 => "DNAME",
        43 => "DS",
        44 => "SSHFP",
        45 => "IPSECKEY",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        50 => "NSEC3",
        51 => "NSEC3PARAM",
        52 => "TLSA",
        53 => "SMIMEA",
        59 => "CDS",
        60 => "CDNSKEY",
        61 => "OPENPGPKEY",
        62 => "CSYNC",
        63 => "ZONEMD",
        64 => "SVCB",
        65 => "HTTPS",
        99 => "SPF",
        249 => "TKEY",
        250 => "TSIG",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        256 => "URI",
        257 => "CAA",
        _ => return format!("TYPE{number}").into(),
    };
    mnemonic.into()
}

/// The mnemonic of a QCLASS, or `CLASS` and its number (RFC 3597 section 5).
pub(crate) fn qclass(number: u16) -> Cow<'static, str> {
    let mnemonic = match number {
        1 => "IN",
        3 => "CH",
        4 => "HS",
        254 => "NONE",
        255 => "ANY",
        _ => return format!("CLASS{number}").into(),
    };
    mnemonic.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a presentation form back, as RFC 1035 section 5.1 says.
    fn wire(text: &str) -> Vec<u8> {
        let (mut wire, mut label) = (Vec::new(), Vec::new());
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'.' if label.is_empty() => {}
                b'.' => {
                    wire.push(label.len() as u8);
                    wire.append(&mut label);
                }
                b'\\' => {
                    let first = bytes.next().unwrap();
                    if first.is_ascii_digit() {
                        let digits = [first, bytes.next().unwrap(), bytes.next().unwrap()];
                        label.push(std::str::from_utf8(&digits).unwrap().parse().unwrap());
                    } else {
                        label.push(first);
                    }
                }
                other => label.push(other),
            }
        }
        wire.push(0);
        wire
    }

    #[test]
    fn a_name_is_lower_case_and_ends_with_a_dot() {
        assert_eq!(text(b"\x03WwW\x07Example\0"), "www.example.");
        assert_eq!(text(b"\0"), ".");
    }

    #[test]
    fn what_would_be_misread_is_escaped() {
        assert_eq!(text(b"\x04a.\\b\x03c d\x02\xff\n\0"), "a\\.\\\\b.c\\032d.\\255\\010.");
        assert_eq!(text(b"\x06\";@$()\0"), "\\\"\\;\\@\\$\\(\\).");
    }

    #[test]
    fn every_byte_reads_back_as_itself_in_lower_case() {
        for byte in 0..=u8::MAX {
            for neighbour in [b'a', b'.', b'0', b'\\'] {
                let name = [3, neighbour, byte, neighbour, 0];
                let shown = text(&name);
                assert!(shown.bytes().all(|shown| shown.is_ascii_graphic()), "{shown:?}");
                assert_eq!(wire(&shown), name.to_ascii_lowercase(), "{shown}");
            }
        }
    }

    #[test]
    fn a_name_that_breaks_off_is_read_as_far_as_it_goes() {
        assert_eq!(text(b""), ".");
        assert_eq!(text(b"\x03www"), "www.");
        assert_eq!(text(b"\x03www\x05exa"), "www.");
        assert_eq!(text(b"\xc0\x0c"), ".");
    }

    #[test]
    fn a_name_is_cut_between_its_labels() {
        let name = Name::read(b"\x03WWW\x07example\x03Com\0").unwrap();
        assert_eq!((name.labels(), name.wire()), (3, &b"\x03www\x07example\x03com\0"[..]));
        assert_eq!(
            (name.suffix(1), name.stem(1)),
            (&b"\x03com\0"[..], &b"\x03www\x07example"[..])
        );
        assert_eq!((name.suffix(0), name.stem(3)), (&b"\0"[..], &b""[..]));
        assert_eq!((name.suffix(9), name.stem(9)), (name.wire(), &b""[..]));
        assert_eq!(Name::read(b"\0").map(|root| root.labels()), Some(0));
        let longest = [&[63; 64][..], &[63; 64], &[63; 64], &[61; 62], &[0]].concat();
        assert!(Name::read(&longest).is_some());
    }

    #[test]
    fn what_is_no_whole_name_is_none() {
        let too_long = [&[63; 64][..], &[63; 64], &[63; 64], &[62; 63], &[0]].concat();
        for wire in [
            &b""[..],
            b"\x03www",
            b"\x03www\x09x\0",
            b"\xc0\x0c",
            b"\x01a\0\0",
            &too_long,
        ] {
            assert_eq!(Name::read(wire), None, "{wire:?}");
        }
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "a b",
            "a\\.b",
            "\u{1b}[2J",
            &"a".repeat(64),
            &"a.".repeat(128),
        ] {
            assert_eq!(Name::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_domain_is_read_with_or_without_its_dot() {
        let domain = Name::read(b"\x03svc\x07cluster\x05local\0");
        assert!(domain.is_some());
        assert_eq!(Name::parse("svc.Cluster.local"), domain);
        assert_eq!(Name::parse("svc.cluster.local."), domain);
    }

    #[test]
    fn unknown_types_and_classes_have_numbers() {
        assert_eq!((qtype(43), qtype(1_234)), ("DS".into(), "TYPE1234".into()));
        assert_eq!((qclass(1), qclass(0)), ("IN".into(), "CLASS0".into()));
    }
}
