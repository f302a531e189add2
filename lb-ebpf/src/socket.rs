//! Sockets of this node: translated when they dial, so that their packets need no more work.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::{bpf_get_socket_cookie, generated::bpf_set_retval},
    programs::SockAddrContext,
};
use lb_common::{
    abi::{SocketChoice, SocketKey, SocketPeer},
    addr::{Addr, V4, V6},
    path::Hook,
    socket::{Dial, dial},
    verdict::{Reason, Verdict},
    wire::proto,
    world::Store,
};

use crate::{counters, maps, route::Place, tables::Kernel};

const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;
/// What a cgroup program answers to let the call go on, and to fail it.
const PROCEED: i32 = 1;
const FAIL: i32 = 0;

/// The address in a system call, in the form of its hook.
pub trait Address: Addr {
    fn read(call: &SockAddrContext) -> Self;
    fn write(self, call: &SockAddrContext);
}

impl Address for V4 {
    #[inline(always)]
    fn read(call: &SockAddrContext) -> Self {
        // SAFETY: a context field that the verifier allows to be read.
        Self(unsafe { (&raw const (*call.sock_addr).user_ip4).read_volatile() }.to_ne_bytes())
    }

    #[inline(always)]
    fn write(self, call: &SockAddrContext) {
        // SAFETY: a context field that the verifier allows to be written.
        unsafe { (&raw mut (*call.sock_addr).user_ip4).write_volatile(u32::from_ne_bytes(self.0)) }
    }
}

