//! The judge of dnsguard: bytes in, verdict out.
//!
//! `no_std`, no I/O, no clock, no sockets. The same code is compiled into the kernel object (`guard-ebpf`), which
//! runs it for every packet, and natively, where tests drive it step by step with a clock they own.
//!
//! Data goes one way:
//!
//! ```text
//! bytes -> packet -> question -> key ---+
//!                 \-> flow (sighting) --+-> judge -> remedy -> answer
//! ```
//!
//! The layouts shared between kernel and agent (`abi`, `policy`, `counter`, `event`, `judge::KeyBucket`) are declared
//! here once.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod abi;
pub mod address;
pub mod answer;
pub mod budget;
pub mod bytes;
pub mod case;
mod choice;
pub mod counter;
pub mod event;
pub mod flow;
pub mod hygiene;
pub mod judge;
pub mod key;
pub mod local;
pub mod marks;
pub mod packet;
pub mod policy;
pub mod question;
pub mod recent;
pub mod remedy;
pub mod sample;
pub mod spelling;
pub mod time;

#[cfg(test)]
extern crate std;
