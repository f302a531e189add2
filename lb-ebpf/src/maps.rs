//! Every map, and typed access to it. Sizes here are defaults; the agent sets them at load.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use lb_common::{
    abi::{
        AffinityEntry, AffinityKey, Backend, Count, Event, FlowSet, FragmentKey, FragmentPorts,
        Frontend, FrontendKey, HopSlot, Line, Node, PoolKey, PortPool, Service, Settings,
        SocketBackend, SocketChoice, SocketKey, SocketPeer, SourceKey, Watch, Word,
    },
    addr::{V4, V6},
    limits,
    path::Notes,
    verdict::Reason,
    wire::Eth,
};

/// Non-zero: DSR is compiled in. The agent says so before it loads the programs, and freezes it: the
/// verifier walks nothing that a constant keeps from being reached (kernel 5.3).
// Its name is what the agent looks for; no other symbol of the object has it.
#[unsafe(no_mangle)]
static DSR: u32 = 1;

/// See [`DSR`].
#[inline(always)]
pub fn has_dsr() -> bool {
    // SAFETY: a constant; volatile, because who loads the object may have changed it.
    unsafe { (&raw const DSR).read_volatile() != 0 }
}

#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

#[map]
pub static FRONTENDS_V4: HashMap<FrontendKey<V4>, Frontend> =
    HashMap::with_max_entries(limits::FRONTENDS, BPF_F_NO_PREALLOC);
#[map]
pub static FRONTENDS_V6: HashMap<FrontendKey<V6>, Frontend> =
    HashMap::with_max_entries(limits::FRONTENDS, BPF_F_NO_PREALLOC);

#[map]
pub static SERVICES: Array<Service> = Array::with_max_entries(limits::SERVICES, BPF_F_MMAPABLE);
#[map]
pub static BACKENDS: Array<Backend> = Array::with_max_entries(limits::BACKENDS, BPF_F_MMAPABLE);
#[map]
pub static ARENA: Array<Line> = Array::with_max_entries(limits::ARENA_LINES, BPF_F_MMAPABLE);

#[map]
pub static FLOWS_V4: Array<FlowSet<V4>> =
    Array::with_max_entries(limits::FLOW_SETS_V4, BPF_F_MMAPABLE);
#[map]
pub static FLOWS_V6: Array<FlowSet<V6>> =
    Array::with_max_entries(limits::FLOW_SETS_V6, BPF_F_MMAPABLE);

/// How many flows of each family are half-open: IPv4, then IPv6.
#[map]
pub static OPENING: Array<Word> = Array::with_max_entries(2, 0);

/// Source ports towards backends on other nodes.
#[map]
pub static PORT_POOLS: HashMap<PoolKey, PortPool> =
    HashMap::with_max_entries(limits::PORT_POOLS, BPF_F_NO_PREALLOC);
/// What a pool is at first.
#[map]
static NO_PORTS: Array<PortPool> = Array::with_max_entries(1, 0);

/// Packets whose first fragment was seen.
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts> =
    LruHashMap::with_max_entries(limits::FRAGMENTS, 0);

#[map]
pub static LOCALS_V4: HashMap<FrontendKey<V4>, u32> =
    HashMap::with_max_entries(limits::LOCAL_BACKENDS, BPF_F_NO_PREALLOC);
#[map]
pub static LOCALS_V6: HashMap<FrontendKey<V6>, u32> =
    HashMap::with_max_entries(limits::LOCAL_BACKENDS, BPF_F_NO_PREALLOC);

#[map]
pub static SOURCES_V4: LpmTrie<SourceKey<V4>, u32> =
    LpmTrie::with_max_entries(limits::SOURCE_RANGES, 0);
#[map]
pub static SOURCES_V6: LpmTrie<SourceKey<V6>, u32> =
    LpmTrie::with_max_entries(limits::SOURCE_RANGES, 0);

#[map]
pub static SOCKET_PEERS: LruHashMap<SocketKey, SocketPeer> =
    LruHashMap::with_max_entries(limits::SOCKETS, 0);
#[map]
pub static SOCKET_CHOICES: LruHashMap<SocketKey, SocketChoice> =
    LruHashMap::with_max_entries(limits::SOCKETS, 0);

/// The sieve before the tables.
#[map]
pub static GATE: Array<Word> = Array::with_max_entries(limits::GATE_WORDS, BPF_F_MMAPABLE);

/// Next hops that are remembered; nobody's loss when they go with the programs.
#[map]
pub static HOPS: Array<HopSlot> = Array::with_max_entries(limits::HOPS, 0);

/// Nodes of the cluster that run an agent, for DSR.
#[map]
pub static NODES: Array<Node> = Array::with_max_entries(limits::NODES, BPF_F_MMAPABLE);
/// The ways to them, of each family; nobody's loss when they go with the programs.
#[map]
pub static WAYS_TO_NODES: Array<[Word; 2]> = Array::with_max_entries(limits::NODES, 0);

/// The backends that connected sockets talk to, by the sockets' cookies.
#[map]
pub static SOCKET_BACKENDS: LruHashMap<u64, SocketBackend> =
    LruHashMap::with_max_entries(limits::SOCKETS, 0);

