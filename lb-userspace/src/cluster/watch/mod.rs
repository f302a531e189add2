//! The source "kubernetes": objects by list and watch from an API server.
//!
//! Each kind has its own reflector. A reflector lists once and then follows a watch; when the
//! watch breaks it resumes where it was, and when the server has forgotten that place it lists
//! again. A listing travels as one [`Op::Reset`](super::Op::Reset), so what was deleted behind
//! our back goes, and no half of a listing is ever seen.

mod backoff;
mod client;
mod listing;
mod outlet;
mod place;
mod problem;
mod reflector;
mod resource;
mod sources;

use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use self::{
    client::{ClientError, client, reach},
    sources::{SourceStatus, Sources},
};
use self::{outlet::Outlet, reflector::Reflector, resource::Watched};
use super::Change;
pub use super::Kind;

/// News of one kind, in the order in which the server told it.
#[derive(Debug)]
pub struct Batch {
    pub changes: Vec<Change>,
    /// When the bytes arrived here: where a change's way to the kernel starts.
    pub received: Instant,
}

/// How patient the watches are, and what they cover.
#[derive(Clone, Debug)]
pub struct Options {
    /// Also watch Endpoints, for servers without a mirroring controller.
    pub mirror_endpoints: bool,
    /// Also watch the Leases of the agents' own namespace, for DSR.
    pub leases: bool,
    /// How long the server is asked to keep a watch open,
    pub watch_timeout: Duration,
    /// how much longer its end is waited for,
    pub grace: Duration,
    /// and how long it may take to open one.
    pub answer_patience: Duration,
    /// How long a watch that has carried bookmarks may be silent. Servers send one about every
    /// minute, so a longer silence is a connection that died without a word.
    pub bookmark_patience: Duration,
    /// How long a page of a list, or a whole streaming list, may take.
    pub list_patience: Duration,
    /// The shortest and the longest pause before another attempt. After the longest, and a
    /// listing, all is to be as a server that is back says within five seconds; with it, 5,000
    /// nodes knock some 9,000 times a second at a server that refuses them all.
    pub pause: (Duration, Duration),
    /// The pause before asking again for a kind that the server does not serve.
    pub absent_pause: Duration,
    /// Objects in one page of a plain list.
    pub page_size: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mirror_endpoints: false,
            leases: false,
            watch_timeout: Duration::from_secs(290),
            grace: Duration::from_secs(5),
            answer_patience: Duration::from_secs(15),
            bookmark_patience: Duration::from_secs(100),
            list_patience: Duration::from_secs(60),
            pause: (Duration::from_millis(100), Duration::from_secs(3)),
            absent_pause: Duration::from_secs(60),
            page_size: 500,
        }
    }
}

/// Watches the cluster until cancelled, or until nobody receives.
///
/// `sources` always holds how each watch is doing. A slow receiver slows the reading down:
/// nothing is dropped, and a server that tires of waiting is resumed from.
pub async fn run(
    client: Client,
    options: Options,
    tx: mpsc::Sender<Batch>,
    sources: watch::Sender<Sources>,
    cancel: CancellationToken,
) {
    use k8s_openapi::api::{
        coordination::v1::Lease,
        core::v1::{Endpoints, Node, Service},
        discovery::v1::EndpointSlice,
        networking::v1::ServiceCIDR,
    };

    let scene = Scene { client, options, tx, sources };
    let endpoints = async {
        if scene.options.mirror_endpoints {
            scene.reflect::<Endpoints>().await;
        }
    };
    let leases = async {
        if scene.options.leases {
            let namespace = scene.client.default_namespace();
            scene.reflect_in(kube::Api::<Lease>::namespaced(scene.client.clone(), namespace)).await;
        }
    };
    let all = async {
        tokio::join!(
            scene.reflect::<Service>(),
            scene.reflect::<EndpointSlice>(),
            scene.reflect::<Node>(),
            scene.reflect::<ServiceCIDR>(),
            endpoints,
            leases,
        )
    };
    cancel.run_until_cancelled(all).await;
}

/// What all reflectors share.
struct Scene {
    client: Client,
    options: Options,
    tx: mpsc::Sender<Batch>,
    sources: watch::Sender<Sources>,
}

impl Scene {
    async fn reflect<K: Watched>(&self) {
        self.reflect_in(kube::Api::<K>::all(self.client.clone())).await;
    }

    async fn reflect_in<K: Watched>(&self, api: kube::Api<K>) {
        let outlet = Outlet::new(K::KIND, self.tx.clone(), self.sources.clone());
        let reflector = Reflector::new(api, self.options.clone(), outlet);
        tokio::select! {
            () = reflector.run() => {}
            () = self.tx.closed() => {}
        }
    }
}
