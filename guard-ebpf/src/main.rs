//! The doors of dnsguard: one thin program per hook.
//!
//! ```text
//! xdp, tc -> hook (ports) -> short (what says nothing)
//!     |          |-> dns (message, verdict) -> bench (judge and budgets on their maps)
//!     \\          \\              \\-> event (the agent: what changed, and samples)
//!      '---------- '-> door (how a hook reaches its packet)
//! ```
//!
//! What differs between XDP and TC is how a packet is reached, resized and sent. All rules are in `guard-common`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod bench;
mod dns;
mod door;
mod event;
mod frame;
mod hook;
mod maps;
mod short;
mod step;
mod tc;
mod xdp;

use aya_ebpf::{
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

/// For packets that come in, before the kernel has made anything of them.
#[xdp]
fn dnsguard_xdp(context: XdpContext) -> u32 {
    xdp::run(context.ctx)
}

/// For packets that come in.
#[classifier]
fn dnsguard_in(context: TcContext) -> i32 {
    tc::run::<false>(context.skb.skb)
}

/// For packets that go out.
#[classifier]
fn dnsguard_out(context: TcContext) -> i32 {
    tc::run::<true>(context.skb.skb)
}

/// The kernel gives only GPL-compatible programs the helpers used here.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No program reaches this: the verifier refuses to load one that could.
    loop {}
}
