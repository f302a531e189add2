//! The rest of a socket's life: what it binds, whom it is connected to, its end.

use core::mem::offset_of;

use aya_ebpf::{
    EbpfContext as _,
    programs::{SkBuffContext, SockContext},
};
use lb_common::{
    abi::SocketBackend,
    addr::{V4, V6},
    socket::{may_bind, may_send},
    wire::{Header as _, Ipv4, Ipv6, Udp, proto},
};

use crate::{
    counters,
    helpers::{self, Context},
    maps,
    tables::Kernel,
};

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

/// A packet of a socket of this node: refused (EPERM) if it is a datagram to a backend that the
/// socket was given and that no longer serves.
#[inline(always)]
pub fn sends(context: &SkBuffContext) -> i32 {
    if goes(context).unwrap_or(true) { PROCEED } else { FAIL }
}

/// `None` for what is no datagram of a socket that was connected to a backend.
#[inline(always)]
fn goes(context: &SkBuffContext) -> Option<bool> {
    let cookie = Context::new(context.as_ptr()).socket_cookie();
    let connected = maps::socket_backend(cookie).filter(|it| it.protocol == proto::UDP)?;
    let store = &Kernel::<true>;
    // Integers, because the verifier wants what is copied to the stack to be aligned there.
    let version: u8 = context.load(0).ok()?;
    if version >> 4 == 4 {
        let address: u32 = context.load(DESTINATION_V4).ok()?;
        let port: u16 = context.load(Ipv4::LEN + DESTINATION_PORT).ok()?;
        return Some(may_send(store, &connected, V4(address.to_ne_bytes()), port.to_ne_bytes()));
    }
    let (high, low) = (DESTINATION_V6, DESTINATION_V6 + size_of::<u64>());
    let [a, b, c, d, e, f, g, h] = context.load::<u64>(high).ok()?.to_ne_bytes();
    let [i, j, k, l, m, n, o, p] = context.load::<u64>(low).ok()?.to_ne_bytes();
    let port: u16 = context.load(Ipv6::LEN + DESTINATION_PORT).ok()?;
    let address = V6([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]);
    Some(may_send(store, &connected, address, port.to_ne_bytes()))
}
