//! The server of `/metrics`, and of what scripts ask kube-proxy at the same port.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Snapshot;
use crate::listen::Bounded;

/// Who knows the metrics at any time.
pub trait Source: Send + Sync + 'static {
    /// All of them, now. May take a while: it is called where that harms nobody.
    fn snapshot(&self) -> Snapshot;
}

/// Listens for scrapes.
///
/// # Errors
/// If the address cannot be had.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers scrapes until cancelled.
///
/// # Errors
/// If the listener fails.
pub async fn serve<S: Source>(
    listener: TcpListener,
    source: Arc<S>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(scrape::<S>))
        .route("/healthz", get("ok"))
        // None of kube-proxy's own: who compares sees that it is gone.
        .route("/proxyMode", get("lb"))
        .with_state(source);
    let listener = Bounded::new(listener);
    axum::serve(listener, router).with_graceful_shutdown(cancel.cancelled_owned()).await
}

/// What Prometheus asks for, and the version of its text.
const CONTENT: [(&str, &str); 1] =
    [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")];

async fn scrape<S: Source>(State(source): State<Arc<S>>) -> impl IntoResponse {
    let text = tokio::task::spawn_blocking(move || source.snapshot().into_text()).await;
    match text {
        Ok(Ok(text)) => (CONTENT, text).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
