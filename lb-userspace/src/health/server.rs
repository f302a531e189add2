//! Listens where load balancers ask, and answers them from what is known at that moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use axum::{
    Router,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::Timestamp;
use serde::Serialize;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    node::{NodeHealth, PATIENCE},
    services::{Answer, Checks},
};
use crate::{cluster::watch::Sources, listen::Bounded, model::ObjectName};

const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// What the servers answer from.
#[derive(Debug)]
pub struct Health {
    pub checks: Checks,
    pub node: NodeHealth,
    /// Where `healthCheckNodePort` servers listen.
    pub listen: BTreeSet<IpAddr>,
    /// How the watches are doing.
    pub sources: watch::Receiver<Sources>,
}

/// Shared between the agent and its servers.
#[derive(Clone, Debug)]
pub struct Shared {
    health: Arc<Mutex<Health>>,
    changed: Arc<Notify>,
}

impl Default for Shared {
    fn default() -> Self {
        let health = Health {
            checks: Checks::default(),
            node: NodeHealth::new(PATIENCE),
            listen: BTreeSet::new(),
            sources: watch::channel(Sources::default()).1,
        };
        Self { health: Arc::new(Mutex::new(health)), changed: Arc::default() }
    }
}

impl Shared {
    /// What is known, to be read or changed.
    pub fn lock(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes who waits for [`Shared::changed`].
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// Something else is to be served, or elsewhere.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// A server that could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the health check of Service {service} cannot listen on {address}: {source}")]
pub struct BindError {
    pub service: ObjectName,
    pub address: SocketAddr,
    pub source: io::Error,
}

/// The `healthCheckNodePort` servers that run.
#[derive(Debug)]
pub struct Servers {
    shared: Shared,
    running: BTreeMap<SocketAddr, (ObjectName, DropGuard)>,
}

impl Servers {
    /// None yet.
    pub const fn new(shared: Shared) -> Self {
        Self { shared, running: BTreeMap::new() }
    }

    /// Listens for the Services that are asked after, on these addresses, and no longer for others.
    /// Those that cannot be listened on are named; the next call tries them again.
    pub async fn follow(&mut self, addresses: &BTreeSet<IpAddr>) -> Vec<BindError> {
        let ports = self.shared.lock().checks.ports();
        let mut wanted = BTreeMap::new();
        for (port, service) in &ports {
            wanted.extend(addresses.iter().map(|at| (SocketAddr::new(*at, *port), service)));
        }
        self.running.retain(|at, (service, _)| wanted.get(at) == Some(&&*service));
        let mut failed = Vec::new();
        for (address, service) in wanted {
            if self.running.contains_key(&address) {
                continue;
            }
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    let guard = self.serve(listener, service.clone());
                    self.running.insert(address, (service.clone(), guard));
                }
                Err(source) => {
                    failed.push(BindError { service: service.clone(), address, source });
                }
            }
        }
        failed
    }

    /// Where somebody is listening.
    pub fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.running.keys().copied().collect()
    }

    fn serve(&self, listener: TcpListener, service: ObjectName) -> DropGuard {
        let shared = self.shared.clone();
        let answer = move || {
            let health = shared.lock();
            let healthy = health.node.is_healthy(Timestamp::now());
            let answer = health.checks.answer(&service, healthy);
            std::future::ready(answer.map_or(StatusCode::NOT_FOUND.into_response(), of_service))
        };
        spawn(listener, Router::new().fallback(answer))
    }
}

/// Serves `/healthz`, `/livez` and `/readyz` until the guard is dropped.
///
/// # Errors
/// If the address cannot be listened on.
pub async fn serve_node(address: SocketAddr, shared: Shared) -> io::Result<DropGuard> {
    let listener = TcpListener::bind(address).await?;
    let (healthz, livez, readyz) = (shared.clone(), shared.clone(), shared);
    let healthz = move || of_node(healthz.lock().node.healthz(Timestamp::now()));
    let livez = move || of_node(livez.lock().node.livez(Timestamp::now()));
    let readyz = move || {
        let health = readyz.lock();
        let age = health.sources.borrow().age(Instant::now());
        of_node(health.node.readyz(age))
    };
    let router = Router::new()
        .route("/healthz", get(move || std::future::ready(healthz())))
        .route("/livez", get(move || std::future::ready(livez())))
        .route("/readyz", get(move || std::future::ready(readyz())));
    Ok(spawn(listener, router))
}

fn spawn(listener: TcpListener, router: Router) -> DropGuard {
    let cancel = CancellationToken::new();
    let until = cancel.clone();
    tokio::spawn(async move {
        let served = axum::serve(Bounded::new(listener), router);
        if let Some(Err(error)) = until.run_until_cancelled(served.into_future()).await {
            tracing::warn!("a health server ended: {error}");
        }
    });
    cancel.drop_guard()
}

fn of_service(Answer { status, weight, body }: Answer) -> Response {
    let mut response = json(status, body);
    response.headers_mut().insert(WEIGHT, HeaderValue::from(weight));
    response
}

fn of_node((status, body): (u16, impl Serialize)) -> Response {
    json(status, serde_json::to_string(&body).unwrap_or_default())
}

fn json(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers =
        [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, body).into_response()
}
