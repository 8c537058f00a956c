//! The control socket: commands ask the running agent, over HTTP and JSON on a Unix socket.
//!
//! ```text
//! command -> client -> socket -> server -> (snapshot | ask -> agent | feed)
//! ```

pub(crate) mod api;
pub(crate) mod ask;
pub(crate) mod client;
#[cfg(test)]
mod documented;
mod filter;
mod server;
mod shown;
pub(crate) mod socket;
pub(crate) mod status;

pub(crate) use self::server::Server;
#[cfg(feature = "fuzz")]
pub(crate) use self::server::{Rooms, connection};
