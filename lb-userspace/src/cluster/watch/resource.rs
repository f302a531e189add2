//! What is watched, with which selectors, and what of it is kept in memory.

use std::fmt;

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Endpoints, Node, Service},
    discovery::v1::EndpointSlice,
    networking::v1::ServiceCIDR,
};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::{
    cluster::{Change, Kind, Op, lease},
    model::ObjectName,
};

/// A kind that can be reflected.
pub(super) trait Watched:
    Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + Sync + 'static
{
    const KIND: Kind;
    const LABELS: Option<&'static str> = None;
    const FIELDS: Option<&'static str> = None;

    fn change(op: Op<Self>) -> Change;

    /// Drops what is big and means nothing here.
    fn slim(&mut self) {}

    /// The object as it is handed on: without what other people wrote on it.
    fn kept(mut self) -> Self {
        self.managed_fields_mut().clear();
        self.annotations_mut().retain(|key, _| is_ours(key));
        self.slim();
        self
    }

    /// Empty namespace for the kinds that have none.
    fn object_name(&self) -> ObjectName {
        ObjectName::new(self.namespace().unwrap_or_default(), self.name_any())
    }
}

impl Watched for Service {
    const KIND: Kind = Kind::Service;
    // Another proxy's, by its label; headless ones have no address to answer for.
    const LABELS: Option<&'static str> = Some("!service.kubernetes.io/service-proxy-name");
    const FIELDS: Option<&'static str> = Some("spec.clusterIP!=None");

    fn change(op: Op<Self>) -> Change {
        Change::Service(op)
    }
}

impl Watched for EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;
    const LABELS: Option<&'static str> = Some("!service.kubernetes.io/headless");

    fn change(op: Op<Self>) -> Change {
        Change::EndpointSlice(op)
    }
}

impl Watched for Endpoints {
    const KIND: Kind = Kind::Endpoints;

    fn change(op: Op<Self>) -> Change {
        Change::Endpoints(op)
    }
}

impl Watched for Node {
    const KIND: Kind = Kind::Node;

    fn change(op: Op<Self>) -> Change {
        Change::Node(op)
    }

    /// Image lists are most of a Node's bytes; conditions change with each heartbeat.
    fn slim(&mut self) {
        if let Some(status) = &mut self.status {
            status.images = None;
            status.conditions = None;
            status.volumes_attached = None;
            status.volumes_in_use = None;
        }
    }
}

impl Watched for ServiceCIDR {
    const KIND: Kind = Kind::ServiceCidr;

    fn change(op: Op<Self>) -> Change {
        Change::ServiceCidr(op)
    }
}

impl Watched for Lease {
    const KIND: Kind = Kind::Lease;
    const LABELS: Option<&'static str> = Some(lease::FORWARDING);

    fn change(op: Op<Self>) -> Change {
        Change::Lease(op)
    }
}

/// Our own annotations, and the two of Kubernetes that mean something to a proxy: when a slice's
/// news began, and that an Endpoints object is a leader's lock.
fn is_ours(annotation: &str) -> bool {
    annotation.starts_with("lb/")
        || annotation == "endpoints.kubernetes.io/last-change-trigger-time"
        || annotation == "control-plane.alpha.kubernetes.io/leader"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_wrote_on_an_object_is_not_kept() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {
                "name": "web", "namespace": "shop", "labels": {"app": "web"},
                "managedFields": [{"manager": "kubectl"}],
                "annotations": {
                    "lb/algorithm": "maglev",
                    "kubectl.kubernetes.io/last-applied-configuration": "{}",
                },
            },
        }))
        .unwrap();
        let kept: Service = serde_json::from_value(json!({
            "metadata": {
                "name": "web", "namespace": "shop", "labels": {"app": "web"},
                "managedFields": [],
                "annotations": {"lb/algorithm": "maglev"},
            },
        }))
        .unwrap();
        assert_eq!(service.kept(), kept);
    }

    #[test]
    fn a_nodes_images_and_heartbeats_are_not_kept_but_its_addresses_are() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
                "images": [{"names": ["a"]}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }))
        .unwrap();
        let status = node.kept().status.unwrap();
        assert_eq!(status.addresses.unwrap()[0].address, "192.0.2.1");
        assert_eq!((status.images, status.conditions), (None, None));
    }
}
