//! Objects that are wrong in part or as a whole: what is said of them, and what goes on working.

use lb_userspace::{
    cluster::{Change, Op, service},
    model::{Algorithm, Service, ServicePort, TrafficPolicy},
    model::{Endpoints, Protocol},
};
use serde_json::json;

use crate::support::objects::{
    apply_endpoints, apply_pod, apply_service, apply_slice, complaints, endpoints, http_of,
    index_of, name, object, pod, service as an_object, slice, slice_of, web,
};

#[test]
fn a_service_is_read_whole() {
    let found = service::read(&object(json!({
        "metadata": {
            "name": "web", "namespace": "ns", "annotations": {"lb/algorithm": "least-connections"},
        },
        "spec": {
            "type": "LoadBalancer", "selector": {"app": "web"},
            "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00::10"],
            "ipFamilies": ["IPv4", "IPv6"],
            "ports": [
                {"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 30053},
                {"name": "dns-tcp", "port": 53, "nodePort": 30053},
                {"name": "sig", "protocol": "SCTP", "port": 7777},
            ],
            "externalIPs": ["203.0.113.9", ""],
            "loadBalancerSourceRanges": [" 10.0.0.0/8 "],
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
            "healthCheckNodePort": 30000,
            "sessionAffinity": "ClientIP",
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "198.51.100.1"}, {"hostname": "lb.example"},
            {"ip": "198.51.100.2", "ipMode": "Proxy"}, {"ip": "2001:db8::1", "ipMode": "VIP"},
        ]}},
    })));
    let port = |name: &str, protocol, port, node_port| ServicePort {
        name: name.into(),
        protocol,
        port,
        node_port,
    };
    let wanted = Service {
        name: name("web"),
        cluster_ips: vec!["10.96.0.10".parse().unwrap(), "fd00::10".parse().unwrap()],
        load_balancer_ips: vec!["198.51.100.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        external_ips: vec!["203.0.113.9".parse().unwrap()],
        ports: vec![
            port("dns", Protocol::Udp, 53, Some(30053)),
            port("dns-tcp", Protocol::Tcp, 53, Some(30053)),
            port("sig", Protocol::Sctp, 7777, None),
        ],
        internal_policy: TrafficPolicy::Local,
        external_policy: TrafficPolicy::Local,
        source_ranges: vec!["10.0.0.0/8".parse().unwrap()],
        affinity_seconds: Some(10800),
        health_check_node_port: Some(30000),
        algorithm: Some(Algorithm::LeastConnections),
        has_selector: true,
    };
    assert_eq!((found.service, found.problems), (Some(wanted), vec![]));
}

#[test]
fn a_bad_port_is_named_and_the_service_s_other_ports_and_other_services_work_on() {
    let mut bad = web("web", "10.96.0.10");
    let mut wrong = bad.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].clone();
    wrong.port = 70000;
    bad.spec.as_mut().unwrap().ports.as_mut().unwrap().insert(0, wrong);
    let index = index_of([apply_service(bad), apply_service(web("other", "10.96.0.11"))]);
    assert_eq!(complaints(&index), ["Service ns/web: spec.ports[0].port: 70000 is not a port"]);
    let ports: Vec<_> = index.services().map(|s| (s.name.name.as_str(), s.ports.len())).collect();
    assert_eq!(ports, [("other", 1), ("web", 1)]);
}

