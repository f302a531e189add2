use super::Words;

/// Which of a service's sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Cluster,
    Local,
    /// With DSR, the nodes that have backends: a ring of [`super::NodeSlot`]s, as long as its head says.
    Nodes,
    /// With DSR: the backends that live where no agent runs.
    Rest,
}

/// One service port in one family. An unset slot is all zeros: [`Answer::UNSET`].
///
/// Each answer is published by one aligned store of its own word.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    cluster_list: Answer,
    cluster_ring: Answer,
    local_list: Answer,
    local_ring: Answer,
    flags: u32,
    /// Seconds in the low bits, zero is off; above them the epoch.
    affinity: u32,
    /// Tells one owner of this slot from the next.
    generation: u32,
    zero: u32,
    nodes: Answer,
    rest: Answer,
}

const _: () = assert!(size_of::<Service>() == 64);
// SAFETY: `repr(C)` over integers, 64 bytes in all, no padding (the assertion above).
unsafe impl Words<8> for Service {}

impl Service {
    const INTERNAL_LOCAL: u32 = 1;
    const EXTERNAL_LOCAL: u32 = 2;
    const RANDOM_OUTSIDE: u32 = 4;
    const MAGLEV_INSIDE: u32 = 8;
    const SOURCE_RANGES: u32 = 16;
    const TURNS: u32 = 32;
    const LEAST: u32 = 64;
    const USABLE_HERE: u32 = 128;
    /// 86,400 seconds fit.
    const SECONDS_BITS: u32 = 17;

    /// Word index of each answer, for stores that publish one.
    pub const fn answer_word(scope: Scope, ring: bool) -> usize {
        match (scope, ring) {
            (Scope::Cluster, false) => 0,
            (Scope::Cluster, true) => 1,
            (Scope::Local, false) => 2,
            (Scope::Local, true) => 3,
            (Scope::Nodes, _) => 6,
            (Scope::Rest, _) => 7,
        }
    }

    pub const fn new(generation: u32, affinity_seconds: u32) -> Self {
        Self {
            cluster_list: Answer::UNSET,
            cluster_ring: Answer::UNSET,
            local_list: Answer::UNSET,
            local_ring: Answer::UNSET,
            flags: 0,
            affinity: affinity_seconds & ((1 << Self::SECONDS_BITS) - 1),
            generation,
            zero: 0,
            nodes: Answer::UNSET,
            rest: Answer::UNSET,
        }
    }

    pub const fn with_policies(mut self, internal: Scope, external: Scope) -> Self {
        if matches!(internal, Scope::Local) {
            self.flags |= Self::INTERNAL_LOCAL;
        }
        if matches!(external, Scope::Local) {
            self.flags |= Self::EXTERNAL_LOCAL;
        }
        self
    }

    /// Overrides the choice: rings also inside, or lists also outside.
    pub const fn with_choice(mut self, ring_inside: bool, ring_outside: bool) -> Self {
        if ring_inside {
            self.flags |= Self::MAGLEV_INSIDE;
        }
        if !ring_outside {
            self.flags |= Self::RANDOM_OUTSIDE;
        }
        self
    }

    /// Backends take turns, inside and outside.
    pub const fn with_turns(mut self) -> Self {
        self.flags |= Self::TURNS;
        self
    }

    /// The less loaded of two random backends is chosen, inside and outside.
    pub const fn with_least_connections(mut self) -> Self {
        self.flags |= Self::LEAST;
        self
    }

    /// See [`Service::affinity_epoch`].
    pub const fn with_affinity_epoch(mut self, epoch: u32) -> Self {
        self.affinity =
            (self.affinity & ((1 << Self::SECONDS_BITS) - 1)) | epoch << Self::SECONDS_BITS;
        self
    }

    /// See [`Service::is_usable_here`].
    pub const fn with_usable_here(mut self) -> Self {
        self.flags |= Self::USABLE_HERE;
        self
    }

    /// Sources at load-balancer addresses are checked against the source-range maps.
    pub const fn with_source_ranges(mut self) -> Self {
        self.flags |= Self::SOURCE_RANGES;
        self
    }

    pub const fn with_answer(mut self, scope: Scope, ring: bool, answer: Answer) -> Self {
        match (scope, ring) {
            (Scope::Cluster, false) => self.cluster_list = answer,
            (Scope::Cluster, true) => self.cluster_ring = answer,
            (Scope::Local, false) => self.local_list = answer,
            (Scope::Local, true) => self.local_ring = answer,
            (Scope::Nodes, _) => self.nodes = answer,
            (Scope::Rest, _) => self.rest = answer,
        }
        self
    }

    #[inline(always)]
    pub const fn answer(&self, scope: Scope, ring: bool) -> Answer {
        match (scope, ring) {
            (Scope::Cluster, false) => self.cluster_list,
            (Scope::Cluster, true) => self.cluster_ring,
            (Scope::Local, false) => self.local_list,
            (Scope::Local, true) => self.local_ring,
            (Scope::Nodes, _) => self.nodes,
            (Scope::Rest, _) => self.rest,
        }
    }

    /// Whether packets from outside are spread over nodes (DSR).
    #[inline(always)]
    pub const fn is_spread(&self) -> bool {
        !matches!(self.nodes.class(), SizeClass::Unset)
    }

    /// With DSR: whether this node's backends may get flows that are spread. Those of its local set
    /// may not where they are all terminating and others are ready.
    #[inline(always)]
    pub const fn is_usable_here(&self) -> bool {
        self.flags & Self::USABLE_HERE != 0
    }

