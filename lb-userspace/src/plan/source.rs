//! Where a packet comes from, as far as rules care.

use std::net::IpAddr;

use crate::model::Node;

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceClass {
    /// This node itself: one of its local addresses.
    Node,
    /// A pod of this cluster: an address inside the pod ranges.
    Pod,
    /// Anyone else; pods too while no pod ranges are known.
    Outside,
}

impl SourceClass {
    /// Classifies a source address.
    pub fn of(source: IpAddr, node: &Node) -> Self {
        if node.local_addresses.contains(&source) || node.addresses.contains(&source) {
            Self::Node
        } else if node.pod_cidrs.iter().any(|cidr| cidr.contains(&source)) {
            Self::Pod
        } else {
            Self::Outside
        }
    }
}
