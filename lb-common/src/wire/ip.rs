use super::header;

header! {
    /// IPv4 without options (RFC 791).
    pub struct Ipv4 {
        /// Version (4 bits) and header length in 32-bit words (4 bits).
        version_ihl: u8,
        tos: u8,
        /// Header and payload, in bytes.
        total_length: [u8; 2],
        id: [u8; 2],
        /// Flags (3 bits) and fragment offset in 8-byte units (13 bits).
        flags_fragment: [u8; 2],
        ttl: u8,
        protocol: u8,
        checksum: [u8; 2],
        src: [u8; 4],
        dst: [u8; 4],
    }
}

impl Ipv4 {
    /// Version 4, five words.
    pub const VERSION_IHL: u8 = 0x45;
    /// Don't fragment.
    pub const DF: [u8; 2] = [0x40, 0x00];

    /// Whether the packet is a fragment (more to come, or not the first).
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        u16::from_be_bytes(self.flags_fragment) & 0x3fff != 0
    }
}

header! {
    /// IPv6 without extension headers (RFC 8200).
    pub struct Ipv6 {
        /// Version (4 bits), traffic class (8), flow label (20).
        version_class_label: [u8; 4],
        /// What follows this header, in bytes.
        payload_length: [u8; 2],
        next_header: u8,
        hop_limit: u8,
        src: [u8; 16],
        dst: [u8; 16],
    }
}
