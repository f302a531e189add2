//! What happens to a packet from its arrival to its verdict: the same function in XDP, in tc and in
//! tests.

mod egress;
mod ingress;
mod new_flow;
mod source;

pub use egress::egress;
pub use ingress::{ingress, odd};
pub use source::{SourceClass, masquerade};

use crate::{
    abi::{Answer, Kind, NextHop},
    verdict::Reason,
};

/// Which hook runs the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Finishes a packet or leaves it unmodified to tc.
    Xdp,
    Tc,
}

/// A packet's end. The packet has been rewritten if the reason's verdict says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub reason: Reason,
    /// Index of the service, or [`Outcome::NOBODY`].
    pub service: u32,
    /// Id of the backend, or [`Outcome::NOBODY`].
    pub backend: u32,
    /// Whether this packet made a flow.
    pub opened: bool,
    /// For packets that are forwarded.
    pub hop: NextHop,
    /// For `lb explain`; programs that do not read it do not compute it.
    pub trace: Trace,
}

/// How a verdict came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    pub kind: Option<Kind>,
    pub class: SourceClass,
    pub masquerade: bool,
    pub answer: Answer,
    /// The source address that the backend sees (a slot).
    pub source: [u8; 16],
}

impl Outcome {
    /// No service or backend has a part in it.
    pub const NOBODY: u32 = u32::MAX;

    #[inline(always)]
    pub const fn new(reason: Reason) -> Self {
        Self {
            reason,
            service: Self::NOBODY,
            backend: Self::NOBODY,
            opened: false,
            hop: NextHop { interface: 0, src: [0; 6], dst: [0; 6] },
            trace: Trace {
                kind: None,
                class: SourceClass::Outside,
                masquerade: false,
                answer: Answer::UNSET,
                source: [0; 16],
            },
        }
    }

    #[inline(always)]
    const fn of_service(mut self, service: u32) -> Self {
        self.service = service;
        self
    }

    #[inline(always)]
    const fn of_backend(mut self, backend: u32) -> Self {
        self.backend = backend;
        self
    }

    #[inline(always)]
    const fn with_hop(mut self, hop: NextHop) -> Self {
        self.hop = hop;
        self
    }
}
