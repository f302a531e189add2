//! `v1/Service` → [`Service`].

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::api::core::v1;

use super::{annotation, label, name_of, parse::Problems, pods::PodRule};
use crate::model::{Algorithm, Family, Service, ServicePort, TrafficPolicy};

const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
const ALGORITHM: &str = "lb/algorithm";
const DEFAULT_AFFINITY: u32 = 10_800;
const LONGEST_AFFINITY: u32 = 86_400;

/// A Service as read: what is wrong with a part leaves out that part only.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// `None` where the whole object is not for this proxy; `problems` says why.
    pub service: Option<Service>,
    /// How its pods are found; `None` without a selector.
    pub pods: Option<PodRule>,
    /// What was left out, each naming its field.
    pub problems: Vec<String>,
}

/// Reads a Service.
pub fn read(object: &v1::Service) -> Reading {
    let nothing = &v1::ServiceSpec::default();
    let spec = object.spec.as_ref().unwrap_or(nothing);
    if let Some(reason) = not_for_us(object, spec) {
        return Reading { problems: vec![reason.into()], ..Reading::default() };
    }
    let mut problems = Problems::default();
    let type_ = spec.type_.as_deref().unwrap_or("ClusterIP");
    let external_ips = external_ips(spec, &mut problems);
    // The API server clears the policy of a Service that nobody outside can reach.
    let reachable = matches!(type_, "NodePort" | "LoadBalancer") || !external_ips.is_empty();
    let external =
        policy("externalTrafficPolicy", spec.external_traffic_policy.as_deref(), &mut problems);
    let external_policy = if reachable { external } else { TrafficPolicy::Cluster };
    let answers_health_checks = type_ == "LoadBalancer" && external_policy == TrafficPolicy::Local;
    let service = Service {
        name: name_of(object),
        cluster_ips: cluster_ips(spec, &mut problems),
        load_balancer_ips: load_balancer_ips(object, &mut problems),
        external_ips,
        ports: ports(spec, &mut problems),
        internal_policy: policy(
            "internalTrafficPolicy",
            spec.internal_traffic_policy.as_deref(),
            &mut problems,
        ),
        external_policy,
        source_ranges: listed(spec.load_balancer_source_ranges.as_ref())
            .filter_map(|(at, text)| {
                problems.range(format_args!("spec.loadBalancerSourceRanges[{at}]"), text)
            })
            .collect(),
        affinity_seconds: affinity(spec, &mut problems),
        health_check_node_port: spec
            .health_check_node_port
            .filter(|port| answers_health_checks && *port != 0)
            .and_then(|port| problems.port("spec.healthCheckNodePort", port)),
        algorithm: algorithm(object, &mut problems),
        has_selector: spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()),
    };
    Reading { pods: PodRule::read(spec), service: Some(service), problems: problems.0 }
}

fn not_for_us(object: &v1::Service, spec: &v1::ServiceSpec) -> Option<&'static str> {
    if label(&object.metadata, PROXY_NAME).is_some() {
        return Some(
            "the label service.kubernetes.io/service-proxy-name gives it to another proxy",
        );
    }
    if spec.type_.as_deref() == Some("ExternalName") {
        return Some("spec.type: ExternalName is answered by DNS alone");
    }
    match spec.cluster_ip.as_deref() {
        Some("None") => Some("spec.clusterIP: None makes it headless"),
        None | Some("") => Some("spec.clusterIP: there is none yet"),
        Some(_) => None,
    }
}

fn cluster_ips(spec: &v1::ServiceSpec, problems: &mut Problems) -> Vec<IpAddr> {
    let single = spec.cluster_ip.as_deref().unwrap_or_default();
    let families = spec.ip_families.as_deref().unwrap_or_default();
    if families.is_empty() {
        return problems.address("spec.clusterIP", single).into_iter().collect();
    }
    let several = spec.cluster_ips.as_deref().unwrap_or_default();
    let texts = several.iter().map(String::as_str);
    let texts = texts.chain(several.is_empty().then_some(single));
    let mut found: Vec<IpAddr> = Vec::new();
    for (at, (text, family)) in texts.zip(families).enumerate() {
        let field = format!("spec.clusterIPs[{at}]");
        let Some(address) = problems.address(&field, text) else { continue };
        let right = match Family::of(address) {
            Family::V4 => family == "IPv4",
            Family::V6 => family == "IPv6",
        };
        if !right {
            problems.add(field, format_args!("{address} is not {family}"));
        } else if found.iter().any(|other| Family::of(*other) == Family::of(address)) {
            problems.add(field, format_args!("a second {family} address"));
        } else {
            found.push(address);
        }
    }
    found
}

