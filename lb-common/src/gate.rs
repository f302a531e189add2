//! A sieve before the tables. Most packets are nobody's business here, and a look-up in a kernel hash
//! costs as much as all the rest of what they need: so two bits of one word for each thing that may be
//! in a table are asked first (a Bloom filter in blocks), and only where both are set is the table
//! itself.
//!
//! Bits that should be set are set before their entry is written. What is set without need costs a
//! look-up: the agent clears those of removed entries when it has time. It changes what becomes of a
//! packet in one case, with DSR: to a NodePort of another node, without the envelope that its
//! connection comes here in, it goes to that connection's backend and not on.

use crate::{abi::Kind, addr::Addr, hash, limits::GATE_WORDS, world::World};

/// What bits say may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// Something that clients dial: address, port and protocol.
    Frontend = 1,
    /// An address of frontends, but for the node's own.
    Address = 2,
    /// An address of this node. In the same word as [`Plane::Address`]: see [`ground`].
    Node = 3,
    /// Address, port and protocol of a backend on this node.
    Local = 4,
}

impl Plane {
    /// Where an address of this kind, or of frontends of this kind, is entered.
    pub const fn of_address(kind: Kind) -> Self {
        match kind {
            Kind::NodeAddress | Kind::NodePort => Self::Node,
            Kind::ClusterIp
            | Kind::LoadBalancer
            | Kind::ExternalIp
            | Kind::ClusterAddress
            | Kind::VirtualAddress
            | Kind::AnyNodePort
            | Kind::PeerAddress => Self::Address,
        }
    }
}

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ground {
    /// It may be one of frontends.
    pub frontends: bool,
    /// It may be this node's.
    pub node: bool,
}

/// Both planes of addresses at once: most packets for others need one word and no more.
#[inline(always)]
pub fn ground<A: Addr, W: World>(world: &W, address: A) -> Ground {
    let (word, frontends, node) = ground_of(address);
    let bits = world.gate(word);
    Ground { frontends: bits & frontends == frontends, node: bits & node == node }
}

/// Where an address is entered: the word, and the bits of [`Plane::Address`] and [`Plane::Node`].
#[inline(always)]
fn ground_of<A: Addr>(address: A) -> (u32, u64, u64) {
    let (word, bits) = spread(u64::from(A::IS_V4) << 32, address);
    // Rotated, so that they are never the same bits.
    (word, bits, bits.rotate_left(1))
}

/// Index of a word of the gate, and the bits in it.
#[inline(always)]
pub fn place<A: Addr>(plane: Plane, address: A, port: [u8; 2], protocol: u8) -> (u32, u64) {
    let (word, frontends, node) = ground_of(address);
    match plane {
        Plane::Address => return (word, frontends),
        Plane::Node => return (word, node),
        Plane::Frontend | Plane::Local => {}
    }
    let what = u64::from(u16::from_ne_bytes(port))
        | u64::from(protocol) << 16
        | (plane as u64) << 24
        | u64::from(A::IS_V4) << 32;
    spread(what, address)
}

#[inline(always)]
fn spread<A: Addr>(what: u64, address: A) -> (u32, u64) {
    let mut hash = hash::mix(what, A::pair_word(address, address, 0));
    if !A::IS_V4 {
        hash = hash::mix(hash, A::pair_word(address, address, 1));
    }
    ((hash >> 40) as u32 % GATE_WORDS, 1 << (hash & 63) | 1 << (hash >> 6 & 63))
}

/// Whether there may be such a thing.
#[inline(always)]
pub fn passes<A: Addr, W: World>(
    world: &W,
    plane: Plane,
    address: A,
    port: [u8; 2],
    protocol: u8,
) -> bool {
    let (word, bits) = place(plane, address, port, protocol);
    world.gate(word) & bits == bits
}
