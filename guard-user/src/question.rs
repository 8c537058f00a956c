//! A name and a type, as an operator types them.

use std::fmt;

use guard_common::key::{Key, Secret};

use crate::name;

/// What a question asks: a key of class IN.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Question {
    /// The name in wire form, in lower case.
    wire: Vec<u8>,
    /// The QTYPE.
    qtype: u16,
}

/// The QCLASS of the Internet.
const IN: u16 = 1;

impl Question {
    /// A question for a name in presentation form and a type such as `A`.
    ///
    /// # Errors
    ///
    /// What is allowed, if one of them is not that.
    pub(crate) fn new(name: &str, qtype: &str) -> Result<Self, String> {
        let wire = name::wire(name).ok_or_else(|| {
            let name = name.escape_debug();
            format!("'{name}' is no name; allowed: labels of 1 to 63 ASCII characters, as in x.consul")
        })?;
        let qtype = name::qtype_number(qtype).ok_or_else(|| {
            let qtype = qtype.escape_debug();
            format!("'{qtype}' is no type; allowed: one such as A, DS or TYPE65")
        })?;
        Ok(Self { wire, qtype })
    }

    /// Reads `NAME TYPE`, as it stands in a list.
    ///
    /// # Errors
    ///
    /// What is allowed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(name), Some(qtype), None) => Self::new(name, qtype),
            _ => Err("a name and a type, such as \"x.consul DS\"".to_owned()),
        }
    }

    /// The name, in presentation form.
    pub(crate) fn name(&self) -> String {
        name::text(&self.wire)
    }

    /// The name in wire form, in lower case.
    pub(crate) fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// The QTYPE.
    pub(crate) const fn qtype(&self) -> u16 {
        self.qtype
    }

    /// The key under which the kernel knows it.
    pub(crate) fn key(&self, secret: &Secret) -> Key {
        name::key(&self.wire, self.qtype, IN, secret)
    }
}

/// `NAME TYPE`.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), name::qtype(self.qtype))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_reads_as_it_is_written() {
        let question = Question::parse("X.Consul ds").unwrap();
        assert_eq!(question.to_string(), "x.consul. DS");
        assert_eq!(question, Question::new("x.consul.", "TYPE43").unwrap());
        for bad in ["", "x.consul", "x.consul A B", "a..b A", "x.consul NONE"] {
            assert!(Question::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_refused_is_named_in_printable_letters() {
        for (name, qtype) in [("\x1b[2J\u{202e}.x", "A"), ("x.consul", "\x1b]0;x\x07")] {
            let error = Question::new(name, qtype).unwrap_err();
            let is_plain = |letter: char| letter == ' ' || letter.is_ascii_graphic();
            assert!(error.chars().all(is_plain), "{error:?}");
        }
    }

    #[test]
    fn name_and_type_make_the_key_and_not_how_it_is_spelled() {
        let secret = Secret([1, 2, 3, 4]);
        let key = |text| Question::parse(text).unwrap().key(&secret);
        assert_eq!(key("X.consul DS"), key("x.CONSUL. DS"));
        assert_ne!(key("x.consul DS"), key("x.consul A"));
        assert_ne!(key("x.consul DS"), key("y.consul DS"));
    }
}
