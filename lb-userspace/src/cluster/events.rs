//! Tells people about their Services, where they look: as Events.

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::mpsc;

use crate::model::ObjectName;

/// What is wrong with a Service on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub service: ObjectName,
    /// One word, as Kubernetes has them.
    pub reason: &'static str,
    pub message: String,
}

/// Writes warnings to the API server until nobody sends any more. One that cannot be written is
/// lost: it has been logged, and what it is about is tried again.
pub async fn publish(client: Client, node: String, mut warnings: mpsc::Receiver<Warning>) {
    while let Some(warning) = warnings.recv().await {
        let namespace = warning.service.namespace.clone();
        let event = event(warning, &node, Timestamp::now());
        let api = Api::<Event>::namespaced(client.clone(), &namespace);
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            tracing::warn!("an Event cannot be written: {error}");
        }
    }
}

fn event(warning: Warning, node: &str, now: Timestamp) -> Event {
    let Warning { service, reason, message } = warning;
    let ObjectName { namespace, name } = service;
    Event {
        metadata: ObjectMeta {
            // As the reference names them: unique by the time.
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Service".into()),
            namespace: Some(namespace),
            name: Some(name),
            ..ObjectReference::default()
        },
        type_: Some("Warning".into()),
        reason: Some(reason.into()),
        message: Some(message),
        source: Some(EventSource { component: Some("lb".into()), host: Some(node.into()) }),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}
