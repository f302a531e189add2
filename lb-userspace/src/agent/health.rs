//! Keeps the health servers at what the plan says, and tells whose could not be started.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::state::State;
use crate::{
    cluster::events::Warning,
    config::{Listen, SourceKind},
    health::{
        listen_addresses,
        server::{BindError, Servers, Shared, serve_node},
    },
    model::Family,
};

/// How often what could not be started is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Serves until cancelled. `shared` says what and where, and when that changes.
pub async fn serve(
    shared: Shared,
    node_address: Listen,
    warnings: mpsc::Sender<Warning>,
    cancel: CancellationToken,
) {
    let work = async {
        let mut servers = Servers::new(shared.clone());
        let mut told: BTreeSet<String> = BTreeSet::new();
        let mut node = None;
        loop {
            if let (None, Some(address)) = (&node, node_address.0) {
                match serve_node(address, shared.clone()).await {
                    Ok(server) => node = Some(server),
                    Err(error) => {
                        let what = format!("healthAddress {address}: {error}");
                        if tell(&mut told, &what) {
                            _ = warnings.try_send(Warning {
                                service: None,
                                reason: "FailedToStartProxierHealthcheck",
                                message: what,
                            });
                        }
                    }
                }
            }
            let at = shared.lock().listen.clone();
            let failed = servers.follow(&at).await;
            let still: BTreeSet<String> = failed.iter().map(ToString::to_string).collect();
            for error in failed.iter().filter(|error| !told.contains(&error.to_string())) {
                tracing::error!("{error}");
                // A full queue means that people are being told enough.
                _ = warnings.try_send(warning(error));
            }
            told.retain(|text| text.starts_with("healthAddress"));
            told.extend(still);
            // Woken by a change, or to try again.
            _ = timeout(RETRY, shared.changed()).await;
        }
    };
    cancel.run_until_cancelled(work).await;
}

/// Logs it, the first time; whether it was that.
fn tell(told: &mut BTreeSet<String>, what: &str) -> bool {
    let is_news = told.insert(what.to_owned());
    if is_news {
        tracing::error!("{what}; tried again every {} s", RETRY.as_secs());
    }
    is_news
}

fn warning(error: &BindError) -> Warning {
    let BindError { service, address, source } = error;
    Warning {
        service: Some(service.clone()),
        reason: "FailedToStartServiceHealthcheck",
        message: format!("healthCheckNodePort: cannot listen on {address}: {source}"),
    }
}

impl State {
    /// Tells the health servers what has become of this node's endpoints and of itself.
    pub(super) fn tell_health(&self) {
        let checks =
            || self.plan.services().filter_map(|plan| Some((plan, plan.health_check.as_ref()?)));
        let ports = checks().map(|(plan, check)| (plan.name.clone(), check.port)).collect();
        let counts = checks().map(|(plan, check)| (plan.name.clone(), check.local_endpoints));
        let mut families: Vec<Family> =
            self.node.addresses.iter().copied().map(Family::of).collect();
        families.sort_unstable();
        families.dedup();
        let eligible = match self.index.node(&self.config.node_name) {
            Some(node) => !node.leaving,
            // Manifests need not have Nodes.
            None => self.config.source == SourceKind::Files,
        };
        let mut health = self.health.lock();
        health.checks.set_services(&ports);
        health.checks.set_endpoints(&counts.collect());
        health.listen = listen_addresses(&self.node);
        health.node.set_families(&families);
        health.node.eligible = eligible;
        if self.in_step {
            health.node.sync_all(Timestamp::now());
        }
        drop(health);
        self.health.wake();
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_address_that_is_taken_is_told_of_the_node() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let (tx, mut warnings) = mpsc::channel(4);
        let cancel = CancellationToken::new();
        let at = Listen(Some(address));
        let serving = tokio::spawn(serve(Shared::default(), at, tx, cancel.clone()));
        let Warning { service, reason, message } = warnings.recv().await.unwrap();
        assert_eq!((service, reason), (None, "FailedToStartProxierHealthcheck"));
        assert!(message.starts_with(&format!("healthAddress {address}: ")), "{message}");
        cancel.cancel();
        serving.await.unwrap();
        assert_eq!(warnings.recv().await, None, "told once");
    }
}
