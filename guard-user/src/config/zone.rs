//! A zone as an operator writes it: `example.com`.

use std::{fmt, str::FromStr};

use guard_common::{key::Secret, question::MAX_ZONE_LABELS};

use crate::name::{self, Name};

/// All names at or below one that has 1 to 7 labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Zone(Name);

impl Zone {
    /// How many labels it has, without the root's.
    pub(crate) const fn labels(&self) -> u8 {
        // At most 7.
        self.0.labels() as u8
    }

    /// Whether a name is one of its names.
    pub(crate) fn holds(&self, name: &Name) -> bool {
        name.labels() >= self.0.labels() && name.suffix(self.0.labels()) == self.0.wire()
    }

    /// Whether all names of `other` are its names too.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        other.0.suffix(self.0.labels()) == self.0.wire()
    }

    /// What the kernel makes of the name, from its first label on, in a packet.
    pub(crate) fn digest(&self, secret: &Secret) -> u64 {
        name::key(self.0.wire(), 0, 0, secret).0
    }
}

/// The error says what is allowed.
impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = name::wire(text).and_then(|wire| Name::read(&wire));
        let name =
            name.ok_or_else(|| "a name such as example.com, labels of 1 to 63 ASCII characters each".to_owned())?;
        match name.labels() {
            0 => Err("a name below the root; for all names, leave the list out".to_owned()),
            1..=MAX_ZONE_LABELS => Ok(Self(name)),
            _ => Err(format!(
                "names of {MAX_ZONE_LABELS} labels at most, which is what the kernel reads"
            )),
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name::text(self.0.wire()))
    }
}

#[cfg(test)]
mod tests {
    use guard_common::{
        key::Key,
        question::{self, Question},
    };

    use super::*;

    const SECRET: Secret = Secret([
        0x1234_5678_9abc_def1,
        0x0fed_cba9_8765_4321,
        0x5555_aaaa_3333_cccc,
        0x77,
    ]);

    fn zone(text: &str) -> Zone {
        text.parse().unwrap()
    }

    #[test]
    fn a_zone_is_shown_as_names_are() {
        assert_eq!(zone("104.IN-ADDR.arpa").to_string(), "104.in-addr.arpa.");
        assert_eq!(zone("Example.com"), zone("example.COM."));
        assert_eq!(zone("a.b.c.d.e.f.g").labels(), 7);
    }

    #[test]
    fn what_is_no_zone_is_refused_with_what_is_allowed() {
        let name = "a name such as example.com, labels of 1 to 63 ASCII characters each";
        for (text, allowed) in [
            ("", name),
            ("a..b", name),
            ("bücher.example", name),
            (".", "a name below the root; for all names, leave the list out"),
            (
                "a.b.c.d.e.f.g.h",
                "names of 7 labels at most, which is what the kernel reads",
            ),
        ] {
            assert_eq!(text.parse::<Zone>().unwrap_err(), allowed, "{text}");
        }
    }

    #[test]
    fn a_zone_contains_itself_and_what_is_below_it() {
        assert!(zone("example.com").contains(&zone("example.com")));
        assert!(zone("example.com").contains(&zone("a.b.EXAMPLE.com")));
        assert!(!zone("www.example.com").contains(&zone("example.com")));
        assert!(!zone("ample.com").contains(&zone("example.com")));
        assert!(!zone("example.com").contains(&zone("example.com.au")));
    }

    #[test]
    fn a_zone_has_the_digest_that_the_kernel_finds_in_a_packet() {
        let mut packet = b"\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee".to_vec();
        packet.extend_from_slice(b"\x04MaIl\x03WWW\x07eXample\x03com\0\0\x01\0\x01");
        let name = question::Name::walk(packet.as_slice(), 20).unwrap();
        for text in ["example.com", "www.example.com", "com", "mail.www.example.com"] {
            let at = name.zone_at(zone(text).labels()).unwrap();
            let from_label = Question {
                name_at: 20 + at,
                name_len: name.len() - at,
                qtype: 0,
                qclass: 0,
            };
            let found = Key::of(packet.as_slice(), &from_label, &SECRET).unwrap();
            assert_eq!(zone(text).digest(&SECRET), found.0, "{text}");
        }
    }
}