#[test]
fn every_bad_field_of_a_service_is_named() {
    let bad = object(json!({
        "metadata": {"name": "web", "namespace": "ns", "annotations": {"lb/algorithm": "best"}},
        "spec": {
            "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "10.96.0.11", "x"],
            "ipFamilies": ["IPv4", "IPv6", "IPv6"],
            "ports": [
                {"name": "a", "protocol": "ICMP", "port": 80},
                {"name": "b", "port": 80, "nodePort": -1},
                {"name": "c", "port": 80},
                {"name": "d", "port": 81, "nodePort": 30000},
                {"name": "e", "port": 82, "nodePort": 30000},
            ],
            "externalIPs": ["300.1.1.1"],
            "loadBalancerSourceRanges": ["10.0.0.0/40"],
            "externalTrafficPolicy": "Somewhere", "internalTrafficPolicy": "Nowhere",
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}},
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "lb.example"}]}},
    }));
    let index = index_of([apply_service(bad)]);
    let mut wanted = [
        "metadata.annotations[lb/algorithm]: \"best\" is not random, maglev, round-robin or \
         least-connections",
        "spec.clusterIPs[1]: 10.96.0.11 is not IPv6",
        "spec.clusterIPs[2]: \"x\" is not an IP address",
        "spec.externalIPs[0]: \"300.1.1.1\" is not an IP address",
        "spec.externalTrafficPolicy: \"Somewhere\" is not Cluster or Local",
        "spec.internalTrafficPolicy: \"Nowhere\" is not Cluster or Local",
        "spec.loadBalancerSourceRanges[0]: \"10.0.0.0/40\" is not an address range",
        "spec.ports[0].protocol: \"ICMP\" is not TCP, UDP or SCTP",
        "spec.ports[1].nodePort: -1 is not a port",
        "spec.ports[2]: 80/TCP is there already",
        "spec.ports[4].nodePort: another port of the Service has it",
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 86401 is not from 1 to 86400",
        "status.loadBalancer.ingress[0].ip: \"lb.example\" is not an IP address",
    ]
    .map(|reason| format!("Service ns/web: {reason}"));
    wanted.sort();
    assert_eq!(complaints(&index), wanted);
    let service = index.service(&name("web")).unwrap();
    assert_eq!(service.affinity_seconds, Some(10800));
    assert_eq!(service.ports.len(), 3);
}

#[test]
fn headless_and_external_name_services_are_skipped_with_a_reason() {
    let index = index_of([
        apply_service(an_object("a", json!({"clusterIP": "None"}))),
        apply_service(an_object("b", json!({"type": "ExternalName", "clusterIP": "10.96.0.1"}))),
        apply_service(an_object("c", json!({}))),
        apply_service(object(json!({"metadata": {"name": "d", "namespace": "ns"}}))),
    ]);
    assert_eq!(index.services().count(), 0);
    assert_eq!(
        complaints(&index),
        [
            "Service ns/a: spec.clusterIP: None makes it headless",
            "Service ns/b: spec.type: ExternalName is answered by DNS alone",
            "Service ns/c: spec.clusterIP: there is none yet",
            "Service ns/d: spec.clusterIP: there is none yet",
        ],
    );
}

#[test]
fn the_external_policy_of_a_service_nobody_outside_reaches_does_not_count() {
    let read = |spec| service::read(&an_object("web", spec)).service.unwrap();
    let hidden = json!({"clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local"});
    assert_eq!(read(hidden).external_policy, TrafficPolicy::Cluster);
    let reachable = json!({
        "clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local", "externalIPs": ["192.0.2.1"],
    });
    assert_eq!(read(reachable).external_policy, TrafficPolicy::Local);
}

#[test]
fn a_slice_of_names_is_ignored_with_a_reason_and_its_neighbours_count() {
    let mut names = slice("web-names", "web", &["web.example"]);
    names.address_type = "FQDN".into();
    let index = index_of([
        apply_service(web("web", "10.96.0.10")),
        apply_slice(names),
        apply_slice(slice("web-1", "web", &["10.0.0.1"])),
    ]);
    assert_eq!(http_of(&index, "web"), ["10.0.0.1:8080"]);
    assert_eq!(
        complaints(&index),
        ["EndpointSlice ns/web-names: addressType: FQDN has names, not addresses to send to"],
    );
}

