//! What a socket of this node gets when it dials an address: decided once, at connect() or
//! sendmsg(), so that no packet carries the service address.

use crate::{
    abi::{
        AffinityKey, Answer, Backend, BackendState, FrontendKey, Kind, Service, SocketBackend,
        SocketChoice,
    },
    addr::Addr,
    affinity,
    path::{Outcome, SourceClass, is_barred},
    select::{Choice, Pick},
    verdict::Reason,
    world::Store,
};

/// The socket's answer.
#[derive(Clone, Copy, Debug)]
pub enum Dial<'a> {
    /// Not a service: the kernel goes on as if we were not there.
    Untouched,
    /// To this backend.
    Backend { service: u32, kind: Kind, choice: Choice<'a> },
    /// ECONNREFUSED or EHOSTUNREACH, as the reason's verdict says; the service may be
    /// [`Outcome::NOBODY`].
    Refused { service: u32, reason: Reason },
}

/// Decides what dialling (`address`, `port`) over `protocol` means; `port` is big-endian.
///
/// `source` is the address that the socket dials from, where it is known: load-balancer source ranges
/// are held against it. The hooks do not know that of a pod, for the kernel picks it after them (see
/// [`is_guarded`]); `lb explain` is told it.
///
/// `namespace` is the cookie of the socket's network namespace: to session affinity its client.
///
/// `sticky` is the backend that this socket's earlier datagrams went to; it stays as long as it
/// serves. [`SocketChoice::NONE`] if there were none.
#[inline(always)]
pub fn dial<A: Addr, S: Store<A>>(
    store: &S,
    source: Option<A>,
    namespace: Option<u64>,
    address: A,
    port: [u8; 2],
    protocol: u8,
    sticky: SocketChoice,
) -> Dial<'_> {
    let Some(frontend) = store.frontend(&FrontendKey::new(address, port, protocol)) else {
        return match no_frontend(store, &Aligned(address)) {
            Some(reason) => Dial::Refused { service: Outcome::NOBODY, reason },
            None => Dial::Untouched,
        };
    };
    let id = frontend.service();
    if matches!(frontend.kind(), Some(Kind::AnyNodePort)) {
        // The unspecified address is the loopback's.
        return Dial::Untouched;
    }
    let (Some(kind), Some(service)) = (frontend.kind(), store.service(id)) else {
        return Dial::Refused { service: id, reason: Reason::StaleAnswer };
    };
    if let Some(source) = source
        && is_barred(store, &frontend, service, source)
    {
        return Dial::Refused { service: id, reason: Reason::SourceRange };
    }
    if sticky != SocketChoice::NONE
        && let Some(backend) = store.backend(sticky.backend)
        && still_serves(backend, sticky.generation, id)
    {
        let choice = Choice { id: sticky.backend, backend, answer: Answer::UNSET };
        return Dial::Backend { service: id, kind, choice };
    }
    let scope = SourceClass::Node.scope(kind, service);
    let client = match namespace {
        Some(cookie) => AffinityKey::of_namespace(id, cookie),
        None => AffinityKey::nobody(id),
    };
    let chance = u64::from(store.random()) | u64::from(store.random()) << 32;
    let pick = Pick::of(store, id, service, service.ring_inside(), chance);
    match affinity::choose(store, &client, service, scope, pick) {
        Ok(choice) => {
            affinity::note(store, &client, choice.id, choice.backend.generation());
            Dial::Backend { service: id, kind, choice }
        }
        Err(reason) => Dial::Refused { service: id, reason },
    }
}

/// Whether what a socket of a pod opens through a frontend is to be held against source ranges when
/// its source is known: with the first packet, by [`may_open`].
#[inline(always)]
pub fn is_guarded<A: Addr, S: Store<A>>(store: &S, kind: Kind, service: u32) -> bool {
    matches!(kind, Kind::LoadBalancer)
        && store.service(service).is_some_and(Service::has_source_ranges)
}

/// Whether a packet from `source` may open something at a service that [`is_guarded`].
#[inline(always)]
pub fn may_open<A: Addr, S: Store<A>>(store: &S, service: u32, source: A) -> bool {
    // It may have lost its ranges since.
    let guarded = store.service(service).is_some_and(Service::has_source_ranges);
    !guarded || store.allows_source(service, source)
}

/// An address that is handed on by reference: read by whole words, it has to lie at one.
#[repr(align(8))]
struct Aligned<A>(A);

/// Why an address without such a port is refused, if it is. A function of its own, with a number for
/// an answer: inlined, LLVM saves registers that hold nothing on one of the ways through it, which
/// verifiers before kernel 6.14 refuse.
#[inline(never)]
fn no_frontend<A: Addr, S: Store<A>>(store: &S, address: &Aligned<A>) -> Option<Reason> {
    let address = address.0;
    match store.frontend(&FrontendKey::of_address(address)).and_then(|address| address.kind()) {
        Some(Kind::ClusterAddress) => Some(Reason::UnknownPort),
        Some(Kind::VirtualAddress) | None => {
            let settings = store.settings()?;
            let unallocated = settings.services::<A>().contains(address);
            unallocated.then_some(Reason::UnallocatedAddress)
        }
        Some(_) => None,
    }
}

#[inline(always)]
fn still_serves(backend: &Backend, generation: u32, service: u32) -> bool {
    let lives = match backend.state() {
        BackendState::Active => true,
        BackendState::Retired => backend.is_serving(),
        BackendState::Gone | BackendState::Free => false,
    };
    lives && backend.generation() == generation && backend.service() == service
}

/// Whether a socket of the node may bind there; a live NodePort is in use by its Service. `port` is
/// big-endian, and `address` may be the unspecified one.
#[inline(always)]
pub fn may_bind<A: Addr, S: Store<A>>(store: &S, address: A, port: [u8; 2], protocol: u8) -> bool {
    let taken = store.frontend(&FrontendKey::new(address, port, protocol));
    !matches!(taken.and_then(|it| it.kind()), Some(Kind::NodePort | Kind::AnyNodePort))
}

/// Whether what a connected UDP socket sends to (`address`, `port`) may leave: not if that is a
/// backend which no longer serves, for the address may be another pod's by now.
#[inline(always)]
pub fn may_send<A: Addr, S: Store<A>>(
    store: &S,
    connected: &SocketBackend,
    address: A,
    port: [u8; 2],
) -> bool {
    if A::from_slot(&connected.address) != address || connected.port != port {
        return true;
    }
    store.backend(connected.choice.backend).is_some_and(|backend| {
        still_serves(backend, connected.choice.generation, backend.service())
    })
}
