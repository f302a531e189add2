use crate::{addr::Addr, limits::CIDRS};

/// Some networks of one family; unused entries have an impossible network.
///
/// Networks are kept with every bit flipped, so that zeros are the impossible one: the kernel makes
/// maps of zeros, and programs run on them before an agent has written anything.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CidrSet {
    flipped: [[u8; 16]; CIDRS],
    masks: [[u8; 16]; CIDRS],
}

impl CidrSet {
    /// Contains nothing.
    pub const EMPTY: Self = Self { flipped: [[0; 16]; CIDRS], masks: [[0; 16]; CIDRS] };

    /// Sets entry `index` to a network and its mask (slots of the family).
    ///
    /// # Panics
    /// If `index` is not below [`CIDRS`].
    pub fn set(&mut self, index: usize, network: [u8; 16], mask: [u8; 16]) {
        self.flipped[index] = flip(network);
        self.masks[index] = mask;
    }

    /// Whether no network was set.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.flipped[0][0] == 0 && self.masks[0][0] == 0
    }

    /// Every network and its mask, as slots.
    pub fn networks(&self) -> impl Iterator<Item = [[u8; 16]; 2]> {
        let entries = self.flipped.iter().zip(&self.masks);
        let set = entries.filter(|entry| *entry != (&[0; 16], &[0; 16]));
        set.map(|(flipped, mask)| [flip(*flipped), *mask])
    }

    #[inline(always)]
    pub fn contains<A: Addr>(&self, address: A) -> bool {
        let mut index = 0;
        while index < CIDRS {
            // Out at once: of what was found before, the verifier would walk each next look twice.
            if address.within(&flip(self.flipped[index]), &self.masks[index]) {
                return true;
            }
            index += 1;
        }
        false
    }
}

#[inline(always)]
fn flip(slot: [u8; 16]) -> [u8; 16] {
    (!u128::from_ne_bytes(slot)).to_ne_bytes()
}

impl Default for CidrSet {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// How long flows live without a packet, in ticks ([`Settings::TICK_SHIFT`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    pub tcp: u32,
    pub tcp_closing: u32,
    pub half_open: u32,
    pub udp: u32,
    pub sctp: u32,
}

/// What the agent tells the programs and may change at any time: one element of an array map.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's hash seed, the same on every node: rings, and what is chosen from them. It may
    /// change while flows live.
    pub seed: u64,
    /// The key of the flow tables' hash: drawn when the maps are made and as old as they are, or
    /// flows would not be found again.
    pub table_key: u64,
    /// Number of sets of each flow table, less one; sets are a power of two.
    pub flow_mask_v4: u32,
    pub flow_mask_v6: u32,
    /// Until this tick, unknown TCP in mid-stream is passed to the stack.
    pub takeover_until: u32,
    /// First and last source port towards remote backends, host order.
    pub snat_first: u16,
    pub snat_last: u16,
    pub timeouts: Timeouts,
    /// Non-zero: flows whose backend is gone for good are reset.
    pub reset_gone: u32,
    pub masquerade_all: u32,
    /// Until this tick no flow is opened, for the agent is moving them to other maps; zero: they are.
    pub paused_until: u32,
    /// With DSR, this node's own [`super::Node`]; zero: packets are forwarded by SNAT alone.
    pub own_node: u32,
    /// Non-zero: as many packets are answered as are refused ([`crate::allowance`] counts for nothing).
    /// For tests and measurements.
    pub uncapped: u32,
    /// What sockets of the node itself dial from (slots), as far as anybody knows before the kernel
    /// picks; zero: nobody knows.
    pub own_v4: [u8; 16],
    pub own_v6: [u8; 16],
    /// Cookie of the node's own network namespace, or zero: whose sockets may not bind NodePorts.
    pub namespace: u64,
    /// Nanoseconds in a jiffy, or zero: then the programs ask for the time, which costs a call.
    pub jiffy: u64,
    pub pods_v4: CidrSet,
    pub pods_v6: CidrSet,
    pub services_v4: CidrSet,
    pub services_v6: CidrSet,
}

