//! What the flood asks for.

use std::fmt;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::Flooding;
use crate::{
    frame::Query,
    names::{LETTERS, MOST_NAMES, Names, Order},
    question::{Question, RecordType},
};

/// The one name that the flood asks for, or the zone in which its names are.
pub const FLOODED: &str = "flood.example.";

/// Bytes of a UDP header up to its checksum, and of the whole of it.
const CHECKSUM_AT: usize = 6;
const UDP_LEN: usize = 8;
/// Bytes of a DNS header (RFC 1035 section 4.1.1).
const HEADER_LEN: usize = 12;

/// What the flood asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// [`FLOODED`], again and again.
    #[default]
    OneName,
    /// Names in it, a million of them, drawn at random.
    RandomNames,
}

/// [`FLOODED`] in wire form, as it is in a query.
pub(super) fn flooded() -> Result<Vec<u8>> {
    let query = Question::new(FLOODED, RecordType::A)?.query(0)?;
    Ok(query[HEADER_LEN..HEADER_LEN + FLOODED.len() + 1].to_vec())
}

impl fmt::Display for Asked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::OneName => "one name",
            Self::RandomNames => "random names",
        })
    }
}

impl Asked {
    /// Labels in front of [`FLOODED`], each with a dot.
    const fn prefix_len(self) -> usize {
        match self {
            Self::OneName => 0,
            Self::RandomNames => LETTERS + 1,
        }
    }

    /// The first name that it asks for.
    pub fn name(self) -> String {
        match self {
            Self::OneName => FLOODED.to_owned(),
            Self::RandomNames => format!("{}.{FLOODED}", "a".repeat(LETTERS)),
        }
    }

    /// Where the bytes of [`FLOODED`] begin, behind the UDP header's first.
    pub(super) const fn flooded_at(self) -> usize {
        UDP_LEN + HEADER_LEN + self.prefix_len()
    }

    /// What the flood is made of, if `query` is its first query.
    pub fn flooding(self, query: &Query) -> Result<Flooding> {
        let mut frame = query.frame()?;
        let message_at = frame.len() - query.message()?.len();
        if self == Self::OneName {
            return Ok(Flooding::same(frame));
        }
        // IPv4 allows to do without (RFC 768).
        let checksum_at = message_at - UDP_LEN + CHECKSUM_AT;
        frame
            .get_mut(checksum_at..checksum_at + 2)
            .context("a query has a UDP header")?
            .fill(0);
        Ok(Flooding {
            frame,
            names: Some(Names {
                at: message_at + HEADER_LEN + 1,
                count: MOST_NAMES,
                order: Order::AtRandom,
            }),
            id_at: Some(message_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_are_in_the_flooded_zone() {
        for asked in [Asked::OneName, Asked::RandomNames] {
            let query = Query::new(&asked.name(), "10.53.0.66:20053", "10.53.0.2:53").unwrap();
            let flooding = asked.flooding(&query).unwrap();
            // Ethernet and IPv4.
            let zone = &flooding.frame[34 + asked.flooded_at()..];
            assert!(zone.starts_with(b"\x05flood\x07example\0"), "{asked}");
            if let Some(names) = flooding.names {
                assert_eq!(&flooding.frame[names.at - 1..names.at + LETTERS], b"\x05aaaaa");
                assert_eq!(flooding.id_at, Some(42));
                assert_eq!(flooding.frame[40..42], [0, 0]);
            }
        }
    }
}
