//! A packet's fate told step by step: what each rule found, in the order in which they ran.

use lb_common::{
    abi::{Kind, Scope, SizeClass},
    path::SourceClass,
    verdict::Reason,
};

use super::{answer::Finding, question::Asked};
use crate::{
    api::{Explanation, Step, Via},
    datapath::maps::Maps,
    reason::{anchor, hint},
};

/// The steps that led to an explanation. `choice` is what a new connection would meet.
pub(super) fn steps(
    asked: &Asked,
    found: &Finding,
    choice: &Finding,
    explanation: &Explanation,
    maps: &Maps,
) -> Vec<Step> {
    let kind = Kind::from_number(choice.report.kind);
    let mut steps = vec![step("source", source(asked, found))];
    steps.push(step("frontend", frontend(asked, kind, explanation)));
    steps.extend(kind.and_then(|kind| policy(choice, kind, maps)).map(|it| step("policy", it)));
    steps.extend(choose(found, choice, explanation).map(|it| step("choice", it)));
    steps.extend(rewrite(asked, explanation).map(|it| step("rewrite", it)));
    steps.extend(explanation.node.as_ref().map(|node| {
        let how = "the ring over nodes names it; the packet goes there as it is, in an envelope";
        step("node", format!("{node}: {how}, and meets the backends of that node alone"))
    }));
    let hop = match explanation.via {
        Some(Via::Socket) => "at the socket: no packet carries the service address",
        _ => "by this node's routes, asked for each flow",
    };
    if explanation.backend.is_some() || explanation.node.is_some() {
        steps.push(step("next hop", hop.to_owned()));
    }
    let Finding { reason, .. } = found;
    steps.push(step("result", format!("{}: {}", reason.label(), meaning(*reason))));
    steps.push(step("hint", hint(*reason).to_owned()));
    steps.push(step("read on", anchor(*reason)));
    steps
}

fn step(name: &str, detail: String) -> Step {
    Step { name: name.to_owned(), detail }
}

fn source(asked: &Asked, found: &Finding) -> String {
    let class = match SourceClass::from_number(found.report.class) {
        SourceClass::Outside => "outside the cluster: in no podCIDR, and no address of this node",
        SourceClass::Pod => "a pod: inside podCIDRs",
        SourceClass::Node => "this node itself",
    };
    format!("{} is {class}", asked.src)
}

fn frontend(asked: &Asked, kind: Option<Kind>, explanation: &Explanation) -> String {
    let place = std::net::SocketAddr::new(asked.dst, asked.port);
    match (&explanation.frontend, kind) {
        (Some(name), Some(kind)) => {
            format!("{place}/{} is {} of {name}", asked.protocol, word(kind))
        }
        (Some(name), None) => format!("{place}/{} belongs to {name}", asked.protocol),
        (None, _) => format!("{place}/{} is nobody's", asked.protocol),
    }
}

/// Which set of backends this source gets, and why.
fn policy(choice: &Finding, kind: Kind, maps: &Maps) -> Option<String> {
    let service = maps.services.get(u32::from_ne_bytes(choice.report.service))?;
    let class = SourceClass::from_number(choice.report.class);
    let (name, policy) = match (kind, class) {
        (Kind::ClusterIp, _) => ("internalTrafficPolicy", service.internal()),
        (_, SourceClass::Outside) => ("externalTrafficPolicy", service.external()),
        _ => return Some("inside the cluster: the whole cluster's endpoints".to_owned()),
    };
    let set = match policy {
        Scope::Cluster | Scope::Nodes | Scope::Rest => "Cluster: the whole cluster's endpoints",
        Scope::Local => "Local: endpoints on this node only",
    };
    Some(format!("{name} {set}"))
}

fn choose(found: &Finding, choice: &Finding, explanation: &Explanation) -> Option<String> {
    let backend = explanation.backend?;
    if found.is_of_known_flow() {
        return Some(format!("none: its flow is known, and goes to {backend}"));
    }
    let how = match choice.report.answer().class() {
        SizeClass::Ring(slots) => format!("the ring of {slots} places names"),
        _ => "by the service's algorithm or its client's affinity:".to_owned(),
    };
    Some(format!("of {} candidates {how} {backend}", explanation.candidates.len()))
}

fn rewrite(asked: &Asked, explanation: &Explanation) -> Option<String> {
    let backend = explanation.backend?;
    let source = match explanation.source {
        Some(source) if source != asked.src => format!("source {} becomes {source}", asked.src),
        _ => "the source stays".to_owned(),
    };
    Some(format!("destination becomes {backend}, {source}"))
}

const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::ClusterIp => "the ClusterIP",
        Kind::NodePort | Kind::AnyNodePort => "a NodePort",
        Kind::LoadBalancer => "a load-balancer address",
        Kind::ExternalIp => "an external IP",
        Kind::ClusterAddress | Kind::NodeAddress | Kind::VirtualAddress | Kind::PeerAddress => {
            "an address"
        }
    }
}

const fn meaning(reason: Reason) -> &'static str {
    use lb_common::verdict::Verdict;
    match reason.verdict() {
        Verdict::Forward if matches!(reason, Reason::ToNode) => "sent on as it is, to another node",
        Verdict::Pass => "left as it is",
        Verdict::Deliver => "rewritten, to a backend on this node",
        Verdict::Forward => "rewritten and sent on",
        Verdict::Answer => "answered here",
        Verdict::Reject => "refused, and the sender is told",
        Verdict::Drop => "dropped in silence",
    }
}
