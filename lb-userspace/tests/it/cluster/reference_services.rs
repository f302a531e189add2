//! Every Service of the reference's tests, and what its proxy reads from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::core::v1::Service;
use lb_userspace::{
    cluster::{node::own_addresses, service},
    model::{Endpoint, Family, Node, ObjectName, TrafficPolicy},
    plan::{Backend, FrontendKind, PortPlan, Scope, service::plan},
};
use serde::Deserialize;

use crate::support::cases::section;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceCase {
    name: String,
    ip_family: String,
    service: Option<Service>,
    want: BTreeMap<String, Port>,
}

/// What the reference knows of one Service port.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    cluster_ip: String,
    external_ips: Vec<String>,
    external_local: bool,
    externally_accessible: bool,
    health_check_node_port: u16,
    internal_local: bool,
    lb_source_ranges: Vec<String>,
    lb_vips: Vec<String>,
    node_port: u16,
    port: u16,
    session_affinity: String,
    sticky_seconds: u32,
    uses_cluster: bool,
    uses_local: bool,
}

#[test]
fn services_are_read_as_the_reference_reads_them() {
    let cases: Vec<ServiceCase> = section("service_to_ports_reference");
    assert_eq!(cases.len(), 18);
    for case in cases {
        let found = case.service.as_ref().map(|s| ports_of(s, &case.ip_family)).unwrap_or_default();
        assert_eq!(found, case.want, "{}", case.name);
    }
}

fn ports_of(object: &Service, family: &str) -> BTreeMap<String, Port> {
    let family = if family == "IPv4" { Family::V4 } else { Family::V6 };
    let Some(model) = service::read(object).service else { return BTreeMap::new() };
    // One local and one remote endpoint behind each port show which sets are in use.
    let endpoints = model.ports.iter().map(|port| {
        let both = [endpoint("10.1.1.1:1", true), endpoint("10.1.1.2:1", false)];
        let v6 = [endpoint("[fd00::1]:1", true), endpoint("[fd00::2]:1", false)];
        ((port.name.clone(), port.protocol), [both, v6].concat())
    });
    let node = Node { name: "n1".into(), ..Node::default() };
    let planned = plan(&model, &endpoints.collect(), &node);
    let ours = planned.ports.iter().filter(|port| port.family == family);
    ours.map(|planned| {
        let port = model.ports.iter().find(|port| port.name == planned.port_name).unwrap();
        let of = |kind| addresses(planned, kind);
        let key = format!("{}|{}|{}", planned.service, planned.port_name, planned.protocol);
        // One that is also a load balancer's is planned as the latter, so read it from the model.
        let external_ips = model.external_ips.iter().filter(|ip| Family::of(**ip) == family);
        let external_ips: Vec<_> = external_ips.map(ToString::to_string).collect();
        let lb_vips = of(FrontendKind::LoadBalancer);
        let node_port = port.node_port.unwrap_or(0);
        let value = Port {
            cluster_ip: of(FrontendKind::ClusterIp).concat(),
            externally_accessible: node_port != 0
                || !external_ips.is_empty()
                || !lb_vips.is_empty(),
            external_ips,
            external_local: planned.external == Scope::Local,
            health_check_node_port: model.health_check_node_port.unwrap_or(0),
            internal_local: planned.internal == Scope::Local,
            lb_source_ranges: planned.source_ranges.iter().map(ToString::to_string).collect(),
            lb_vips,
            node_port,
            port: port.port,
            session_affinity: if planned.affinity_seconds.is_some() { "ClientIP" } else { "" }
                .into(),
            sticky_seconds: planned.affinity_seconds.unwrap_or(0),
            uses_cluster: !planned.cluster.backends.is_empty(),
            uses_local: !planned.local.backends.is_empty(),
        };
        (key, value)
    })
    .collect()
}

fn addresses(port: &PortPlan, kind: FrontendKind) -> Vec<String> {
    let of_kind = port.frontends.iter().filter(|frontend| frontend.kind == kind);
    of_kind.map(|frontend| frontend.address.ip().to_string()).collect()
}

