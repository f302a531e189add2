/// A client of a service port, as session affinity sees it: an address, or for sockets of this node
/// the network namespace that they are in.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AffinityKey {
    client: [u8; 16],
    service: u32,
    kind: u32,
}

const _: () = assert!(size_of::<AffinityKey>() == 24);

impl AffinityKey {
    const NOBODY: u32 = 0;
    const ADDRESS: u32 = 1;
    const NAMESPACE: u32 = 2;

    /// A client that cannot be told from others: nothing is remembered of it.
    #[inline(always)]
    pub const fn nobody(service: u32) -> Self {
        Self { client: [0; 16], service, kind: Self::NOBODY }
    }

    /// The client at an address (a slot, see [`crate::addr::Addr::to_slot`]).
    #[inline(always)]
    pub const fn of_address(service: u32, client: [u8; 16]) -> Self {
        Self { client, service, kind: Self::ADDRESS }
    }

    /// The sockets in a network namespace, by its cookie.
    #[inline(always)]
    pub const fn of_namespace(service: u32, cookie: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = cookie.to_ne_bytes();
        let client = [a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 0];
        Self { client, service, kind: Self::NAMESPACE }
    }

    #[inline(always)]
    pub const fn is_nobody(&self) -> bool {
        self.kind == Self::NOBODY
    }

    #[inline(always)]
    pub const fn service(&self) -> u32 {
        self.service
    }

    /// The client as two words.
    #[inline(always)]
    pub const fn client_words(&self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.client;
        [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
    }
}

/// The backend that a client's connections go to.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityEntry {
    pub backend: u32,
    /// Of the backend.
    pub generation: u32,
    /// Tick of the client's last new connection.
    pub last: u32,
    /// [`super::Service::affinity_epoch`] when it was written.
    pub epoch: u32,
}

const _: () = assert!(size_of::<AffinityEntry>() == 16);
