//! What a server says to a query.

use guard_common::question::{FLAG_QR, FLAG_RCODE, NOERROR, NXDOMAIN};
use hickory_proto::{
    op::Message,
    rr::rdata::opt::{EdnsCode, EdnsOption},
};
use serde::Serialize;

/// The option of an Extended DNS Error (RFC 8914 section 2).
const EDE: u16 = 15;
/// Characters of an EXTRA-TEXT that are kept.
const MAX_TEXT: usize = 200;

/// A response, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) rcode: u8,
    pub(super) errors: Vec<ExtendedError>,
}

/// An Extended DNS Error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ExtendedError {
    pub(super) code: u16,
    /// In printable ASCII.
    pub(super) text: String,
}

impl Response {
    /// Reads a response to the query with this ID. `None` if it is none.
    pub(super) fn read(bytes: &[u8], id: u16) -> Option<Self> {
        let [i, d, flags @ ..] = bytes.first_chunk::<4>()?;
        let flags = u16::from_be_bytes(*flags);
        if u16::from_be_bytes([*i, *d]) != id || flags & FLAG_QR == 0 {
            return None;
        }
        // What cannot be read behind the header changes nothing about the RCODE.
        let message = Message::from_vec(bytes).ok();
        let edns = message.as_ref().and_then(|message| message.edns.as_ref());
        let options = edns.map_or_else(Vec::new, |edns| edns.options().get_all(EdnsCode::from(EDE)));
        Some(Self {
            rcode: (flags & FLAG_RCODE) as u8,
            errors: options.into_iter().filter_map(ExtendedError::read).collect(),
        })
    }

    /// Whether the name got an answer: an error only says that nobody knows yet.
    pub(super) const fn is_answer(&self) -> bool {
        matches!(self.rcode, NOERROR | NXDOMAIN)
    }

    /// Whether a guard on the way gave it.
    pub(super) fn is_a_guards(&self) -> bool {
        self.errors.iter().any(|error| error.text.starts_with("dnsguard:"))
    }

    /// Its name in the registry of RCODEs (RFC 6895 section 2.3).
    pub(super) fn rcode_word(&self) -> String {
        let word = match self.rcode {
            0 => "NOERROR",
            1 => "FORMERR",
            2 => "SERVFAIL",
            3 => "NXDOMAIN",
            4 => "NOTIMP",
            5 => "REFUSED",
            number => return format!("RCODE{number}"),
        };
        word.to_owned()
    }
}

impl ExtendedError {
    /// INFO-CODE and EXTRA-TEXT.
    fn read(option: &EdnsOption) -> Option<Self> {
        let EdnsOption::Unknown(EDE, data) = option else {
            return None;
        };
        let (code, text) = data.split_first_chunk()?;
        let printable = |byte: &u8| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '?',
        };
        // Some end it with a zero.
        let text = text.strip_suffix(b"\0").unwrap_or(text);
        Some(Self {
            code: u16::from_be_bytes(*code),
            text: text.iter().take(MAX_TEXT).map(printable).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A response with this RCODE, and an OPT with this option 15.
    fn response(rcode: u8, option: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 0x81, 0x80 | rcode, 0, 1, 0, 0, 0, 0, 0, 1];
        bytes.extend(b"\x06consul\0\0\x2b\0\x01");
        let length = option.len() as u16;
        bytes.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0]);
        bytes.extend([length + 4, EDE, length].map(u16::to_be_bytes).as_flattened());
        bytes.extend(option);
        bytes
    }

    #[test]
    fn an_extended_error_is_read_and_made_printable() {
        let read = Response::read(&response(2, b"\0\0dnsguard: query loop"), 0x1234).unwrap();
        assert!(!read.is_answer() && read.is_a_guards());
        assert_eq!((read.rcode_word().as_str(), read.errors[0].code), ("SERVFAIL", 0));
        assert_eq!(read.errors[0].text, "dnsguard: query loop");
        let hostile = Response::read(&response(5, b"\0\x0f\x1b[2Jx\0"), 0x1234).unwrap();
        assert_eq!((hostile.errors[0].code, hostile.errors[0].text.as_str()), (15, "?[2Jx"));
        assert!(!hostile.is_a_guards());
        let short = Response::read(&response(3, b"\0"), 0x1234).unwrap();
        assert!(short.is_answer() && short.errors.is_empty());
    }

    #[test]
    fn whoever_answers_something_else_is_not_heard() {
        let bytes = response(0, b"\0\0");
        assert_eq!(Response::read(&bytes, 0x1235), None);
        assert_eq!(Response::read(&bytes[..3], 0x1234), None);
        let mut query = bytes;
        query[2] = 1;
        assert_eq!(Response::read(&query, 0x1234), None);
    }

    #[test]
    fn a_response_that_cannot_be_read_has_its_rcode() {
        assert_eq!(
            Response::read(&[0x12, 0x34, 0x81, 0x85], 0x1234).unwrap().rcode_word(),
            "REFUSED"
        );
    }
}
