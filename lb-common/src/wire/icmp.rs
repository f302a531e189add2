use super::header;

header! {
    /// The first eight bytes of ICMP and ICMPv6 (RFC 792, RFC 4443).
    pub struct Icmp {
        kind: u8,
        code: u8,
        checksum: [u8; 2],
        rest: [u8; 4],
    }
}