/// What is remembered of clients: see `lb_common::affinity`.
#[map]
pub static AFFINITY: LruHashMap<AffinityKey, AffinityEntry> =
    LruHashMap::with_max_entries(limits::AFFINITY, 0);
/// How many turns each service has given.
#[map]
pub static TURNS: Array<Word> = Array::with_max_entries(limits::SERVICES, 0);
/// Open connections of each backend: flows (counted anew by the agent), then sockets.
#[map]
pub static LOADS: Array<[Word; 2]> = Array::with_max_entries(limits::BACKENDS, BPF_F_MMAPABLE);

/// By interface index; bit 0: XDP may send there.
#[map]
pub static UPLINKS: HashMap<u32, u32> = HashMap::with_max_entries(limits::UPLINKS, 0);

#[map]
pub static REASONS: PerCpuArray<Count> = PerCpuArray::with_max_entries(Reason::COUNT as u32, 0);
#[map]
pub static SERVICE_COUNTS: PerCpuArray<Count> = PerCpuArray::with_max_entries(limits::SERVICES, 0);
#[map]
pub static BACKEND_COUNTS: PerCpuArray<Count> = PerCpuArray::with_max_entries(limits::BACKENDS, 0);

/// The last packet of each Reason that was refused or watched.
#[map]
pub static EXAMPLES: PerCpuArray<Event> = PerCpuArray::with_max_entries(Reason::COUNT as u32, 0);
/// Who watches; see `lb monitor`.
#[map]
pub static WATCH: Array<Watch> = Array::with_max_entries(1, 0);
/// What is told to who watches.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(limits::EVENT_BYTES, 0);

/// For user space: what a service id stands for.
#[map]
pub static SERVICE_NAMES: HashMap<u32, [u8; 256]> =
    HashMap::with_max_entries(limits::SERVICES, BPF_F_NO_PREALLOC);
/// For user space: node, zone and uid of a backend.
#[map]
pub static BACKEND_NAMES: HashMap<u32, [u8; 256]> =
    HashMap::with_max_entries(limits::BACKENDS, BPF_F_NO_PREALLOC);
/// For user space: name and addresses of each node.
#[map]
pub static NODE_NAMES: HashMap<u32, [u8; 256]> =
    HashMap::with_max_entries(limits::NODES, BPF_F_NO_PREALLOC);
/// For user space: address and port of each backend that an operator took out of new choices, and the
/// uid that it had.
#[map]
pub static DRAINS: HashMap<[u8; 64], [u8; 256]> =
    HashMap::with_max_entries(limits::DRAINS, BPF_F_NO_PREALLOC);
/// For user space: the key of the flow tables' hash, and the tick in which the maps were made; zeros
/// in those that nobody has written to yet.
#[map]
pub static META: Array<[u64; 2]> = Array::with_max_entries(1, 0);
/// For user space: how each map lies in memory, for who lays it out otherwise. This map and `META`
/// stay as they are for ever.
#[map]
pub static LAYOUT: HashMap<[u8; 32], u64> = HashMap::with_max_entries(256, BPF_F_NO_PREALLOC);

/// The rules' notes on the packet that this CPU is at.
#[map]
pub static NOTES: PerCpuArray<Notes> = PerCpuArray::with_max_entries(1, 0);
/// The same for programs that only explain: a packet may interrupt them.
#[map]
pub static EXPLAIN_NOTES: PerCpuArray<Notes> = PerCpuArray::with_max_entries(1, 0);

/// The Ethernet header of frames that have none.
#[map]
static MADE_UP: PerCpuArray<Eth> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's; see [`MADE_UP`].
#[inline(always)]
pub fn made_up() -> Option<&'static mut Eth> {
    // SAFETY: the element of this CPU, of which a program looks at one part at a time; any bytes are
    // valid.
    MADE_UP.get_ptr_mut(0).map(|eth| unsafe { &mut *eth })
}

/// This CPU's notes.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "a map is memory that the kernel shares out by CPU")]
pub fn notes(notes: &PerCpuArray<Notes>) -> Option<&mut Notes> {
    // SAFETY: the element of this CPU; the hooks run with bottom halves off, so none of them
    // interrupts another, and each takes its notes once. Zeros are valid, and so is what the last
    // packet left.
    notes.get_ptr_mut(0).map(|notes| unsafe { &mut *notes })
}

/// The value of a key, copied.
#[inline(always)]
fn copied<K, V: Copy>(map: &HashMap<K, V>, key: &K) -> Option<V> {
    // SAFETY: all bytes are valid values. What was removed may be another key's at once (since kernel
    // 6.1 maps have an allocator of their own): in that moment the copy may be of that one.
    unsafe { map.get(key) }.copied()
}

