//! The addresses in a socket's system call, in the form of its hook.

use aya_ebpf::{EbpfContext as _, programs::SockAddrContext};
use lb_common::addr::{Addr, V4, V6};

use crate::helpers::Context;

/// connect(), sendmsg(), recvmsg() or getpeername() of a socket.
pub struct Call(SockAddrContext);

/// An address as it stands in a call.
pub trait Address: Addr {
    fn read(call: &Call) -> Self;
    fn write(self, call: &Call);
}

impl Call {
    #[inline(always)]
    pub const fn new(context: SockAddrContext) -> Self {
        Self(context)
    }

    #[inline(always)]
    pub fn context(&self) -> Context {
        Context::new(self.0.as_ptr())
    }

    /// Big-endian.
    #[inline(always)]
    pub fn port(&self) -> [u8; 2] {
        // SAFETY: a field of the program's own context that the verifier allows to be read.
        let port = unsafe { (&raw const (*self.0.sock_addr).user_port).read_volatile() };
        (port as u16).to_ne_bytes()
    }

    #[inline(always)]
    pub fn set_port(&self, port: [u8; 2]) {
        let port = u32::from(u16::from_ne_bytes(port));
        // SAFETY: a field of the program's own context that the verifier allows to be written.
        unsafe { (&raw mut (*self.0.sock_addr).user_port).write_volatile(port) }
    }

    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        // SAFETY: a field of the program's own context that the verifier allows to be read.
        unsafe { (&raw const (*self.0.sock_addr).protocol).read_volatile() as u8 }
    }

    /// Word `index` (0 to 3) of the IPv6 address.
    #[inline(always)]
    const fn word6(&self, index: usize) -> *mut u32 {
        // SAFETY: the field has four words; the pointer is only formed here.
        unsafe { (&raw mut (*self.0.sock_addr).user_ip6).cast::<u32>().add(index) }
    }
}

impl Address for V4 {
    #[inline(always)]
    fn read(call: &Call) -> Self {
        // SAFETY: a field of the program's own context that the verifier allows to be read.
        Self(unsafe { (&raw const (*call.0.sock_addr).user_ip4).read_volatile() }.to_ne_bytes())
    }

    #[inline(always)]
    fn write(self, call: &Call) {
        let word = u32::from_ne_bytes(self.0);
        // SAFETY: a field of the program's own context that the verifier allows to be written.
        unsafe { (&raw mut (*call.0.sock_addr).user_ip4).write_volatile(word) }
    }
}

impl Address for V6 {
    #[inline(always)]
    fn read(call: &Call) -> Self {
        // SAFETY: as for IPv4; volatile keeps the accesses four bytes wide.
        let word = |index| unsafe { call.word6(index).read_volatile() }.to_ne_bytes();
        let ([a, b, c, d], [e, f, g, h]) = (word(0), word(1));
        let ([i, j, k, l], [m, n, o, p]) = (word(2), word(3));
        Self([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    #[inline(always)]
    fn write(self, call: &Call) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0;
        // SAFETY: as for IPv4.
        unsafe {
            call.word6(0).write_volatile(u32::from_ne_bytes([a, b, c, d]));
            call.word6(1).write_volatile(u32::from_ne_bytes([e, f, g, h]));
            call.word6(2).write_volatile(u32::from_ne_bytes([i, j, k, l]));
            call.word6(3).write_volatile(u32::from_ne_bytes([m, n, o, p]));
        }
    }
}
