//! What the API server would say, in a folder that the agent watches.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::rig::{TCP, UDP, VIP, address};

/// What the "API" says of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Ready,
    Terminating,
}

/// The folder that stands for the API server.
pub(crate) struct Manifests {
    pub(crate) folder: PathBuf,
    draft: PathBuf,
}

impl Manifests {
    pub(crate) fn create(parent: &Path) -> Result<Self> {
        let folder = parent.join("manifests");
        fs::create_dir(&folder)?;
        Ok(Self { folder, draft: parent.join("draft.json") })
    }

    /// In one step, so that nobody reads half of it.
    pub(crate) fn put(&self, name: &str, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        fs::write(&self.draft, list.to_string())?;
        Ok(fs::rename(&self.draft, self.folder.join(name))?)
    }

    pub(crate) fn services(&self) -> Result<()> {
        self.put(
            "services.json",
            &[service("tcp", VIP, "TCP", TCP), service("udp", VIP, "UDP", UDP)],
        )
    }

    pub(crate) fn endpoints(&self, said: &[(u8, Said)]) -> Result<()> {
        self.put(
            "endpoints.json",
            &[slice("tcp", "TCP", TCP, said), slice("udp", "UDP", UDP, said)],
        )
    }
}

/// A Service with an address for the outside.
pub(crate) fn service(name: &str, vip: Ipv4Addr, protocol: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "chaos"},
        "spec": {
            "type": "ClusterIP", "clusterIP": cluster_address(vip, port),
            "externalIPs": [vip],
            "ports": [{"name": "p", "protocol": protocol, "port": port, "targetPort": port}],
        },
    })
}

/// An address of its own for each of the Services here.
fn cluster_address(vip: Ipv4Addr, port: u16) -> String {
    let [_, _, c, d] = vip.octets();
    IpAddr::from([10, 96 + (c & 1), d, (port % 251) as u8 + 1]).to_string()
}

/// Its endpoints, with the backends' numbers for identities.
pub(crate) fn slice(name: &str, protocol: &str, port: u16, said: &[(u8, Said)]) -> Value {
    let endpoint = |(id, said): &(u8, Said)| {
        let ready = *said == Said::Ready;
        json!({
            "addresses": [address(*id)], "nodeName": "elsewhere",
            "conditions": {"ready": ready, "serving": true, "terminating": !ready},
            "targetRef": {"kind": "Pod", "name": format!("b{id}"), "uid": format!("b{id}")},
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("{name}-1"), "namespace": "chaos",
            "labels": {"kubernetes.io/service-name": name},
        },
        "endpoints": said.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "p", "protocol": protocol, "port": port}],
    })
}
