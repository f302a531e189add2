//! A cluster that nobody runs: as many Services and endpoints as one likes, for measuring.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::{
    api::{
        core::v1::{
            LoadBalancerIngress, LoadBalancerStatus, ObjectReference, Service, ServicePort,
            ServiceSpec, ServiceStatus,
        },
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::{Change, Op};
use crate::model::{Family, NameParts, ObjectName};

/// How large it is, and who reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub services: u32,
    /// Of each Service.
    pub endpoints: u32,
    /// Nodes that the endpoints are spread over.
    pub nodes: u32,
    pub reach: Reach,
    /// IPv6 beside IPv4.
    pub dual: bool,
}

/// From where Services are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By their ClusterIPs alone.
    Inside,
    /// By a load balancer's address too.
    LoadBalancer,
    /// By a NodePort too: there are 2,768 of them.
    NodePort,
}

/// Endpoints in one slice, as Kubernetes cuts them.
const SLICE: u32 = 100;

impl Cluster {
    /// The port that every Service is dialled at.
    pub const PORT: u16 = 80;

    /// Inside, without IPv6, spread over a hundred nodes.
    pub const fn new(services: u32, endpoints: u32) -> Self {
        Self { services, endpoints, nodes: 100, reach: Reach::Inside, dual: false }
    }

    /// The name of node `at`.
    pub fn node_name(at: u32) -> String {
        format!("node-{at}")
    }

    /// The complete listings of Services and EndpointSlices.
    pub fn listings(&self) -> [Change; 2] {
        let services = (0..self.services).map(|at| self.service(at)).collect();
        let slices = (0..self.services).flat_map(|at| self.slices(at, self.endpoints)).collect();
        [Change::Service(Op::Reset(services)), Change::EndpointSlice(Op::Reset(slices))]
    }

    /// The Service's last slice of IPv4 after its last endpoint has gone, or come back.
    pub fn one_endpoint(&self, service: u32, there: bool) -> Change {
        Change::EndpointSlice(Op::Apply(self.last_slice(service, there)))
    }

    pub(super) fn last_slice(&self, service: u32, there: bool) -> EndpointSlice {
        let endpoints = self.endpoints - u32::from(!there);
        let first = (self.endpoints - 1) / SLICE * SLICE;
        self.slice(service, first, endpoints.min(first + SLICE), Family::V4)
    }

    /// The only slice of a Service when it has the endpoints from `first` to before `end`: at most a
    /// hundred, which may lie beyond those of the listings where there is only one Service.
    pub fn window(&self, service: u32, first: u32, end: u32) -> Change {
        let mut slice = self.slice(service, 0, 0, Family::V4);
        slice.endpoints = (first..end).map(|at| self.endpoint(service, at, Family::V4)).collect();
        Change::EndpointSlice(Op::Apply(slice))
    }

    /// The name of Service `at`.
    pub fn name(&self, at: u32) -> ObjectName {
        ObjectName::new(format!("team-{}", at % 50), format!("service-{at}"))
    }

    /// What clients inside dial.
    pub fn cluster_ip(&self, service: u32, family: Family) -> IpAddr {
        address(family, [10, 96, 0, 0], 1, service + 1)
    }

    /// What clients outside dial.
    pub fn outside_ip(&self, service: u32, family: Family) -> IpAddr {
        address(family, [198, 18, 0, 0], 2, service + 1)
    }

    /// The NodePort of a Service, if it has one.
    pub fn node_port(&self, service: u32) -> Option<u16> {
        let port = 30_000 + u16::try_from(service).ok()?;
        (self.reach == Reach::NodePort && port < 32_768).then_some(port)
    }

    /// Where an endpoint of a Service is.
    pub fn endpoint_ip(&self, service: u32, endpoint: u32, family: Family) -> IpAddr {
        address(family, [10, 128, 0, 0], 3, service * self.endpoints + endpoint + 1)
    }

    pub(super) fn service(&self, at: u32) -> Service {
        let ips: Vec<String> =
            self.families().map(|family| self.cluster_ip(at, family).to_string()).collect();
        let ingress = self.families().map(|family| LoadBalancerIngress {
            ip: Some(self.outside_ip(at, family).to_string()),
            ..LoadBalancerIngress::default()
        });
        let ingress = (self.reach == Reach::LoadBalancer).then(|| ingress.collect());
        Service {
            metadata: self.metadata(at, String::new()),
            spec: Some(ServiceSpec {
                type_: Some(
                    match self.reach {
                        Reach::Inside => "ClusterIP",
                        Reach::LoadBalancer => "LoadBalancer",
                        Reach::NodePort => "NodePort",
                    }
                    .to_owned(),
                ),
                cluster_ip: ips.first().cloned(),
                ip_families: Some(self.families().map(|family| kind(family).to_owned()).collect()),
                cluster_ips: Some(ips),
                allocate_load_balancer_node_ports: ingress.is_some().then_some(false),
                selector: Some([("app".to_owned(), format!("service-{at}"))].into()),
                ports: Some(vec![ServicePort {
                    name: Some("http".to_owned()),
                    port: i32::from(Self::PORT),
                    target_port: Some(IntOrString::Int(8080)),
                    protocol: Some("TCP".to_owned()),
                    node_port: self.node_port(at).map(i32::from),
                    ..ServicePort::default()
                }]),
                ..ServiceSpec::default()
            }),
            status: Some(ServiceStatus {
                load_balancer: Some(LoadBalancerStatus { ingress }),
                ..ServiceStatus::default()
            }),
        }
    }