fn load_balancer_ips(object: &v1::Service, problems: &mut Problems) -> Vec<IpAddr> {
    let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    let mut found = BTreeSet::new();
    for (at, point) in ingress.iter().enumerate() {
        // A load balancer in mode Proxy sends to nodes: its own address is none of our business.
        let vip = point.ip_mode.as_deref().is_none_or(|mode| mode == "VIP");
        let Some(text) = point.ip.as_deref().filter(|text| vip && !text.is_empty()) else {
            continue;
        };
        let field = format_args!("status.loadBalancer.ingress[{at}].ip");
        found.extend(problems.address(field, text));
    }
    found.into_iter().collect()
}

fn external_ips(spec: &v1::ServiceSpec, problems: &mut Problems) -> Vec<IpAddr> {
    let found: BTreeSet<_> = listed(spec.external_ips.as_ref())
        .filter(|(_, text)| !text.is_empty())
        .filter_map(|(at, text)| problems.address(format_args!("spec.externalIPs[{at}]"), text))
        .collect();
    found.into_iter().collect()
}

fn ports(spec: &v1::ServiceSpec, problems: &mut Problems) -> Vec<ServicePort> {
    let mut found: Vec<ServicePort> = Vec::new();
    for (at, entry) in spec.ports.iter().flatten().enumerate() {
        let field = format!("spec.ports[{at}]");
        let protocol =
            problems.protocol(format_args!("{field}.protocol"), entry.protocol.as_deref());
        let port = problems.port(format_args!("{field}.port"), entry.port);
        let (Some(protocol), Some(port)) = (protocol, port) else { continue };
        let same = |other: &&ServicePort| other.protocol == protocol;
        if found.iter().filter(same).any(|other| other.port == port) {
            problems.add(field, format_args!("{port}/{protocol} is there already"));
            continue;
        }
        let mut node_port = entry
            .node_port
            .filter(|number| *number != 0)
            .and_then(|number| problems.port(format_args!("{field}.nodePort"), number));
        if node_port.is_some() && found.iter().filter(same).any(|o| o.node_port == node_port) {
            problems.add(format_args!("{field}.nodePort"), "another port of the Service has it");
            node_port = None;
        }
        let name = entry.name.clone().unwrap_or_default();
        found.push(ServicePort { name, protocol, port, node_port });
    }
    found
}

fn policy(field: &str, text: Option<&str>, problems: &mut Problems) -> TrafficPolicy {
    match text {
        None | Some("Cluster" | "") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            problems.add(
                format_args!("spec.{field}"),
                format_args!("{other:?} is not Cluster or Local"),
            );
            TrafficPolicy::Cluster
        }
    }
}

fn affinity(spec: &v1::ServiceSpec, problems: &mut Problems) -> Option<u32> {
    match spec.session_affinity.as_deref() {
        None | Some("None" | "") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            problems.add("spec.sessionAffinity", format_args!("{other:?} is not None or ClientIP"));
            return None;
        }
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let Some(seconds) = config.and_then(|client| client.timeout_seconds) else {
        return Some(DEFAULT_AFFINITY);
    };
    let allowed = u32::try_from(seconds).ok().filter(|s| (1..=LONGEST_AFFINITY).contains(s));
    Some(allowed.unwrap_or_else(|| {
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        problems.add(field, format_args!("{seconds} is not from 1 to {LONGEST_AFFINITY}"));
        DEFAULT_AFFINITY
    }))
}

fn algorithm(object: &v1::Service, problems: &mut Problems) -> Option<Algorithm> {
    match annotation(&object.metadata, ALGORITHM)? {
        "random" => Some(Algorithm::Random),
        "maglev" => Some(Algorithm::Maglev),
        "round-robin" => Some(Algorithm::RoundRobin),
        "least-connections" => Some(Algorithm::LeastConnections),
        other => {
            let known = "random, maglev, round-robin or least-connections";
            problems.add(
                format_args!("metadata.annotations[{ALGORITHM}]"),
                format_args!("{other:?} is not {known}"),
            );
            None
        }
    }
}

fn listed(texts: Option<&Vec<String>>) -> impl Iterator<Item = (usize, &str)> {
    texts.into_iter().flatten().map(String::as_str).enumerate()
}
