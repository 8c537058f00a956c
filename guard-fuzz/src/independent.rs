//! The same messages as two other libraries read them: hickory-proto and domain, which share no code with the guard or
//! with each other.

use domain::base::{self as nlnet, opt::ExtendedError};
use hickory_proto::{
    op::{Header, MessageType, Query},
    rr::Name,
    serialize::binary::{BinDecodable as _, BinDecoder},
};

/// A header, and the first question behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) id: u16,
    pub(crate) responds: bool,
    pub(crate) opcode: u8,
    pub(crate) recursion_desired: bool,
    pub(crate) rcode: u8,
    /// Questions that the header announces.
    pub(crate) questions: u16,
    /// The first one; `None` if it cannot be read.
    pub(crate) question: Option<Asked>,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The name in wire form, in lower case, without compression.
    pub(crate) name: Vec<u8>,
    pub(crate) qtype: u16,
    pub(crate) qclass: u16,
}

/// What hickory-proto reads; `None` without a whole header.
pub(crate) fn hickory(message: &[u8]) -> Option<Reading> {
    let mut decoder = BinDecoder::new(message);
    let header = Header::read(&mut decoder).ok()?;
    let question = Query::read(&mut decoder).ok().map(|query| Asked {
        name: wire_of(&query.name),
        qtype: query.query_type.into(),
        qclass: query.query_class.into(),
    });
    let metadata = header.metadata;
    Some(Reading {
        id: metadata.id,
        responds: metadata.message_type == MessageType::Response,
        opcode: metadata.op_code.into(),
        recursion_desired: metadata.recursion_desired,
        rcode: metadata.response_code.low(),
        questions: header.counts.queries,
        question,
    })
}

/// What domain reads; `None` without a whole header.
pub(crate) fn domain(message: &[u8]) -> Option<Reading> {
    let message = nlnet::Message::from_octets(message).ok()?;
    let header = message.header();
    let question = message.question().next().and_then(Result::ok).map(|question| {
        let mut name = Vec::new();
        for label in question.qname().iter() {
            name.push(label.len() as u8);
            name.extend_from_slice(label.as_slice());
        }
        name.make_ascii_lowercase();
        Asked {
            name,
            qtype: question.qtype().to_int(),
            qclass: question.qclass().to_int(),
        }
    });
    Some(Reading {
        id: header.id(),
        responds: header.qr(),
        opcode: header.opcode().to_int(),
        recursion_desired: header.rd(),
        rcode: header.rcode().to_int(),
        questions: message.header_counts().qdcount(),
        question,
    })
}

/// The name of a question, as hickory-proto has it, in wire form and lower case.
fn wire_of(name: &Name) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.iter() {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label);
    }
    wire.push(0);
    wire.make_ascii_lowercase();
    wire
}

/// What an OPT record says: the DO bit, and its Extended DNS Errors as code and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    pub(crate) dnssec_ok: bool,
    pub(crate) errors: Vec<(u16, Vec<u8>)>,
}

/// The OPT record that domain finds, wherever it is; `None` where there is none or the message cannot be read to its end.
pub(crate) fn edns(message: &[u8]) -> Option<Edns> {
    let message = nlnet::Message::from_octets(message).ok()?;
    let opt = message.opt()?;
    let errors = opt.opt().iter::<ExtendedError<_>>();
    Some(Edns {
        dnssec_ok: opt.dnssec_ok(),
        errors: errors
            .filter_map(Result::ok)
            .map(|error| {
                let text = error.text_slice().unwrap_or_default().to_vec();
                (error.code().to_int(), text)
            })
            .collect(),
    })
}

/// Whether the first additional record is an OPT, as domain sees it, and of the root, as RFC 6891 section 6.1.2 has it.
pub(crate) fn begins_with_opt(message: &[u8]) -> bool {
    let Ok(message) = nlnet::Message::from_octets(message) else {
        return false;
    };
    let first = message.additional().ok().and_then(|mut records| records.next());
    first.is_some_and(|record| {
        record.is_ok_and(|record| record.rtype() == nlnet::Rtype::OPT && record.owner().is_root())
    })
}
