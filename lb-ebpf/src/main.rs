//! Every hook, and what it does with each verdict. The rules are in lb-common.
#![no_std]
#![no_main]

mod call;
mod counters;
mod events;
mod explain;
mod helpers;
mod life;
mod maps;
mod packet;
mod route;
mod socket;
mod steps;
mod tables;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{cgroup_skb, cgroup_sock, cgroup_sock_addr, classifier, xdp},
    programs::{SkBuffContext, SockAddrContext, SockContext, TcContext, XdpContext},
};
use lb_common::{
    abi::EventHook,
    packet::Packet as _,
    path::{arrive, leave},
    verdict::Verdict,
};

use crate::{
    call::Call,
    helpers::Context,
    packet::{TcPacket, XdpPacket},
    route::Place,
    tables::Kernel,
};

/// Uplink, before the stack: finishes a packet, or leaves it unmodified to `uplink_ingress`.
#[xdp]
#[inline(always)]
pub fn uplink_xdp(context: XdpContext) -> u32 {
    let interface = context.ingress_ifindex() as u32;
    let place = Place::<true, false>::new(Context::new(context.as_ptr()), interface);
    let mut frame = XdpPacket(&context);
    let bytes = frame.len();
    let Some(notes) = maps::notes(&maps::NOTES) else { return xdp_action::XDP_PASS };
    let verdict = arrive(&mut frame, &Kernel::<true>, &place, notes);
    let outcome = &notes.outcome;
    let action = match verdict {
        // Counted by tc, which sees it next.
        Verdict::Pass => return xdp_action::XDP_PASS,
        Verdict::Deliver => xdp_action::XDP_PASS,
        Verdict::Forward if outcome.hop.interface == interface => xdp_action::XDP_TX,
        Verdict::Forward => helpers::redirect(outcome.hop.interface) as u32,
        Verdict::Answer | Verdict::Reject => xdp_action::XDP_TX,
        Verdict::Drop => xdp_action::XDP_DROP,
    };
    counters::packet(verdict, notes, bytes, EventHook::Xdp);
    action
}

/// Uplink, on the way in.
#[classifier]
#[inline(always)]
pub fn uplink_ingress(context: TcContext) -> i32 {
    comes_in::<false>(&context)
}

/// Uplink, on the way out: replies of backends on this node.
#[classifier]
#[inline(always)]
pub fn uplink_egress(context: TcContext) -> i32 {
    goes_out::<false, false>(&context)
}

/// An uplink without an Ethernet header (WireGuard, IPIP, tun), on the way in.
#[classifier]
#[inline(always)]
pub fn raw_ingress(context: TcContext) -> i32 {
    // Where there is no room for it (a super-packet on some kernels) the frame is as it was.
    if packet::give_link_header(&context).is_none() {
        return TC_ACT_UNSPEC;
    }
    comes_in::<false>(&context)
}

/// An uplink without an Ethernet header, on the way out.
#[classifier]
#[inline(always)]
pub fn raw_egress(context: TcContext) -> i32 {
    goes_out::<false, true>(&context)
}

/// The node's end of a pod's cable, on the way out of the pod: what no socket of this node sent, for
/// those are translated when they dial.
#[classifier]
#[inline(always)]
pub fn pod_ingress(context: TcContext) -> i32 {
    comes_in::<true>(&context)
}

/// The node's end of a pod's cable, on the way to the pod: replies.
#[classifier]
#[inline(always)]
pub fn pod_egress(context: TcContext) -> i32 {
    goes_out::<true, false>(&context)
}

