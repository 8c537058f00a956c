//! Names, types and classes in the words that people read.
//!
//! A name becomes the text that zone files and `dig` use (RFC 1035 section 5.1, RFC 4343 section 2.1), in lower case,
//! made of printable ASCII only: a hostile name cannot break a log line, a terminal, or a label.

use std::{borrow::Cow, fmt::Write as _, str::Bytes};

use guard_common::{
    key::{Key, Secret},
    question::{MAX_NAME_LEN, Question},
};

/// Bytes of the longest label (RFC 1035 section 2.3.4).
const MAX_LABEL_LEN: u8 = 63;

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
        (wire.len() == at + 1 && wire.len() <= MAX_NAME_LEN).then(|| Self {
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

/// Bytes in front of a name in a packet, UDP and DNS header: the hash of a short name reaches back into them.
const HEADERS_LEN: usize = 20;

/// What the kernel makes of a name in wire form, a type and a class.
pub(crate) fn key(wire: &[u8], qtype: u16, qclass: u16, secret: &Secret) -> Key {
    let packet = [&[0; HEADERS_LEN], wire].concat();
    let question = Question {
        name_at: HEADERS_LEN,
        name_len: wire.len(),
        qtype,
        qclass,
    };
    Key::of(packet.as_slice(), &question, secret).expect("the packet has been made to hold the whole name")
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

/// The wire form, in lower case, of a name in presentation form, with or without its final dot. `None` if it is not one:
/// an empty label, one above 63 bytes, more than 255 bytes in all (RFC 1035 section 2.3.4), a byte that is not
/// printable ASCII, or an escape that does not end.
pub(crate) fn wire(text: &str) -> Option<Vec<u8>> {
    if text == "." {
        return Some(vec![0]);
    }
    let (mut wire, mut label) = (Vec::new(), Vec::new());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'.' => push_label(&mut wire, &mut label)?,
            b'\\' => label.push(escaped(&mut bytes)?),
            0x21..=0x7e => label.push(byte.to_ascii_lowercase()),
            _ => return None,
        }
    }
    if !text.ends_with('.') || !label.is_empty() {
        push_label(&mut wire, &mut label)?;
    }
    wire.push(0);
    (wire.len() <= MAX_NAME_LEN).then_some(wire)
}

fn push_label(wire: &mut Vec<u8>, label: &mut Vec<u8>) -> Option<()> {
    let length = u8::try_from(label.len())
        .ok()
        .filter(|length| (1..=MAX_LABEL_LEN).contains(length))?;
    wire.push(length);
    wire.append(label);
    Some(())
}

/// What an escape stands for (RFC 1035 section 5.1): three digits for a byte, anything else for itself.
fn escaped(bytes: &mut Bytes<'_>) -> Option<u8> {
    let first = bytes.next()?;
    if !first.is_ascii_digit() {
        return first.is_ascii_graphic().then(|| first.to_ascii_lowercase());
    }
    let mut number = u32::from(first - b'0');
    for _ in 0..2 {
        let digit = bytes.next().filter(u8::is_ascii_digit)?;
        number = number * 10 + u32::from(digit - b'0');
    }
    u8::try_from(number).ok().map(|byte| byte.to_ascii_lowercase())
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

/// The types that have a mnemonic (IANA, "Resource Record (RR) TYPEs").
const TYPES: [(u16, &str); 39] = [
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (12, "PTR"),
    (13, "HINFO"),
    (15, "MX"),
    (16, "TXT"),
    (28, "AAAA"),
    (29, "LOC"),
    (33, "SRV"),
    (35, "NAPTR"),
    (37, "CERT"),
    (39, "DNAME"),
    (43, "DS"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (53, "SMIMEA"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (62, "CSYNC"),
    (63, "ZONEMD"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (249, "TKEY"),
    (250, "TSIG"),
    (251, "IXFR"),
    (252, "AXFR"),
    (255, "ANY"),
    (256, "URI"),
    (257, "CAA"),
];

/// The mnemonic of a QTYPE, or `TYPE` and its number (RFC 3597 section 5).
pub(crate) fn qtype(number: u16) -> Cow<'static, str> {
    let known = TYPES.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("TYPE{number}").into(), |(_, mnemonic)| (*mnemonic).into())
}

/// The number of a QTYPE that is written as [`qtype`] writes it, in any case. Type 0 is none (RFC 6895 section 3.1).
pub(crate) fn qtype_number(text: &str) -> Option<u16> {
    if let Some((number, _)) = TYPES.iter().find(|(_, mnemonic)| mnemonic.eq_ignore_ascii_case(text)) {
        return Some(*number);
    }
    let (prefix, digits) = text.split_at_checked(4)?;
    let is_number = prefix.eq_ignore_ascii_case("TYPE") && digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|number| is_number && *number != 0)
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
                assert_eq!(wire(&shown).unwrap(), name.to_ascii_lowercase(), "{shown}");
            }
        }
    }

    #[test]
    fn a_name_reads_with_and_without_its_final_dot() {
        for text in ["www.Example", "WWW.example."] {
            assert_eq!(wire(text).unwrap(), b"\x03www\x07example\0", "{text}");
        }
        assert_eq!(wire(".").unwrap(), b"\0");
        assert_eq!(wire("a\\.b\\255.").unwrap(), b"\x04a.b\xff\0");
    }

    #[test]
    fn what_is_no_name_has_no_wire_form() {
        let long_label = "a".repeat(64);
        let long_name = "a.".repeat(128);
        for bad in [
            "",
            "..",
            "a..b",
            ".a",
            "a b",
            "é",
            "a\\",
            "a\\25",
            "a\\256",
            &long_label,
            &long_name,
        ] {
            assert_eq!(wire(bad), None, "{bad}");
        }
        assert_eq!(wire(&"a.".repeat(127)).unwrap().len(), 255);
        assert!(wire(&"a".repeat(63)).is_some());
    }

    #[test]
    fn every_type_reads_back_as_its_number() {
        for number in 1..=u16::MAX {
            assert_eq!(qtype_number(&qtype(number)), Some(number));
        }
        assert_eq!(qtype_number("any"), Some(255));
        for bad in ["", "TYPE", "TYPE0", "TYPE65536", "TYPE+1", "AA", "0", "ÄÄÄ1"] {
            assert_eq!(qtype_number(bad), None, "{bad}");
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
