//! `v1/Endpoints` of a Service without a selector → [`Group`]s, by the rules of the API's
//! mirroring controller.

use k8s_openapi::api::core::v1;

use super::{
    annotation,
    endpoints::{Group, Member, Names, Port, pod_name},
    label,
    parse::Problems,
};

const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// As many addresses of a subset are mirrored.
const MOST: usize = 1000;

/// An Endpoints object as read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mirror {
    /// One for each subset.
    pub groups: Vec<Group>,
    /// What was left out, each naming its field.
    pub problems: Vec<String>,
}

/// Reads an Endpoints object.
pub fn read(object: &v1::Endpoints, names: &mut Names) -> Mirror {
    let mut problems = Problems::default();
    if label(&object.metadata, SKIP) == Some("true") {
        problems.add(format_args!("metadata.labels[{SKIP}]"), "it asks to be left alone");
        return Mirror { groups: Vec::new(), problems: problems.0 };
    }
    if annotation(&object.metadata, LEADER).is_some() {
        problems.add(format_args!("metadata.annotations[{LEADER}]"), "it is a leader election");
        return Mirror { groups: Vec::new(), problems: problems.0 };
    }
    let weight = problems.weight(&object.metadata);
    let subsets = object.subsets.iter().flatten().enumerate();
    let groups = subsets.map(|(at, s)| group(at, s, weight, names, &mut problems)).collect();
    Mirror { groups, problems: problems.0 }
}

fn group(
    at: usize,
    subset: &v1::EndpointSubset,
    weight: u16,
    names: &mut Names,
    problems: &mut Problems,
) -> Group {
    let mut ports = Vec::new();
    for (port_at, port) in subset.ports.iter().flatten().enumerate() {
        let field = format!("subsets[{at}].ports[{port_at}]");
        let number = problems.port(format_args!("{field}.port"), port.port);
        let protocol =
            problems.protocol(format_args!("{field}.protocol"), port.protocol.as_deref());
        if let (Some(number), Some(protocol)) = (number, protocol) {
            let name = names.get(port.name.as_deref().unwrap_or_default());
            ports.push(Port { name, protocol, number });
        }
    }
    let ready = addresses("addresses", subset.addresses.as_ref()).map(|found| (found, true));
    let waiting = addresses("notReadyAddresses", subset.not_ready_addresses.as_ref());
    let all: Vec<_> = ready.chain(waiting.map(|found| (found, false))).collect();
    if all.len() > MOST {
        problems.add(
            format_args!("subsets[{at}]"),
            format_args!("{} addresses; the first {MOST} are used", all.len()),
        );
    }
    let members = all.into_iter().take(MOST).filter_map(|((list, address_at, from), ready)| {
        let field = format_args!("subsets[{at}].{list}[{address_at}].ip");
        let address = problems.backend(field, &from.ip)?;
        let target = from.target_ref.as_ref();
        Some(Member {
            address,
            ready,
            serving: true,
            terminating: false,
            node: from.node_name.as_deref().map(|name| names.get(name)),
            zone: None,
            zone_hints: Box::default(),
            node_hints: Box::default(),
            uid: target.and_then(|target| target.uid.as_deref()).unwrap_or_default().into(),
            pod: target.and_then(pod_name),
            weight,
        })
    });
    Group { members: members.collect(), ports: ports.into() }
}

fn addresses<'a>(
    list: &'static str,
    addresses: Option<&'a Vec<v1::EndpointAddress>>,
) -> impl Iterator<Item = (&'static str, usize, &'a v1::EndpointAddress)> {
    addresses.into_iter().flatten().enumerate().map(move |(at, address)| (list, at, address))
}
