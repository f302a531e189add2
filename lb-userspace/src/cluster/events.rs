//! Tells people about their Services and Nodes, where they look: as Events.

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::mpsc;

use crate::model::{NameParts, ObjectName};

/// What is wrong on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// `None`: it is with the node itself.
    pub service: Option<ObjectName>,
    /// One word, as Kubernetes has them.
    pub reason: &'static str,
    pub message: String,
}

/// Where Events about Nodes are kept, which have no namespace.
const NODES: &str = "default";

/// Says on this Node that the agent has started, as the reference does. One that cannot be written is
/// lost.
pub async fn started(client: Client, node: &str) {
    let (about, namespace) = about_node(node);
    let note = Note {
        about,
        namespace,
        kind: "Normal",
        reason: "Starting",
        message: format!("lb {} serves Services here", env!("CARGO_PKG_VERSION")),
    };
    write(&client, note, node).await;
}

/// Writes warnings to the API server until nobody sends any more. One that cannot be written is
/// lost: it has been logged, and what it is about is tried again.
pub async fn publish(client: Client, node: String, mut warnings: mpsc::Receiver<Warning>) {
    while let Some(Warning { service, reason, message }) = warnings.recv().await {
        let (about, namespace) =
            service.map_or_else(|| about_node(&node), |service| about_service(&service));
        write(&client, Note { about, namespace, kind: "Warning", reason, message }, &node).await;
    }
}

/// A reference to a Node, and where Events about it go.
fn about_node(node: &str) -> (ObjectReference, String) {
    let about = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(node.to_owned()),
        // As kubelets refer to their Node: whoever describes it looks for this.
        uid: Some(node.to_owned()),
        ..ObjectReference::default()
    };
    (about, NODES.to_owned())
}

/// The same of a Service.
fn about_service(service: &ObjectName) -> (ObjectReference, String) {
    let NameParts { namespace, name } = &**service;
    let about = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Service".into()),
        namespace: Some(namespace.clone()),
        name: Some(name.clone()),
        ..ObjectReference::default()
    };
    (about, namespace.clone())
}

/// What an Event says.
struct Note {
    about: ObjectReference,
    namespace: String,
    kind: &'static str,
    reason: &'static str,
    message: String,
}

async fn write(client: &Client, note: Note, node: &str) {
    let api = Api::<Event>::namespaced(client.clone(), &note.namespace);
    let event = event(note, node, Timestamp::now());
    if let Err(error) = api.create(&PostParams::default(), &event).await {
        tracing::warn!("an Event cannot be written: {error}");
    }
}

fn event(note: Note, node: &str, now: Timestamp) -> Event {
    let Note { about, namespace, kind, reason, message } = note;
    Event {
        metadata: ObjectMeta {
            // As the reference names them: unique by the time.
            name: Some(format!(
                "{}.{:x}",
                about.name.as_deref().unwrap_or_default(),
                now.as_nanosecond()
            )),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: about,
        type_: Some(kind.into()),
        reason: Some(reason.into()),
        message: Some(message),
        source: Some(EventSource { component: Some("lb".into()), host: Some(node.into()) }),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}
