//! What an API server is asked for.

use std::fmt;

/// The kinds that an API server is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Service,
    EndpointSlice,
    Endpoints,
    Node,
    ServiceCidr,
    Lease,
}

impl Kind {
    /// The plural and group, as RBAC rules write them.
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices.discovery.k8s.io",
            Self::Endpoints => "endpoints",
            Self::Node => "nodes",
            Self::ServiceCidr => "servicecidrs.networking.k8s.io",
            Self::Lease => "leases.coordination.k8s.io",
        }
    }

    /// Whether a server may lack it: ServiceCIDRs came with Kubernetes 1.33.
    pub const fn may_be_absent(self) -> bool {
        matches!(self, Self::ServiceCidr)
    }

    /// Whether traffic goes on without it, if not as well: one who may not read it is not kept waiting
    /// for ever.
    pub const fn may_be_refused(self) -> bool {
        !matches!(self, Self::Service | Self::EndpointSlice)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource())
    }
}
