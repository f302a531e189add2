//! Where the rules find their tables, clock and routes: maps and helpers in the kernel, plain values
//! in tests.

use crate::{
    abi::{Backend, FlowSet, Frontend, FrontendKey, Line, NextHop, Service, Settings},
    addr::Addr,
    flow::Tuple,
    path::Hook,
};

/// What does not depend on the address family.
pub trait World {
    /// Rules that run on live tables change them; those that only explain do not.
    const LIVE: bool;

    /// Which hook the rules run for.
    fn hook(&self) -> Hook;
    fn settings(&self) -> Option<&Settings>;
    fn service(&self, id: u32) -> Option<&Service>;
    fn line(&self, index: u32) -> Option<&Line>;
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// Monotonic time in ticks ([`Settings::TICK_SHIFT`]).
    fn now(&self) -> u32;
    fn random(&self) -> u32;
}

/// What there is once for each family.
pub trait Store<A: Addr>: World {
    fn frontend(&self, key: &FrontendKey<A>) -> Option<Frontend>;
    /// Whether a backend on this node has this address, port and protocol.
    fn is_local_backend(&self, key: &FrontendKey<A>) -> bool;
    /// Whether `source` may reach the load-balancer addresses of `service`.
    fn allows_source(&self, service: u32, source: A) -> bool;
    fn flow_set(&self, index: u32) -> Option<&FlowSet<A>>;
    /// Where a packet with these addresses leaves this node; `length` is that of the IP packet.
    fn route(&self, tuple: &Tuple<A>, length: u16) -> Route;
}

/// The way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Interface and addresses are known.
    Hop(NextHop),
    /// Only tc, which can wait for a neighbour and enter any device, can send it there.
    Stack,
    /// The packet is too long for it.
    TooBig,
    /// There is none.
    None,
}