    pub(super) fn slices(
        &self,
        service: u32,
        endpoints: u32,
    ) -> impl Iterator<Item = EndpointSlice> {
        let starts = (0..endpoints).step_by(SLICE as usize);
        let all = starts.flat_map(|first| self.families().map(move |family| (first, family)));
        let all: Vec<_> = all.collect();
        all.into_iter().map(move |(first, family)| {
            self.slice(service, first, endpoints.min(first + SLICE), family)
        })
    }

    fn slice(&self, service: u32, first: u32, end: u32, family: Family) -> EndpointSlice {
        let kind = kind(family);
        let suffix = format!("-{}-{first}", kind.to_lowercase());
        EndpointSlice {
            metadata: self.metadata(service, suffix),
            address_type: kind.to_owned(),
            endpoints: (first..end).map(|at| self.endpoint(service, at, family)).collect(),
            ports: Some(vec![EndpointPort {
                name: Some("http".to_owned()),
                port: Some(8080),
                protocol: Some("TCP".to_owned()),
                ..EndpointPort::default()
            }]),
        }
    }

    fn endpoint(&self, service: u32, at: u32, family: Family) -> Endpoint {
        let number = service * self.endpoints + at;
        let namespace = self.name(service).namespace.clone();
        Endpoint {
            addresses: vec![self.endpoint_ip(service, at, family).to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                serving: Some(true),
                terminating: Some(false),
            }),
            node_name: Some(Self::node_name(number % self.nodes)),
            zone: Some(format!("zone-{}", number % 3)),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".to_owned()),
                name: Some(format!("service-{service}-{at}")),
                namespace: Some(namespace),
                uid: Some(format!("00000000-0000-4000-8000-{number:012x}")),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        }
    }

    fn metadata(&self, service: u32, suffix: String) -> ObjectMeta {
        let NameParts { namespace, name } = &*self.name(service);
        let label = ("kubernetes.io/service-name".to_owned(), name.clone());
        ObjectMeta {
            namespace: Some(namespace.clone()),
            labels: (!suffix.is_empty()).then(|| [label].into()),
            name: Some(format!("{name}{suffix}")),
            ..ObjectMeta::default()
        }
    }

    fn families(&self) -> impl Iterator<Item = Family> {
        [Family::V4, Family::V6].into_iter().take(1 + usize::from(self.dual))
    }
}

/// As Kubernetes calls it.
const fn kind(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// Address `number` of a network: 24 bits of it with IPv4.
fn address(family: Family, v4: [u8; 4], v6: u16, number: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(u32::from_be_bytes(v4) + number).into(),
        Family::V6 => {
            let [high, low] = [(number >> 16) as u16, number as u16];
            Ipv6Addr::new(0xfd00, v6, 0, 0, 0, 0, high, low).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cluster::index::Index, model::Protocol};

    #[test]
    fn a_synthetic_cluster_is_read_as_any_other_and_loses_one_endpoint_when_told() {
        let cluster = Cluster { reach: Reach::LoadBalancer, dual: true, ..Cluster::new(3, 150) };
        let mut index = Index::default();
        cluster.listings().into_iter().for_each(|listing| index.apply(listing));
        assert!(index.complete());
        assert_eq!(index.ignored(), []);
        let count = |index: &Index| {
            index.endpoints(&cluster.name(1))[&("http".to_owned(), Protocol::Tcp)].len()
        };
        assert_eq!(count(&index), 300);
        index.apply(cluster.one_endpoint(1, false));
        assert_eq!(count(&index), 299);
        index.apply(cluster.one_endpoint(1, true));
        assert_eq!(count(&index), 300);
        index.apply(cluster.window(1, 5, 8));
        assert_eq!(count(&index), 3 + 200);
        let service = index.service(&cluster.name(2)).unwrap();
        let cluster_ips = [Family::V4, Family::V6].map(|family| cluster.cluster_ip(2, family));
        assert_eq!(service.cluster_ips, cluster_ips);
        assert_eq!(
            service.load_balancer_ips,
            ["198.18.0.3", "fd00:2::3"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
    }
}