#[test]
fn a_slice_that_names_no_service_or_one_that_is_not_there_is_ignored_with_a_reason() {
    let mut unlabelled = slice("lost", "web", &["10.0.0.1"]);
    unlabelled.metadata.labels = None;
    let mut index = index_of([
        apply_slice(unlabelled),
        apply_slice(slice("empty", "", &["10.0.0.2"])),
        apply_slice(slice("early", "web", &["10.0.0.3"])),
    ]);
    let nameless = [
        "EndpointSlice ns/empty: metadata.labels[kubernetes.io/service-name]: it names no Service",
        "EndpointSlice ns/lost: metadata.labels[kubernetes.io/service-name]: it names no Service",
    ];
    assert_eq!(complaints(&index), nameless, "its Service may still be told");
    index.apply(Change::Service(Op::Reset(vec![])));
    let early = "EndpointSlice ns/early: its Service ns/web is not known";
    assert_eq!(complaints(&index), [early, nameless[0], nameless[1]]);
    index.apply(apply_service(web("web", "10.96.0.10")));
    assert_eq!(complaints(&index), nameless);
    assert_eq!(http_of(&index, "web"), ["10.0.0.3:8080"]);
}

#[test]
fn bad_endpoints_of_a_slice_are_named_and_the_good_ones_serve() {
    let endpoints = vec![
        json!({"addresses": ["10.0.0.1", "10.0.0.9"]}),
        json!({"addresses": ["10.0.0"]}),
        json!({"addresses": ["fd00::1"]}),
        json!({"addresses": ["127.0.0.1"]}),
        json!({"addresses": []}),
    ];
    let mut bad = slice_of("web-1", "web", endpoints);
    bad.metadata.annotations = Some([("lb/weight".into(), "0".into())].into());
    let ports = object(json!([
        {"name": "http", "port": 8080}, {"port": 1}, {"name": "any"}, {"name": "zero", "port": 0},
        {"name": "big", "port": 65536}, {"name": "odd", "port": 1, "protocol": "QUIC"},
    ]));
    bad.ports = Some(ports);
    let index = index_of([apply_service(web("web", "10.96.0.10")), apply_slice(bad)]);
    let found: Vec<_> = index.endpoints(&name("web")).into_keys().collect();
    assert_eq!(found, [("http".to_string(), Protocol::Tcp)]);
    assert_eq!(http_of(&index, "web"), ["10.0.0.1:8080"]);
    let mut wanted = [
        "endpoints[1].addresses[0]: \"10.0.0\" is not an IP address",
        "endpoints[2].addresses[0]: fd00::1 is not of the slice's addressType",
        "endpoints[3].addresses[0]: 127.0.0.1 cannot be a backend's address",
        "metadata.annotations[lb/weight]: \"0\" is not a weight from 1 to 65535",
        "ports[1].name: missing; an empty one would do",
        "ports[4].port: 65536 is not a port",
        "ports[5].protocol: \"QUIC\" is not TCP, UDP or SCTP",
    ]
    .map(|reason| format!("EndpointSlice ns/web-1: {reason}"));
    wanted.sort();
    assert_eq!(complaints(&index), wanted);
}

#[test]
fn bad_addresses_of_pods_and_endpoints_are_named_too() {
    let mut index = index_of([
        apply_service(web("db", "10.96.0.1")),
        apply_endpoints(endpoints("db", &["192.0.2.1", "::1"])),
        apply_pod(pod("p", "a", "not-yet")),
    ]);
    assert_eq!(http_of(&index, "db"), ["192.0.2.1:8080"]);
    assert_eq!(
        complaints(&index),
        [
            "Endpoints ns/db: subsets[0].addresses[1].ip: ::1 cannot be a backend's address",
            "Pod ns/p: status.podIPs[0].ip: \"not-yet\" is not an IP address",
        ],
    );
    index.apply(Change::Endpoints(Op::Reset(vec![])));
    assert_eq!(index.endpoints(&name("db")), Endpoints::new());
}
