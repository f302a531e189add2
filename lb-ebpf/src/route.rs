//! The kernel's own routing and neighbours, asked for every packet: a next hop that changes is
//! followed with no agent alive.

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
        bpf_fib_lookup as Params,
    },
    helpers::bpf_fib_lookup,
};
use lb_common::{abi::NextHop, addr::Addr, flow::Tuple, path::Hook, world::Route};

use crate::maps;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Aligned to a word: the compiler writes addresses by words, and the verifier wants those aligned
/// on the stack.
#[repr(align(8))]
struct Aligned(Params);

/// Where a packet came in.
pub struct Place {
    /// The program's own context, for helpers.
    context: *mut core::ffi::c_void,
    interface: u32,
    pub hook: Hook,
}

impl Place {
    /// `context` is that of the running program.
    #[inline(always)]
    pub const fn new(context: *mut core::ffi::c_void, interface: u32, hook: Hook) -> Self {
        Self { context, interface, hook }
    }

    /// The way out for a packet of `length` bytes with `tuple`'s addresses.
    ///
    /// XDP gets a hop only if XDP can send there; tc gets one also while the neighbour's address is
    /// still to be found, because it hands the packet to the neighbour's queue.
    #[inline(never)]
    pub fn route<A: Addr>(&self, tuple: &Tuple<A>, length: u16) -> Route {
        // SAFETY: a plain C struct for which zeros are valid.
        let mut aligned: Aligned = unsafe { core::mem::zeroed() };
        let params = &mut aligned.0;
        params.l4_protocol = tuple.protocol;
        params.ifindex = self.interface;
        if matches!(self.hook, Hook::Xdp) {
            // At tc the kernel checks the packet itself, which may be a GSO one, against the MTU.
            params.__bindgen_anon_1.tot_len = length;
        }
        if A::IS_V4 {
            let word = |slot: [u8; 16]| u32::from_ne_bytes([slot[0], slot[1], slot[2], slot[3]]);
            params.family = AF_INET;
            params.__bindgen_anon_3.ipv4_src = word(tuple.src.to_slot());
            params.__bindgen_anon_4.ipv4_dst = word(tuple.dst.to_slot());
        } else {
            params.family = AF_INET6;
            params.__bindgen_anon_3.ipv6_src = words(tuple.src.to_slot());
            params.__bindgen_anon_4.ipv6_dst = words(tuple.dst.to_slot());
        }
        let size = size_of::<Params>() as i32;
        // SAFETY: the context is this program's own, the parameters are a local of the size given.
        let result = unsafe { bpf_fib_lookup(self.context, &raw mut *params, size, 0) } as u32;
        let hop = NextHop { interface: params.ifindex, src: params.smac, dst: params.dmac };
        match (result, self.hook) {
            (BPF_FIB_LKUP_RET_SUCCESS, Hook::Xdp) if self.reaches(hop.interface) => Route::Hop(hop),
            (BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH, Hook::Tc) => Route::Hop(hop),
            (BPF_FIB_LKUP_RET_FRAG_NEEDED, _) => Route::TooBig,
            (BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH, _) => Route::Stack,
            _ => Route::None,
        }
    }

    /// Whether XDP can send on this interface.
    #[inline(always)]
    fn reaches(&self, interface: u32) -> bool {
        // SAFETY: a `u32` that is read whole; a reused slot is another interface's flags, as valid.
        interface == self.interface
            || unsafe { maps::UPLINKS.get(&interface) }.is_some_and(|flags| flags & 1 != 0)
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
