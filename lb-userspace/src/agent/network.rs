//! Interfaces and routes, followed.

use std::time::Duration;

use tokio::{sync::mpsc, time::sleep};

use crate::net;

/// After the kernel would not tell of interfaces and routes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Tells how interfaces and routes are whenever they have changed, as long as anybody listens.
pub(super) async fn watch(mut changes: net::Changes, tell: mpsc::Sender<net::Snapshot>) {
    loop {
        let mut heard = changes.next().await;
        let seen = loop {
            match (heard, net::snapshot().await) {
                (Ok(()), Ok(seen)) => break seen,
                (Err(error), _) => tracing::warn!("news of the network: {error}; listening anew"),
                (_, Err(error)) => tracing::warn!("interfaces and routes: {error}; looking again"),
            }
            // The pace of trying again: what the kernel refuses has no event to wait for.
            sleep(LOOK_AGAIN).await;
            // Listened to before the next look, so that nothing is missed.
            heard = net::Changes::begin().map(|again| changes = again);
        };
        if tell.send(seen).await.is_err() {
            return;
        }
    }
}
