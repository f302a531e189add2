use crate::addr::{Addr, V4, V6};

/// What clients dial: address, port and protocol. With port and protocol zero it stands for the
/// address itself ([`Kind::ClusterAddress`], [`Kind::NodeAddress`], [`Kind::PeerAddress`]).
///
/// Aligned, because the verifier wants stores to BPF's stack aligned.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey<A> {
    address: A,
    port: [u8; 2],
    protocol: u8,
    zero: u8,
}

const _: () = assert!(size_of::<FrontendKey<V4>>() == 8);
const _: () = assert!(size_of::<FrontendKey<V6>>() == 20);

impl<A: Addr> FrontendKey<A> {
    /// The key of a frontend; `port` is big-endian.
    #[inline(always)]
    pub const fn new(address: A, port: [u8; 2], protocol: u8) -> Self {
        Self { address, port, protocol, zero: 0 }
    }

    /// The key of an address.
    #[inline(always)]
    pub const fn of_address(address: A) -> Self {
        Self::new(address, [0, 0], 0)
    }

    pub const fn address(&self) -> A {
        self.address
    }

    /// Big-endian.
    pub const fn port(&self) -> [u8; 2] {
        self.port
    }

    pub const fn protocol(&self) -> u8 {
        self.protocol
    }
}

/// What an address, or an address and port, is to us.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ClusterIp = 1,
    NodePort = 2,
    LoadBalancer = 3,
    ExternalIp = 4,
    /// A live ClusterIP: what it does not serve is rejected.
    ClusterAddress = 5,
    /// An address of this node: replies of remote backends come here.
    NodeAddress = 6,
    /// A load balancer's or external address that is not this node's own.
    VirtualAddress = 7,
    /// A NodePort, whatever the address: its key's is unspecified. For sockets that bind there.
    AnyNodePort = 8,
    /// The address of another node of the cluster: with DSR, envelopes come from there, and packets
    /// to its NodePorts in them.
    PeerAddress = 9,
}

impl Kind {
    /// The reverse of `as u8`; `None` for what is no kind.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::ClusterIp,
            2 => Self::NodePort,
            3 => Self::LoadBalancer,
            4 => Self::ExternalIp,
            5 => Self::ClusterAddress,
            6 => Self::NodeAddress,
            7 => Self::VirtualAddress,
            8 => Self::AnyNodePort,
            9 => Self::PeerAddress,
            _ => return None,
        })
    }
}

/// What stands behind a [`FrontendKey`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frontend {
    service: u32,
    kind: u8,
    zero: [u8; 3],
}

const _: () = assert!(size_of::<Frontend>() == 8);

impl Frontend {
    pub const fn new(service: u32, kind: Kind) -> Self {
        Self { service, kind: kind as u8, zero: [0; 3] }
    }

    /// Index of the [`super::Service`]; zero for addresses.
    #[inline(always)]
    pub const fn service(&self) -> u32 {
        self.service
    }

    #[inline(always)]
    pub const fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.kind)
    }
}

/// A source range of a service, as the data of a longest-prefix key: 32 bits of service, then the
/// network. Aligned as [`FrontendKey`] is.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceKey<A> {
    /// Big-endian, so that its bits come first.
    service: [u8; 4],
    address: A,
}

impl<A: Addr> SourceKey<A> {
    /// Length of the service's part, in bits.
    pub const SERVICE_BITS: u32 = 32;
    /// Length of a key that names one address, in bits.
    pub const BITS: u32 = Self::SERVICE_BITS + 8 * size_of::<A>() as u32;

    #[inline(always)]
    pub const fn new(service: u32, address: A) -> Self {
        Self { service: service.to_be_bytes(), address }
    }
}
