/// A socket and the address and port that it talks to (a slot, see [`crate::addr::Addr::to_slot`];
/// port big-endian).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketKey {
    cookie: u64,
    address: [u8; 16],
    port: [u8; 2],
    protocol: u8,
    family: u8,
    zero: [u8; 4],
}

const _: () = assert!(size_of::<SocketKey>() == 32);

impl SocketKey {
    #[inline(always)]
    pub const fn new(
        cookie: u64,
        address: [u8; 16],
        port: [u8; 2],
        protocol: u8,
        v6: bool,
    ) -> Self {
        Self { cookie, address, port, protocol, family: v6 as u8, zero: [0; 4] }
    }
}

/// What a socket dialled, by the backend that answers it: for recvmsg and getpeername.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketPeer {
    address: [u8; 16],
    /// A whole word: padding behind a port is written unaligned. Its high half is the service whose
    /// source ranges hold, and one; or zero.
    port: u64,
}

impl SocketPeer {
    #[inline(always)]
    pub const fn new(address: [u8; 16], port: [u8; 2]) -> Self {
        Self { address, port: u16::from_ne_bytes(port) as u64 }
    }

    /// What opens a connection there is to be held against the source ranges of this service.
    #[inline(always)]
    pub const fn guarded(self, service: u32) -> Self {
        Self { port: self.port | (service as u64 + 1) << 32, ..self }
    }

    /// See [`SocketPeer::guarded`].
    #[inline(always)]
    pub const fn guard(&self) -> Option<u32> {
        ((self.port >> 32) as u32).checked_sub(1)
    }

    /// A slot.
    #[inline(always)]
    pub const fn address(&self) -> &[u8; 16] {
        &self.address
    }

    /// Big-endian.
    #[inline(always)]
    pub const fn port(&self) -> [u8; 2] {
        (self.port as u16).to_ne_bytes()
    }
}

/// The backend that a connected socket talks to, by the socket's cookie. For UDP, and for services
/// that count connections.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketBackend {
    pub choice: SocketChoice,
    /// A slot.
    pub address: [u8; 16],
    pub port: [u8; 2],
    pub protocol: u8,
    /// Non-zero: it is one of the backend's open connections.
    pub counted: u8,
    pub zero: [u8; 4],
}

const _: () = assert!(size_of::<SocketBackend>() == 32);

/// The backend that an unconnected UDP socket's datagrams to one frontend go to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketChoice {
    pub backend: u32,
    pub generation: u32,
}

impl SocketChoice {
    /// No choice: id 0 is no backend's.
    pub const NONE: Self = Self { backend: 0, generation: 0 };
}
