//! Kubernetes objects in, model values out: the only rooms that know `k8s_openapi` and `kube`.
//!
//! A source (the API's watches, or a folder of manifests) speaks [`Change`]s; the index takes
//! them in and answers what each Service is now.

pub mod watch;

use k8s_openapi::api::{
    core::v1::{Endpoints, Node, Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::ServiceCIDR,
};

use crate::model::ObjectName;

/// One piece of news about the cluster's objects.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Service(Op<Service>),
    EndpointSlice(Op<EndpointSlice>),
    Endpoints(Op<Endpoints>),
    Pod(Op<Pod>),
    Node(Op<Node>),
    ServiceCidr(Op<ServiceCIDR>),
}

/// What happened to the objects of one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Op<K> {
    /// The object is there, and this is how it looks now.
    Apply(K),
    /// The object is gone. A cluster-scoped object has an empty namespace.
    Delete(ObjectName),
    /// A complete listing of the kind: whatever it does not name is gone.
    Reset(Vec<K>),
}
