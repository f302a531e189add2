//! Kubernetes objects in, model values out: the only rooms that know `k8s_openapi` and `kube`.
//!
//! A source (the API's watches, or a folder of manifests) speaks [`Change`]s; [`index::Index`]
//! takes them in and answers what each Service is now.

use std::collections::BTreeMap;

use k8s_openapi::{
    Metadata,
    api::{
        coordination::v1::Lease,
        core::v1::{Endpoints, Node, Pod, Service},
        discovery::v1::EndpointSlice,
        networking::v1::ServiceCIDR,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::model::ObjectName;

pub mod endpoints;
pub mod events;
pub mod files;
pub mod index;
mod kind;
pub mod lease;
pub mod mirror;
pub mod node;
mod parse;
pub mod pods;
pub mod rollout;
pub mod service;
pub mod synthetic;
pub mod trial;
pub mod watch;

pub use self::kind::Kind;

/// One piece of news about the cluster's objects.
#[expect(clippy::large_enum_variant, reason = "read once and dropped; never held in numbers")]
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Service(Op<Service>),
    EndpointSlice(Op<EndpointSlice>),
    Endpoints(Op<Endpoints>),
    Pod(Op<Pod>),
    Node(Op<Node>),
    ServiceCidr(Op<ServiceCIDR>),
    Lease(Op<Lease>),
}

impl Change {
    /// The kind of which this is a complete listing; pods come from files alone.
    fn lists(&self) -> Option<Kind> {
        match self {
            Self::Service(Op::Reset(_)) => Some(Kind::Service),
            Self::EndpointSlice(Op::Reset(_)) => Some(Kind::EndpointSlice),
            Self::Endpoints(Op::Reset(_)) => Some(Kind::Endpoints),
            Self::Node(Op::Reset(_)) => Some(Kind::Node),
            Self::ServiceCidr(Op::Reset(_)) => Some(Kind::ServiceCidr),
            Self::Lease(Op::Reset(_)) => Some(Kind::Lease),
            _ => None,
        }
    }
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

impl<K: Metadata<Ty = ObjectMeta>> Op<K> {
    /// What this does to each object, given the names held so far; `None` is a deletion.
    fn steps<'a>(
        self,
        held: impl Iterator<Item = &'a ObjectName>,
    ) -> BTreeMap<ObjectName, Option<K>> {
        match self {
            Self::Apply(object) => BTreeMap::from([(name_of(&object), Some(object))]),
            Self::Delete(name) => BTreeMap::from([(name, None)]),
            Self::Reset(listing) => {
                let mut steps: BTreeMap<_, _> = held.map(|name| (name.clone(), None)).collect();
                steps.extend(listing.into_iter().map(|object| (name_of(&object), Some(object))));
                steps
            }
        }
    }
}

/// The name under which the index keeps an object.
pub fn name_of<K: Metadata<Ty = ObjectMeta>>(object: &K) -> ObjectName {
    let ObjectMeta { namespace, name, .. } = object.metadata();
    ObjectName::new(namespace.clone().unwrap_or_default(), name.clone().unwrap_or_default())
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}
