//! Where the rules find their tables, clock and routes: maps and helpers in the kernel, plain values
//! in tests.

use crate::{
    abi::{
        AffinityEntry, AffinityKey, Backend, FlowSet, FragmentKey, FragmentPorts, Frontend,
        FrontendKey, HopSlot, Line, NextHop, Node, PoolKey, PortPool, Service, Settings, Word,
    },
    addr::Addr,
    flow::Tuple,
    hops,
    path::{
        Course, Draft, Hook, Outcome, Trace,
        dsr::{self, Lead},
        fragment, look_up, steps,
    },
    ports::{self, Lease},
    table::{self, Entry, Found, Insert},
    tracking::Side,
};

/// Tables, clock and chance: what does not depend on the address family.
pub trait World: Sized {
    /// Rules that run on live tables change them; those that only explain do not.
    const LIVE: bool;
    /// Whether it is an agent that writes to the flow table: what it leaves when it dies in the middle of
    /// an insert can be told from what a program is about to finish, and [`table::mend`] takes it back.
    const IS_AGENT: bool = false;

    fn settings(&self) -> Option<&Settings>;
    fn service(&self, id: u32) -> Option<&Service>;
    fn line(&self, index: u32) -> Option<&Line>;
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// A place of the table of next hops; `place` is below [`crate::limits::HOPS`].
    fn hop(&self, place: u32) -> Option<&HopSlot>;
    /// A word of the gate before the tables; `index` is below [`crate::limits::GATE_WORDS`].
    fn gate(&self, index: u32) -> u64;
    /// Monotonic time in ticks ([`Settings::TICK_SHIFT`]).
    fn now(&self) -> u32;
    fn random(&self) -> u32;

    /// [`hops::remember`].
    #[inline(always)]
    fn remember(&self, hop: &NextHop) -> u64 {
        hops::remember(self, hop)
    }

    // For DSR; a world without it knows no other node.

    /// Whether DSR is among what the programs do. Where it is not, the verifier knows (its constants are
    /// frozen), and neither looks at nor keeps what only DSR needs.
    #[inline(always)]
    fn has_dsr(&self) -> bool {
        true
    }

    /// A node of the cluster.
    fn node(&self, _id: u32) -> Option<&Node> {
        None
    }
    /// The ways to a node, of each family: see [`crate::hops`].
    fn way_to_node(&self, _id: u32) -> Option<&[Word; 2]> {
        None
    }

    // What choices may depend on beside the tables; a world without it has no clients to remember.

    /// What is remembered of a client.
    fn affinity(&self, _key: &AffinityKey) -> Option<AffinityEntry> {
        None
    }
    fn keep_client(&self, _key: &AffinityKey, _entry: &AffinityEntry) {}
    /// Whose turn it is among a service's backends.
    fn turn(&self, _service: u32) -> u64 {
        0
    }
    fn next_turn(&self, _service: u32) {}
    /// Connections that are open to a backend.
    fn load(&self, _backend: u32) -> u32 {
        0
    }
}

/// The tables that there are once for each family, and the large steps on them.
///
/// The steps are methods so that the kernel can make each a *global* BPF function, which the
/// verifier walks once and not once for every way that leads to it (kernel 5.13, commit
/// e5069b9c23b3, for pointers as arguments). Everybody else takes them as they are.
pub trait Store<A: Addr>: World {
    fn frontend(&self, key: &FrontendKey<A>) -> Option<Frontend>;
    /// Whether a backend on this node has this address, port and protocol.
    fn is_local_backend(&self, key: &FrontendKey<A>) -> bool;
    /// Whether `source` may reach the load-balancer addresses of `service`.
    fn allows_source(&self, service: u32, source: A) -> bool;
    fn flow_set(&self, index: u32) -> Option<&FlowSet<A>>;
    /// The source ports towards a backend elsewhere; `None` if there is no room to note them, or if
    /// nobody has yet and the store is only for reading.
    fn port_pool(&self, key: &PoolKey) -> Option<&PortPool>;

    /// How many flows of this family are half-open ([`crate::gauge::Gauge`]).
    fn opening(&self) -> Option<&Word> {
        None
    }

    /// What the first fragment of a packet said.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts>;
    fn note_fragment(&self, key: &FragmentKey, ports: &FragmentPorts);

    /// [`fragment::note`].
    #[inline(always)]
    fn note_first(&self, draft: &Draft<A>) -> bool {
        fragment::note(self, draft)
    }

    /// [`fragment::recall`].
    #[inline(always)]
    fn recall_first(&self, draft: &mut Draft<A>) -> bool {
        fragment::recall(self, draft)
    }

    /// [`PortPool::take`].
    #[inline(always)]
    fn take_port(&self, pool: &PortPool, count: u32, from: u32) -> u32 {
        pool.take(count, from)
    }

    /// [`ports::reclaim`].
    #[inline(always)]
    fn reclaim(&self, draft: &mut Draft<A>) {
        ports::reclaim(self, draft);
    }

    /// [`steps::lease`].
    #[inline(always)]
    fn lease(&self, draft: &mut Draft<A>, outcome: &mut Outcome, tries: u32) -> Lease {
        steps::lease(self, draft, outcome, tries)
    }

    /// [`table::find`].
    #[inline(always)]
    fn find_flow(&self, key: &Tuple<A>, found: &mut Found<A>) -> bool {
        table::find(self, key, found)
    }

    /// [`table::insert`].
    #[inline(always)]
    fn insert_flow(&self, key: &Tuple<A>, entry: &Entry<A>, existing: &mut Found<A>) -> Insert {
        table::insert(self, key, entry, existing)
    }

    /// [`look_up::look_up`].
    #[inline(always)]
    fn look_up(&self, draft: &mut Draft<A>, outcome: &mut Outcome, trace: &mut Trace) -> Course {
        look_up::look_up(self, draft, outcome, trace)
    }

    /// [`dsr::lead`].
    #[inline(always)]
    fn lead(&self, draft: &mut Draft<A>, outcome: &mut Outcome, trace: &mut Trace) -> Lead {
        dsr::lead(self, draft, outcome, trace)
    }

    /// [`steps::decide`].
    #[inline(always)]
    fn decide(&self, draft: &mut Draft<A>, outcome: &mut Outcome, trace: &mut Trace) -> bool {
        steps::decide(self, draft, outcome, trace)
    }

    /// [`steps::record`].
    #[inline(always)]
    fn record(&self, draft: &mut Draft<A>, outcome: &mut Outcome) -> bool {
        steps::record(self, draft, outcome)
    }

    /// [`steps::track`].
    #[inline(always)]
    fn track(&self, draft: &mut Draft<A>, side: Side) {
        steps::track(self, draft, side);
    }
}

/// What is around the node.
pub trait Network<A: Addr> {
    /// Which hook the rules run for.
    fn hook(&self) -> Hook;
    /// Whether packets may be spared the whole of the rules where the end is known: at XDP alone.
    fn takes_shortcuts(&self) -> bool;
    /// Whether the interface is one that pods of this node are behind: replies to them leave by it,
    /// wherever they come from.
    fn faces_pods(&self) -> bool;
    /// Where a packet with these addresses leaves this node; `length` is that of the IP packet,
    /// `headers` what of it each part carries if hardware joined several.
    fn route(&self, tuple: &Tuple<A>, length: u16, headers: u16) -> Route;
}

/// The way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Interface and addresses are known.
    Hop(NextHop),
    /// Only tc, which can wait for a neighbour and enter any device, can send it there.
    Stack,
    /// The packet is too long for it; what fits, in bytes.
    TooBig(u16),
    /// There is none.
    None,
}