impl Settings {
    /// A tick is 2^26 ns (67 ms) of monotonic time: coarse, cheap, and 32 bits last nine years.
    pub const TICK_SHIFT: u32 = 26;
    /// Ticks in about a second.
    pub const SECOND: u32 = 15;

    /// What versions with another layout look for.
    #[cfg(feature = "user")]
    pub const FIELDS: [super::Field; 1] =
        [super::Field::in_bytes("paused_until", core::mem::offset_of!(Self, paused_until), 4)];

    /// The tick at which the kernel has counted so many jiffies, if it is known how long one takes.
    ///
    /// The kernel moves them by its monotonic clock, and begins five minutes before zero modulo 2^32
    /// (`INITIAL_JIFFIES`).
    #[inline(always)]
    pub const fn tick_of(&self, jiffies: u64) -> Option<u32> {
        if self.jiffy == 0 {
            return None;
        }
        // 2^26 ns a tick, 2^22 ns a jiffy: 64 bits last for centuries.
        let before = 300_000_000_000 - (1 << 32) * self.jiffy as i64;
        let now = (jiffies * self.jiffy).wrapping_add(before as u64);
        Some((now >> Self::TICK_SHIFT) as u32)
    }

    /// Sources inside are pods of this cluster.
    #[inline(always)]
    pub const fn pods<A: Addr>(&self) -> &CidrSet {
        if A::IS_V4 { &self.pods_v4 } else { &self.pods_v6 }
    }

    /// Ranges that ClusterIPs come from.
    #[inline(always)]
    pub const fn services<A: Addr>(&self) -> &CidrSet {
        if A::IS_V4 { &self.services_v4 } else { &self.services_v6 }
    }

    /// See [`Settings::own_v4`].
    #[inline(always)]
    pub fn own<A: Addr>(&self) -> Option<A> {
        let own = A::from_slot(if A::IS_V4 { &self.own_v4 } else { &self.own_v6 });
        (own != A::default()).then_some(own)
    }

    /// See [`Settings::flow_mask_v4`].
    #[inline(always)]
    pub const fn flow_mask<A: Addr>(&self) -> u32 {
        if A::IS_V4 { self.flow_mask_v4 } else { self.flow_mask_v6 }
    }

    /// Whether `port` (big-endian) may be one that this node chose towards a remote backend.
    #[inline(always)]
    pub const fn is_snat_port(&self, port: [u8; 2]) -> bool {
        let port = u16::from_be_bytes(port);
        self.snat_first <= port && port <= self.snat_last
    }
}

impl Default for Settings {
    /// The defaults of the configuration, in ticks.
    fn default() -> Self {
        Self {
            seed: 0x6c62_272e_07bb_0142,
            table_key: 0x62b8_2175_6295_c58d,
            flow_mask_v4: crate::limits::FLOW_SETS_V4 - 1,
            flow_mask_v6: crate::limits::FLOW_SETS_V6 - 1,
            takeover_until: 0,
            snat_first: 1024,
            snat_last: 29_999,
            timeouts: Timeouts {
                tcp: 21_600 * Self::SECOND,
                tcp_closing: 60 * Self::SECOND,
                half_open: 3 * Self::SECOND,
                udp: 120 * Self::SECOND,
                sctp: 21_600 * Self::SECOND,
            },
            reset_gone: 1,
            masquerade_all: 0,
            paused_until: 0,
            own_node: 0,
            uncapped: 0,
            own_v4: [0; 16],
            own_v6: [0; 16],
            namespace: 0,
            jiffy: 0,
            pods_v4: CidrSet::EMPTY,
            pods_v6: CidrSet::EMPTY,
            services_v4: CidrSet::EMPTY,
            services_v6: CidrSet::EMPTY,
        }
    }
}
