//! A plan's document as a table: a line for each address and port that clients dial.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Exit, Failure,
    output::{Column, Show},
};

/// A plan, here or from an agent, by its document alone.
#[derive(Debug)]
pub struct PlanTable {
    document: Value,
    frontends: Vec<Frontend>,
}

impl PlanTable {
    /// Reads what the table needs.
    pub fn new(document: Value) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Plan {
            frontends: Vec<Frontend>,
        }
        let Plan { frontends } = Plan::deserialize(&document).map_err(|error| {
            let what = format_args!("this is no plan: {error}");
            Failure::new(Exit::Error, what, "use the `lb` of the agent's own version")
        })?;
        Ok(Self { document, frontends })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Frontend {
    namespace: String,
    service: String,
    port_name: String,
    protocol: String,
    #[serde(rename = "type")]
    kind: String,
    address: IpAddr,
    port: u16,
    internal: Set,
    external: Set,
    algorithm: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Set {
    backends: Vec<Backend>,
    when_empty: String,
    #[serde(default)]
    masquerade: bool,
}

#[derive(Debug, Deserialize)]
struct Backend {
    address: IpAddr,
    port: u16,
}

impl Set {
    fn count(&self) -> String {
        if self.backends.is_empty() {
            self.when_empty.clone()
        } else {
            self.backends.len().to_string()
        }
    }

    fn list(&self) -> String {
        let backends = self.backends.iter();
        let shown: Vec<_> =
            backends.map(|it| SocketAddr::new(it.address, it.port).to_string()).collect();
        if shown.is_empty() { self.when_empty.clone() } else { shown.join(",") }
    }
}

impl Show for PlanTable {
    fn document(&self) -> impl Serialize {
        &self.document
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("NAMESPACE"),
                Column::text("NAME"),
                Column::text("ADDRESS:PORT"),
                Column::text("PROTO"),
                Column::text("TYPE"),
                Column::text("INTERNAL"),
                Column::text("EXTERNAL"),
                Column::text("PORT-NAME").wide(),
                Column::text("ALGORITHM").wide(),
                Column::text("MASQUERADE").wide(),
                Column::text("INTERNAL-BACKENDS").wide(),
                Column::text("EXTERNAL-BACKENDS").wide(),
            ]
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |it: &Frontend| {
            vec![
                it.namespace.clone(),
                it.service.clone(),
                SocketAddr::new(it.address, it.port).to_string(),
                it.protocol.clone(),
                it.kind.clone(),
                it.internal.count(),
                it.external.count(),
                it.port_name.clone(),
                it.algorithm.clone(),
                it.external.masquerade.to_string(),
                it.internal.list(),
                it.external.list(),
            ]
        };
        self.frontends.iter().map(row).collect()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .frontends
            .iter()
            .map(|it| format!("service/{}/{}", it.namespace, it.service))
            .collect();
        names.dedup();
        names
    }

    fn nothing(&self) -> &'static str {
        "nothing to do: no Service has an address for this node"
    }
}
