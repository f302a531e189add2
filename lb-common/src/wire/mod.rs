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
