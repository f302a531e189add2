//! Sockets of this node: translated when they dial, so that their packets need no more work.

use lb_common::{
    abi::{Settings, SocketBackend, SocketChoice, SocketKey, SocketPeer},
    addr::{Addr, V4, V6},
    socket::{Dial, dial, is_guarded},
    verdict::{Reason, Verdict},
    wire::proto,
    world::{Store, World as _},
};

use crate::{
    call::{Address, Call},
    counters, events, helpers, life, maps,
    tables::Kernel,
};

const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;
/// What a cgroup program answers to let the call go on, and to fail it.
const PROCEED: i32 = 1;
const FAIL: i32 = 0;

#[inline(always)]
pub fn key_of<A: Addr>(cookie: u64, address: A, port: [u8; 2], protocol: u8) -> SocketKey {
    SocketKey::new(cookie, address.to_slot(), port, protocol, !A::IS_V4)
}

#[inline(always)]
fn key<A: Addr>(call: &Call, address: A, port: [u8; 2], protocol: u8) -> SocketKey {
    key_of(call.context().socket_cookie(), address, port, protocol)
}

/// connect() (`connects`) and sendmsg() of an IPv4 socket.
#[inline(always)]
pub fn dial_v4(call: &Call, connects: bool) -> i32 {
    translate(call, connects, V4::read(call), |address| address)
}

/// As [`dial_v4`] for an IPv6 socket, which may also dial `::ffff:a.b.c.d`.
#[inline(always)]
pub fn dial_v6(call: &Call, connects: bool) -> i32 {
    let address = V6::read(call);
    match address.mapped() {
        Some(v4) => translate(call, connects, v4, V6::from_mapped),
        None => translate(call, connects, address, |address| address),
    }
}

/// recvmsg() and getpeername() of an IPv4 socket: it sees the address that it dialled.
#[inline(always)]
pub fn peer_v4(call: &Call) -> i32 {
    restore(call, V4::read(call), |address| address)
}

/// As [`peer_v4`] for an IPv6 socket.
#[inline(always)]
pub fn peer_v6(call: &Call) -> i32 {
    let address = V6::read(call);
    match address.mapped() {
        Some(v4) => restore(call, v4, V6::from_mapped),
        None => restore(call, address, |address| address),
    }
}

#[inline(always)]
fn translate<A: Addr, B: Address>(
    call: &Call,
    connects: bool,
    address: A,
    form: impl FnOnce(A) -> B,
) -> i32
where
    Kernel<true>: Store<A>,
{
    let (port, protocol) = (call.port(), call.protocol());
    if protocol != proto::TCP && protocol != proto::UDP {
        return PROCEED;
    }
    let store = Kernel::<true>;
    let dialled = key(call, address, port, protocol);
    let sticky = if protocol == proto::UDP { maps::choice(&dialled) } else { SocketChoice::NONE };
    let namespace = call.context().namespace_cookie();
    let on_node = store.settings().filter(|settings| settings.namespace == namespace);
    let source = on_node.and_then(Settings::own::<A>);
    match dial(&store, source, Some(namespace), address, port, protocol, sticky) {
        Dial::Untouched => PROCEED,
        Dial::Refused { service, reason } => {
            events::refusal(address, port, protocol, service, reason);
            refuse(service, reason)
        }
        Dial::Backend { service, kind, choice } => {
            let to = A::from_slot(choice.backend.address());
            let to_port = choice.backend.port();
            let mut peer = SocketPeer::new(address.to_slot(), port);
            if on_node.is_none() && is_guarded(&store, kind, service) {
                peer = peer.guarded(service);
            }
            let chosen =
                SocketChoice { backend: choice.id, generation: choice.backend.generation() };
            if sticky != chosen {
                counters::socket(service, choice.id);
                if protocol == proto::UDP {
                    // Full never: these maps forget the least recently used.
                    let _ = maps::SOCKET_CHOICES.insert(dialled, chosen, 0);
                }
            }
            // Where two services have one backend, a socket is told the one that it dialled last.
            let backend = key(call, to, to_port, protocol);
            if maps::peer(&backend) != Some(&peer) {
                let _ = maps::SOCKET_PEERS.insert(backend, peer, 0);
            }
            if connects {
                let connected = SocketBackend {
                    choice: chosen,
                    address: to.to_slot(),
                    port: to_port,
                    protocol,
                    counted: 0,
                    zero: [0; 4],
                };
                life::connected(call.context().socket_cookie(), service, connected);
            }
            form(to).write(call);
            call.set_port(to_port);
            PROCEED
        }
    }
}

#[inline(always)]
fn restore<A: Addr, B: Address>(call: &Call, address: A, form: impl FnOnce(A) -> B) -> i32 {
    let key = key(call, address, call.port(), call.protocol());
    if let Some(peer) = maps::peer(&key) {
        form(A::from_slot(peer.address())).write(call);
        call.set_port(peer.port());
    }
    PROCEED
}

#[inline(always)]
fn refuse(service: u32, reason: Reason) -> i32 {
    counters::refusal(service, reason);
    let errno = match reason.verdict() {
        Verdict::Reject => ECONNREFUSED,
        Verdict::Pass | Verdict::Deliver | Verdict::Forward | Verdict::Answer | Verdict::Drop => {
            EHOSTUNREACH
        }
    };
    helpers::fail_with(errno);
    FAIL
}
