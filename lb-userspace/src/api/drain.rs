//! Taking backends out of new choices on this node, and giving them back.

use std::{fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// How an operator names a backend: every port of a pod, or one address and port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendRef {
    Address(SocketAddr),
    Pod { namespace: String, name: String },
}

impl FromStr for BackendRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self::Pod { namespace: namespace.into(), name: name.into() })
            }
            _ => Err(format!("`{text}` is neither ADDRESS:PORT nor NAMESPACE/POD")),
        }
    }
}

impl fmt::Display for BackendRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Pod { namespace, name } => write!(f, "{namespace}/{name}"),
        }
    }
}

/// What became of the question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DrainAnswer {
    /// One row for each backend that the name is of.
    Done(Vec<DrainRow>),
    /// Nobody is called so.
    Unknown,
    /// These would be left without a backend.
    Last(Vec<String>),
    /// This agent changes nothing when asked to.
    Off,
}

/// A backend, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainRow {
    pub address: SocketAddr,
    pub pod: Option<String>,
    /// `namespace/name:port` of each that uses it.
    pub services: Vec<String>,
    /// `drained` or `ready`, from now on.
    pub state: String,
    /// Whether it was not so before.
    pub changed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_named_by_its_place_or_by_its_pod_and_by_nothing_else() {
        for name in ["10.0.0.1:80", "[fd00::1]:80", "shop/web-7d9f"] {
            assert_eq!(name.parse::<BackendRef>().unwrap().to_string(), name);
        }
        for name in ["web", "/web", "shop/", "a/b/c", "10.0.0.1", "10.0.0.1:99999", "fd00::1:80"] {
            let error = name.parse::<BackendRef>().unwrap_err();
            assert_eq!(error, format!("`{name}` is neither ADDRESS:PORT nor NAMESPACE/POD"));
        }
    }
}
