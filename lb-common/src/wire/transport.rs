use super::header;

header! {
    /// What TCP, UDP and SCTP start with.
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

header! {
    /// SCTP: the common header, and that of the first chunk, which every packet has (RFC 9260).
    pub struct Sctp {
        src: [u8; 2],
        dst: [u8; 2],
        tag: [u8; 4],
        /// CRC32c, the lowest byte first.
        checksum: [u8; 4],
        /// What the first chunk is.
        chunk: u8,
        chunk_flags: u8,
        /// Of the first chunk, its header included.
        chunk_length: [u8; 2],
    }
}

impl Sctp {
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const ABORT: u8 = 6;
    pub const SHUTDOWN: u8 = 7;
    pub const SHUTDOWN_ACK: u8 = 8;
    pub const COOKIE_ECHO: u8 = 10;
    pub const SHUTDOWN_COMPLETE: u8 = 14;
    /// Bytes of the common header.
    pub const COMMON: usize = 12;
}
