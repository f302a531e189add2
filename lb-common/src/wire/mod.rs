//! Headers as they are on the wire: align-1 structs over big-endian bytes.

mod eth;
mod header;
mod icmp;
mod ip;
mod transport;

pub use eth::{Eth, Link};
pub use header::Header;
pub(crate) use header::header;
pub use icmp::Icmp;
pub use ip::{Extension, Ipv4, Ipv6};
pub use transport::{Ports, Sctp, Tcp, Udp};

/// Copies an IPv6 address by words. A plain copy of bytes that need not be aligned is a call of
/// `memmove` in BPF, which goes byte by byte.
#[inline(always)]
pub fn copy(to: &mut [u8; 16], from: &[u8; 16]) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *from;
    let low = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    let high = u64::from_ne_bytes([i, j, k, l, m, n, o, p]);
    let (first, last) = to.split_at_mut(8);
    first.copy_from_slice(&low.to_ne_bytes());
    last.copy_from_slice(&high.to_ne_bytes());
}

/// IANA protocol numbers.
pub mod proto {
    pub const ICMP: u8 = 1;
    pub const IPIP: u8 = 4;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const IP6IP6: u8 = 41;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
}
