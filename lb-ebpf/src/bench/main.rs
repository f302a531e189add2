//! The programs that `lb bench` measures with. Never attached to anything that carries traffic of
//! others.
//!
//! A test run feeds the packet that a program has rewritten back to it. So a harness program comes
//! first: it restores the packet, with the next flow's addresses, and calls the program under test,
//! which is the shipped one, by a tail call. What the harness costs is measured by calling a program
//! that does nothing.
#![no_std]
#![no_main]

mod floor;
mod harness;
mod maps;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::addr::{V4, V6};

/// Each packet is the next flow's.
#[xdp]
pub fn next_v4(context: XdpContext) -> u32 {
    harness::next::<V4>(&context).unwrap_or(xdp_action::XDP_ABORTED)
}

/// Each packet is the next flow's.
#[xdp]
pub fn next_v6(context: XdpContext) -> u32 {
    harness::next::<V6>(&context).unwrap_or(xdp_action::XDP_ABORTED)
}

/// As `next_v4`; what became of the packet before is written over its stamp.
#[xdp]
pub fn record_v4(context: XdpContext) -> u32 {
    harness::record::<V4>(&context).unwrap_or(xdp_action::XDP_ABORTED)
}

/// As `next_v6`; what became of the packet before is written over its stamp.
#[xdp]
pub fn record_v6(context: XdpContext) -> u32 {
    harness::record::<V6>(&context).unwrap_or(xdp_action::XDP_ABORTED)
}

/// As `next_v4`, with a source that no packet had before.
#[xdp]
pub fn fresh_v4(context: XdpContext) -> u32 {
    harness::fresh(&context).unwrap_or(xdp_action::XDP_ABORTED)
}

/// Does nothing: what the harness itself costs.
#[xdp]
pub fn trivial(_: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Hands every packet to the stack: live traffic for the rules of others.
#[xdp]
pub fn to_stack(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The far end of live traffic.
#[xdp]
pub fn sink(_: XdpContext) -> u32 {
    maps::count(maps::SUNK);
    xdp_action::XDP_DROP
}

/// The least that a tracking load balancer does with the kernel's own hash map.
#[xdp]
pub fn floor_v4(context: XdpContext) -> u32 {
    floor::translate(&context).unwrap_or(xdp_action::XDP_ABORTED)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses an endless loop: a panic that can be reached does not load.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
