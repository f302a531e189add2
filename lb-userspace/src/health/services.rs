//! The answers of the `healthCheckNodePort` servers (docs/kubernetes.md, rows 69 and 70).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{NameParts, ObjectName};

/// Which Services are asked after, and how many endpoints each has on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks(BTreeMap<ObjectName, Check>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Check {
    port: u16,
    local_endpoints: usize,
}

/// An answer: its status, its headers and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// `X-Load-Balancing-Endpoint-Weight`.
    pub weight: usize,
    pub body: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: Name<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct Name<'a> {
    namespace: &'a str,
    name: &'a str,
}

impl Checks {
    /// Makes these the Services that are asked after. One whose port is another now begins anew.
    pub fn set_services(&mut self, ports: &BTreeMap<ObjectName, u16>) {
        self.0.retain(|name, check| ports.get(name) == Some(&check.port));
        for (name, port) in ports {
            let check = Check { port: *port, local_endpoints: 0 };
            self.0.entry(name.clone()).or_insert(check);
        }
    }

    /// Says how many endpoints each Service has here; one that is not named has none.
    pub fn set_endpoints(&mut self, counts: &BTreeMap<ObjectName, usize>) {
        for (name, check) in &mut self.0 {
            check.local_endpoints = counts.get(name).copied().unwrap_or(0);
        }
    }

    /// The ports to listen on, each with its Service. Of two Services with one port, which the API
    /// server does not allow, the first by name has it.
    pub fn ports(&self) -> BTreeMap<u16, ObjectName> {
        self.0.iter().rev().map(|(name, check)| (check.port, name.clone())).collect()
    }

    /// What a Service's server answers; `None` if it has none. `healthy` is the proxy's own health.
    pub fn answer(&self, service: &ObjectName, healthy: bool) -> Option<Answer> {
        let Check { local_endpoints, .. } = *self.0.get(service)?;
        let NameParts { namespace, name } = &**service;
        let body = Body {
            service: Name { namespace, name },
            local_endpoints,
            service_proxy_healthy: healthy,
        };
        Some(Answer {
            status: if healthy && local_endpoints > 0 { 200 } else { 503 },
            weight: local_endpoints,
            // Strings and numbers: there is nothing that could not be written.
            body: serde_json::to_string(&body).unwrap_or_default(),
        })
    }
}