fn endpoint(address: &str, local: bool) -> Endpoint {
    Endpoint {
        address: address.parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(if local { "n1" } else { "n2" }.into()),
        zone: None,
        zone_hints: BTreeSet::new(),
        node_hints: BTreeSet::new(),
        uid: "".into(),
        pod: None,
        weight: 1,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CategorizeCase {
    name: String,
    node_name: String,
    #[serde(default)]
    node_zone: Option<String>,
    prefer_same_gate: bool,
    service: Policies,
    endpoints: Vec<Categorized>,
    want: Categories,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Policies {
    external_local: bool,
    externally_accessible: bool,
    internal_local: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Categorized {
    ep: String,
    ready: bool,
    serving: bool,
    terminating: bool,
    local: bool,
    #[serde(default)]
    zone_hints: BTreeSet<String>,
    #[serde(default)]
    node_hints: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Categories {
    all_reachable: BTreeSet<String>,
    cluster: BTreeSet<String>,
    local: BTreeSet<String>,
    has_any: bool,
    uses_cluster: bool,
    uses_local: bool,
}

#[test]
fn endpoints_are_divided_as_the_reference_divides_them() {
    let cases: Vec<CategorizeCase> = section("categorize_endpoints_reference");
    assert_eq!(cases.len(), 32);
    for case in cases {
        let policy = |local| if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
        let external_ip = case.service.externally_accessible.then_some([203, 0, 113, 1].into());
        let model = lb_userspace::model::Service {
            name: ObjectName::new("ns", "web"),
            cluster_ips: vec![[10, 96, 0, 10].into()],
            load_balancer_ips: vec![],
            external_ips: external_ip.into_iter().collect(),
            ports: vec![lb_userspace::model::ServicePort {
                name: String::new(),
                protocol: lb_userspace::model::Protocol::Tcp,
                port: 80,
                node_port: None,
            }],
            internal_policy: policy(case.service.internal_local),
            external_policy: policy(case.service.external_local),
            source_ranges: vec![],
            affinity_seconds: None,
            health_check_node_port: None,
            algorithm: None,
            has_selector: true,
        };
        let name = Some(case.node_name).filter(|name| !name.is_empty()).unwrap_or("me".into());
        let given: Vec<_> = case
            .endpoints
            .into_iter()
            .map(|given| Endpoint {
                ready: given.ready,
                serving: given.serving,
                terminating: given.terminating,
                node: Some(if given.local { name.as_str() } else { "other" }.into()),
                zone_hints: given.zone_hints,
                // Without its gate the reference does not look at node hints; here it is on.
                node_hints: given
                    .node_hints
                    .into_iter()
                    .filter(|_| case.prefer_same_gate)
                    .collect(),
                ..endpoint(&given.ep, given.local)
            })
            .collect();
        let node = Node { name, zone: case.node_zone, ..Node::default() };
        let key = (String::new(), lb_userspace::model::Protocol::Tcp);
        let all = BTreeMap::from([(key, given.clone())]);
        let planned = plan(&model, &all, &node).ports.remove(0);
        let texts = |backends: &[Backend]| -> BTreeSet<String> {
            backends.iter().map(|backend| backend.address.to_string()).collect()
        };
        let cluster = texts(&planned.cluster.backends);
        let local = texts(&planned.local.backends);
        let retired = texts(&planned.retired);
        let everything: BTreeSet<_> = given.iter().map(|e| e.address.to_string()).collect();
        assert!(retired.is_disjoint(&(&cluster | &local)), "{}", case.name);
        assert_eq!(&(&cluster | &local) | &retired, everything, "{}", case.name);
        let uses_cluster = !case.service.internal_local || case.service.externally_accessible;
        let found = Categories {
            all_reachable: &cluster | &local,
            cluster,
            local,
            has_any: planned.local.when_empty == lb_userspace::plan::WhenEmpty::Drop,
            uses_cluster,
            uses_local: case.service.internal_local
                || (case.service.external_local && case.service.externally_accessible),
        };
        assert_eq!(found, case.want, "{}", case.name);
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeIpCase {
    node_ips: Vec<IpAddr>,
    bind: String,
    primary: String,
    v4: IpAddr,
    v6: IpAddr,
}

#[test]
fn this_node_s_own_addresses_are_those_that_the_reference_detects() {
    let cases: Vec<NodeIpCase> = section("node_ip_detection_reference");
    assert_eq!(cases.len(), 14);
    for case in cases {
        let given: Vec<_> = case.bind.parse().into_iter().collect();
        let found = own_addresses(&given, &case.node_ips);
        let first = |v4: bool| found.iter().copied().find(|address| address.is_ipv4() == v4);
        let primary = found.first().is_none_or(IpAddr::is_ipv4);
        assert_eq!(primary, case.primary == "IPv4", "{case:?}");
        // The reference fills a family without an address with loopback.
        assert_eq!(first(true).unwrap_or([127, 0, 0, 1].into()), case.v4, "{case:?}");
        assert_eq!(
            first(false).unwrap_or(std::net::Ipv6Addr::LOCALHOST.into()),
            case.v6,
            "{case:?}"
        );
    }
}
