//! The rest of a socket's life: what it binds, whom it is connected to, its end.

use core::mem::offset_of;

use aya_ebpf::{
    EbpfContext as _,
    programs::{SkBuffContext, SockContext},
};
use lb_common::{
    abi::SocketBackend,
    addr::{Addr, V4, V6},
    socket::{may_bind, may_open, may_send},
    tracking::opens,
    verdict::Reason,
    wire::{Header as _, Ipv4, Ipv6, Tcp, Udp, proto},
    world::Store,
};

use crate::{
    counters, events,
    helpers::{self, Context},
    maps,
    socket::key_of,
    tables::Kernel,
};

const PROTOCOL_V4: usize = offset_of!(Ipv4, protocol);
const PROTOCOL_V6: usize = offset_of!(Ipv6, next_header);
const SOURCE_V4: usize = offset_of!(Ipv4, src);
const SOURCE_V6: usize = offset_of!(Ipv6, src);
const TCP_FLAGS: usize = offset_of!(Tcp, flags);
const DESTINATION_V4: usize = offset_of!(Ipv4, dst);
const DESTINATION_V6: usize = offset_of!(Ipv6, dst);
const DESTINATION_PORT: usize = offset_of!(Udp, dst);
const EADDRINUSE: i32 = 98;
/// What a cgroup program answers to let the call go on, and to fail it.
const PROCEED: i32 = 1;
const FAIL: i32 = 0;

/// Notes whom a socket is connected to, where that matters later.
#[inline(always)]
pub fn connected(cookie: u64, service: u32, mut connected: SocketBackend) {
    let counts = counters::counts_connections(service);
    if !counts && connected.protocol != proto::UDP {
        return;
    }
    connected.counted = u8::from(counts);
    uncount(cookie);
    if counts {
        maps::load(connected.choice.backend, 1, 1);
    }
    // Full never: the map forgets the least recently used.
    let _ = maps::SOCKET_BACKENDS.insert(cookie, connected, 0);
}

/// Takes a socket's connection off its backend's count.
#[inline(always)]
fn uncount(cookie: u64) {
    let Some(connected) = maps::socket_backend(cookie) else { return };
    let backend = maps::BACKENDS.get(connected.choice.backend);
    let same = backend.is_some_and(|it| it.generation() == connected.choice.generation);
    if connected.counted != 0 && same {
        maps::load(connected.choice.backend, 1, -1);
    }
}

/// A socket is gone.
#[inline(always)]
pub fn released(context: &SockContext) -> i32 {
    let cookie = Context::new(context.as_ptr()).socket_cookie();
    uncount(cookie);
    let _ = maps::SOCKET_BACKENDS.remove(cookie);
    PROCEED
}

/// bind() of an IPv4 socket.
#[inline(always)]
pub fn bound_v4(context: &SockContext) -> i32 {
    if !is_on_node(context) {
        return PROCEED;
    }
    let (port, protocol) = (port(context), helpers::bound_protocol(context) as u8);
    let address = V4(helpers::bound_v4(context).to_ne_bytes());
    if may_bind(&Kernel::<true>, address, port, protocol) { PROCEED } else { refuse() }
}

/// bind() of an IPv6 socket, which takes the port of both families if its address is unspecified.
#[inline(always)]
pub fn bound_v6(context: &SockContext) -> i32 {
    if !is_on_node(context) {
        return PROCEED;
    }
    let (port, protocol) = (port(context), helpers::bound_protocol(context) as u8);
    let address = helpers::bound_v6(context);
    let v4 = if address == V6::default() { Some(V4::default()) } else { address.mapped() };
    let free = may_bind(&Kernel::<true>, address, port, protocol)
        && v4.is_none_or(|v4| may_bind(&Kernel::<true>, v4, port, protocol));
    if free { PROCEED } else { refuse() }
}

#[inline(always)]
fn refuse() -> i32 {
    helpers::fail_with(EADDRINUSE);
    FAIL
}

/// Whether a socket is in the node's own network namespace: in others ports are their own.
#[inline(always)]
fn is_on_node(context: &SockContext) -> bool {
    let cookie = Context::new(context.as_ptr()).namespace_cookie();
    maps::SETTINGS.get(0).is_some_and(|settings| settings.namespace == cookie)
}

/// Big-endian.
#[inline(always)]
fn port(context: &SockContext) -> [u8; 2] {
    (helpers::bound_port(context) as u16).to_be_bytes()
}

/// A packet of a socket of this node: refused (EPERM, and a SYN without a word) if it is a datagram
/// to a backend that the socket was given and that no longer serves, or opens something from outside
/// a load balancer's source ranges.
#[inline(always)]
pub fn sends(context: &SkBuffContext) -> i32 {
    if goes(context).unwrap_or(true) { PROCEED } else { FAIL }
}

/// `None` for what is nobody's business here.
#[inline(always)]
fn goes(context: &SkBuffContext) -> Option<bool> {
    // Integers, because the verifier wants what is copied to the stack to be aligned there.
    let version: u8 = context.load(0).ok()?;
    if version >> 4 == 4 {
        let protocol: u8 = context.load(PROTOCOL_V4).ok()?;
        let l4 = usize::from(version & 0xf) * 4;
        if !matters(context, protocol, l4)? {
            return None;
        }
        let word = |at: usize| context.load::<u32>(at).map(|word| V4(word.to_ne_bytes()));
        let (src, dst) = (word(SOURCE_V4).ok()?, word(DESTINATION_V4).ok()?);
        return may_go(context, src, dst, protocol, l4);
    }
    let protocol: u8 = context.load(PROTOCOL_V6).ok()?;
    if !matters(context, protocol, Ipv6::LEN)? {
        return None;
    }
    let (src, dst) = (address_v6(context, SOURCE_V6)?, address_v6(context, DESTINATION_V6)?);
    may_go(context, src, dst, protocol, Ipv6::LEN)
}

/// Whether a packet is a datagram or opens a connection.
#[inline(always)]
fn matters(context: &SkBuffContext, protocol: u8, l4: usize) -> Option<bool> {
    Some(match protocol {
        proto::UDP => true,
        proto::TCP => opens(context.load(l4 + TCP_FLAGS).ok()?),
        _ => false,
    })
}

#[inline(always)]
fn address_v6(context: &SkBuffContext, at: usize) -> Option<V6> {
    let [a, b, c, d, e, f, g, h] = context.load::<u64>(at).ok()?.to_ne_bytes();
    let [i, j, k, l, m, n, o, p] = context.load::<u64>(at + size_of::<u64>()).ok()?.to_ne_bytes();
    Some(V6([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]))
}

#[inline(always)]
fn may_go<A: Addr>(context: &SkBuffContext, src: A, dst: A, protocol: u8, l4: usize) -> Option<bool>
where
    Kernel<true>: Store<A>,
{
    let store = &Kernel::<true>;
    let port = context.load::<u16>(l4 + DESTINATION_PORT).ok()?.to_ne_bytes();
    let cookie = Context::new(context.as_ptr()).socket_cookie();
    let connected = maps::socket_backend(cookie).filter(|it| it.protocol == proto::UDP);
    if connected.is_some_and(|connected| !may_send(store, &connected, dst, port)) {
        return Some(false);
    }
    let peer = maps::peer(&key_of(cookie, dst, port, protocol))?;
    let service = peer.guard()?;
    if may_open(store, service, src) {
        return None;
    }
    let dialled = A::from_slot(peer.address());
    counters::refusal(service, Reason::SourceRange);
    events::refusal(dialled, peer.port(), protocol, service, Reason::SourceRange);
    Some(false)
}
