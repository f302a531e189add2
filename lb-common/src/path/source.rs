use crate::{
    abi::{Frontend, FrontendKey, Kind, Scope, Service, Settings},
    addr::Addr,
    gate::is_node,
    world::Store,
};

/// Where a packet comes from, as traffic policies see it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceClass {
    Outside = 0,
    /// A pod of this cluster.
    Pod = 1,
    /// This node itself.
    Node = 2,
}

impl SourceClass {
    /// A function of its own, for the sake of BPF's stack, and of the verifier.
    #[inline(never)]
    pub fn of<A: Addr, S: Store<A>>(store: &S, settings: &Settings, source: A) -> Self {
        Self::of_here(store, settings, source)
    }

    /// As [`SourceClass::of`], without a call where there is room for that: it costs as much as a
    /// look-up, and DSR's first step asks for every packet.
    #[inline(always)]
    pub fn of_quickly<A: Addr, S: Store<A>>(store: &S, settings: &Settings, source: A) -> Self {
        if A::IS_V4 {
            Self::of_here(store, settings, source)
        } else {
            Self::of(store, settings, source)
        }
    }

    #[inline(always)]
    fn of_here<A: Addr, S: Store<A>>(store: &S, settings: &Settings, source: A) -> Self {
        if settings.pods::<A>().contains(source) {
            return Self::Pod;
        }
        // Most are nobody's here, and a look at the gate costs less than one at the table.
        if !is_node(store, source) {
            return Self::Outside;
        }
        let own = store.frontend(&FrontendKey::of_address(source));
        if matches!(own.and_then(|own| own.kind()), Some(Kind::NodeAddress)) {
            return Self::Node;
        }
        Self::Outside
    }

    /// The reverse of `as u8`; what is no class is outside.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Pod,
            2 => Self::Node,
            _ => Self::Outside,
        }
    }

    /// The backend set for this source at a frontend of `kind`: pods and the node itself never
    /// leave the cluster to come back, so at external frontends they get the whole cluster's.
    #[inline(always)]
    pub const fn scope(self, kind: Kind, service: &Service) -> Scope {
        match (kind, self) {
            (Kind::ClusterIp, _) => service.internal(),
            (_, Self::Outside) => service.external(),
            (_, Self::Pod | Self::Node) => Scope::Cluster,
        }
    }
}

/// Whether loadBalancerSourceRanges keep `source` out: they guard load-balancer addresses alone.
#[inline(always)]
pub fn is_barred<A: Addr, S: Store<A>>(
    store: &S,
    frontend: &Frontend,
    service: &Service,
    source: A,
) -> bool {
    matches!(frontend.kind(), Some(Kind::LoadBalancer))
        && service.has_source_ranges()
        && is_outside(store, frontend.service(), source)
}

/// Whether none of a service's ranges has this source. A function of its own, for the sake of BPF's
/// stack; most services have no ranges, and are spared the call.
#[inline(never)]
fn is_outside<A: Addr, S: Store<A>>(store: &S, service: u32, source: A) -> bool {
    !store.allows_source(service, source)
}

/// Whether Kubernetes asks for a translated source where a packet carries the service address.
#[inline(always)]
pub fn masquerade<A: Addr>(
    settings: &Settings,
    kind: Kind,
    class: SourceClass,
    service: &Service,
    hairpin: bool,
) -> bool {
    let all = settings.masquerade_all != 0;
    let detects = !settings.pods::<A>().is_empty();
    hairpin
        || match kind {
            Kind::ClusterIp => all || (detects && !matches!(class, SourceClass::Pod)),
            _ => match (service.external(), class) {
                (Scope::Cluster | Scope::Nodes | Scope::Rest, _)
                | (Scope::Local, SourceClass::Node) => true,
                (Scope::Local, SourceClass::Pod | SourceClass::Outside) => false,
            },
        }
}