macro_rules! lookups {
    ($($(#[$doc:meta])* $name:ident: $map:ident<$key:ty, $value:ty>),* $(,)?) => {
        $($(#[$doc])* #[inline(always)] pub fn $name(key: &$key) -> Option<$value> {
            copied(&$map, key)
        })*
    };
}

lookups! {
    frontend_v4: FRONTENDS_V4<FrontendKey<V4>, Frontend>,
    frontend_v6: FRONTENDS_V6<FrontendKey<V6>, Frontend>,
}

/// The source ports towards a backend, if somebody has noted them.
#[inline(always)]
pub fn known_port_pool(key: &PoolKey) -> Option<&'static PortPool> {
    // SAFETY: a value may be reused under us once its backend is gone: all of it is atomics, and a port
    // that another backend's pool says is free is refused where its reply entry is another's.
    unsafe { PORT_POOLS.get(key) }
}

/// The source ports towards a backend; noted from now on if they were not.
#[inline(always)]
pub fn port_pool(key: &PoolKey) -> Option<&'static PortPool> {
    let known = known_port_pool(key);
    if known.is_some() {
        return known;
    }
    let none = NO_PORTS.get(0)?;
    // Whoever was faster has noted the same.
    let _ = PORT_POOLS.insert(key, none, u64::from(BPF_NOEXIST));
    known_port_pool(key)
}

/// What the first fragment of a packet said.
#[inline(always)]
pub fn fragment(key: &FragmentKey) -> Option<FragmentPorts> {
    // SAFETY: a value may be reused under us: then a fragment goes where no flow is known, or is
    // one more that a backend cannot put together.
    on_stack(key, |key| unsafe { FRAGMENTS.get(key) }.copied())
}

/// Notes what the first fragment of a packet said.
#[inline(always)]
pub fn note_fragment(key: &FragmentKey, ports: &FragmentPorts) {
    // Full never: the map forgets the least recently used.
    let _ = on_stack(key, |key| on_stack(ports, |ports| FRAGMENTS.insert(key, ports, 0)));
}

/// Whether XDP may send on an interface.
#[inline(always)]
pub fn is_sending(interface: u32) -> bool {
    // SAFETY: a `u32` that is read whole; a reused slot is another interface's flags, as valid.
    unsafe { UPLINKS.get(interface) }.is_some_and(|flags| flags & 1 != 0)
}

/// The backend that a socket's datagrams go to, or [`SocketChoice::NONE`].
#[inline(always)]
pub fn choice(key: &SocketKey) -> SocketChoice {
    // SAFETY: a value may be reused under us: then the backend's generation does not fit.
    unsafe { SOCKET_CHOICES.get(key) }.copied().unwrap_or(SocketChoice::NONE)
}

/// The backend that a connected socket talks to.
#[inline(always)]
pub fn socket_backend(cookie: u64) -> Option<SocketBackend> {
    // SAFETY: a value may be reused under us: then the backend's generation does not fit.
    unsafe { SOCKET_BACKENDS.get(cookie) }.copied()
}

/// What is remembered of a client.
#[inline(always)]
pub fn affinity(key: &AffinityKey) -> Option<AffinityEntry> {
    // SAFETY: a value may be reused under us: the rules hold it against the backend it names.
    on_stack(key, |key| unsafe { AFFINITY.get(key) }.copied())
}

/// Remembers a client.
#[inline(always)]
pub fn keep_client(key: &AffinityKey, entry: &AffinityEntry) {
    // Full never: the map forgets the least recently used.
    let _ = on_stack(key, |key| on_stack(entry, |entry| AFFINITY.insert(key, entry, 0)));
}

/// A copy where every verifier lets a helper read it: that of kernel 6.1 does not where an argument
/// of a global function points.
#[inline(always)]
fn on_stack<T: Copy, R>(value: &T, read: impl FnOnce(&T) -> R) -> R {
    let copy = *value;
    // The compiler must not see through it.
    read(core::hint::black_box(&copy))
}

/// What a socket dialled.
#[inline(always)]
pub fn peer(key: &SocketKey) -> Option<&'static SocketPeer> {
    // SAFETY: a value may be reused under us only once the socket has been idle for as many others
    // as the map holds; its bytes are valid whatever they are.
    unsafe { SOCKET_PEERS.get(key) }
}

/// Changes how many flows (`of` is 0) or sockets (1) a backend has open.
#[inline(always)]
pub fn load(backend: u32, of: usize, change: i64) {
    if let Some(words) = LOADS.get(backend) {
        words[of].add(change as u64);
    }
}

/// Where this CPU writes down its next packet of a Reason.
#[inline(always)]
pub fn example(reason: Reason) -> Option<&'static mut Event> {
    // SAFETY: as for `notes`; a hook takes it once. A record that an interrupt's packet replaced in
    // the middle is an example of the same Reason.
    EXAMPLES.get_ptr_mut(reason as u32).map(|event| unsafe { &mut *event })
}

/// Adds to an element of this CPU.
#[inline(always)]
pub fn add(counts: &PerCpuArray<Count>, index: u32, more: &Count) {
    let Some(count) = counts.get_ptr_mut(index) else { return };
    // SAFETY: the element of this CPU; programs on one CPU do not interrupt each other here, and a
    // count lost in the worst case harms nobody.
    let count = unsafe { &mut *count };
    *count = count.plus(*more);
}
