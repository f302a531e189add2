use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use lb_common::{
    abi::{Answer, Backend, Frontend, Line, Node, Scope, Service, Settings},
    addr::{Addr as _, V4, V6},
};

/// An address, a port and a protocol; with port and protocol zero the address itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub address: IpAddr,
    pub port: u16,
    /// The IANA number.
    pub protocol: u8,
}

impl Place {
    pub const fn new(address: SocketAddr, protocol: u8) -> Self {
        Self { address: address.ip(), port: address.port(), protocol }
    }

    /// Where a backend listens.
    pub fn of_backend(row: &Backend) -> Self {
        let address = if row.is_v6() {
            IpAddr::from(V6::from_slot(row.address()).0)
        } else {
            IpAddr::from(V4::from_slot(row.address()).0)
        };
        Self { address, port: u16::from_be_bytes(row.port()), protocol: row.protocol() }
    }

    /// The address itself.
    pub const fn of_address(address: IpAddr) -> Self {
        Self { address, port: 0, protocol: 0 }
    }

    /// Port and protocol, at no address.
    pub const fn anywhere(&self) -> Self {
        let address = match self.address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Self { address, port: self.port, protocol: self.protocol }
    }

    pub const fn is_address(&self) -> bool {
        self.port == 0 && self.protocol == 0
    }
}

/// Word of a [`Service`] that holds its flags and the time of its affinity.
pub const RULES_WORD: usize = 4;

/// One write to the kernel's maps. Operations come in the order in which they must be executed:
/// what an entry names exists before the entry, and is removed after it; so the maps serve every
/// service after each of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Settings(Box<Settings>),
    /// A service takes a slot.
    NameService {
        id: u32,
        name: String,
    },
    /// A service's slot is nobody's any more: its counts are zeroed and its name goes.
    ForgetService(u32),
    /// The whole row, while no frontend leads to it.
    Service {
        id: u32,
        row: Service,
    },
    /// Flags and affinity of a row in use: word [`RULES_WORD`].
    Rules {
        id: u32,
        row: Service,
    },
    /// One word of a row in use.
    Answer {
        service: u32,
        scope: Scope,
        ring: bool,
        answer: Answer,
    },
    /// A backend takes a slot, or what is known of it has changed.
    NameBackend {
        id: u32,
        name: String,
    },
    /// A backend's slot is nobody's any more: its counts are zeroed and its name goes.
    ForgetBackend(u32),
    /// Words that differ, word 0 last.
    Backend {
        id: u32,
        row: Backend,
    },
    /// A node takes a slot.
    NameNode {
        id: u32,
        name: String,
    },
    /// A node's slot is nobody's any more.
    ForgetNode(u32),
    /// A node's row while no ring names it, or zeros.
    Node {
        id: u32,
        row: Node,
    },
    /// A segment that no answer names yet; its head last.
    Segment {
        first: u32,
        lines: Vec<Line>,
    },
    PutFrontend {
        at: Place,
        frontend: Frontend,
    },
    RemoveFrontend(Place),
    /// Replies from here are looked at on their way out.
    PutLocal(Place),
    RemoveLocal(Place),
    PutSource {
        service: u32,
        network: IpNet,
    },
    RemoveSource {
        service: u32,
        network: IpNet,
    },
}
