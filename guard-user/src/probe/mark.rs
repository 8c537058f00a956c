//! The mark: which letters of a name are capitals.
//!
//! Names are the same in capitals and small letters, and forwarders send on what they got (RFC 4343). A query whose name
//! is spelled in a pattern that was drawn for it alone is this probe's, whoever sends it. A name that was made up for the
//! query is its own mark, in any spelling.

use std::{fs::File, io, io::Read as _};

use guard_common::{
    key::{Key, Secret},
    question::{HEADER_LEN, MAX_NAME_LEN},
    spelling::{Change, NamePlace, Pattern, Respelling},
};

use super::target::Question;

/// Letters of the label that is made up.
pub(super) const FRESH_LABEL: usize = 12;
/// With fewer letters there are too few patterns: five have 20 with two capitals or more and two small ones or more.
pub(super) const MIN_LETTERS: usize = 5;
/// So many letters keep the mark apart from the random spellings of others (0x20, as unbound's `use-caps-for-id`).
pub(super) const SURE_LETTERS: usize = 20;

/// Patterns that are drawn before a name counts as one that has none left.
const ATTEMPTS: u32 = 1_000;

/// RD (RFC 1035 section 4.1.1).
const FLAGS: u16 = 0x0100;
const CLASS_IN: u16 = 1;
/// An OPT record for answers of up to 1232 bytes (RFC 6891 section 6.1.2; DNS flag day 2020).
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];

/// Draws random numbers and names.
#[derive(Debug)]
pub(super) struct Random(File);

/// A query that is marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marked {
    /// The message as it is sent.
    pub(super) message: Vec<u8>,
    /// Its ID.
    pub(super) id: u16,
    name_len: usize,
    qtype: u16,
    fresh: bool,
    provable: bool,
}

/// What the name of somebody's query says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// It is this probe's.
    Same,
    /// The question is the same, its spelling another one that is not all small letters.
    Respelled,
    /// Another question, or this one in small letters.
    Other,
}

impl Random {
    /// Draws from the kernel.
    pub(super) fn open() -> io::Result<Self> {
        File::open("/dev/urandom").map(Self)
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> io::Result<u64> {
        self.bytes().map(u64::from_ne_bytes)
    }
}

impl Marked {
    /// A query for this, spelled in a way that is not taken, if there is one.
    pub(super) fn draw(question: &Question, random: &mut Random, is_taken: impl Fn(&[u8]) -> bool) -> io::Result<Self> {
        let target = &question.target;
        let mut name = Vec::with_capacity(MAX_NAME_LEN);
        if target.fresh {
            name.push(FRESH_LABEL as u8);
            let label = random.bytes::<FRESH_LABEL>()?;
            name.extend(label.map(|byte| b'a' + byte % 26));
        }
        name.extend_from_slice(&target.wire);
        for attempt in 0..=ATTEMPTS {
            let id = random.number()? as u16;
            let mut message = plain(id, &name, question.qtype);
            let secret = Secret([random.number()?, random.number()?, random.number()?, random.number()?]);
            let pattern = Pattern::new(id.into(), Key(random.number()?), &secret);
            let place = NamePlace {
                at: HEADER_LEN,
                length: name.len(),
            };
            // The name is in the message.
            let _ = Change::make(&mut message[..], place, Respelling::Flip(pattern), &secret);
            let mut marked = Self {
                message,
                id,
                name_len: name.len(),
                qtype: question.qtype,
                fresh: target.fresh,
                provable: false,
            };
            marked.provable = marked.is_mixed() && !is_taken(marked.name());
            if marked.provable || attempt == ATTEMPTS || letters(&name) < MIN_LETTERS {
                return Ok(marked);
            }
        }
        unreachable!("the last attempt returns")
    }

    /// The name, as it is spelled.
    pub(super) fn name(&self) -> &[u8] {
        &self.message[HEADER_LEN..HEADER_LEN + self.name_len]
    }

    /// Whether its name has letters enough to carry a mark, and the mark is its own.
    pub(super) const fn is_provable(&self) -> bool {
        self.provable
    }

    /// Whether nobody who spells names at random hits upon the mark.
    pub(super) fn is_beyond_chance(&self) -> bool {
        self.fresh || letters(self.name()) >= SURE_LETTERS
    }