impl Address for V6 {
    #[inline(always)]
    fn read(call: &SockAddrContext) -> Self {
        // SAFETY: as for IPv4; volatile keeps the accesses four bytes wide.
        let word = |index| unsafe { word6(call, index).read_volatile() }.to_ne_bytes();
        let ([a, b, c, d], [e, f, g, h]) = (word(0), word(1));
        let ([i, j, k, l], [m, n, o, p]) = (word(2), word(3));
        Self([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    #[inline(always)]
    fn write(self, call: &SockAddrContext) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0;
        // SAFETY: as for IPv4.
        unsafe {
            word6(call, 0).write_volatile(u32::from_ne_bytes([a, b, c, d]));
            word6(call, 1).write_volatile(u32::from_ne_bytes([e, f, g, h]));
            word6(call, 2).write_volatile(u32::from_ne_bytes([i, j, k, l]));
            word6(call, 3).write_volatile(u32::from_ne_bytes([m, n, o, p]));
        }
    }
}

#[inline(always)]
fn word6(call: &SockAddrContext, index: usize) -> *mut u32 {
    // SAFETY: `index` is a constant below four; the pointer is only formed here.
    unsafe { (&raw mut (*call.sock_addr).user_ip6).cast::<u32>().add(index) }
}

#[inline(always)]
fn field<T>(call: &SockAddrContext, at: impl FnOnce(*mut bpf_sock_addr) -> *mut T) -> T {
    // SAFETY: a context field that the verifier allows to be read.
    unsafe { at(call.sock_addr).read_volatile() }
}

/// The port in the call, big-endian.
#[inline(always)]
fn port(call: &SockAddrContext) -> [u8; 2] {
    // SAFETY: the field is the context's own; see `field`.
    (field(call, |c| unsafe { &raw mut (*c).user_port }) as u16).to_ne_bytes()
}

#[inline(always)]
fn set_port(call: &SockAddrContext, port: [u8; 2]) {
    let port = u32::from(u16::from_ne_bytes(port));
    // SAFETY: a context field that the verifier allows to be written.
    unsafe { (&raw mut (*call.sock_addr).user_port).write_volatile(port) }
}

#[inline(always)]
fn protocol(call: &SockAddrContext) -> u8 {
    // SAFETY: the field is the context's own; see `field`.
    field(call, |c| unsafe { &raw mut (*c).protocol }) as u8
}

#[inline(always)]
fn key<A: Addr>(call: &SockAddrContext, address: A, port: [u8; 2], protocol: u8) -> SocketKey {
    // SAFETY: the helper takes this program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(call.as_ptr()) };
    SocketKey::new(cookie, address.to_slot(), port, protocol, !A::IS_V4)
}

/// connect() and sendmsg() of an IPv4 socket.
#[inline(always)]
pub fn dial_v4(call: &SockAddrContext) -> i32 {
    translate(call, V4::read(call), |address| address)
}

/// As [`dial_v4`] for an IPv6 socket, which may also dial `::ffff:a.b.c.d`.
#[inline(always)]
pub fn dial_v6(call: &SockAddrContext) -> i32 {
    let address = V6::read(call);
    match address.mapped() {
        Some(v4) => translate(call, v4, V6::from_mapped),
        None => translate(call, address, |address| address),
    }
}

/// recvmsg() and getpeername() of an IPv4 socket: it sees the address that it dialled.
#[inline(always)]
pub fn peer_v4(call: &SockAddrContext) -> i32 {
    restore(call, V4::read(call), |address| address)
}

/// As [`peer_v4`] for an IPv6 socket.
#[inline(always)]
pub fn peer_v6(call: &SockAddrContext) -> i32 {
    let address = V6::read(call);
    match address.mapped() {
        Some(v4) => restore(call, v4, V6::from_mapped),
        None => restore(call, address, |address| address),
    }
}

#[inline(always)]
fn translate<A: Addr, B: Address>(
    call: &SockAddrContext,
    address: A,
    form: impl FnOnce(A) -> B,
) -> i32
where
    Kernel<true>: Store<A>,
{
    let (port, protocol) = (port(call), protocol(call));
    if protocol != proto::TCP && protocol != proto::UDP {
        return PROCEED;
    }
    let store = Kernel::<true> { place: Place::new(call.as_ptr(), 0, Hook::Tc) };
    let dialled = key(call, address, port, protocol);
    // SAFETY: a value may be reused under us: then the backend's generation does not fit.
    let sticky = match unsafe { maps::SOCKET_CHOICES.get(&dialled) } {
        Some(choice) if protocol == proto::UDP => *choice,
        _ => SocketChoice::NONE,
    };
    match dial(&store, None, address, port, protocol, sticky) {
        Dial::Untouched => PROCEED,
        Dial::Refused { service, reason } => refuse(service, reason),
        Dial::Backend { service, choice, .. } => {
            let to = A::from_slot(choice.backend.address());
            let to_port = choice.backend.port();
            let peer = SocketPeer { address: address.to_slot(), port, zero: [0; 6] };
            let chosen =
                SocketChoice { backend: choice.id, generation: choice.backend.generation() };
            if sticky != chosen {
                counters::socket(service, choice.id);
                // Full never: these maps forget the least recently used.
                let _ = maps::SOCKET_PEERS.insert(key(call, to, to_port, protocol), peer, 0);
                if protocol == proto::UDP {
                    let _ = maps::SOCKET_CHOICES.insert(dialled, chosen, 0);
                }
            }
            form(to).write(call);
            set_port(call, to_port);
            PROCEED
        }
    }
}

#[inline(always)]
fn restore<A: Addr, B: Address>(
    call: &SockAddrContext,
    address: A,
    form: impl FnOnce(A) -> B,
) -> i32 {
    let key = key(call, address, port(call), protocol(call));
    // SAFETY: a value may be reused under us only once the socket has been idle for as many others
    // as the map holds; its bytes are valid whatever they are.
    if let Some(peer) = unsafe { maps::SOCKET_PEERS.get(&key) } {
        form(A::from_slot(&peer.address)).write(call);
        set_port(call, peer.port);
    }
    PROCEED
}

#[inline(always)]
fn refuse(service: u32, reason: Reason) -> i32 {
    counters::refusal(service, reason);
    let errno = match reason.verdict() {
        Verdict::Reject => ECONNREFUSED,
        Verdict::Pass | Verdict::Deliver | Verdict::Forward | Verdict::Drop => EHOSTUNREACH,
    };
    // SAFETY: takes a number only (kernel 5.18).
    unsafe { bpf_set_retval(-errno) };
    FAIL
}
