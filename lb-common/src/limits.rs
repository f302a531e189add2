//! Every capacity, one constant each, with what it costs. Map sizes may be set lower at start.

/// Service ports (one per port and family of a Service): 64 B each, 4 MiB.
pub const SERVICES: u32 = 65_536;
/// Backends (one per endpoint and service port): 64 B each, 16 MiB.
pub const BACKENDS: u32 = 262_144;
/// Frontends of each family: 24 B (IPv4) and 36 B (IPv6) and the kernel's 48 B each, when used.
pub const FRONTENDS: u32 = 131_072;
/// Lines of backend lists and rings: 64 B each, 64 MiB when full; the map is sized at start.
pub const ARENA_LINES: u32 = 1_048_576;
/// Sets of the flow table of each family by default: 64 MiB for both (IPv4 1 KiB, IPv6 2 KiB a set).
pub const FLOW_SETS_V4: u32 = 32_768;
/// See [`FLOW_SETS_V4`].
pub const FLOW_SETS_V6: u32 = 16_384;
/// Flow entries in a set.
pub const FLOW_WAYS: usize = 16;
/// Words of the gate before the tables: 8 B each, 128 KiB, half of them for addresses. With 20,000
/// addresses known, one packet in a thousand that is nobody's gets through to a table.
pub const GATE_WORDS: u32 = 16_384;
/// Next hops that are remembered: 64 B each, 64 KiB.
pub const HOPS: u32 = 1024;
/// How many flows over one next hop ask for their way anew in a tick: 3,800 a second, which cost a
/// CPU a thousandth of its time.
pub const HOP_CHECKS: u32 = 256;
/// Socket translations remembered for replies and for datagrams (each 64 B and the kernel's 64 B),
/// and connected sockets with their backends (40 B and the kernel's 64 B).
pub const SOCKETS: u32 = 65_536;
/// Clients whose backend is remembered for session affinity (40 B and the kernel's 64 B each).
pub const AFFINITY: u32 = 65_536;
/// Addresses and ports of local backends whose replies are looked at on the way out.
pub const LOCAL_BACKENDS: u32 = 32_768;
/// Nodes of the cluster that run an agent, for DSR: 64 B each, 256 KiB. Fewer than
/// [`crate::abi::NodeSlot::REST`].
pub const NODES: u32 = 4096;
/// Uplinks.
pub const UPLINKS: u32 = 256;
/// CIDRs of each kind and family in [`crate::abi::Settings`].
pub const CIDRS: usize = 4;
/// How many source ports are tried for a flow to a backend of this node whose own is not free.
pub const PORT_TRIES: u32 = 4;
/// Source ports towards one backend elsewhere, at most.
pub const SNAT_PORTS: u32 = 30_720;
/// Backends elsewhere whose source ports are known to be taken: 4 KiB each, when used.
pub const PORT_POOLS: u32 = 32_768;
/// How often a lock on a flow set is tried before the packet is dropped.
pub const LOCK_TRIES: u32 = 16;
/// Packets whose first fragment was seen, of both families: 120 B each, 1 MiB; the least recently
/// used is forgotten.
pub const FRAGMENTS: u32 = 8192;
/// Backends that operators took out of new choices: 320 B and the kernel's 48 B each, when used.
pub const DRAINS: u32 = 1024;
/// Source ranges of each family.
pub const SOURCE_RANGES: u32 = 32_768;
/// Bytes of packets that `lb monitor` has not fetched yet: a power of two pages.
pub const EVENT_BYTES: u32 = 256 * 1024;
