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

header! {
    /// The start of an IPv6 extension header that says how long it is (RFC 8200).
    pub struct Extension {
        next: u8,
        /// In units of eight bytes, the first not counted.
        length: u8,
        rest: [u8; 6],
    }
}

impl Extension {
    const HOP_BY_HOP: u8 = 0;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;

    /// Whether this next header is one that the rules read past.
    #[inline(always)]
    pub const fn is_one(next: u8) -> bool {
        matches!(next, Self::HOP_BY_HOP | Self::ROUTING | Self::FRAGMENT | Self::DESTINATION)
    }
}
