//! The kernel's own routing and neighbours, asked for every packet: a next hop that changes is
//! followed with no agent alive.

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
};
use lb_common::{
    abi::NextHop,
    addr::Addr,
    flow::Tuple,
    path::Hook,
    world::{Network, Route},
};

use crate::{
    helpers::{self, Context, FibQuestion},
    maps,
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Where a packet came in: at `XDP` or at tc, on an uplink or, with `PODS`, on an interface that pods are
/// behind. The compiler knows which, and what only others do is not in the program.
pub struct Place<const XDP: bool, const PODS: bool> {
    context: Context,
    interface: u32,
    /// Bytes of payload in each of the packets that hardware joined to one; zero: it is one.
    joined: u16,
}

impl<const XDP: bool, const PODS: bool> Place<XDP, PODS> {
    #[inline(always)]
    pub const fn new(context: Context, interface: u32) -> Self {
        Self { context, interface, joined: 0 }
    }

    /// At tc a packet may be many that were joined: each part must fit the way out.
    #[inline(always)]
    pub const fn joined(self, joined: u16) -> Self {
        Self { joined, ..self }
    }

    /// Whether XDP can send on this interface.
    #[inline(always)]
    fn reaches(&self, interface: u32) -> bool {
        interface == self.interface || maps::is_sending(interface)
    }
}

impl<A: Addr, const XDP: bool, const PODS: bool> Network<A> for Place<XDP, PODS> {
    #[inline(always)]
    fn hook(&self) -> Hook {
        if XDP { Hook::Xdp } else { Hook::Tc }
    }

    #[inline(always)]
    fn takes_shortcuts(&self) -> bool {
        XDP
    }

    #[inline(always)]
    fn faces_pods(&self) -> bool {
        PODS
    }

    /// XDP gets a hop only if XDP can send there; tc gets one also while the neighbour's address is
    /// still to be found, because it hands the packet to the neighbour's queue.
    #[inline(never)]
    fn route(&self, tuple: &Tuple<A>, length: u16, headers: u16) -> Route {
        let mut question = FibQuestion::new();
        let params = question.begin();
        params.l4_protocol = tuple.protocol;
        params.ifindex = self.interface;
        params.__bindgen_anon_1.tot_len =
            if self.joined == 0 { length } else { headers.saturating_add(self.joined) };
        if A::IS_V4 {
            params.family = AF_INET;
            params.__bindgen_anon_3.ipv4_src = words(tuple.src.to_slot())[0];
            params.__bindgen_anon_4.ipv4_dst = words(tuple.dst.to_slot())[0];
        } else {
            params.family = AF_INET6;
            params.__bindgen_anon_3.ipv6_src = words(tuple.src.to_slot());
            params.__bindgen_anon_4.ipv6_dst = words(tuple.dst.to_slot());
        }
        let result = self.context.fib_lookup(params);
        let mtu = helpers::mtu(params);
        let hop = NextHop::new(params.ifindex, mtu, params.smac, params.dmac);
        match (result, <Self as Network<A>>::hook(self)) {
            (BPF_FIB_LKUP_RET_SUCCESS, Hook::Xdp) if self.reaches(hop.interface) => Route::Hop(hop),
            (BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH, Hook::Tc) => Route::Hop(hop),
            // Generic XDP gets packets that the kernel has joined in one piece, and is not told. What is
            // longer than the link it came by takes was joined; tc knows how long the parts are.
            (BPF_FIB_LKUP_RET_FRAG_NEEDED, Hook::Xdp)
                if self.context.is_longer_than_mtu(&mut params.ifindex) =>
            {
                Route::Stack
            }
            (BPF_FIB_LKUP_RET_FRAG_NEEDED, _) => Route::TooBig(mtu),
            (BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH, _) => Route::Stack,
            _ => Route::None,
        }
    }
}

/// For programs that only explain: routing never changes a verdict, so every way leads somewhere.
pub struct Anywhere;

impl<A: Addr> Network<A> for Anywhere {
    #[inline(always)]
    fn hook(&self) -> Hook {
        Hook::Tc
    }

    #[inline(always)]
    fn takes_shortcuts(&self) -> bool {
        false
    }

    #[inline(always)]
    fn faces_pods(&self) -> bool {
        false
    }

    #[inline(always)]
    fn route(&self, _tuple: &Tuple<A>, _length: u16, _headers: u16) -> Route {
        Route::Hop(NextHop::default())
    }
}

#[inline(always)]
fn words(slot: [u8; 16]) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = slot;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}
