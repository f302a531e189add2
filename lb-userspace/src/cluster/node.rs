//! `v1/Node` and `networking.k8s.io/v1 ServiceCIDR` → what planning needs of them.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use k8s_openapi::api::{core::v1, networking::v1::ServiceCIDR};

use super::{annotation, endpoints::Names, label, parse::Problems};
use crate::model::{ClusterNode, Family};

/// The cluster autoscaler's mark on a node that it is about to remove.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// Where nobody holds leases, a Node's annotation says how its agent forwards.
pub const FORWARDING: &str = "lb/forwarding";
const ZONE: &str = "topology.kubernetes.io/zone";

/// A node of the cluster as its object tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    pub zone: Option<Arc<str>>,
    /// Internal addresses before external ones, otherwise in the object's order.
    pub addresses: Vec<IpAddr>,
    pub pod_cidrs: Vec<IpNet>,
    /// Whether it says that its agent forwards by DSR.
    pub forwards: bool,
    /// Whether it is about to go: load balancers shall send nothing new.
    pub leaving: bool,
    /// What was left out, each naming its field.
    pub problems: Vec<String>,
}

/// Reads a Node.
pub fn read(object: &v1::Node, names: &mut Names) -> NodeInfo {
    let mut problems = Problems::default();
    let zone = label(&object.metadata, ZONE).filter(|zone| !zone.is_empty());
    let listed = object.status.as_ref().and_then(|status| status.addresses.as_deref());
    let listed = listed.unwrap_or_default();
    let mut addresses = Vec::new();
    for wanted in ["InternalIP", "ExternalIP"] {
        for (at, entry) in listed.iter().enumerate().filter(|(_, entry)| entry.type_ == wanted) {
            let field = format_args!("status.addresses[{at}].address");
            addresses.extend(problems.address(field, &entry.address));
        }
    }
    let spec = object.spec.as_ref();
    let several = spec.and_then(|spec| spec.pod_cidrs.as_deref()).unwrap_or_default();
    let single = spec.and_then(|spec| spec.pod_cidr.as_deref()).filter(|_| several.is_empty());
    let pod_cidrs = several
        .iter()
        .map(String::as_str)
        .chain(single)
        .enumerate()
        .filter_map(|(at, text)| problems.range(format_args!("spec.podCIDRs[{at}]"), text))
        .collect();
    let zone = zone.map(|zone| names.get(zone));
    let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let leaving = object.metadata.deletion_timestamp.is_some()
        || taints.iter().any(|taint| taint.key == TO_BE_DELETED);
    let forwards = match annotation(&object.metadata, FORWARDING) {
        None | Some("snat") => false,
        Some("dsr") => true,
        Some(other) => {
            let field = format!("metadata.annotations[{FORWARDING}]");
            problems.0.push(format!("{field}: \"{other}\" is neither snat nor dsr"));
            false
        }
    };
    NodeInfo { zone, addresses, pod_cidrs, forwards, leaving, problems: problems.0 }
}

/// A node as DSR must know it, by its first address of each family; `leased`: its agent holds a lease
/// that says that it forwards by DSR.
pub fn as_seen_by_others(node: &NodeInfo, leased: bool) -> ClusterNode {
    ClusterNode {
        v4: node.addresses.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        }),
        v6: node.addresses.iter().find_map(|address| match address {
            IpAddr::V6(v6) => Some(*v6),
            IpAddr::V4(_) => None,
        }),
        forwards: node.forwards || leased,
    }
}

/// The ranges of a ServiceCIDR, and what is wrong with the others.
pub fn service_cidrs(object: &ServiceCIDR) -> (Vec<IpNet>, Vec<String>) {
    let mut problems = Problems::default();
    let listed = object.spec.as_ref().and_then(|spec| spec.cidrs.as_deref()).unwrap_or_default();
    let cidrs = listed.iter().enumerate();
    let cidrs =
        cidrs.filter_map(|(at, text)| problems.range(format_args!("spec.cidrs[{at}]"), text));
    (cidrs.collect(), problems.0)
}

/// This node's own addresses, the primary one of each family first: what was given by hand goes
/// before what the Node object reports, which fills in the families that were not given.
pub fn own_addresses(given: &[IpAddr], reported: &[IpAddr]) -> Vec<IpAddr> {
    let given: Vec<_> = given.iter().copied().filter(|address| !address.is_unspecified()).collect();
    let families: Vec<_> = given.iter().map(|address| Family::of(*address)).collect();
    let missing = reported.iter().copied();
    let missing = missing.filter(|address| !families.contains(&Family::of(*address)));
    given.iter().copied().chain(missing).collect()
}
