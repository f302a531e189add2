//! Which kinds of manifest are read, which are passed over, and which nobody knows.

/// A kind that the load balancer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Service,
    EndpointSlice,
    Endpoints,
    Pod,
    Node,
    ServiceCidr,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
        }
    }

    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Service | Self::Endpoints | Self::Pod | Self::Node => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::ServiceCidr => "networking.k8s.io/v1",
        }
    }

    /// Nodes and ServiceCIDRs live outside namespaces.
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Node | Self::ServiceCidr)
    }

    const ALL: [Self; 6] = [
        Self::Service,
        Self::EndpointSlice,
        Self::Endpoints,
        Self::Pod,
        Self::Node,
        Self::ServiceCidr,
    ];
}

/// What a manifest's `apiVersion` and `kind` say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Read(Kind),
    /// Kubernetes has it; a load balancer has no use for it.
    PassedOver,
    /// A kind that is read, in a version that is not.
    OtherVersion(Kind),
    /// No such kind in Kubernetes' own groups: most likely a typing error.
    Unknown,
    /// Of a group that Kubernetes does not own: someone's custom resource.
    Foreign,
}

/// Looks a manifest's kind up.
pub(super) fn meaning(api_version: &str, kind: &str) -> Meaning {
    let (group, _version) = api_version.split_once('/').unwrap_or(("", api_version));
    if let Some(read) = Kind::ALL.into_iter().find(|read| read.name() == kind) {
        if read.api_version() == api_version {
            return Meaning::Read(read);
        }
        if read.api_version().split_once('/').map_or("", |(group, _)| group) == group {
            return Meaning::OtherVersion(read);
        }
    }
    let ours = !group.contains('.') || group.ends_with(".k8s.io");
    match (ours, PASSED_OVER.contains(&kind)) {
        (true, true) => Meaning::PassedOver,
        (true, false) => Meaning::Unknown,
        (false, _) => Meaning::Foreign,
    }
}

/// The kinds of Kubernetes' own groups that dumps and release folders are full of.
const PASSED_OVER: [&str; 62] = [
    "APIService",
    "Binding",
    "CSIDriver",
    "CSINode",
    "CSIStorageCapacity",
    "CertificateSigningRequest",
    "ClusterRole",
    "ClusterRoleBinding",
    "ClusterTrustBundle",
    "ComponentStatus",
    "ConfigMap",
    "ControllerRevision",
    "CronJob",
    "CustomResourceDefinition",
    "DaemonSet",
    "Deployment",
    "DeviceClass",
    "Event",
    "FlowSchema",
    "GRPCRoute",
    "Gateway",
    "GatewayClass",
    "HTTPRoute",
    "HorizontalPodAutoscaler",
    "IPAddress",
    "Ingress",
    "IngressClass",
    "Job",
    "Kustomization",
    "Lease",
    "LeaseCandidate",
    "LimitRange",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
    "Namespace",
    "NetworkPolicy",
    "NodeMetrics",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "PodMetrics",
    "PodTemplate",
    "PriorityClass",
    "PriorityLevelConfiguration",
    "ReferenceGrant",
    "ReplicaSet",
    "ReplicationController",
    "ResourceClaim",
    "ResourceClaimTemplate",
    "ResourceQuota",
    "ResourceSlice",
    "Role",
    "RoleBinding",
    "RuntimeClass",
    "Secret",
    "ServiceAccount",
    "StatefulSet",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "VolumeAttachment",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_in_the_version_it_is_served_in() {
        assert_eq!(meaning("v1", "Service"), Meaning::Read(Kind::Service));
        assert_eq!(
            meaning("networking.k8s.io/v1", "ServiceCIDR"),
            Meaning::Read(Kind::ServiceCidr)
        );
        assert_eq!(
            meaning("discovery.k8s.io/v1beta1", "EndpointSlice"),
            Meaning::OtherVersion(Kind::EndpointSlice)
        );
    }

    #[test]
    fn a_typing_error_is_told_from_a_custom_resource() {
        assert_eq!(meaning("apps/v1", "Deployment"), Meaning::PassedOver);
        assert_eq!(meaning("v1", "Servise"), Meaning::Unknown);
        assert_eq!(meaning("serving.knative.dev/v1", "Service"), Meaning::Foreign);
    }

    #[test]
    fn the_list_of_kinds_passed_over_is_sorted_and_names_none_that_is_read() {
        assert!(PASSED_OVER.is_sorted());
        assert!(Kind::ALL.iter().all(|kind| !PASSED_OVER.contains(&kind.name())));
    }
}