#[inline(always)]
fn comes_in<const PODS: bool>(context: &TcContext) -> i32 {
    if packet::is_tagged(context) {
        return TC_ACT_UNSPEC;
    }
    let interface = packet::interface(context);
    let place = Place::<false, PODS>::new(Context::new(context.as_ptr()), interface);
    let place = place.joined(packet::joined(context));
    let mut frame = TcPacket::<false>::new(context);
    let bytes = frame.bytes();
    let Some(notes) = maps::notes(&maps::NOTES) else { return TC_ACT_UNSPEC };
    let verdict = arrive(&mut frame, &Kernel::<true>, &place, notes);
    counters::packet(verdict, notes, bytes, EventHook::Ingress);
    let outcome = &notes.outcome;
    match verdict {
        // Whoever is next on this hook sees it.
        Verdict::Pass | Verdict::Deliver => TC_ACT_UNSPEC,
        Verdict::Forward => helpers::redirect_neighbour(outcome.hop.interface),
        // What was in an envelope is answered to the client, who is not where that came from.
        Verdict::Reject if notes.was_opened() => helpers::redirect_neighbour(outcome.hop.interface),
        Verdict::Answer | Verdict::Reject => helpers::redirect(interface),
        Verdict::Drop => TC_ACT_SHOT,
    }
}

#[inline(always)]
fn goes_out<const PODS: bool, const RAW: bool>(context: &TcContext) -> i32 {
    if packet::is_tagged(context) {
        return TC_ACT_UNSPEC;
    }
    let interface = packet::interface(context);
    let place = Place::<false, PODS>::new(Context::new(context.as_ptr()), interface);
    let mut frame = TcPacket::<RAW>::new(context);
    let bytes = frame.bytes();
    let Some(notes) = maps::notes(&maps::NOTES) else { return TC_ACT_UNSPEC };
    let verdict = leave(&mut frame, &Kernel::<true>, &place, notes);
    match verdict {
        Verdict::Pass => return TC_ACT_UNSPEC,
        Verdict::Deliver | Verdict::Forward => {
            counters::packet(verdict, notes, bytes, EventHook::Egress);
        }
        Verdict::Answer | Verdict::Reject | Verdict::Drop => {
            counters::packet(verdict, notes, bytes, EventHook::Egress);
            return TC_ACT_SHOT;
        }
    }
    TC_ACT_UNSPEC
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(call: SockAddrContext) -> i32 {
    socket::dial_v4(&Call::new(call), true)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(call: SockAddrContext) -> i32 {
    socket::dial_v6(&Call::new(call), true)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(call: SockAddrContext) -> i32 {
    socket::dial_v4(&Call::new(call), false)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(call: SockAddrContext) -> i32 {
    socket::dial_v6(&Call::new(call), false)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(call: SockAddrContext) -> i32 {
    socket::peer_v4(&Call::new(call))
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(call: SockAddrContext) -> i32 {
    socket::peer_v6(&Call::new(call))
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(call: SockAddrContext) -> i32 {
    socket::peer_v4(&Call::new(call))
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(call: SockAddrContext) -> i32 {
    socket::peer_v6(&Call::new(call))
}

/// A socket of this node takes an address and port for itself.
#[cgroup_sock(post_bind4)]
pub fn post_bind4(context: SockContext) -> i32 {
    life::bound_v4(&context)
}

/// As [`post_bind4`], for an IPv6 socket.
#[cgroup_sock(post_bind6)]
pub fn post_bind6(context: SockContext) -> i32 {
    life::bound_v6(&context)
}

/// A socket of this node is closed for good.
#[cgroup_sock(sock_release)]
pub fn sock_release(context: SockContext) -> i32 {
    life::released(&context)
}

/// What sockets of this node send, while some of them are connected to a backend that no longer
/// serves, or a load balancer has source ranges.
#[cgroup_skb]
pub fn socket_egress(context: SkBuffContext) -> i32 {
    life::sends(&context)
}

/// For `lb explain`: a frame in, a report out. Never attached.
#[xdp]
pub fn explain_packet(context: XdpContext) -> u32 {
    explain::packet(&context).map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_PASS)
}

/// For `lb explain`: a question in, a report out. Never attached.
#[xdp]
pub fn explain_socket(context: XdpContext) -> u32 {
    explain::socket(&context).map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_PASS)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses an endless loop: a panic that can be reached does not load.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
