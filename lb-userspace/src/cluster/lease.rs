//! Who forwards by DSR, for agents to tell each other: a Lease for each node, in the agents' namespace.
//!
//! It says that the programs of a node are there to open envelopes, which they do whether its agent
//! lives or not: so it counts for as long as it exists, however long ago it was renewed. It is its
//! Node's, and goes with it.

use std::time::Duration;

use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Node,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use tokio::time::sleep;

use super::label;

/// Says how the agent forwards; agents ask for Leases with it.
pub const FORWARDING: &str = "lb/forwarding";
const VERSION: &str = "lb/version";
/// Who writes it.
const MANAGER: &str = "lb-agent";
/// How often it is renewed, for people to see.
const RENEWED: Duration = Duration::from_secs(60);
/// When it is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// The node whose agent forwards by DSR, if this Lease says so.
pub fn holder(lease: &Lease) -> Option<&str> {
    label(&lease.metadata, FORWARDING).filter(|mode| *mode == "dsr")?;
    lease.spec.as_ref()?.holder_identity.as_deref()
}

/// Holds the Lease of a node, until dropped.
pub async fn hold(client: Client, node: &str) {
    let namespace = client.default_namespace().to_owned();
    let api = Api::<Lease>::namespaced(client.clone(), &namespace);
    loop {
        let owner = Api::<Node>::all(client.clone()).get_metadata(node).await;
        let uid = owner.ok().and_then(|owner| owner.uid());
        let lease = lease(node, uid, Timestamp::now());
        let params = PatchParams::apply(MANAGER).force();
        // The pace of renewals, and of trying again: there is no event to wait for.
        match api.patch(&name(node), &params, &Patch::Apply(&lease)).await {
            Ok(_) => sleep(RENEWED).await,
            Err(error) => {
                tracing::warn!("no Lease in namespace {namespace}: {error}; by SNAT until then");
                sleep(AGAIN).await;
            }
        }
    }
}

/// Gives up the Lease of a node that no longer forwards by DSR.
pub async fn give_up(client: Client, node: &str) {
    let namespace = client.default_namespace().to_owned();
    let api = Api::<Lease>::namespaced(client, &namespace);
    match api.delete(&name(node), &DeleteParams::default()).await {
        Ok(_) => tracing::info!("other nodes are told that this one forwards by SNAT"),
        Err(error) => tracing::debug!("no Lease to give up: {error}"),
    }
}

fn name(node: &str) -> String {
    format!("lb-{node}")
}

fn lease(node: &str, owner: Option<String>, now: Timestamp) -> Lease {
    let owner = owner.map(|uid| OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.to_owned(),
        uid,
        ..OwnerReference::default()
    });
    let text = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    Lease {
        metadata: ObjectMeta {
            name: Some(name(node)),
            labels: Some([text((FORWARDING, "dsr"))].into()),
            annotations: Some([text((VERSION, env!("CARGO_PKG_VERSION")))].into()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(3 * RENEWED.as_secs() as i32),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_tells_who_holds_it_unless_it_says_something_else() {
        let mut lease = lease("n1", Some("uid".into()), Timestamp::UNIX_EPOCH);
        assert_eq!(holder(&lease), Some("n1"));
        assert_eq!(lease.metadata.owner_references.as_ref().unwrap()[0].name, "n1");
        lease.metadata.labels = Some([(FORWARDING.to_owned(), "snat".to_owned())].into());
        assert_eq!(holder(&lease), None);
        lease.metadata.labels = None;
        assert_eq!(holder(&lease), None);
    }
}
