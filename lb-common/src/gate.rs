//! A sieve before the tables. Most packets are nobody's business here, and a look-up in a kernel hash
//! costs as much as all the rest of what they need: so five bits of one word for each thing that may be
//! in a table are asked first (a Bloom filter in blocks), and only where all are set is the table
//! itself.
//!
//! What every packet asks lies together: this node's own addresses in one cache line, the addresses of
//! frontends in the rest of the first half. Ports come after them, for the few packets that get so far.
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
    /// An address of this node.
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

/// What an address may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// One of frontends; perhaps this node's, too.
    Frontends,
    /// This node's.
    Node,
    /// Somebody else's, certainly.
    Other,
}

/// Words of a cache line, where addresses of this node are entered: there are few, and every packet asks.
const NODE_WORDS: u32 = 8;
/// Words for addresses, those of this node among them.
const ADDRESS_WORDS: u32 = GATE_WORDS / 2;

/// Both planes of addresses: packets for others need these two words and no more.
#[inline(always)]
pub fn ground<A: Addr, W: World>(world: &W, address: A) -> Ground {
    let hash = hash_of(0, address);
    let holds = |plane| {
        let (word, bits) = spread(plane, hash);
        world.gate(word) & bits == bits
    };
    if holds(Plane::Address) {
        Ground::Frontends
    } else if holds(Plane::Node) {
        Ground::Node
    } else {
        Ground::Other
    }
}

/// Whether it may be an address of this node.
#[inline(always)]
pub fn is_node<A: Addr, W: World>(world: &W, address: A) -> bool {
    passes(world, Plane::Node, address, [0; 2], 0)
}

/// Index of a word of the gate, and the bits in it.
#[inline(always)]
pub fn place<A: Addr>(plane: Plane, address: A, port: [u8; 2], protocol: u8) -> (u32, u64) {
    let what = match plane {
        Plane::Address | Plane::Node => 0,
        Plane::Frontend | Plane::Local => {
            u64::from(u16::from_ne_bytes(port)) | u64::from(protocol) << 16 | (plane as u64) << 24
        }
    };
    spread(plane, hash_of(what, address))
}

#[inline(always)]
fn hash_of<A: Addr>(what: u64, address: A) -> u64 {
    let what = what | u64::from(A::IS_V4) << 32;
    let mut hash = hash::mix(what, A::pair_word(address, address, 0));
    if !A::IS_V4 {
        hash = hash::mix(hash, A::pair_word(address, address, 1));
    }
    hash
}

/// The word is chosen by the hash's upper bits, the bits in it by the lower ones.
#[inline(always)]
fn spread(plane: Plane, hash: u64) -> (u32, u64) {
    let word = match plane {
        Plane::Node => hash::scale(hash, NODE_WORDS),
        Plane::Address => NODE_WORDS + hash::scale(hash, ADDRESS_WORDS - NODE_WORDS),
        Plane::Frontend | Plane::Local => {
            ADDRESS_WORDS + hash::scale(hash, GATE_WORDS - ADDRESS_WORDS)
        }
    };
    let bit = |shift: u32| 1 << (hash >> shift & 63);
    (word, bit(0) | bit(6) | bit(12) | bit(18) | bit(24))
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