    #[inline(always)]
    pub const fn internal(&self) -> Scope {
        if self.flags & Self::INTERNAL_LOCAL == 0 { Scope::Cluster } else { Scope::Local }
    }

    #[inline(always)]
    pub const fn external(&self) -> Scope {
        if self.flags & Self::EXTERNAL_LOCAL == 0 { Scope::Cluster } else { Scope::Local }
    }

    #[inline(always)]
    pub const fn ring_inside(&self) -> bool {
        self.flags & Self::MAGLEV_INSIDE != 0
    }

    #[inline(always)]
    pub const fn ring_outside(&self) -> bool {
        self.flags & Self::RANDOM_OUTSIDE == 0
    }

    #[inline(always)]
    pub const fn has_source_ranges(&self) -> bool {
        self.flags & Self::SOURCE_RANGES != 0
    }

    #[inline(always)]
    pub const fn takes_turns(&self) -> bool {
        self.flags & Self::TURNS != 0
    }

    #[inline(always)]
    pub const fn counts_connections(&self) -> bool {
        self.flags & Self::LEAST != 0
    }

    /// How long a client keeps its backend; zero is off.
    #[inline(always)]
    pub const fn affinity_seconds(&self) -> u32 {
        self.affinity & ((1 << Self::SECONDS_BITS) - 1)
    }

    /// Raised when affinity is switched on: what was remembered before does not count.
    #[inline(always)]
    pub const fn affinity_epoch(&self) -> u32 {
        self.affinity >> Self::SECONDS_BITS
    }

    pub const fn generation(&self) -> u32 {
        self.generation
    }
}

/// Where a set's backends are written: one word, swapped whole.
///
/// Bits 0–31: first line of the segment in the arena; 32–55: generation of the segment;
/// 56–63: what it is.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer(u64);

/// What an [`Answer`] leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeClass {
    /// The slot was never written.
    Unset,
    /// Nothing to send to: reject.
    Reject,
    /// Nothing to send to: silence.
    Drop,
    /// A list, its length in the segment's head.
    List,
    /// A ring of one of the sizes of [`Answer::RINGS`].
    Ring(u32),
}

impl Answer {
    pub const UNSET: Self = Self(0);
    pub const REJECT: Self = Self(1 << 56);
    pub const DROP: Self = Self(2 << 56);
    /// The ladder of ring sizes: primes about four times apart, so that a ring that grows does so
    /// seldom, and one that does not moves about one flow in a hundred when a backend changes.
    pub const RINGS: [u32; 5] = [251, 1021, 4093, 16_381, 65_537];
    const GENERATION: u32 = 0x00ff_ffff;

    pub const fn list(line: u32, generation: u32) -> Self {
        Self(line as u64 | ((generation & Self::GENERATION) as u64) << 32 | 3 << 56)
    }

    /// `step` is an index into [`Answer::RINGS`].
    pub const fn ring(line: u32, generation: u32, step: u8) -> Self {
        Self(line as u64 | ((generation & Self::GENERATION) as u64) << 32 | (4 + step as u64) << 56)
    }

    #[inline(always)]
    pub const fn line(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & Self::GENERATION
    }

    #[inline(always)]
    pub const fn class(self) -> SizeClass {
        match self.0 >> 56 {
            1 => SizeClass::Reject,
            2 => SizeClass::Drop,
            3 => SizeClass::List,
            4 => SizeClass::Ring(Self::RINGS[0]),
            5 => SizeClass::Ring(Self::RINGS[1]),
            6 => SizeClass::Ring(Self::RINGS[2]),
            7 => SizeClass::Ring(Self::RINGS[3]),
            8 => SizeClass::Ring(Self::RINGS[4]),
            _ => SizeClass::Unset,
        }
    }

    /// The word as it lies in the map.
    pub const fn word(self) -> u64 {
        self.0
    }

    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }
}

/// Backend ids in one line of the arena.
pub const SLOTS_PER_LINE: usize = 16;

/// One cache line of the arena. A segment is some lines in a row; the first four slots of its first
/// line are its head: service, generation, number of slots, and the tick in which a ring over nodes
/// last changed. Slots hold backend ids, or [`super::NodeSlot`]s.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line(pub [u32; SLOTS_PER_LINE]);

const _: () = assert!(size_of::<Line>() == 64);
// SAFETY: sixteen `u32` are eight words without padding.
unsafe impl Words<8> for Line {}

impl Line {
    /// Slots that the head takes.
    pub const HEAD: usize = 4;

    /// The service that the segment is of, when this is its first line.
    #[inline(always)]
    pub const fn service(&self) -> u32 {
        self.0[0]
    }

    #[inline(always)]
    pub const fn generation(&self) -> u32 {
        self.0[1]
    }

    /// How many slots the segment has after the head.
    #[inline(always)]
    pub const fn slots(&self) -> u32 {
        self.0[2]
    }

    /// The tick in which a ring over nodes last led somewhere else.
    #[inline(always)]
    pub const fn changed(&self) -> u32 {
        self.0[3]
    }

    /// How many lines a segment of `slots` slots takes.
    pub const fn lines_for(slots: u32) -> u32 {
        (slots + Self::HEAD as u32).div_ceil(SLOTS_PER_LINE as u32)
    }

    /// Line (counted from the segment's first) and place in it of slot `slot`.
    #[inline(always)]
    pub const fn place(slot: u32) -> (u32, usize) {
        let at = slot + Self::HEAD as u32;
        (at / SLOTS_PER_LINE as u32, (at % SLOTS_PER_LINE as u32) as usize)
    }
}
