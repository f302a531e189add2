use super::header;

header! {
    /// What TCP and UDP start with.
    pub struct Ports {
        src: [u8; 2],
        dst: [u8; 2],
    }
}

header! {
    /// TCP without options (RFC 9293).
    pub struct Tcp {
        src: [u8; 2],
        dst: [u8; 2],
        seq: [u8; 4],
        ack: [u8; 4],
        /// Header length in 32-bit words (high 4 bits).
        offset: u8,
        flags: u8,
        window: [u8; 2],
        checksum: [u8; 2],
        urgent: [u8; 2],
    }
}

impl Tcp {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
    /// Where the checksum stands in the header.
    pub const CHECKSUM_AT: usize = 16;
}

header! {
    /// UDP (RFC 768).
    pub struct Udp {
        src: [u8; 2],
        dst: [u8; 2],
        length: [u8; 2],
        /// Zero: the sender made none (IPv4 only).
        checksum: [u8; 2],
    }
}

impl Udp {
    /// Where the checksum stands in the header.
    pub const CHECKSUM_AT: usize = 6;
}
