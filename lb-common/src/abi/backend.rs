use super::{Scope, Words};

/// Where a backend is in its life.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendState {
    /// Nobody's slot.
    Free = 0,
    /// May get new flows.
    Active = 1,
    /// Left, not ready or terminating: keeps its TCP flows, gets no new ones.
    Retired = 2,
    /// Known to be gone for good: TCP flows are reset.
    Gone = 3,
}

/// One endpoint of one service port. Word 0 (state, generation) is published last and cleared first.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    state: u8,
    flags: u8,
    port: [u8; 2],
    generation: u32,
    service: u32,
    weight: u16,
    protocol: u8,
    zero: u8,
    address: [u8; 16],
    source: [u8; 16],
    #[cfg(feature = "layout-b")]
    spare: u64,
    identity: u64,
    #[cfg(not(feature = "layout-b"))]
    spare: u64,
}

const _: () = assert!(size_of::<Backend>() == 64);
// SAFETY: `repr(C)`, offsets 0, 1, 2, 4, 8, 12, 14, 15, 16, 32, 48, 56: no padding, plain integers.
unsafe impl Words<8> for Backend {}

impl Backend {
    const LOCAL: u8 = 1;
    const SERVING: u8 = 2;
    const V6: u8 = 4;
    const IN_CLUSTER: u8 = 8;
    const IN_LOCAL: u8 = 16;

    /// An active backend of `service`, in both of its sets. `address` and `source` are slots of its family
    /// ([`crate::addr::Addr::to_slot`]); `source` is the address this node uses towards it.
    /// `identity` is a hash of address, port, protocol and the pod's uid.
    #[expect(clippy::too_many_arguments, reason = "a record of plain values, built in one place")]
    pub const fn new(
        service: u32,
        generation: u32,
        address: [u8; 16],
        port: [u8; 2],
        protocol: u8,
        v6: bool,
        source: [u8; 16],
        identity: u64,
    ) -> Self {
        Self {
            state: BackendState::Active as u8,
            flags: Self::SERVING
                | Self::IN_CLUSTER
                | Self::IN_LOCAL
                | if v6 { Self::V6 } else { 0 },
            port,
            generation,
            service,
            weight: 1,
            protocol,
            zero: 0,
            address,
            source,
            identity,
            spare: 0,
        }
    }

    pub const fn with_state(mut self, state: BackendState, serving: bool) -> Self {
        self.state = state as u8;
        self.flags = if serving { self.flags | Self::SERVING } else { self.flags & !Self::SERVING };
        self
    }

    pub const fn with_local(mut self, local: bool) -> Self {
        self.flags = if local { self.flags | Self::LOCAL } else { self.flags & !Self::LOCAL };
        self
    }

    /// Which of the service's sets new connections find it in.
    pub const fn with_sets(mut self, cluster: bool, local: bool) -> Self {
        self.flags &= !(Self::IN_CLUSTER | Self::IN_LOCAL);
        self.flags |= if cluster { Self::IN_CLUSTER } else { 0 };
        self.flags |= if local { Self::IN_LOCAL } else { 0 };
        self
    }

    /// The address that this node uses towards it (a slot).
    pub const fn with_source(mut self, source: [u8; 16]) -> Self {
        self.source = source;
        self
    }

    pub const fn with_weight(mut self, weight: u16) -> Self {
        self.weight = weight;
        self
    }

    #[inline(always)]
    pub const fn state(&self) -> BackendState {
        match self.state {
            1 => BackendState::Active,
            2 => BackendState::Retired,
            3 => BackendState::Gone,
            _ => BackendState::Free,
        }
    }

    /// On this node.
    #[inline(always)]
    pub const fn is_local(&self) -> bool {
        self.flags & Self::LOCAL != 0
    }

    /// Whether it is in the set of this scope.
    #[inline(always)]
    pub const fn is_in(&self, scope: Scope) -> bool {
        let set = match scope {
            // Who was somewhere without an agent is in the cluster's.
            Scope::Cluster | Scope::Rest => Self::IN_CLUSTER,
            Scope::Local => Self::IN_LOCAL,
            Scope::Nodes => 0,
        };
        self.flags & set != 0
    }

    /// Whether the endpoint serves; UDP flows leave one that does not.
    #[inline(always)]
    pub const fn is_serving(&self) -> bool {
        self.flags & Self::SERVING != 0
    }

    pub const fn is_v6(&self) -> bool {
        self.flags & Self::V6 != 0
    }

    /// Big-endian.
    #[inline(always)]
    pub const fn port(&self) -> [u8; 2] {
        self.port
    }

    /// Tells one owner of this id from the next.
    #[inline(always)]
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    #[inline(always)]
    pub const fn service(&self) -> u32 {
        self.service
    }

    #[inline(always)]
    pub const fn weight(&self) -> u16 {
        self.weight
    }

    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    #[inline(always)]
    pub const fn address(&self) -> &[u8; 16] {
        &self.address
    }

    /// The address that this node uses towards the backend.
    #[inline(always)]
    pub const fn source(&self) -> &[u8; 16] {
        &self.source
    }

    pub const fn identity(&self) -> u64 {
        self.identity
    }

    /// Where everything is that outlives a change of the layout.
    #[cfg(feature = "user")]
    pub const FIELDS: [super::Field; 12] = {
        use core::mem::offset_of;

        use super::Field;
        [
            Field::in_bytes("state", offset_of!(Self, state), 1),
            Field::in_bytes("flags", offset_of!(Self, flags), 1),
            Field::in_bytes("port", offset_of!(Self, port), 2),
            Field::in_bytes("generation", offset_of!(Self, generation), 4),
            Field::in_bytes("service", offset_of!(Self, service), 4),
            Field::in_bytes("weight", offset_of!(Self, weight), 2),
            Field::in_bytes("protocol", offset_of!(Self, protocol), 1),
            Field::in_bytes("address.0", offset_of!(Self, address), 8),
            Field::in_bytes("address.1", offset_of!(Self, address) + 8, 8),
            Field::in_bytes("source.0", offset_of!(Self, source), 8),
            Field::in_bytes("source.1", offset_of!(Self, source) + 8, 8),
            Field::in_bytes("identity", offset_of!(Self, identity), 8),
        ]
    };
}
