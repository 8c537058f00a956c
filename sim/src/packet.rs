//! What goes over the wire: a query or a response, between two sockets.

use crate::name::Caps;

/// One end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Socket {
    /// A number for the address; the [`Network`](crate::Network) knows which.
    pub address: u16,
    /// The port.
    pub port: u16,
}

/// The socket of a server.
pub const fn at(address: u16, port: u16) -> Socket {
    Socket { address, port }
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A query.
    Query,
    /// NOERROR or NXDOMAIN.
    Answer,
    /// SERVFAIL or REFUSED.
    Error,
}

/// A query or a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet {
    /// Who sends it.
    pub from: Socket,
    /// Who is to get it.
    pub to: Socket,
    /// The DNS ID.
    pub id: u16,
    /// What it is.
    pub kind: Kind,
    /// The number of the name that is asked for.
    pub name: u16,
    /// How the name is spelled.
    pub caps: Caps,
    /// The servers that this query, and the queries that made their receivers send it, have been to: a bit each.
    pub path: u64,
}

impl Packet {
    /// The response to a query, spelled as it is.
    #[must_use]
    pub const fn reply(self, kind: Kind) -> Self {
        Self {
            from: self.to,
            to: self.from,
            kind,
            ..self
        }
    }

    /// The same, spelled otherwise.
    #[must_use]
    pub const fn spelled(self, caps: Caps) -> Self {
        Self { caps, ..self }
    }
}
