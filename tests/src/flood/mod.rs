//! A flood of one query or of random names, as fast as one core makes it, and good clients who ask the same server for
//! other names.
//!
//! Two hosts, joined by a veth. One core is the clients' (`cpu::SENDER`): it makes the flood ([`Stream`]) and asks the
//! good clients' questions ([`ask_all`]). The other is the server's (`cpu::RECEIVER`): the thread of its receive queue
//! and its programs share it ([`Site`]). In front of the server stands one of several protections ([`Protection`]).
//!
//! Every packet to the server, good or bad, goes through the one queue of 256 packets that its device has, as it would
//! with a network card: so a server that cannot keep up loses good ones along with the others.

mod asked;
mod clients;
pub(crate) mod cpu;
mod hook;
mod iptables;
mod nft;
mod program;
mod protection;
mod site;
mod stream;

pub use asked::{Asked, FLOODED};
pub use clients::{Place, Service, ask_all};
pub use cpu::Busy;
pub use hook::Hook;
pub use nft::FloodedCounter;
pub use protection::{LIMIT, Protection};
pub use site::Site;
pub use stream::{Flooding, Pace, Sent, Stream};