    /// Compares it with the name and type of somebody's query.
    pub(super) fn compare(&self, name: &[u8], qtype: u16) -> Likeness {
        if qtype != self.qtype || !name.eq_ignore_ascii_case(self.name()) {
            Likeness::Other
        } else if self.fresh || name == self.name() {
            Likeness::Same
        } else if name.iter().any(u8::is_ascii_uppercase) {
            Likeness::Respelled
        } else {
            Likeness::Other
        }
    }

    /// Whether two capitals or more stand beside two small letters or more: names that people spell are not like that.
    fn is_mixed(&self) -> bool {
        let capitals = self.name().iter().filter(|byte| byte.is_ascii_uppercase()).count();
        capitals >= 2 && letters(self.name()) >= capitals + 2
    }
}

/// How many letters a name has. Length bytes are at most 63, and no letters.
pub(super) fn letters(name: &[u8]) -> usize {
    name.iter().filter(|byte| byte.is_ascii_alphabetic()).count()
}

/// A query in small letters (RFC 1035 section 4.1): header, question, OPT.
fn plain(id: u16, name: &[u8], qtype: u16) -> Vec<u8> {
    let header = [id, FLAGS, 1, 0, 0, 1].map(u16::to_be_bytes);
    let question = [qtype, CLASS_IN].map(u16::to_be_bytes);
    [header.as_flattened(), name, question.as_flattened(), &OPT].concat()
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType};

    use super::*;
    use crate::probe::target::Target;

    fn draw(name: &str, taken: &[Marked]) -> Marked {
        let question = Question {
            target: Target::parse(name).unwrap(),
            qtype: 43,
        };
        let is_taken = |name: &[u8]| taken.iter().any(|taken| taken.name() == name);
        Marked::draw(&question, &mut Random::open().unwrap(), is_taken).unwrap()
    }

    #[test]
    fn a_query_is_one_that_every_server_reads() {
        for name in ["consul.", "*.example.com", "."] {
            let marked = draw(name, &[]);
            let message = Message::from_vec(&marked.message).unwrap();
            assert_eq!(message.metadata.id, marked.id);
            assert_eq!(message.metadata.message_type, MessageType::Query);
            assert!(message.metadata.recursion_desired && message.edns.is_some());
            assert_eq!(u16::from(message.queries[0].query_type()), 43);
        }
    }

    #[test]
    fn a_mark_is_known_again_and_small_letters_are_not_it() {
        let marked = draw("consul.", &[]);
        assert_eq!(marked.name().to_ascii_lowercase(), b"\x06consul\0");
        assert_eq!(marked.compare(marked.name(), 43), Likeness::Same);
        assert_eq!(marked.compare(marked.name(), 1), Likeness::Other);
        assert_eq!(marked.compare(b"\x06consul\0", 43), Likeness::Other);
        assert_eq!(marked.compare(b"\x06CONSUL\0", 43), Likeness::Respelled);
        assert_eq!(marked.compare(b"\x06nomads\0", 43), Likeness::Other);
    }

    #[test]
    fn every_mark_has_capitals_and_small_letters() {
        for _ in 0..200 {
            let marked = draw("ab.cde.", &[]);
            let capitals = marked.name().iter().filter(|byte| byte.is_ascii_uppercase()).count();
            assert!((2..=3).contains(&capitals), "{:?}", marked.name());
        }
    }

    #[test]
    fn no_mark_is_drawn_twice() {
        let mut taken = Vec::new();
        for _ in 0..20 {
            taken.push(draw("abcde.", &taken));
        }
        let all: std::collections::HashSet<_> = taken.iter().map(|marked| marked.name().to_vec()).collect();
        assert_eq!(all.len(), 20);
        assert!(taken.iter().all(Marked::is_provable) && !draw("abcde.", &taken).is_provable());
    }

    #[test]
    fn a_name_that_is_made_up_is_its_own_mark() {
        let (first, second) = (draw("*.consul.", &[]), draw("*.consul.", &[]));
        assert_ne!(first.name().to_ascii_lowercase(), second.name().to_ascii_lowercase());
        assert_eq!(first.compare(&first.name().to_ascii_lowercase(), 43), Likeness::Same);
        assert!(first.is_beyond_chance() && !draw("consul.", &[]).is_beyond_chance());
    }

    #[test]
    fn without_letters_there_is_no_mark() {
        assert!(!draw("12.34.", &[]).is_provable());
        assert!(!draw(".", &[]).is_provable());
    }
}
