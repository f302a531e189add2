//! The kernel's helpers as safe functions. Each takes numbers, or the context of the program that
//! calls it; the verifier checks the rest.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    bindings::bpf_fib_lookup as FibParams,
    helpers::{
        bpf_fib_lookup, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_redirect,
        generated::{
            bpf_check_mtu, bpf_get_netns_cookie, bpf_jiffies64, bpf_ktime_get_coarse_ns,
            bpf_redirect_neigh, bpf_set_retval,
        },
    },
    programs::SockContext,
};
use lb_common::addr::V6;

/// The context of the running program.
#[derive(Clone, Copy)]
pub struct Context(*mut c_void);

impl Context {
    /// `context` is what the kernel gave the running program.
    #[inline(always)]
    pub const fn new(context: *mut c_void) -> Self {
        Self(context)
    }

    /// Asks the kernel's routing (kernel 4.18).
    #[inline(always)]
    pub fn fib_lookup(self, params: &mut FibParams) -> u32 {
        let size = size_of::<FibParams>() as i32;
        // SAFETY: the context is the running program's, the parameters are of the size given.
        unsafe { bpf_fib_lookup(self.0, &raw mut *params, size, 0) as u32 }
    }

    /// Whether the frame is longer than its own interface takes (kernel 5.12), which is asked in `place`
    /// (and answered there: the MTU).
    #[inline(always)]
    pub fn is_longer_than_mtu(self, place: &mut u32) -> bool {
        const FRAG_NEEDED: i64 = 1;
        *place = 0;
        // SAFETY: the context is the running program's; the helper writes one `u32`.
        unsafe { bpf_check_mtu(self.0, 0, place, 0, 0) == FRAG_NEEDED }
    }

    /// Tells one network namespace from any other (kernel 5.7).
    #[inline(always)]
    pub fn namespace_cookie(self) -> u64 {
        // SAFETY: the context is the running program's.
        unsafe { bpf_get_netns_cookie(self.0) }
    }

    /// Tells one socket from any other.
    #[inline(always)]
    pub fn socket_cookie(self) -> u64 {
        // SAFETY: the context is the running program's.
        unsafe { bpf_get_socket_cookie(self.0) }
    }
}

macro_rules! of_bound_socket {
    ($($(#[$doc:meta])* $name:ident: $field:ident),* $(,)?) => {
        $($(#[$doc])*
        #[inline(always)]
        pub fn $name(context: &SockContext) -> u32 {
            // SAFETY: a field of the program's own context that the verifier allows to be read.
            unsafe { (&raw const (*context.sock).$field).read_volatile() }
        })*
    };
}

of_bound_socket! {
    /// The protocol of a socket that binds.
    bound_protocol: protocol,
    /// Its port, in the machine's byte order.
    bound_port: src_port,
    /// Its IPv4 address, as it lies in memory.
    bound_v4: src_ip4,
}

/// The IPv6 address of a socket that binds.
#[inline(always)]
pub fn bound_v6(context: &SockContext) -> V6 {
    // SAFETY: as for its port; volatile keeps the accesses four bytes wide.
    let word = |index: usize| unsafe {
        (&raw const (*context.sock).src_ip6).cast::<u32>().add(index).read_volatile()
    };
    let ([a, b, c, d], [e, f, g, h]) = (word(0).to_ne_bytes(), word(1).to_ne_bytes());
    let ([i, j, k, l], [m, n, o, p]) = (word(2).to_ne_bytes(), word(3).to_ne_bytes());
    V6([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
}

/// What the kernel's routing is asked with, and answers in. Aligned to a word: the compiler writes
/// addresses by words, and the verifier wants those aligned on the stack.
#[repr(align(8))]
pub struct FibQuestion(MaybeUninit<FibParams>);

impl FibQuestion {
    /// Room for a question.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// One that asks for nothing yet.
    #[inline(always)]
    pub fn begin(&mut self) -> &mut FibParams {
        const { assert!(size_of::<FibParams>().is_multiple_of(8)) };
        let words = (&raw mut *self).cast::<u64>();
        let mut index = 0;
        while index < size_of::<FibParams>() / 8 {
            // SAFETY: a word of the structure, which is aligned to words. Volatile, or LLVM makes a
            // call of `memset` of it, which goes byte by byte.
            unsafe { words.add(index).write_volatile(0) };
            index += 1;
        }
        // SAFETY: a plain C structure, for which zeros are valid.
        unsafe { self.0.assume_init_mut() }
    }
}

/// The MTU of the way out, if the kernel found a packet too long for it (5.12).
#[inline(always)]
pub const fn mtu(params: &FibParams) -> u16 {
    // SAFETY: a number in a union of numbers.
    unsafe { params.__bindgen_anon_1.mtu_result }
}

/// Monotonic time in nanoseconds, as of the last timer interrupt (kernel 5.11).
#[inline(always)]
pub fn coarse_time() -> u64 {
    // SAFETY: takes no arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The kernel's jiffies (kernel 5.6).
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: takes no arguments.
    unsafe { bpf_jiffies64() }
}

#[inline(always)]
pub fn random() -> u32 {
    // SAFETY: takes no arguments.
    unsafe { bpf_get_prandom_u32() }
}

/// Sends the frame out on an interface; the value is the program's answer.
#[inline(always)]
pub fn redirect(interface: u32) -> i32 {
    // SAFETY: takes numbers only.
    unsafe { bpf_redirect(interface, 0) as i32 }
}

/// Sends the packet to the neighbour that its destination routes to, and waits for the neighbour's
/// address if need be (kernel 5.10).
#[inline(always)]
pub fn redirect_neighbour(interface: u32) -> i32 {
    // SAFETY: without parameters the helper routes by the packet itself.
    unsafe { bpf_redirect_neigh(interface, core::ptr::null_mut(), 0, 0) as i32 }
}

/// Sets the error that a system call fails with (kernel 5.18).
#[inline(always)]
pub fn fail_with(errno: i32) {
    // SAFETY: takes a number only.
    unsafe { bpf_set_retval(-errno) };
}
