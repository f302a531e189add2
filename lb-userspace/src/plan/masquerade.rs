//! Whose source address must be rewritten so that replies come back through this node.
//!
//! For packets that arrive with a service address in them; a socket that was translated at
//! connect() needs none of this.

use std::net::IpAddr;

use super::{Backend, FrontendKind, Scope, SourceClass};
use crate::model::Node;

/// Whether a packet's source is rewritten, given its frontend and that Service's external policy.
pub const fn masquerades(
    kind: FrontendKind,
    external: Scope,
    source: SourceClass,
    masquerade_all: bool,
    detects_pods: bool,
) -> bool {
    match (kind, external) {
        (FrontendKind::ClusterIp, _) => {
            masquerade_all || (detects_pods && !matches!(source, SourceClass::Pod))
        }
        (_, Scope::Cluster) => true,
        (_, Scope::Local) => matches!(source, SourceClass::Node),
    }
}

/// [`masquerades`] with what a node is configured to do.
pub fn masquerades_at(
    node: &Node,
    kind: FrontendKind,
    external: Scope,
    source: SourceClass,
) -> bool {
    masquerades(kind, external, source, node.masquerade_all, !node.pod_cidrs.is_empty())
}

/// Whether a packet would go back to where it came from: a backend that reached itself through
/// its Service must see another source than its own address.
pub fn is_hairpin(source: IpAddr, backend: &Backend) -> bool {
    backend.local && backend.address.ip() == source
}

#[cfg(test)]
mod tests {
    use super::{FrontendKind::*, Scope::*, SourceClass::*, *};

    #[test]
    fn the_whole_table_of_who_is_masqueraded() {
        // (frontend, external policy, masquerade all, pods detected) → node, pod, outside
        let table = [
            ((ClusterIp, Cluster, false, true), [true, false, true]),
            ((ClusterIp, Local, false, true), [true, false, true]),
            ((ClusterIp, Cluster, false, false), [false, false, false]),
            ((ClusterIp, Cluster, true, true), [true, true, true]),
            ((ClusterIp, Cluster, true, false), [true, true, true]),
            ((NodePort, Cluster, false, true), [true, true, true]),
            ((LoadBalancer, Cluster, false, false), [true, true, true]),
            ((NodePort, Local, false, true), [true, false, false]),
            ((LoadBalancer, Local, true, true), [true, false, false]),
            ((ExternalIp, Local, true, false), [true, false, false]),
        ];
        for ((kind, policy, all, detects), wanted) in table {
            let found =
                [Node, Pod, Outside].map(|source| masquerades(kind, policy, source, all, detects));
            assert_eq!(found, wanted, "{kind:?} {policy:?} all={all} detects={detects}");
        }
    }
}
