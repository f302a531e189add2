//! What this node does for Services: frontends, sets, conflicts, and the plan's document.

mod addresses;
mod backends;
mod rings;
mod told;

use lb_userspace::{
    cluster::index::Index,
    model::Node,
    plan::{Backend, FrontendKind, Plan, PortPlan},
};
use serde_json::{Value, json};

use crate::support::objects::name;

fn planned(index: &mut Index, node: &Node) -> Plan {
    let mut plan = Plan::default();
    plan.update(index, node);
    plan
}

fn first_port(plan: &Plan, service: &str) -> PortPlan {
    plan.get(&name(service)).unwrap().ports[0].clone()
}

fn texts(backends: &[Backend]) -> Vec<String> {
    backends.iter().map(|backend| backend.address.to_string()).collect()
}

fn frontends(plan: &Plan, service: &str) -> Vec<(FrontendKind, String)> {
    let ports = plan.get(&name(service)).unwrap().ports.iter();
    ports.flat_map(|p| &p.frontends).map(|f| (f.kind, f.address.to_string())).collect()
}

fn ready(address: &str, node: &str) -> Value {
    json!({"addresses": [address], "nodeName": node})
}

fn leaving(address: &str, node: &str) -> Value {
    let conditions = json!({"ready": false, "serving": true, "terminating": true});
    json!({"addresses": [address], "nodeName": node, "conditions": conditions})
}
