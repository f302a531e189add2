//! An API server for tests, and a way to make it misbehave.
//!
//! ```text
//! client ── wire ── gate ──┬── the double: a store that lists and watches, in this process
//!           (TCP)   (HTTP) └── a real kube-apiserver on etcd, where KUBEBUILDER_ASSETS has them
//! admin  ──────────────────┘
//! ```
//!
//! The wire cuts, stalls and refuses connections; the gate refuses and delays requests. Both do so
//! in front of either server, so a test that starts [`ApiServer::start`] runs on both. What only
//! the double can do is a method of [`Double`], and a test gets one by starting
//! [`ApiServer::double`]: there it says that it never meets the real one.

mod double;
mod gate;
mod objects;
mod real;
mod wire;

use std::net::SocketAddr;

use axum::Router;
use kube::{Client, Config};
use tokio::{net::TcpListener, task::JoinHandle};

pub use self::{
    double::{Double, Order},
    gate::{Ask, Gate, Refusal},
    wire::Wire,
};

/// A running API server; it goes when this is dropped.
pub struct ApiServer {
    /// Reaches the server past wire and gate, like an operator on another network.
    pub admin: Client,
    /// The path from the client under test to the server.
    pub wire: Wire,
    /// What the server refuses.
    pub gate: Gate,
    _serving: Vec<Serving>,
    _real: Option<real::Processes>,
}

impl ApiServer {
    /// The real server when `KUBEBUILDER_ASSETS` names a folder with one, else the double.
    pub async fn start() -> Self {
        match std::env::var_os("KUBEBUILDER_ASSETS") {
            None => Self::double().await.0,
            Some(assets) => {
                let (processes, admin) = real::start(assets.as_ref()).await;
                let router = gate::forward(admin.clone());
                Self::behind(router, admin, Vec::new(), Some(processes)).await
            }
        }
    }

    /// The double, for misbehaviour that no real server can be brought to.
    pub async fn double() -> (Self, Double) {
        let double = Double::default();
        let router = double::router(double.clone());
        let direct = serve(router.clone()).await;
        let admin = client(direct.address);
        (Self::behind(router, admin, vec![direct], None).await, double)
    }

    async fn behind(
        router: Router,
        admin: Client,
        mut serving: Vec<Serving>,
        real: Option<real::Processes>,
    ) -> Self {
        let gate = Gate::default();
        let gated = serve(gate.in_front_of(router)).await;
        let wire = Wire::to(gated.address).await;
        serving.push(gated);
        Self { admin, wire, gate, _serving: serving, _real: real }
    }

    /// A client for the code under test: through wire and gate.
    pub fn client(&self) -> Client {
        client(self.wire.address())
    }
}

fn client(address: SocketAddr) -> Client {
    let mut config = Config::new(format!("http://{address}").parse().unwrap());
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

struct Serving {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(router: Router) -> Serving {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Serving { address, task }
}
