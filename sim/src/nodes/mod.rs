//! Forwarders, servers and clients, as they were measured; those that nobody could measure by their sources.

mod asked;
mod client;
mod consul;
mod dnsdist;
mod dnsmasq;
mod forwarder;
mod naive;
mod router;
mod shuffler;
mod unbound;
mod upstream;

pub use client::{Client, Spells};
pub use consul::Consul;
pub use dnsdist::Dnsdist;
pub use dnsmasq::Dnsmasq;
pub use forwarder::Forwarder;
pub use naive::Naive;
pub use router::Router;
pub use shuffler::Shuffler;
pub use unbound::Unbound;
pub use upstream::Upstream;
