use super::header;

header! {
    /// Ethernet II.
    pub struct Eth {
        dst: [u8; 6],
        src: [u8; 6],
        ethertype: [u8; 2],
    } link: true
}

header! {
    /// The two addresses of Ethernet II, destination first, as words to be copied by.
    pub struct Link {
        first: [u8; 8],
        last: [u8; 4],
    } link: true
}

impl Eth {
    pub const IPV4: [u8; 2] = [0x08, 0x00];
    pub const IPV6: [u8; 2] = [0x86, 0xdd];

    /// The header of an answer to this one, of the same kind.
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        Self { dst: self.src, src: self.dst, ethertype: self.ethertype }
    }
}
