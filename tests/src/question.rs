//! What is asked, and the DNS messages that ask it and answer it.

use std::{fmt, net::Ipv4Addr};

use anyhow::{Context as _, Result};
use hickory_proto::{
    op::{DEFAULT_MAX_PAYLOAD_LEN, Edns, Message, MessageType, Query},
    rr::{RData, Record},
};

pub use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RecordType},
};

/// A name and a type, class IN. The name keeps its case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name asked for, fully qualified.
    pub name: Name,
    /// The type asked for.
    pub kind: RecordType,
}

impl Question {
    /// A question for `name`, which is taken as fully qualified with or without a dot at its end.
    pub fn new(name: &str, kind: RecordType) -> Result<Self> {
        let mut name = Name::from_ascii(name).with_context(|| format!("name {name}"))?;
        name.set_fqdn(true);
        Ok(Self { name, kind })
    }

    /// The query in wire form, as a stub resolver of today sends it: RD and an OPT without options.
    pub fn query(&self, id: u16) -> Result<Vec<u8>> {
        let mut message = Message::query();
        message.metadata.id = id;
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), self.kind));
        let mut edns = Edns::new();
        edns.set_max_payload(DEFAULT_MAX_PAYLOAD_LEN).set_version(0);
        message.set_edns(edns);
        Ok(message.to_vec()?)
    }
}

impl fmt::Display for Question {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.kind, self.name)
    }
}

/// A random DNS ID.
pub(crate) fn random_id() -> u16 {
    Message::query().metadata.id
}

/// The response in `bytes`, if it is one to the query with this ID.
pub(crate) fn response(bytes: &[u8], id: u16) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let ours = message.metadata.message_type == MessageType::Response && message.metadata.id == id;
    ours.then_some(message)
}

/// The response to the query in `bytes`: `rcode`, and for NOERROR and type A the address with a TTL of 0.
pub(crate) fn respond(bytes: &[u8], rcode: ResponseCode, address: Ipv4Addr) -> Option<Vec<u8>> {
    let asked = Message::from_vec(bytes).ok()?;
    let query = asked.queries.first()?.clone();
    let mut message = Message::response(asked.metadata.id, asked.metadata.op_code);
    message.metadata.recursion_desired = asked.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.response_code = rcode;
    if rcode == ResponseCode::NoError && query.query_type() == RecordType::A {
        let data = RData::A(address.into());
        message.add_answer(Record::from_rdata(query.name().clone(), 0, data));
    }
    message.add_query(query);
    message.to_vec().ok()
}

/// Whether a response says something about the name: an error only says that nobody knows yet.
pub fn is_answer(rcode: ResponseCode) -> bool {
    matches!(rcode, ResponseCode::NoError | ResponseCode::NXDomain)
}
