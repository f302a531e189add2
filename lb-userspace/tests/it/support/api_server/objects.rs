//! Paths, selectors and answers in the API's own terms.

use std::collections::HashMap;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// The resources that the double serves: plural, apiVersion, kind.
const SERVED: [(&str, &str, &str); 9] = [
    ("namespaces", "v1", "Namespace"),
    ("daemonsets", "apps/v1", "DaemonSet"),
    ("events", "v1", "Event"),
    ("services", "v1", "Service"),
    ("endpoints", "v1", "Endpoints"),
    ("nodes", "v1", "Node"),
    ("endpointslices", "discovery.k8s.io/v1", "EndpointSlice"),
    ("servicecidrs", "networking.k8s.io/v1", "ServiceCIDR"),
    ("leases", "coordination.k8s.io/v1", "Lease"),
];

/// What a request's path names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    pub resource: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub status: bool,
}

impl Target {
    /// `/api/v1/…` or `/apis/GROUP/VERSION/…`; `None` for other paths.
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        let (["api", _, parts @ ..] | ["apis", _, _, parts @ ..]) = parts.as_slice() else {
            return None;
        };
        let (namespace, parts) = match parts {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => {
                (Some((*namespace).to_owned()), rest)
            }
            _ => (None, parts),
        };
        let (resource, name, status) = match parts {
            [resource] => (resource, None, false),
            [resource, name] => (resource, Some((*name).to_owned()), false),
            [resource, name, "status"] => (resource, Some((*name).to_owned()), true),
            _ => return None,
        };
        Some(Self { resource: (*resource).to_owned(), namespace, name, status })
    }

    /// apiVersion and kind, if the double serves the resource.
    pub fn types(&self) -> Option<(&'static str, &'static str)> {
        let served = SERVED.iter().find(|(plural, ..)| *plural == self.resource)?;
        Some((served.1, served.2))
    }
}

/// Query parameters.
pub type Query = HashMap<String, String>;

/// Whether a query asks for a watch.
pub fn is_watch(query: &Query) -> bool {
    query.get("watch").is_some_and(|value| value == "true" || value == "1")
}

/// Label and field selectors of a query, as far as the product uses them.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    absent_labels: Vec<String>,
    present_labels: Vec<String>,
    unequal_fields: Vec<(String, String)>,
}

impl Selector {
    /// An `Err` is a selector that the double does not know.
    pub fn parse(query: &Query) -> Result<Self, String> {
        let terms = |parameter: &str| {
            let value = query.get(parameter).cloned().unwrap_or_default();
            value.split(',').map(str::to_owned).filter(|term| !term.is_empty()).collect::<Vec<_>>()
        };
        let mut selector = Self::default();
        for term in terms("labelSelector") {
            match term.strip_prefix('!') {
                Some(label) => selector.absent_labels.push(label.to_owned()),
                None if term.contains(['=', ' ']) => return Err(format!("label selector {term}")),
                None => selector.present_labels.push(term),
            }
        }
        for term in terms("fieldSelector") {
            let (field, value) =
                term.split_once("!=").ok_or_else(|| format!("field selector {term}"))?;
            let pointer = format!("/{}", field.replace('.', "/"));
            selector.unequal_fields.push((pointer, value.to_owned()));
        }
        Ok(selector)
    }

    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.absent_labels.iter().all(|label| labels.get(label).is_none())
            && self.present_labels.iter().all(|label| labels.get(label).is_some())
            && self.unequal_fields.iter().all(|(pointer, value)| {
                object.pointer(pointer).and_then(Value::as_str) != Some(value)
            })
    }
}

/// A failure, as the API words it.
pub fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message,
    })
}

/// The same as the answer to a request.
pub fn failure(code: u16, reason: &str, message: &str) -> Response {
    (StatusCode::from_u16(code).unwrap(), Json(status(code, reason, message))).into_response()
}

/// A JSON merge patch (RFC 7386).
pub fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(&key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}
