//! A packet's fate by the plan alone: the oracle to hold the kernel programs against.

use std::net::{IpAddr, SocketAddr};

use lb_userspace::{
    model::{Node, Protocol},
    plan::{
        FrontendKind, Plan, SourceClass, WhenEmpty,
        masquerade::{is_hairpin, masquerades_at},
    },
};

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To one of these, with its source rewritten where the flag says so.
    Forward(Vec<SocketAddr>, bool),
    Reject,
    Drop,
    /// Not ours.
    None,
}

/// Decides about the first packet of a connection that carries the service address.
pub fn of(plan: &Plan, node: &Node, source: IpAddr, to: SocketAddr, protocol: Protocol) -> Verdict {
    let ports = || plan.services().flat_map(|service| &service.ports);
    let frontends = || ports().flat_map(|port| port.frontends.iter().map(move |f| (port, f)));
    let mut matching = frontends().filter(|(p, f)| (p.protocol, f.address) == (protocol, to));
    let Some((port, frontend)) = matching.next() else {
        let is_cluster_ip = frontends().any(|(_, frontend)| {
            (frontend.kind, frontend.address.ip()) == (FrontendKind::ClusterIp, to.ip())
        });
        return match node.service_cidrs.iter().any(|cidr| cidr.contains(&to.ip())) {
            _ if is_cluster_ip => Verdict::Reject,
            true => Verdict::Drop,
            false => Verdict::None,
        };
    };
    assert_eq!(matching.next(), None, "two frontends answer {to}");
    let allowed = port.source_ranges.is_empty()
        || frontend.kind != FrontendKind::LoadBalancer
        || port.source_ranges.iter().any(|range| range.contains(&source));
    if !allowed {
        return Verdict::Drop;
    }
    let class = SourceClass::of(source, node);
    let set = port.backends_for(frontend.kind, class);
    match (set.backends.as_slice(), set.when_empty) {
        ([], WhenEmpty::Reject) => Verdict::Reject,
        ([], WhenEmpty::Drop) => Verdict::Drop,
        (backends, _) => Verdict::Forward(
            backends.iter().map(|backend| backend.address).collect(),
            masquerades_at(node, frontend.kind, port.external, class)
                || backends.iter().any(|backend| is_hairpin(source, backend)),
        ),
    }
}
