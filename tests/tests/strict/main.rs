//! Who looks closely at what comes back: a mark in his query changes nothing for him.
//!
//! Each test puts a real strict program in front of a real server, with the guard on the way, and has its query be the
//! one that is marked ([`site`]), or a crowd ask through a chain of forwarders ([`chain`]). It fails if there was no mark.

mod chain;
mod cookies;
mod dnssec;
mod relay;
mod resolvers;
mod signed;
mod site;
